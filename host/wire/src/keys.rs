//! sr25519 hotkeys as Bittensor has them: a 32-byte seed, signing context `substrate`.
//!
//! Not for coldkeys, derivation paths or encrypted keyfiles: a hotkey that signs every request has to lie
//! in the clear anyway, so the file's permissions are what guards it, and they are checked.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use nineteen_domain::Hotkey;
use schnorrkel::{ExpansionMode, MiniSecretKey};
use zeroize::Zeroizing;

/// What substrate signs in.
const CONTEXT: &[u8] = b"substrate";
/// No keyfile is longer than this.
const MAX_KEYFILE: u64 = 64 << 10;

/// Why a key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("hotkey file {}: {source}: check the path", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read the file.
    #[error("hotkey file {} can be read by others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is encrypted.
    #[error("hotkey file {} is encrypted; a hotkey signs unattended, so export it without a password (btcli: `--no-use-password`)", path.display())]
    Encrypted {
        /// Which file.
        path: PathBuf,
    },
    /// The file is neither of the two formats.
    #[error("hotkey file {} is not a keyfile: {why}; expected bittensor's JSON with \"secretSeed\", or 0x and 64 hex digits", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// The rule that it breaks. Never holds a byte of the file.
        why: &'static str,
    },
    /// The seed is not that of the address beside it.
    #[error("hotkey file {}: the seed gives {derived}, but the file says {stated}: it was edited or mixed up", path.display())]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// Address of the seed.
        derived: Hotkey,
        /// Address in the file, cut to 80 characters.
        stated: String,
    },
}

impl KeyError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "wire.key.io",
            Self::Permissions { .. } => "wire.key.permissions",
            Self::Encrypted { .. } => "wire.key.encrypted",
            Self::Format { .. } => "wire.key.format",
            Self::Mismatch { .. } => "wire.key.mismatch",
        }
    }
}

/// A hotkey with its secret. The secret is wiped when this is dropped and never shown.
#[derive(Clone)]
pub struct Keypair {
    inner: schnorrkel::Keypair,
}

impl Keypair {
    /// The key of a 32-byte seed, expanded as substrate does (ed25519 mode).
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        // Every 32 bytes are a mini secret; the length is the only thing that `from_bytes` refuses.
        #[expect(clippy::expect_used, reason = "32 bytes are always a mini secret key")]
        let mini = MiniSecretKey::from_bytes(seed.as_slice()).expect("32 bytes are a mini secret key");
        Self { inner: mini.expand_to_keypair(ExpansionMode::Ed25519) }
    }

    /// A fresh key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self { inner: MiniSecretKey::generate().expand_to_keypair(ExpansionMode::Ed25519) }
    }

    /// The public half.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        Hotkey::from_bytes(self.inner.public.to_bytes())
    }

    /// Signs bytes; signatures of the same bytes differ, because sr25519 is randomised.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.inner.sign_simple(CONTEXT, message).to_bytes()
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({}, secret)", self.hotkey())
    }
}

/// Whether `signature` is this hotkey's, over exactly these bytes. The all-zero key (the curve's neutral
/// element, for which anyone can sign) is refused, and so are messages wrapped in `<Bytes>`: what is
/// checked is what was sent.
#[must_use]
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &[u8; 64]) -> bool {
    if hotkey.as_bytes() == &[0; 32] {
        return false;
    }
    let Ok(key) = schnorrkel::PublicKey::from_bytes(hotkey.as_bytes()) else { return false };
    let Ok(signature) = schnorrkel::Signature::from_bytes(signature) else { return false };
    key.verify_simple(CONTEXT, message, &signature).is_ok()
}

/// Reads a hotkey: bittensor's JSON keyfile (`secretSeed`, and `ss58Address`, which must agree), or one line
/// of `0x` and 64 hex digits.
///
/// # Errors
/// [`KeyError`]; a file that its group or others may read is refused before its content is looked at.
pub fn read_keyfile(path: impl AsRef<Path>) -> Result<Keypair, KeyError> {
    let path = path.as_ref();
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let format = |why| KeyError::Format { path: path.to_owned(), why };
    // Permissions of the opened file, not of the name: nothing can be swapped in between.
    let mut file = std::fs::File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(format("it is not a regular file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions { path: path.to_owned(), mode });
        }
    }
    if meta.len() > MAX_KEYFILE {
        return Err(format("it is longer than 64 KiB"));
    }
    let mut raw = Zeroizing::new(Vec::with_capacity(4096));
    (&mut file).take(MAX_KEYFILE).read_to_end(&mut raw).map_err(io)?;
    // `gAAAA` starts a Fernet token, the oldest of bittensor's encryptions.
    if [b"$NACL".as_slice(), b"$ANSIBLE_VAULT", b"gAAAA"].iter().any(|p| raw.starts_with(p)) {
        return Err(KeyError::Encrypted { path: path.to_owned() });
    }
    let text = std::str::from_utf8(&raw).map_err(|_| format("it is not UTF-8"))?.trim();
    if !text.starts_with('{') {
        return seed_of(text).map(|s| Keypair::from_seed(*s)).ok_or_else(|| format("no seed in it"));
    }
    let fields: Keyfile<'_> = serde_json::from_str(text).map_err(|_| format("its JSON cannot be read"))?;
    let seed = fields.secret_seed.ok_or_else(|| format("\"secretSeed\" is missing"))?;
    let seed = seed_of(seed).ok_or_else(|| format("\"secretSeed\" is not 0x and 64 hex digits"))?;
    let keypair = Keypair::from_seed(*seed);
    match fields.address {
        Some(stated) if stated != keypair.hotkey().ss58() => Err(KeyError::Mismatch {
            path: path.to_owned(),
            derived: keypair.hotkey(),
            stated: stated.chars().take(80).collect(),
        }),
        _ => Ok(keypair),
    }
}

