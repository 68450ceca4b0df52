//! Signed HTTP between a validator and a miner: keys, signatures, one request and its reply under hard
//! limits, capacity announcements, and the schemas of everything that crosses the wire.
//!
//! Not for: what a request means or what an answer is worth. This crate reads bytes, stamps them with our
//! own clock, and says how the reply ended; [`nineteen_domain::ledger::ProbeClass::of`] makes a class of it.
//!
//! The one idea: **a miner's byte is an enemy's byte.** Everything that a miner can send, or fail to send,
//! ends within numbers that the task's manifest sets, as an [`nineteen_domain::Exchange`]; nothing that it
//! sends is an `Err` of ours.

pub mod address;
pub mod announce;
pub mod auth;
pub mod client;
pub mod keys;
pub mod schema;

mod reader;
mod replay;
mod sse;
mod stamp;

pub use announce::{AnnounceFault, Announcement, CapacityFault};
pub use auth::{AuthError, BtAuth, Parts, Scheme};
pub use client::{Auth, Call, Client, ClientConfig, Target};
pub use keys::{KeyError, Keypair, create_keyfile, read_keyfile};

/// Name and version of the protocol, as announcements carry it. See `docs/protocol.md`.
pub const PROTOCOL: &str = "nineteen/1";

/// Path of the capacity announcement.
pub const CAPACITY_PATH: &str = "/nineteen/v1/capacity";
