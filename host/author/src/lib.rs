//! Tools for people who write tasks: a project to begin with, building it, and showing that it keeps the contract.
//!
//! For: `nineteen task new | build | check | bench | watch`. Not for: running tasks against miners or publishing them. The one
//! idea: a project is a folder that says in `author.toml` how it is built, and whose task folder is, once built, what a
//! validator runs: nothing is packed, copied or declared twice.

mod bench;
mod build;
mod check;
mod error;
mod flame;
mod project;
mod run;
mod template;

pub use bench::{Bench, Line, bench};
pub use build::{Built, Tools, build};
pub use check::{Finding, Report, check};
pub use error::AuthorError;
pub use flame::flamegraph;
pub use project::{Lang, Project};
pub use template::scaffold;