/// The seed is borrowed from the text, which is wiped.
#[derive(serde::Deserialize)]
struct Keyfile<'a> {
    #[serde(rename = "secretSeed")]
    secret_seed: Option<&'a str>,
    #[serde(rename = "ss58Address")]
    address: Option<String>,
}

fn seed_of(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.strip_prefix("0x")?, seed.as_mut_slice()).ok()?;
    Some(seed)
}

/// Makes a fresh hotkey and writes it to a new file with mode 0600, in bittensor's JSON format without the
/// mnemonic. An existing file is never overwritten.
///
/// # Errors
/// [`KeyError::Io`].
pub fn create_keyfile(path: impl AsRef<Path>) -> Result<Keypair, KeyError> {
    let path = path.as_ref();
    let io = |source| KeyError::Io { path: path.to_owned(), source };
    let seed = Zeroizing::new(MiniSecretKey::generate().to_bytes());
    let keypair = Keypair::from_seed(*seed);
    let hotkey = keypair.hotkey();
    let hex_seed = Zeroizing::new(hex::encode(seed.as_slice()));
    let text = Zeroizing::new(format!(
        "{{\"secretSeed\":\"0x{}\",\"publicKey\":\"0x{}\",\"ss58Address\":\"{hotkey}\"}}\n",
        hex_seed.as_str(),
        hex::encode(hotkey.as_bytes()),
    ));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    Ok(keypair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn file(dir: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        let key = Keypair::from_seed([0x11; 32]);
        assert_eq!(format!("{key:?}"), format!("Keypair({}, secret)", key.hotkey()));
    }

    #[test]
    fn what_one_key_signs_no_other_key_has_signed() {
        let (a, b) = (Keypair::generate(), Keypair::generate());
        let s = a.sign(b"hello");
        assert!(verify(&a.hotkey(), b"hello", &s));
        assert!(!verify(&a.hotkey(), b"hellO", &s));
        assert!(!verify(&b.hotkey(), b"hello", &s));
        assert!(!verify(&Hotkey::from_bytes([0; 32]), b"hello", &s));
        assert!(!verify(&a.hotkey(), b"<Bytes>hello</Bytes>", &s));
    }

    #[cfg(unix)]
    #[test]
    fn both_formats_are_read_and_a_fresh_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let hotkey = Keypair::from_seed([0x11; 32]).hotkey();
        let seed = format!("0x{}", "11".repeat(32));
        let plain = file(dir.path(), "plain", 0o600, &format!("{seed}\n"));
        assert_eq!(read_keyfile(plain).unwrap().hotkey(), hotkey);
        let json = format!(
            r#"{{"accountId":"0x00","secretSeed":"{seed}","secretPhrase":null,"ss58Address":"{hotkey}"}}"#
        );
        assert_eq!(read_keyfile(file(dir.path(), "json", 0o400, &json)).unwrap().hotkey(), hotkey);
        let fresh = dir.path().join("fresh");
        let made = create_keyfile(&fresh).unwrap();
        assert_eq!(read_keyfile(&fresh).unwrap().hotkey(), made.hotkey());
        assert_eq!(create_keyfile(&fresh).unwrap_err().code(), "wire.key.io");
    }

    #[cfg(unix)]
    #[test]
    fn a_bad_keyfile_is_refused_with_its_reason_and_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let seed = format!("0x{}", "11".repeat(32));
        let other = Keypair::from_seed([0x22; 32]).hotkey();
        let mixed = format!(r#"{{"secretSeed":"{seed}","ss58Address":"{other}"}}"#);
        for (mode, text, code) in [
            (0o640, seed.as_str(), "wire.key.permissions"),
            (0o604, seed.as_str(), "wire.key.permissions"),
            (0o600, "$NACL0123", "wire.key.encrypted"),
            (0o600, "$ANSIBLE_VAULT;1.1;AES256", "wire.key.encrypted"),
            (0o600, "", "wire.key.format"),
            (0o600, "0x1234", "wire.key.format"),
            (0o600, "{\"secretSeed\": 7}", "wire.key.format"),
            (0o600, "{\"publicKey\": \"0x00\"}", "wire.key.format"),
            (0o600, mixed.as_str(), "wire.key.mismatch"),
        ] {
            let e = read_keyfile(file(dir.path(), "bad", mode, text)).unwrap_err();
            assert_eq!(e.code(), code, "{text}");
            assert!(!e.to_string().contains(&"11".repeat(8)), "{e}");
        }
        assert_eq!(read_keyfile(dir.path().join("none")).unwrap_err().code(), "wire.key.io");
        assert_eq!(read_keyfile(dir.path()).unwrap_err().code(), "wire.key.format");
    }
}
