//! One module a command.

pub(crate) mod author;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod gallery;
pub(crate) mod miner;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod receipt;
pub(crate) mod replay;
pub(crate) mod reports;
pub(crate) mod simulate;
pub(crate) mod subnet;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod trial;
pub(crate) mod validator;
