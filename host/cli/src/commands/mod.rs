//! One module a command.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod gallery;
pub(crate) mod miner;
pub(crate) mod policy;
pub(crate) mod replay;
pub(crate) mod reports;
pub(crate) mod simulate;
pub(crate) mod subnet;
pub(crate) mod task;
pub(crate) mod validator;
