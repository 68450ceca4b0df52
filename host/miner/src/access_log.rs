//! What was asked of this miner, by whom: one JSON line a request, for its operator to hold against a validator's
//! books. No prompt and no answer is in it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nineteen_domain::{Digest, Hotkey};
use serde_json::json;

use crate::error::MinerError;

/// An open log.
#[derive(Debug)]
pub(crate) struct AccessLog(Mutex<File>);

impl AccessLog {
    /// Opens it to append.
    pub(crate) fn open(file: &Path) -> Result<Self, MinerError> {
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let opened = opened.map_err(|e| MinerError::Config {
            key: "access_log".into(),
            why: format!("{} cannot be written: {e}", file.display()),
        })?;
        Ok(Self(Mutex::new(opened)))
    }

    /// Appends one request. A disk that is full costs a line and no request.
    pub(crate) fn write(&self, signer: &Hotkey, path: &str, body: &[u8]) {
        let at_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let line = json!({
            "at_us": u64::try_from(at_us).unwrap_or(u64::MAX),
            "validator": signer.to_string(),
            "path": path,
            "bytes": body.len(),
            "body": Digest::of(body).to_string(),
        });
        // One write a line: two of them never mix.
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = file.write_all(format!("{line}\n").as_bytes()) {
            tracing::warn!("the access log misses a line: {e}");
        }
    }
}
