//! `taskset.sig`: the owners' signatures beside the set, as text.
//!
//! Detached, because m people sign on m machines: each appends to a small file and hands on, the set that they
//! reviewed stays as it is, and a reader of either file needs no tool.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use nineteen_domain::{Digest, Hotkey};
use nineteen_wire::keys::{Keypair, verify};
use serde::{Deserialize, Serialize};

use crate::canonical;
use crate::refusal::{Refusal, Tally};
use crate::set::{Owner, Set, from_toml, text_of};

/// Bytes of a signatures' file.
pub(crate) const MOST_SIGNATURE_BYTES: usize = 64 << 10;
/// Twice as many as keys: a rotation has those of both owners.
const MOST_SIGNATURES: usize = 64;

/// `taskset.sig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signatures {
    /// The set that they are of.
    pub set: Digest,
    /// At most 64.
    #[serde(default, rename = "signature")]
    pub signatures: Vec<OneSignature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneSignature {
    /// Whose.
    pub key: Hotkey,
    /// `0x` and 128 hex digits: sr25519 in the context `substrate` over [`canonical::message`].
    pub sr25519: String,
}

impl OneSignature {
    fn holds(&self, message: &[u8]) -> bool {
        let mut raw = [0; 64];
        let decoded = self.sr25519.strip_prefix("0x").map(|h| hex::decode_to_slice(h, &mut raw));
        matches!(decoded, Some(Ok(()))) && verify(&self.key, message, &raw)
    }
}

impl Signatures {
    /// None yet.
    #[must_use]
    pub fn none_of(set: &Set) -> Self {
        Self { set: set.digest(), signatures: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`Refusal::SignatureFile`]; [`Refusal::Unsigned`] for an empty one.
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let why = |e: Refusal| Refusal::SignatureFile { why: e.to_string() };
        let text = text_of(bytes, MOST_SIGNATURE_BYTES).map_err(why)?;
        if text.trim().is_empty() {
            return Err(Refusal::Unsigned);
        }
        let read: Self = from_toml(text).map_err(why)?;
        if read.signatures.len() > MOST_SIGNATURES {
            let n = read.signatures.len();
            return Err(Refusal::SignatureFile { why: format!("{n} signatures: at most {MOST_SIGNATURES}") });
        }
        Ok(read)
    }

    /// Signs; a signature of the same key is replaced.
    pub fn sign(&mut self, key: &Keypair) {
        let signature = key.sign(&canonical::message(&self.set));
        self.signatures.retain(|s| s.key != key.hotkey());
        self.signatures
            .push(OneSignature { key: key.hotkey(), sr25519: format!("0x{}", hex::encode(signature)) });
    }

    /// As the file has it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Signatures of a task set: `nineteen subnet verify` reads them.\nset = \"{}\"\n",
            self.set
        );
        for s in &self.signatures {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[[signature]]\nkey = \"{}\"\nsr25519 = \"{}\"\n", s.key, s.sr25519);
        }
        text
    }

    /// Which of the owner's keys signed this set. A key counts once however often it signed.
    ///
    /// # Errors
    /// [`Refusal::Unsigned`], [`Refusal::OtherBytes`].
    pub fn tally(&self, set: &Digest, owner: &Owner) -> Result<Tally, Refusal> {
        if self.signatures.is_empty() {
            return Err(Refusal::Unsigned);
        }
        if self.set != *set {
            return Err(Refusal::OtherBytes { signed: self.set, this: *set });
        }
        let message = canonical::message(set);
        let mut tally = Tally::default();
        let mut signers = BTreeSet::new();
        for s in self.signatures.iter().take(MOST_SIGNATURES) {
            if !owner.keys.contains(&s.key) {
                tally.strangers += 1;
            } else if s.holds(&message) {
                signers.insert(s.key);
            } else {
                tally.broken += 1;
            }
        }
        tally.signers = signers.into_iter().collect();
        Ok(tally)
    }
}
