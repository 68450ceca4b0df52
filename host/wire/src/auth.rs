//! Who sent a request: signing and verifying, one scheme behind a trait.
//!
//! [`BtAuth`] speaks `btauth/1`, the official SDK's format; Fiber and Epistula are other implementations of
//! [`Scheme`] when somebody needs them. Not for permissions beyond a list of allowed signers.
//!
//! The one idea: the signature covers *exactly the bytes sent* (method, path with query, body), for *one
//! receiver*, *once*. No secret is ever compared here (public keys and signatures only), so nothing here
//! needs to run in constant time; schnorrkel's signing does.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use nineteen_domain::{Digest, Hotkey};

use crate::keys::{self, Keypair};
use crate::replay::{NotNew, ReplayStore};

/// What a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// HTTP method; signed in upper case.
    pub method: &'a str,
    /// Path and query exactly as sent.
    pub path_and_query: &'a str,
    /// The raw body.
    pub body: &'a [u8],
    /// When signing: for whom. When verifying: who we are; a request for anyone else, or for no one in
    /// particular, is refused. `None` when verifying accepts a request for no one in particular alone.
    pub receiver: Option<Hotkey>,
}

/// Why a request is not believed. [`AuthError::class`] is the official SDK's name for the same refusal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header is missing, doubled, or not of its form.
    #[error("the request's signature headers are malformed: {0}")]
    Malformed(&'static str),
    /// The nonce is too old, too far ahead, or older than what is remembered.
    #[error("the request's nonce is {0}: check the clock of the sender (NTP), and sign each attempt anew")]
    Stale(&'static str),
    /// Signed for another receiver.
    #[error("the request was signed for another receiver: check the hotkey of the address that was asked")]
    WrongReceiver,
    /// The signature is not the sender's over these bytes.
    #[error("the signature does not match: sign the exact bytes, path and query that are sent")]
    BadSignature,
    /// This very request was served before.
    #[error("the request was seen before: sign each attempt with a fresh nonce")]
    Replayed,
    /// The signer is known but not served here.
    #[error("the signer {0} is not among those served here: ask the miner's operator to be allowed")]
    NotAllowed(Hotkey),
    /// No memory for another signer now.
    #[error("too many different signers at once: try again in half a minute")]
    Overloaded,
}

impl AuthError {
    /// The class of the SDK's exception. The last two have none there.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "MalformedAuth",
            Self::Stale(_) => "StaleRequest",
            Self::WrongReceiver => "WrongReceiver",
            Self::BadSignature => "BadSignature",
            Self::Replayed => "ReplayedRequest",
            Self::NotAllowed(_) => "NotAllowed",
            Self::Overloaded => "Overloaded",
        }
    }

    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "wire.auth.malformed",
            Self::Stale(_) => "wire.auth.stale",
            Self::WrongReceiver => "wire.auth.receiver",
            Self::BadSignature => "wire.auth.signature",
            Self::Replayed => "wire.auth.replayed",
            Self::NotAllowed(_) => "wire.auth.not-allowed",
            Self::Overloaded => "wire.auth.overloaded",
        }
    }
}

/// A way to sign requests and to know who signed them.
pub trait Scheme: Send + Sync {
    /// Name and version, e.g. `btauth/1`.
    fn name(&self) -> &'static str;

