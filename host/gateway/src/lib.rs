//! The HTTP face. In this storey: the operator's read-only API on loopback, and its client.
//!
//! Route handlers see nothing but [`Reports`], the validator's public handle.
//!
//! | route | what |
//! |---|---|
//! | `GET /healthz` | 200 once the first period is planned |
//! | `GET /metrics` | the same and the control miner, for Prometheus |
//! | `GET /v1/status` | period, queues, backlog, store, versions |
//! | `GET /v1/tasks` | live tasks with digests and budgets |
//! | `GET /v1/scores` | every miner and task of the last settled period |
//! | `GET /v1/explain?miner=M&task=T` | the whole chain from announcement to weight |
//! | `GET /v1/weights` | the last weights set |

mod client;
mod metrics;
mod server;

pub use client::{OperatorClient, OperatorError};
pub use server::{GatewayError, bind, serve};
