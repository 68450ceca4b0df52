//! A small subnet on one machine: one validator, six miners of different character, real models, real HTTP.
//!
//! Every part is a process of its own: the same `nineteen validator` and `nineteen miner` that an operator
//! runs, and for the miners that do not play fair, the characters of this crate. Cheats live here and in
//! tests, never in the miner's options.

mod cast;
mod characters;
mod play;
mod process;
mod stage;

pub use cast::{CAST, Role};
pub use characters::Character;
pub use play::{Options, Outcome, play};
