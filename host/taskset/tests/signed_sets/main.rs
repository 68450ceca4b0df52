//! Promises about signed task sets, and their hostile versions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails is meant to panic"
)]

mod common;
mod deciding;
mod following;
mod https;
mod meaning;
mod owning;
