//! Who may change something: whoever can read a file that the validator wrote for its owner.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Characters of a token: 32 random bytes in hexadecimal.
const LENGTH: usize = 64;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("{}: {why}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Reason, way out.
        why: String,
    },
}

/// The secret of a validator's operator. Shows itself to nobody.
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A new one in this file, which its owner alone may read. One that is there already is replaced: it was of a validator that
    /// does not run any more.
    ///
    /// # Errors
    /// When the disk or the machine's randomness refuses.
    pub fn create(file: &Path) -> Result<Self, TokenError> {
        let fail = |why: String| TokenError::File { file: file.to_owned(), why };
        let mut secret = [0_u8; LENGTH / 2];
        getrandom::fill(&mut secret).map_err(|e| fail(format!("no randomness: {e}")))?;
        let text: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| fail(e.to_string()))?;
        // Temporary files are their owner's alone from the first moment.
        let mut beside = tempfile::NamedTempFile::new_in(folder).map_err(|e| fail(e.to_string()))?;
        beside.write_all(text.as_bytes()).map_err(|e| fail(e.to_string()))?;
        beside.persist(file).map_err(|e| fail(e.error.to_string()))?;
        Ok(Self(text))
    }

    /// The one that a validator wrote.
    ///
    /// # Errors
    /// No file, or one that holds none.
    pub fn read(file: &Path) -> Result<Self, TokenError> {
        let fail = |why: String| TokenError::File { file: file.to_owned(), why };
        let text = std::fs::read_to_string(file).map_err(|e| {
            fail(format!(
                "{e}: the validator writes it at its start; run this as its user, with its configuration"
            ))
        })?;
        let text = text.trim();
        if text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(fail("holds no operator's token: start the validator again".into()))
        }
    }

    /// The header's value.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether this header shows it. Takes as long for every guess: hashes of equal length are compared, in constant time.
    pub(crate) fn is(&self, header: &[u8]) -> bool {
        blake3::hash(header) == blake3::hash(self.bearer().as_bytes())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails is meant to panic")]
mod tests {
    use super::*;

    #[test]
    fn only_its_owner_reads_it_and_only_it_opens() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/operator.token");
        let made = Token::create(&file).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let read = Token::read(&file).unwrap();
        assert!(made.is(read.bearer().as_bytes()));
        let other = Token::create(&dir.path().join("other")).unwrap();
        for guess in
            [other.bearer(), String::new(), "Bearer ".into(), made.bearer().to_uppercase(), made.0.clone()]
        {
            assert!(!made.is(guess.as_bytes()));
        }
        assert!(!format!("{made:?}").contains(&made.0));
        std::fs::write(&file, "short").unwrap();
        assert!(Token::read(&file).unwrap_err().to_string().contains("operator.token"));
    }
}