    /// Headers that sign one attempt. Call it again for every attempt.
    fn sign(&self, keypair: &Keypair, parts: &Parts<'_>) -> Vec<(HeaderName, HeaderValue)>;

    /// Who signed these parts, at `now_ns` nanoseconds of the Unix epoch. Success is remembered: the same
    /// request never verifies twice.
    ///
    /// # Errors
    /// [`AuthError`].
    fn verify(&self, headers: &HeaderMap, parts: &Parts<'_>, now_ns: u128) -> Result<Hotkey, AuthError>;
}

const VERSION: HeaderName = HeaderName::from_static("x-bittensor-version");
const HOTKEY: HeaderName = HeaderName::from_static("x-bittensor-hotkey");
const RECEIVER: HeaderName = HeaderName::from_static("x-bittensor-receiver");
const NONCE: HeaderName = HeaderName::from_static("x-bittensor-nonce");
const CRYPTO: HeaderName = HeaderName::from_static("x-bittensor-crypto");
const SIGNATURE: HeaderName = HeaderName::from_static("x-bittensor-signature");

/// How old and how far ahead a request may be, and how much is remembered.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Oldest nonce that is accepted.
    pub max_age: Duration,
    /// How far ahead of our clock a nonce may be.
    pub skew: Duration,
    /// How long nonces are remembered; raised to `2 × (max_age + skew)` if less.
    pub retention: Duration,
    /// Signers remembered at once.
    pub max_signers: usize,
    /// Nonces remembered of one signer.
    pub per_signer: usize,
    /// If set, nobody else is served, and nothing is remembered of anybody else.
    pub allowed: Option<BTreeSet<Hotkey>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(10),
            skew: Duration::from_secs(2),
            retention: Duration::from_secs(24),
            max_signers: 1024,
            per_signer: 65_536,
            allowed: None,
        }
    }
}

/// `btauth/1`, as `docs/protocol.md` spells it out.
#[derive(Debug)]
pub struct BtAuth {
    policy: Policy,
    replays: Mutex<ReplayStore>,
    /// The last nonce signed; shared by all keys, so it increases strictly for each of them.
    last_nonce: Mutex<u128>,
}

impl Default for BtAuth {
    fn default() -> Self {
        Self::new(Policy::default())
    }
}

impl BtAuth {
    /// Signs and verifies under this policy.
    #[must_use]
    pub fn new(mut policy: Policy) -> Self {
        policy.retention = policy.retention.max((policy.max_age + policy.skew) * 2);
        let store = ReplayStore::new(policy.retention.as_nanos(), policy.max_signers, policy.per_signer);
        Self { policy, replays: Mutex::new(store), last_nonce: Mutex::new(0) }
    }

    /// The clock, but never the same value twice and never backwards.
    fn next_nonce(&self) -> u128 {
        // A std mutex: held for two loads and a store, never across an await.
        let mut last = self.last_nonce.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *last = now_ns().max(last.saturating_add(1));
        *last
    }

    /// Signs with a given nonce: for tests, and for checking that a miner refuses stale ones.
    #[must_use]
    pub fn sign_at(
        &self,
        keypair: &Keypair,
        parts: &Parts<'_>,
        nonce: u128,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let (sender, nonce) = (keypair.hotkey().ss58(), nonce.to_string());
        let receiver = parts.receiver.map(|r| r.ss58());
        let signature = keypair.sign(&payload(parts, &nonce, &sender, receiver.as_deref()));
        let signature = format!("0x{}", hex::encode(signature));
        let mut out =
            vec![(VERSION, "1".to_owned()), (HOTKEY, sender), (NONCE, nonce), (SIGNATURE, signature)];
        out.extend(receiver.map(|r| (RECEIVER, r)));
        // Digits, hex and base58 are visible ASCII, which every header value may hold.
        out.into_iter().filter_map(|(n, v)| Some((n, HeaderValue::from_str(&v).ok()?))).collect()
    }
}

/// Nanoseconds of the Unix epoch.
#[must_use]
pub fn now_ns() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos()
}

/// The signed bytes: eight lines, no newline at the end.
#[must_use]
pub fn payload(parts: &Parts<'_>, nonce: &str, sender: &str, receiver: Option<&str>) -> Vec<u8> {
    [
        "btauth/1",
        "sr25519",
        &parts.method.to_ascii_uppercase(),
        parts.path_and_query,
        &Digest::of(parts.body).hex(),
        nonce,
        sender,
        receiver.unwrap_or("-"),
    ]
    .join("\n")
    .into_bytes()
}

/// The one value of a header; `None` when absent.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, AuthError> {
    let mut all = headers.get_all(name).iter();
    let first = all.next();
    if all.next().is_some() {
        return Err(AuthError::Malformed("a header appears twice"));
    }
    first.map(|v| v.to_str().map_err(|_| AuthError::Malformed("a header is not plain ASCII"))).transpose()
}

fn required<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<&'h str, AuthError> {
    one(headers, name)?
        .ok_or(AuthError::Malformed("one of X-Bittensor-Version, -Hotkey, -Nonce, -Signature is missing"))
}

