//! What the tasks of pictures share.
//!
//! From a client's body to the miner's ([`request`]), captions that nobody has sent yet ([`caption`]), photographs made
//! plain ([`photo`]), replies ([`reply`]), and what is said of a reply beside our own regeneration ([`judge`]).
//!
//! Not for faces: whose they are is the avatar task's business.

pub mod caption;
pub mod judge;
pub mod photo;
pub mod reply;
pub mod request;

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Bytes of standard base64 with padding; `None` for anything else, unused bits that are not 0 included.
#[must_use]
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_strictly() {
        assert_eq!(unbase64("Zm9vYg==").unwrap(), b"foob");
        assert_eq!(base64(b"foob"), "Zm9vYg==");
        for wrong in ["Zm9", "Zm9vYg", "Zm9=Zm9v", "Zm9v!m9v", "Zm9vYh==", "Zm9v Zm9v", "Zm9v\n", "===="] {
            assert!(unbase64(wrong).is_none(), "{wrong}");
        }
    }
}
