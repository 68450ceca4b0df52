//! The HTTP face. In this storey: the operator's API on loopback, and its client. What reads is open to whoever is on this
//! machine; what changes something needs the [`Token`] that lies beside the validator's data.
//!
//! Route handlers see nothing but [`Reports`] and [`Registrar`], the validator's public handles.
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
//! | `GET /v1/registry` | the generation of tasks that runs, and those before it |
//! | `GET /v1/tasks/events` | what was done to the tasks, with every step's duration |
//! | `GET /v1/tasks/{name}` | one task: manifest, component, what it used of its budgets |
//! | `POST /v1/tasks/{name}/{change}` | `add`, `upgrade`, `disable`, `enable`, `remove`, `rollback` |
//! | `POST /v1/rollback` | what ran before the last change |

mod client;
mod metrics;
mod server;
mod tasks;
mod token;

pub use client::{OperatorClient, OperatorError};
pub use server::{Api, GatewayError, bind, serve};
pub use tasks::Asked;
pub use token::{Token, TokenError};

#[expect(unused_imports, reason = "named in the documentation above")]
use nineteen_validator::{registrar::Registrar, report::Reports};