impl Scheme for BtAuth {
    fn name(&self) -> &'static str {
        "btauth/1"
    }

    fn sign(&self, keypair: &Keypair, parts: &Parts<'_>) -> Vec<(HeaderName, HeaderValue)> {
        self.sign_at(keypair, parts, self.next_nonce())
    }

    fn verify(&self, headers: &HeaderMap, parts: &Parts<'_>, now_ns: u128) -> Result<Hotkey, AuthError> {
        use AuthError::Malformed;
        if required(headers, &VERSION)? != "1" {
            return Err(Malformed("X-Bittensor-Version is not 1"));
        }
        if one(headers, &CRYPTO)?.is_some() {
            return Err(Malformed(
                "X-Bittensor-Crypto: only sr25519 is served, which is said by leaving it out",
            ));
        }
        let sender: Hotkey = required(headers, &HOTKEY)?
            .parse()
            .map_err(|_| Malformed("X-Bittensor-Hotkey is not an SS58 address of 48 characters"))?;
        let nonce = required(headers, &NONCE)?;
        let digits = nonce.strip_prefix('-').unwrap_or(nonce);
        if !(1..=20).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Malformed("X-Bittensor-Nonce is not 1 to 20 digits"));
        }
        let signature = required(headers, &SIGNATURE)?;
        let mut raw = [0; 64];
        signature
            .strip_prefix("0x")
            .and_then(|h| hex::decode_to_slice(h, &mut raw).ok())
            .ok_or(Malformed("X-Bittensor-Signature is not 0x and 128 hex digits"))?;
        let receiver = one(headers, &RECEIVER)?;
        if receiver != parts.receiver.map(|r| r.ss58()).as_deref() {
            return Err(AuthError::WrongReceiver);
        }
        // The SDK reads a negative number and finds it old; so do we.
        let at = if nonce.starts_with('-') { 0 } else { digits.parse::<u128>().unwrap_or(0) };
        if now_ns.saturating_sub(at) > self.policy.max_age.as_nanos() {
            return Err(AuthError::Stale("too old"));
        }
        if at.saturating_sub(now_ns) > self.policy.skew.as_nanos() {
            return Err(AuthError::Stale("ahead of our clock"));
        }
        if self.policy.allowed.as_ref().is_some_and(|a| !a.contains(&sender)) {
            return Err(AuthError::NotAllowed(sender));
        }
        if !keys::verify(&sender, &payload(parts, nonce, &sender.ss58(), receiver), &raw) {
            return Err(AuthError::BadSignature);
        }
        // Only now: a forger must not be able to burn other people's nonces or our memory.
        let mut replays = self.replays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        replays.record(sender, at, now_ns).map_err(|e| match e {
            NotNew::Replayed => AuthError::Replayed,
            NotNew::Forgotten => AuthError::Stale("older than what is remembered"),
            NotNew::Full => AuthError::Overloaded,
        })?;
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/wire/btauth.json"));

    #[derive(serde::Deserialize)]
    struct Fixture {
        seeds: std::collections::BTreeMap<String, String>,
        ss58: std::collections::BTreeMap<String, Hotkey>,
        payload_example: String,
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        headers: std::collections::BTreeMap<String, String>,
        body_hex: String,
        method: String,
        path: String,
        now_ns: u64,
        self_hotkey: Hotkey,
        expect: String,
    }

    fn map(headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (n, v) in headers {
            map.append(n, v);
        }
        map
    }

    fn verdict(scheme: &BtAuth, headers: &HeaderMap, parts: &Parts<'_>, now: u128) -> String {
        match scheme.verify(headers, parts, now) {
            Ok(hotkey) => format!("ok:{hotkey}"),
            Err(e) => e.class().to_owned(),
        }
    }

    #[test]
    fn every_case_of_the_official_sdk_gets_the_sdks_own_verdict() {
        let fixture: Fixture = serde_json::from_str(FIXTURE).unwrap();
        assert_eq!(fixture.cases.len(), 28);
        for case in fixture.cases {
            let body = hex::decode(&case.body_hex).unwrap();
            let headers = map(case.headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())));
            let parts = Parts {
                method: &case.method,
                path_and_query: &case.path,
                body: &body,
                receiver: Some(case.self_hotkey),
            };
            let got = verdict(&BtAuth::default(), &headers, &parts, case.now_ns.into());
            assert_eq!(got, case.expect, "{}", case.name);
        }
    }

    #[test]
    fn seeds_and_signed_bytes_are_the_sdks() {
        let fixture: Fixture = serde_json::from_str(FIXTURE).unwrap();
        for (name, seed) in &fixture.seeds {
            let mut raw = [0; 32];
            hex::decode_to_slice(&seed[2..], &mut raw).unwrap();
            assert_eq!(Keypair::from_seed(raw).hotkey(), fixture.ss58[name], "{name}");
        }
        let parts = Parts {
            method: "post",
            path_and_query: "/x?y=1",
            body: b"hi",
            receiver: Some(fixture.ss58["miner"]),
        };
        let (validator, miner) = (fixture.ss58["validator"].ss58(), fixture.ss58["miner"].ss58());
        let bytes = payload(&parts, "1790000000000000000", &validator, Some(&miner));
        assert_eq!(String::from_utf8(bytes).unwrap(), fixture.payload_example);
    }

    fn signed(scheme: &BtAuth, nonce: u128) -> (HeaderMap, Hotkey, Hotkey) {
        let (sender, miner) = (Keypair::from_seed([1; 32]), Keypair::from_seed([2; 32]).hotkey());
        let parts = Parts { method: "POST", path_and_query: "/p", body: b"b", receiver: Some(miner) };
        (map(scheme.sign_at(&sender, &parts, nonce)), sender.hotkey(), miner)
    }

    #[test]
    fn a_replay_is_refused_and_a_forgery_burns_no_nonce() {
        let scheme = BtAuth::default();
        let now = 1_000_000_000_000;
        let (headers, sender, miner) = signed(&scheme, now);
        let good = Parts { method: "POST", path_and_query: "/p", body: b"b", receiver: Some(miner) };
        let forged = Parts { body: b"other", ..good };
        assert_eq!(scheme.verify(&headers, &forged, now), Err(AuthError::BadSignature));
        assert_eq!(scheme.verify(&headers, &good, now), Ok(sender));
        assert_eq!(scheme.verify(&headers, &good, now), Err(AuthError::Replayed));
    }

    #[test]
    fn a_stranger_is_refused_when_there_is_a_list() {
        let now = 1_000_000_000_000;
        let scheme = BtAuth::new(Policy { allowed: Some(BTreeSet::new()), ..Policy::default() });
        let (headers, sender, miner) = signed(&scheme, now);
        let parts = Parts { method: "POST", path_and_query: "/p", body: b"b", receiver: Some(miner) };
        assert_eq!(scheme.verify(&headers, &parts, now), Err(AuthError::NotAllowed(sender)));
    }

    #[test]
    fn doubled_headers_and_other_spellings_are_malformed() {
        let scheme = BtAuth::default();
        let now = 1_000_000_000_000;
        let (clean, _, miner) = signed(&scheme, now);
        let parts = Parts { method: "POST", path_and_query: "/p", body: b"b", receiver: Some(miner) };
        for name in [VERSION, HOTKEY, NONCE, SIGNATURE, RECEIVER] {
            let mut headers = clean.clone();
            let again = headers[&name].clone();
            headers.append(name, again);
            assert_eq!(verdict(&scheme, &headers, &parts, now), "MalformedAuth");
        }
        for (name, value) in [
            (NONCE, "+1000000000000"),
            (NONCE, " 1000000000000"),
            (NONCE, "1_000"),
            (NONCE, "123456789012345678901"),
            (NONCE, ""),
            (SIGNATURE, "00"),
            (CRYPTO, "ed25519"),
            (HOTKEY, "5"),
        ] {
            let mut headers = clean.clone();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(verdict(&scheme, &headers, &parts, now), "MalformedAuth", "{value}");
        }
    }

    #[test]
    fn nonces_increase_strictly() {
        let scheme = BtAuth::default();
        let mut last = 0;
        for _ in 0..10_000 {
            let next = scheme.next_nonce();
            assert!(next > last);
            last = next;
        }
    }
}
