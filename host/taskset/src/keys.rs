//! Owners' keys: sr25519 in a file of mode 0600, with a passphrase if wanted.
//!
//! Without a passphrase the file is a keyfile as hotkeys have it, so bittensor's own tools can make and read it.
//! With one, the seed is sealed with XChaCha20-Poly1305 under a key that Argon2id makes of the passphrase: an owner's
//! key signs a few times a year, by hand, and belongs on a machine that does nothing else.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use nineteen_domain::Hotkey;
use nineteen_wire::keys::{KeyError, Keypair, create_keyfile, read_keyfile};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const KIND: &str = "nineteen-owner-key-v1";
const MOST_KEY_BYTES: u64 = 16 << 10;
const MOST_PASSPHRASE_BYTES: u64 = 1 << 10;
/// What a new file costs to guess at: 64 MiB, three passes.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// A file from elsewhere may not make us use more.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 64;

/// Why an owner's key could not be read or made. Never holds a byte of it.
#[derive(Debug, thiserror::Error)]
pub enum OwnerKeyError {
    /// A plain keyfile's reason.
    #[error("{0}")]
    Plain(#[from] KeyError),
    /// The system refuses.
    #[error("owner key {}: {source}: check the path", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others than its owner may read the file.
    #[error("{} can be read by others (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    Permissions {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is sealed and no passphrase was given.
    #[error("owner key {} has a passphrase: give it with --passphrase-file", path.display())]
    Sealed {
        /// Which file.
        path: PathBuf,
    },
    /// It does not open.
    #[error("owner key {}: this passphrase does not open it, or the file was changed", path.display())]
    Passphrase {
        /// Which file.
        path: PathBuf,
    },
    /// The file is none of ours.
    #[error("{}: {why}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// The rule that it breaks.
        why: &'static str,
    },
}

/// A passphrase; wiped when dropped, never shown.
pub struct Passphrase(Zeroizing<String>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(secret)")
    }
}

impl Passphrase {
    /// # Errors
    /// [`OwnerKeyError::Format`] for an empty one.
    pub fn new(text: String) -> Result<Self, OwnerKeyError> {
        let text = Zeroizing::new(text);
        let why = "the passphrase is empty";
        if text.is_empty() {
            Err(OwnerKeyError::Format { path: PathBuf::from("passphrase"), why })
        } else {
            Ok(Self(text))
        }
    }

