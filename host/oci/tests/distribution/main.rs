//! Promises of carrying tasks: against Debian's registry as it is, and against one that lies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod lies;
mod lying;
mod real;
mod server;
mod tasks;
