//! A folder that plays the subnet.
//!
//! ```text
//! <folder>/subnet.toml              who is on it, see `subnet`; read anew each time, so editing it is enough
//! <folder>/block                    the block, where blocks are counted by hand
//! <folder>/weights/<hotkey>.json    what each validator set last; whole or not at all
//! ```
//! Not for: several machines. Whoever may write the folder owns the subnet.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nineteen_domain::meet::{BoxFuture, Chain, ChainError, Head, Metagraph};
use nineteen_domain::{Digest, Hotkey, Uid};
use serde::{Deserialize, Serialize};

use crate::error::SubnetError;
use crate::rules::{Situation, check};
use crate::subnet::{Blocks, MAX_BYTES, Subnet};

const SUBNET: &str = "subnet.toml";
const BLOCK: &str = "block";
const WEIGHTS: &str = "weights";
/// What a block lasts where blocks are counted by hand: the chain's 12 seconds.
const DEFAULT_BLOCK_US: u64 = 12_000_000;

/// A file-backed subnet.
#[derive(Debug)]
pub struct LocalSubnet {
    dir: PathBuf,
    version_key: u64,
    // Between reading the last update and writing the new one nobody else may come; held for two small
    // files, never across an await.
    writing: Mutex<()>,
}

/// What a validator set last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeights {
    /// Who set them.
    pub validator: Hotkey,
    /// At which block.
    pub block: u64,
    /// When, microseconds of the Unix epoch.
    pub at_us: u64,
    /// Version of the mechanism that made them.
    pub version_key: u64,
    /// Max-scaled u16 by ascending uid.
    pub weights: Vec<(Uid, u16)>,
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Reads a small file; `None` when it is not there.
fn read(file: &Path) -> Result<Option<String>, SubnetError> {
    let mut text = String::new();
    match File::open(file).and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > MAX_BYTES => Err(SubnetError::Io {
            file: file.to_owned(),
            action: "read it",
            why: format!("it has more than {MAX_BYTES} bytes"),
        }),
        Ok(_) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SubnetError::io(file, "read it", &e)),
    }
}

/// Writes a small file so that it is there whole or not at all, also after a crash.
fn write(file: &Path, text: &str) -> Result<(), SubnetError> {
    let temp = file.with_extension(format!("{}.new", std::process::id()));
    let folder = file.parent().unwrap_or(Path::new("."));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temp)
        .and_then(|mut f| {
            f.write_all(text.as_bytes())?;
            f.sync_all()
        })
        .and_then(|()| fs::rename(&temp, file))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|e| SubnetError::io(file, "write it", &e))
}

impl LocalSubnet {
    /// Opens the folder of a subnet and checks its `subnet.toml`.
    ///
    /// # Errors
    /// [`SubnetError::Missing`], or what is wrong with the file.
    pub fn open(dir: &Path) -> Result<Self, SubnetError> {
        let local = Self { dir: dir.to_owned(), version_key: 0, writing: Mutex::new(()) };
        local.subnet()?;
        Ok(local)
    }

    /// Writes `subnet.toml` into the folder, replacing one that is there, and opens it.
    ///
    /// # Errors
    /// [`SubnetError::Field`] if the subnet breaks a rule, and errors of the operating system.
    pub fn create(dir: &Path, subnet: &Subnet) -> Result<Self, SubnetError> {
        let file = dir.join(SUBNET);
        subnet.validate(&file)?;
        fs::create_dir_all(dir).map_err(|e| SubnetError::io(dir, "create the folder", &e))?;
        let text = toml::to_string(subnet).map_err(|e| SubnetError::Syntax {
            file: file.clone(),
            line: 0,
            why: e.to_string(),
        })?;
        write(&file, &text)?;
        Self::open(dir)
    }

