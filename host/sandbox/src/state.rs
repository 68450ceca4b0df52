//! What belongs to one call: its budgets, its log, its assets, its closed WASI.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nineteen_domain::task::Budget;
use nineteen_domain::{Digest, TaskName};
use wasmtime::ResourceLimiter;
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::engine::TABLE_ELEMENTS;
use crate::error::Call;

/// Lines and bytes that one call may log. What exceeds them is dropped: a log has no effect on a result.
const LOG_LINES: u32 = 32;
const LOG_BYTES: usize = 8 << 10;

/// Resources (streams, pollables) that a closed WASI hands out at a time.
const RESOURCES: usize = 1024;

/// Read-only data shipped with a task.
#[derive(Debug, Clone, Default)]
pub struct Assets(Arc<BTreeMap<String, Bytes>>);

impl Assets {
    /// No assets.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// These, by name.
    #[must_use]
    pub fn new(named: BTreeMap<String, Bytes>) -> Self {
        Self(Arc::new(named))
    }

    pub(crate) fn digests(&self) -> BTreeMap<String, Digest> {
        self.0.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect()
    }
}

/// What all calls of a plugin share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) task: TaskName,
    pub(crate) budget: Budget,
    pub(crate) assets: Assets,
}

/// A budget that ended a call from within a host function. Travels as the cause of wasmtime's error.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum Overrun {
    #[error("{asked} bytes of memory")]
    Memory { asked: u64 },
    #[error("{bytes} bytes in")]
    BytesIn { bytes: u64 },
    #[error("the machine is overloaded: a call did not get the processor for its wall time")]
    Starved,
}

/// The data of a store.
pub(crate) struct CallState {
    shared: Arc<Shared>,
    call: Call,
    memory: u64,
    bytes_in: u64,
    log_lines: u32,
    log_bytes: usize,
    dice: Option<blake3::OutputReader>,
    wasi: Option<Box<(WasiCtx, ResourceTable)>>,
}

impl CallState {
    /// `bytes_in` is what the arguments take already; `dice` is there for components that import WASI.
    pub(crate) fn new(
        shared: Arc<Shared>,
        call: Call,
        bytes_in: u64,
        dice: Option<blake3::OutputReader>,
    ) -> Self {
        Self { shared, call, memory: 0, bytes_in, log_lines: 0, log_bytes: 0, dice, wasi: None }
    }

    /// Bytes over all memories, and bytes that went in.
    pub(crate) const fn used(&self) -> (u64, u64) {
        (self.memory, self.bytes_in)
    }

    /// An asset, and its bytes counted.
    pub(crate) fn asset(&mut self, name: &str) -> Result<Option<Bytes>, Overrun> {
        let Some(asset) = self.shared.assets.0.get(name) else { return Ok(None) };
        self.bytes_in = self.bytes_in.saturating_add(asset.len() as u64);
        if self.bytes_in > self.shared.budget.bytes_in {
            return Err(Overrun::BytesIn { bytes: self.bytes_in });
        }
        Ok(Some(asset.clone()))
    }

    /// A line of the plugin's, labelled with the task's name.
    pub(crate) fn log(&mut self, level: tracing::Level, message: &str, fields: &[(String, String)]) {
        let bytes = fields.iter().fold(message.len(), |n, (k, v)| n + k.len() + v.len());
        self.log_lines = self.log_lines.saturating_add(1);
        self.log_bytes = self.log_bytes.saturating_add(bytes);
        if self.log_lines > LOG_LINES || self.log_bytes > LOG_BYTES {
            if self.log_lines == LOG_LINES + 1 {
                tracing::debug!(target: "plugin", task = %self.shared.task, call = %self.call, "logs too much: the rest of this call is dropped");
            }
            return;
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(target: "plugin", task = %self.shared.task, call = %self.call, ?fields, "{}", message.escape_debug())
            };
        }
        match level {
            tracing::Level::WARN => line!(warn),
            tracing::Level::INFO => line!(info),
            _ => line!(debug),
        }
    }

    /// Random bytes: a function of the call's inputs. Without WASI there is nobody to ask.
    pub(crate) fn roll(&mut self, into: &mut [u8]) {
        if let Some(dice) = &mut self.dice {
            dice.fill(into);
        }
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Made on first use, because a pure task never gets here.
        let (ctx, table) = &mut **self.wasi.get_or_insert_with(|| {
            let mut table = ResourceTable::new();
            table.set_max_capacity(RESOURCES);
            // The builder's defaults are closed: no arguments, environment, folders or addresses; standard
            // input at its end, output discarded. Clocks and randomness are not taken from it.
            Box::new((WasiCtxBuilder::new().build(), table))
        });
        WasiCtxView { ctx, table }
    }
}

/// Memory is summed over all memories of the call. Asking for more ends the call: a guest that went on with
/// less could not be told from one whose answer depends on its budget.
impl ResourceLimiter for CallState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let asked = self.memory.saturating_add((desired.saturating_sub(current)) as u64);
        if asked > self.shared.budget.memory_bytes {
            return Err(wasmtime::Error::from(Overrun::Memory { asked }));
        }
        self.memory = asked;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_all_memories_of_a_call() {
        let budget = Budget { memory_bytes: 100, ..Budget::default() };
        let shared = Shared { task: TaskName::new("t").unwrap(), budget, assets: Assets::none() };
        let mut state = CallState::new(Arc::new(shared), Call::Score, 0, None);
        assert!(state.memory_growing(0, 60, None).unwrap());
        assert!(state.memory_growing(0, 30, None).unwrap());
        let refused = state.memory_growing(30, 41, None).unwrap_err();
        assert!(matches!(refused.downcast_ref(), Some(Overrun::Memory { asked: 101 })), "{refused}");
        assert!(state.memory_growing(30, 40, None).unwrap());
    }
}
