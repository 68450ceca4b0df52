//! Components: verify, compile, cache, limit, call.
//!
//! A task is a WebAssembly component that somebody else wrote. This crate loads one from a file, refuses it
//! in words that its author understands, compiles it once into an authenticated cache, and calls it: a fresh
//! instance for every call, every budget on, nothing reachable but `log`, `assets` and a WASI that leads
//! nowhere. It does not know what a miner is, who runs the checks that a plugin asks for, or what a verdict
//! is worth.
//!
//! The one idea: **a plugin is a pure function that asks for what it needs.** [`Plugin::score`] either
//! decides or names checks; [`Plugin::judge`] runs the rounds, so that no instance ever waits for a model.
//!
//! **Architecture invariants** kept here: a verdict is a function of component, WIT version, parameters,
//! request, exchange and evidence (`wasi`, `engine`); no plugin exceeds its budget (`state`, `plugin`,
//! `rounds`). Only `abi` knows that there are versions of the WIT.
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use nineteen_domain::{meet::Checker, task::Manifest, Exchange, Request};
//! # use nineteen_sandbox::{Assets, ComponentSource, Sandbox, SandboxConfig};
//! # async fn example(manifest: &Manifest, request: Request, exchange: Exchange, checker: Arc<dyn Checker>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::new(SandboxConfig {
//!     cache_dir: "compiled".into(),
//!     max_component_bytes: 64 << 20,
//!     compile_timeout: Duration::from_secs(120),
//!     max_concurrent_calls: 16,
//!     host_version: semver::Version::new(0, 1, 0),
//! })?;
//! let source = ComponentSource::Path("text-generation.wasm".into());
//! let plugin = sandbox.load(source, None, manifest, Assets::none()).await?;
//! let judged = plugin.judge(request, exchange, checker).await;
//! # Ok(()) }
//! ```

mod abi;
pub mod apart;
mod batch;
mod cache;
mod contract;
mod engine;
mod error;
mod inputs;
mod inspect;
mod plugin;
pub mod receipt;
mod rounds;
mod sandbox;
mod spent;
mod stacks;
mod state;
pub mod vectors;
mod wasi;

pub use batch::Scoring;
pub use engine::TICK;
pub use error::{Call, CallError, LoadFault, SandboxError, Site, WayOut};
pub use plugin::Plugin;
pub use rounds::Judged;
pub use sandbox::{ComponentSource, Sandbox, SandboxConfig};
pub use spent::Spent;
pub use stacks::Stacks;
pub use state::Assets;