    /// Sends this version of the mechanism with the weights; 0 without.
    #[must_use]
    pub fn with_version_key(mut self, version_key: u64) -> Self {
        self.version_key = version_key;
        self
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The subnet as the file says it now, neurons by ascending uid.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn subnet(&self) -> Result<Subnet, SubnetError> {
        let file = self.dir.join(SUBNET);
        let text = read(&file)?.ok_or_else(|| SubnetError::Missing { file: file.clone() })?;
        Subnet::parse(&file, &text)
    }

    /// The block now.
    ///
    /// # Errors
    /// [`SubnetError::Field`] if the file `block` holds no number.
    pub fn block(&self, blocks: Blocks) -> Result<u64, SubnetError> {
        match blocks {
            Blocks::Time { genesis_us, block_ms } => {
                let passed = now_us().saturating_sub(genesis_us);
                Ok(passed.checked_div(block_ms.saturating_mul(1_000)).unwrap_or(0))
            }
            Blocks::Counter => {
                let file = self.dir.join(BLOCK);
                let Some(text) = read(&file)? else { return Ok(0) };
                text.trim().parse().map_err(|_| SubnetError::Field {
                    file,
                    field: "block".into(),
                    why: "it holds no whole number: write one, or remove the file to begin at 0".into(),
                })
            }
        }
    }

    /// Counts blocks on, where they are counted by hand; says which block it is then.
    ///
    /// # Errors
    /// As [`LocalSubnet::block`], and [`SubnetError::Field`] where blocks pass with time.
    pub fn advance(&self, by: u64) -> Result<u64, SubnetError> {
        let _held = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let subnet = self.subnet()?;
        if subnet.blocks != Blocks::Counter {
            return Err(SubnetError::Field {
                file: self.dir.join(SUBNET),
                field: "blocks.from".into(),
                why: "blocks pass with time here: set it to \"counter\" to count them by hand".into(),
            });
        }
        let block = self.block(subnet.blocks)?.saturating_add(by);
        write(&self.dir.join(BLOCK), &format!("{block}\n"))?;
        Ok(block)
    }

    fn weights_file(&self, validator: &Hotkey) -> PathBuf {
        self.dir.join(WEIGHTS).join(format!("{validator}.json"))
    }

    /// What this validator set last.
    ///
    /// # Errors
    /// [`SubnetError::Syntax`] if its file is damaged.
    pub fn weights(&self, validator: &Hotkey) -> Result<Option<SetWeights>, SubnetError> {
        let file = self.weights_file(validator);
        let Some(text) = read(&file)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| SubnetError::Syntax {
            file,
            line: e.line(),
            why: format!("{e}; remove the file to begin anew"),
        })
    }

    fn read_metagraph(&self) -> Result<Metagraph, SubnetError> {
        let subnet = self.subnet()?;
        let block = self.block(subnet.blocks)?;
        Ok(Metagraph { netuid: subnet.netuid, block, neurons: subnet.neurons })
    }

    /// A local subnet has no consensus to make hashes that nobody foresees: here they are those of netuid and
    /// number, good for trying things out.
    fn read_head(&self) -> Result<Head, SubnetError> {
        let subnet = self.subnet()?;
        let number = self.block(subnet.blocks)?;
        let mut input = b"nineteen/local-block/1".to_vec();
        input.extend_from_slice(&subnet.netuid.to_le_bytes());
        input.extend_from_slice(&number.to_le_bytes());
        let block_us = match subnet.blocks {
            Blocks::Time { block_ms, .. } => block_ms.saturating_mul(1_000).max(1),
            Blocks::Counter => DEFAULT_BLOCK_US,
        };
        Ok(Head { number, hash: *Digest::of(&input).as_bytes(), block_us })
    }

    fn write_weights(&self, validator: Hotkey, weights: &[(Uid, u16)]) -> Result<(), ChainError> {
        let _held = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let subnet = self.subnet()?;
        let block = self.block(subnet.blocks)?;
        let last_update = self.weights(&validator)?.map_or(0, |w| w.block);
        let now = Situation { validator, block, last_update, version_key: self.version_key };
        check(&subnet, &now, weights)?;
        let folder = self.dir.join(WEIGHTS);
        fs::create_dir_all(&folder).map_err(|e| SubnetError::io(&folder, "create the folder", &e))?;
        let set = SetWeights {
            validator,
            block,
            at_us: now_us(),
            version_key: self.version_key,
            weights: weights.to_vec(),
        };
        let file = self.weights_file(&validator);
        let text = serde_json::to_string_pretty(&set).map_err(|e| SubnetError::Syntax {
            file: file.clone(),
            line: 0,
            why: e.to_string(),
        })?;
        Ok(write(&file, &text)?)
    }
}

impl Chain for LocalSubnet {
    fn metagraph(&self) -> BoxFuture<'_, Result<Metagraph, ChainError>> {
        // A few kilobytes from a local file: not worth a thread.
        Box::pin(std::future::ready(self.read_metagraph().map_err(ChainError::from)))
    }

    fn head(&self) -> BoxFuture<'_, Result<Head, ChainError>> {
        Box::pin(std::future::ready(self.read_head().map_err(ChainError::from)))
    }

    fn set_weights<'a>(
        &'a self,
        validator: Hotkey,
        weights: &'a [(Uid, u16)],
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(async move { self.write_weights(validator, weights) })
    }
}
