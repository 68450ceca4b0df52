//! Write a task of the subnet as a trait.
//!
//! An author implements [`Task`] and says `nineteen_sdk::export!(MyTask);`. Bindings, rounds of `score`,
//! reading of parameters and server-sent events are the SDK's business; what remains is the task: what to
//! ask, what to admit, what to make of an answer.
//!
//! Everything here is plain Rust and compiles for the host, so a task's tests need no wasm; only the module
//! `guest`, which exists on `wasm32` alone, touches the generated bindings. Nothing here reads a clock, an
//! environment or the operating system's randomness: a component built with it imports no WASI at all.
//!
//! The feature `memory`, on by default, is a `#[global_allocator]` for instances that live for one call.

// The generated bindings name their runtime by an absolute path, here and in the crates that export.
#[cfg(target_arch = "wasm32")]
extern crate self as nineteen_sdk;

pub mod calibration;
pub mod checks;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod hash;
#[cfg(any(test, all(target_arch = "wasm32", feature = "memory")))]
mod memory;
pub mod openai;
pub mod rng;
pub mod sse;
mod task;
mod types;

pub use rng::Rng;
pub use task::{Cx, Several, Stop, Task, params};
pub use types::{
    Answer, Check, Chunk, ClientCall, Description, Ending, Evidence, Exchange, Phase, Refusal, Request,
    Synthetic, Verdict,
};

/// At most `bytes` bytes of a text, cut between characters: for messages that quote what a stranger sent.
#[must_use]
pub fn clip(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Clamps to [0, 1]; what is no number becomes 0, so that an unforeseen division cannot earn anything.
#[must_use]
pub fn clip_unit(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

/// Exports a [`Task`] as the component's `nineteen:task/task`. On targets other than `wasm32` it does
/// nothing, so that the same crate is tested on the host.
#[macro_export]
macro_rules! export {
    ($task:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::guest::Adapter<$task>;
    $crate::guest::bindings::__export_plugin!(Exported with_types_in $crate::guest::bindings);
        };
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn clipping_does_not_cut_a_character() {
        assert_eq!(super::clip("aé", 2), "a");
        assert_eq!(super::clip("aé", 3), "aé");
        assert_eq!(super::clip("a", 10), "a");
    }

    #[test]
    fn what_is_no_number_earns_nothing() {
        assert_eq!(super::clip_unit(f64::NAN).to_bits(), 0.0_f64.to_bits());
        assert_eq!(super::clip_unit(f64::INFINITY).to_bits(), 1.0_f64.to_bits());
    }
}
