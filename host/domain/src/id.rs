//! Names and numbers that identify things. Parsed once, valid ever after.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use blake2::Digest as _;
use serde::{Deserialize, Serialize};

/// Why a string is not the id that it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name breaks the rule for task and model names.
    #[error(
        "'{given}' is not a valid {what}: use 1 to 64 of a-z, 0-9, '-' and '.', starting with a letter or digit"
    )]
    Name {
        /// "task name" or "model name".
        what: &'static str,
        /// What was offered, cut to 80 characters.
        given: String,
    },
    /// The text is not an SS58 address of a 32-byte key.
    #[error("'{given}' is not a hotkey: {why}")]
    Hotkey {
        /// What was offered, cut to 80 characters.
        given: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The text is not `sha256:` and 64 hex digits.
    #[error("'{given}' is not a digest: expected 'sha256:' and 64 hex digits")]
    Digest {
        /// What was offered, cut to 80 characters.
        given: String,
    },
}

impl IdError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "domain.name",
            Self::Hotkey { .. } => "domain.hotkey",
            Self::Digest { .. } => "domain.digest",
        }
    }
}

fn cut(given: &str) -> String {
    given.chars().take(80).collect()
}

fn valid_name(given: &str) -> bool {
    let bytes = given.as_bytes();
    (1..=64).contains(&bytes.len())
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// Copies share one text: a name is part of every probe's id, of which there are millions.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a name: 1 to 64 of `a-z`, `0-9`, `-`, `.`, starting with a letter or digit.
            ///
            /// # Errors
            /// [`IdError::Name`] if it breaks that rule.
            pub fn new(given: impl Into<String>) -> Result<Self, IdError> {
                let given = given.into();
                if valid_name(&given) { Ok(Self(given.into())) } else { Err(IdError::Name { what: $what, given: cut(&given) }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            /// By their bytes.
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                Self::new(s)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                Self::new(s)
            }
        }
        impl From<$name> for String {
            fn from(n: $name) -> String {
                n.0.as_ref().to_owned()
            }
        }
    };
}

name!(/// A task of the subnet, as in its manifest, e.g. `chat-smollm2-135m`.
    TaskName, "task name");
name!(/// A model that the host's executors serve, e.g. `smollm2-135m-instruct`.
    ModelName, "model name");

/// A miner's or validator's sr25519 public key. Shown and parsed as SS58 with format 42.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hotkey([u8; 32]);

const SS58_FORMAT: u8 = 42;

impl Hotkey {
    /// The hotkey of a public key. Whether it is a point of the curve shows when a signature is checked.
    #[must_use]
    pub const fn from_bytes(public: [u8; 32]) -> Self {
        Self(public)
    }

    /// The public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The SS58 address: format 42, 48 characters.
    #[must_use]
    pub fn ss58(&self) -> String {
        let mut raw = Vec::with_capacity(35);
        raw.push(SS58_FORMAT);
        raw.extend_from_slice(&self.0);
        let sum = ss58_checksum(&raw);
        raw.extend_from_slice(&sum);
        bs58::encode(raw).into_string()
    }
}

/// First two bytes of `blake2b-512("SS58PRE" ∥ raw)`.
fn ss58_checksum(raw: &[u8]) -> [u8; 2] {
    let hash = blake2::Blake2b512::new().chain_update(b"SS58PRE").chain_update(raw).finalize();
    let mut out = [0; 2];
    out.iter_mut().zip(hash.iter()).for_each(|(o, h)| *o = *h);
    out
}

impl FromStr for Hotkey {
    type Err = IdError;

    /// Length is checked before base58, which is quadratic in it.
    fn from_str(s: &str) -> Result<Self, IdError> {
        let refuse = |why| IdError::Hotkey { given: cut(s), why };
        if s.len() != 48 {
            return Err(refuse("an SS58 address with format 42 has 48 characters"));
        }
        let raw = bs58::decode(s)
            .into_vec()
            .map_err(|_| refuse("it holds characters that base58 does not know"))?;
        let Ok(raw) = <[u8; 35]>::try_from(raw) else {
            return Err(refuse("it does not decode to 35 bytes"));
        };
        let (body, sum) = raw.split_at(33);
        if body.first() != Some(&SS58_FORMAT) {
            return Err(refuse("its network format is not 42"));
        }
        if ss58_checksum(body) != sum {
            return Err(refuse("its checksum is wrong (a mistyped character?)"));
        }
        let mut key = [0; 32];
        key.iter_mut().zip(body.iter().skip(1)).for_each(|(k, b)| *k = *b);
        Ok(Self(key))
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.ss58())
    }
}
impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hotkey({})", self.ss58())
    }
}
impl TryFrom<String> for Hotkey {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<Hotkey> for String {
    fn from(h: Hotkey) -> String {
        h.ss58()
    }
}

/// SHA-256 of something, shown as `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    #[must_use]
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, without the prefix.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(s: &str) -> Result<Self, IdError> {
        let mut raw = [0; 32];
        s.strip_prefix("sha256:")
            .and_then(|h| hex::decode_to_slice(h, &mut raw).ok())
            .map(|()| Self(raw))
            .ok_or_else(|| IdError::Digest { given: cut(s) })
    }
}
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(s: String) -> Result<Self, IdError> {
        s.parse()
    }
}
impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.to_string()
    }
}

/// A miner's place in the metagraph. Places are re-used: history follows the [`Hotkey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub u16);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A scoring period, counted from the first one that this store saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeriodId(pub u64);

impl PeriodId {
    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for PeriodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One probe: the same in the plan, the ledger, the exchange log and every message about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProbeId {
    /// Period in which it was planned.
    pub period: PeriodId,
    /// Its task.
    pub task: TaskName,
    /// The miner that it goes to.
    pub miner: Hotkey,
    /// Its place among this miner's probes of this task and period.
    pub slot: u32,
}

impl ProbeId {
    /// A stable key: `<period, 20 digits>/<task>/<ss58>/<slot, 8 digits>`. Sorts by period first.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{:020}/{}/{}/{:08}", self.period.0, self.task, self.miner, self.slot)
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.period, self.task, self.miner, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The address that the official SDK gives for seed 0x11…11 (tests/fixtures/wire/btauth.json).
    const VALIDATOR: &str = "5Fxune7f71ZbpP2FoY3mhYcmM596Erhv1gRue4nsPwkxMR4n";

    #[test]
    fn an_address_survives_the_round_trip() {
        let h: Hotkey = VALIDATOR.parse().unwrap();
        assert_eq!(h.to_string(), VALIDATOR);
        assert_eq!(serde_json::from_str::<Hotkey>(&serde_json::to_string(&h).unwrap()).unwrap(), h);
    }

    #[test]
    fn a_mistyped_address_is_refused_with_its_reason() {
        let wrong = format!("{}a", &VALIDATOR[..47]);
        assert!(wrong.parse::<Hotkey>().unwrap_err().to_string().contains("checksum"));
        assert!("".parse::<Hotkey>().is_err());
        assert!("1".repeat(48).parse::<Hotkey>().is_err());
        assert!("0".repeat(48).parse::<Hotkey>().is_err());
    }

    #[test]
    fn names_are_plain() {
        assert!(TaskName::new("chat-smollm2-135m").is_ok());
        for bad in ["", "-a", "A", "a/b", "a b", "ü", &"a".repeat(65)] {
            assert!(TaskName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_digest_names_its_algorithm() {
        let d = Digest::of(b"");
        assert_eq!(d.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(d.to_string().parse::<Digest>().unwrap(), d);
        assert!("e3b0".parse::<Digest>().is_err());
    }
}