    /// The first line of a file of mode 0600, or of standard input for `-`.
    ///
    /// # Errors
    /// [`OwnerKeyError`].
    pub fn read(path: &Path) -> Result<Self, OwnerKeyError> {
        let mut text = Zeroizing::new(String::with_capacity(1024));
        let io = |source| OwnerKeyError::Io { path: path.to_owned(), source };
        if path == Path::new("-") {
            std::io::stdin().take(MOST_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(io)?;
        } else {
            let file = open_private(path)?;
            file.take(MOST_PASSPHRASE_BYTES).read_to_string(&mut text).map_err(io)?;
        }
        Self::new(text.lines().next().unwrap_or_default().to_owned())
    }

    fn key(&self, salt: &[u8; 16], memory_kib: u32, passes: u32) -> Option<Zeroizing<[u8; 32]>> {
        let params = Params::new(memory_kib, passes, 1, Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.0.as_bytes(), salt, key.as_mut_slice())
            .ok()?;
        Some(key)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedKey {
    kind: String,
    #[serde(rename = "ss58Address")]
    address: Hotkey,
    memory_kib: u32,
    passes: u32,
    salt: String,
    nonce: String,
    sealed: String,
}

/// Makes a fresh key in a new file. An existing file is never overwritten.
///
/// # Errors
/// [`OwnerKeyError`].
pub fn create_owner_key(path: &Path, passphrase: Option<&Passphrase>) -> Result<Keypair, OwnerKeyError> {
    let Some(passphrase) = passphrase else { return Ok(create_keyfile(path)?) };
    let io = |source| OwnerKeyError::Io { path: path.to_owned(), source };
    let mut seed = Zeroizing::new([0_u8; 32]);
    let (mut salt, mut nonce) = ([0_u8; 16], [0_u8; 24]);
    for bytes in [seed.as_mut_slice(), &mut salt, &mut nonce] {
        getrandom::fill(bytes).map_err(|e| io(std::io::Error::other(e.to_string())))?;
    }
    let keypair = Keypair::from_seed(*seed);
    let failed = || OwnerKeyError::Passphrase { path: path.to_owned() };
    let key = passphrase.key(&salt, MEMORY_KIB, PASSES).ok_or_else(failed)?;
    let address = keypair.hotkey();
    // The address is bound to what is sealed: a file cannot show one key and hold another.
    let payload = Payload { msg: seed.as_slice(), aad: address.as_bytes() };
    let sealed = XChaCha20Poly1305::new(key.as_slice().into())
        .encrypt(XNonce::from_slice(&nonce), payload)
        .map_err(|_| failed())?;
    let file = SealedKey {
        kind: KIND.into(),
        address,
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        salt: hex::encode(salt),
        nonce: hex::encode(nonce),
        sealed: hex::encode(sealed),
    };
    let text = serde_json::to_string_pretty(&file).map_err(|e| io(e.into()))? + "\n";
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

/// Reads an owner's key, sealed or plain.
///
/// # Errors
/// [`OwnerKeyError`]; a file that others may read is refused before its content is looked at.
pub fn read_owner_key(path: &Path, passphrase: Option<&Passphrase>) -> Result<Keypair, OwnerKeyError> {
    let io = |source| OwnerKeyError::Io { path: path.to_owned(), source };
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    open_private(path)?.take(MOST_KEY_BYTES).read_to_end(&mut text).map_err(io)?;
    let Ok(file) = serde_json::from_slice::<SealedKey>(&text) else { return Ok(read_keyfile(path)?) };
    let format = |why| OwnerKeyError::Format { path: path.to_owned(), why };
    if file.kind != KIND {
        return Err(format("this kind of key is not read here: upgrade nineteen"));
    }
    if file.memory_kib > MOST_MEMORY_KIB || file.passes > MOST_PASSES {
        return Err(format("it asks for more work than any file of ours: it was changed"));
    }
    let Some(passphrase) = passphrase else { return Err(OwnerKeyError::Sealed { path: path.to_owned() }) };
    let (mut salt, mut nonce, mut sealed) = ([0; 16], [0; 24], [0; 48]);
    for (text, bytes) in
        [(&file.salt, salt.as_mut_slice()), (&file.nonce, &mut nonce), (&file.sealed, &mut sealed)]
    {
        hex::decode_to_slice(text, bytes)
            .map_err(|_| format("salt, nonce or sealed is no hex of its length"))?;
    }
    let failed = || OwnerKeyError::Passphrase { path: path.to_owned() };
    let key = passphrase.key(&salt, file.memory_kib, file.passes).ok_or_else(failed)?;
    let payload = Payload { msg: sealed.as_slice(), aad: file.address.as_bytes() };
    let opened = XChaCha20Poly1305::new(key.as_slice().into())
        .decrypt(XNonce::from_slice(&nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| failed())?;
    let mut seed = Zeroizing::new([0; 32]);
    seed.iter_mut().zip(opened.iter()).for_each(|(s, o)| *s = *o);
    let keypair = Keypair::from_seed(*seed);
    if keypair.hotkey() == file.address { Ok(keypair) } else { Err(failed()) }
}

/// Opens a plain file that nobody else may read.
fn open_private(path: &Path) -> Result<std::fs::File, OwnerKeyError> {
    let io = |source| OwnerKeyError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() {
        return Err(OwnerKeyError::Format { path: path.to_owned(), why: "it is not a regular file" });
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = meta.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(OwnerKeyError::Permissions { path: path.to_owned(), mode });
        }
    }
    Ok(file)
}
