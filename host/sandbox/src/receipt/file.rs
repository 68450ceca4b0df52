//! A receipt as bytes. Reading is bounded, and says whose fault it is.

use nineteen_domain::Digest;
use serde::Serialize;

use super::{Receipt, ReceiptError};

const MAGIC: &[u8; 7] = b"N19RCPT";
/// The version that is written, and the only one that is read.
pub const VERSION: u8 = 1;
/// The largest receipt: a call's bytes in, and room for what is around them.
pub const MOST_BYTES: u64 = 80 << 20;
const DIGEST: usize = 32;
/// How deep CBOR of a receipt nests, with room.
const DEEPEST: usize = 32;

impl Receipt {
    /// As bytes of a file.
    ///
    /// # Errors
    /// [`ReceiptError::TooBig`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, ReceiptError> {
        let body = cbor(self)?;
        let mut file = Vec::with_capacity(MAGIC.len() + 1 + DIGEST + body.len());
        file.extend_from_slice(MAGIC);
        file.push(VERSION);
        file.extend_from_slice(Digest::of(&body).as_bytes());
        file.extend_from_slice(&body);
        if file.len() as u64 > MOST_BYTES { Err(ReceiptError::TooBig) } else { Ok(file) }
    }

    /// From the bytes of a file.
    ///
    /// # Errors
    /// Not a receipt, of another version, damaged.
    pub fn from_bytes(file: &[u8]) -> Result<Self, ReceiptError> {
        if file.len() as u64 > MOST_BYTES {
            return Err(ReceiptError::TooBig);
        }
        let rest = file.strip_prefix(MAGIC).ok_or(ReceiptError::NotReceipt)?;
        let (version, rest) = rest.split_first().ok_or(ReceiptError::NotReceipt)?;
        if *version != VERSION {
            return Err(ReceiptError::Version { found: *version });
        }
        let (said, body) = rest
            .split_first_chunk::<DIGEST>()
            .ok_or_else(|| ReceiptError::Damaged("its digest is missing".into()))?;
        if Digest::of(body).as_bytes() != said {
            return Err(ReceiptError::Damaged("its bytes are not those of its digest".into()));
        }
        let mut left = body;
        let read = ciborium::de::from_reader_with_recursion_limit(&mut left, DEEPEST)
            .map_err(|e| ReceiptError::Damaged(e.to_string()))?;
        if left.is_empty() {
            Ok(read)
        } else {
            Err(ReceiptError::Damaged(format!("{} bytes follow its end", left.len())))
        }
    }
}

fn cbor(value: &impl Serialize) -> Result<Vec<u8>, ReceiptError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|e| ReceiptError::Write(e.to_string()))?;
    Ok(bytes)
}

/// Of a value's CBOR.
pub(super) fn digest(value: &impl Serialize) -> Result<Digest, ReceiptError> {
    cbor(value).map(|bytes| Digest::of(&bytes))
}
