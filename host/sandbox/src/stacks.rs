//! Where a plugin's calls spend their time: stacks, seen at every tick of the sandbox's clock.
//!
//! For authors. A call of a few microseconds is seen once in many calls, so make many.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use wasmtime::WasmBacktrace;

use crate::error::Call;

/// Different stacks that are kept; what comes after is counted with `(others)`.
const MOST: usize = 20_000;
/// Frames of one stack, from the outermost.
const DEEPEST: usize = 128;

/// Stacks and how often each was seen.
#[derive(Debug, Default)]
pub struct Stacks {
    /// A std mutex: held for a count.
    seen: Mutex<BTreeMap<Vec<String>, u64>>,
}

impl Stacks {
    pub(crate) fn see(&self, call: Call, trace: &WasmBacktrace) {
        let name = |f: &wasmtime::FrameInfo| match f.func_name() {
            Some(name) => short(name),
            None => format!("function {}", f.func_index()),
        };
        let mut stack = vec![call.name().to_owned()];
        let frames: Vec<String> = trace.frames().iter().map(name).collect();
        stack.extend(frames.into_iter().rev().take(DEEPEST));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stack =
            if seen.len() < MOST || seen.contains_key(&stack) { stack } else { vec!["(others)".into()] };
        let count = seen.entry(stack).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// All of them, outermost function first; the first is the contract's.
    #[must_use]
    pub fn read(&self) -> BTreeMap<Vec<String>, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A name as people read it, without the compiler's hash.
fn short(name: &str) -> String {
    let end = name.rfind("::h").filter(|i| name.len() - i == 19).unwrap_or(name.len());
    name.get(..end).unwrap_or(name).chars().filter(|c| !c.is_control()).take(120).collect()
}
