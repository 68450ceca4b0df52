//! The reference miner: serves chat, embeddings and pictures to validators as an honest operator would.
//!
//! Not for cheating: what a dishonest miner does lives in test and demo code, which implements [`Backend`]
//! or wraps [`router`]. Not needed by the validator.
//!
//! The one idea: the protocol (`docs/protocol.md`) is one layer, the models are another. [`Backend`] is the
//! line between them, so the same server runs on ONNX Runtime, on a fake in a test, or on somebody's own engine.
//!
//! [`check`] asks any miner, also one that is not ours, whether it speaks the protocol.

mod access_log;
mod backend;
mod chat;
pub mod check;
mod config;
mod embeddings;
mod error;
mod limits;
mod onnx;
mod pictures;
mod server;

pub use backend::{
    Backend, BackendError, ChatEnd, ChatWork, Embedded, Face, Finish, Message, Picture, PictureWork, Sampler,
    Token,
};
pub use config::{MinerConfig, Operation, TaskConfig};
pub use error::MinerError;
pub use onnx::OnnxBackend;
pub use pictures::{picture_reply, picture_work};
pub use server::{MinerState, router, serve, serve_router};
