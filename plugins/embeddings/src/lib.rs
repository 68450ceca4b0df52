//! Embeddings.
//!
//! One component serves any number of tasks: model, dimension, batch sizes and the scale of quality come
//! from the manifest. It makes and admits requests ([`request`]), reads replies ([`reply`]), and judges them
//! by recomputing rows ([`judge`]).

pub mod judge;
pub mod params;
pub mod reply;
pub mod request;

use std::collections::BTreeMap;

use nineteen_sdk::{
    ClientCall, Cx, Description, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict, openai,
};
use serde_json::value::RawValue;

use crate::params::Params;

const OPERATION: &str = "embeddings";

/// The task.
#[derive(Debug)]
pub struct Embeddings;

impl Task for Embeddings {
    type Params = Params;

    fn validate(params: &Params) -> Result<(), String> {
        params.validate()
    }

    fn describe(params: &Params) -> Result<Description, String> {
        Ok(Description {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            modality: "vector",
            unit: "vectors",
            operations: vec![OPERATION],
            streaming: false,
            checks: BTreeMap::from([("embedding.embed", params.models().map(str::to_owned).collect())]),
            params_schema: RawValue::from_string(include_str!("schema.json").to_owned())
                .map_err(|e| e.to_string())?,
            reply_extras: Vec::new(),
        })
    }

    fn synthesize(params: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
        request::synthesize(params, rng)
    }

    fn admit(params: &Params, call: ClientCall<'_>, _rng: &mut Rng) -> Result<Request, Refusal> {
        if call.operation != OPERATION {
            let message =
                format!("this task serves {OPERATION}, not {}", nineteen_sdk::clip(call.operation, 60));
            return Err(Refusal { status: 404, code: "unknown_operation".to_owned(), message });
        }
        request::admit(params, openai::client_body(call.content_type, call.body)?)
    }

    fn count(_params: &Params, request: &Request, exchange: &Exchange) -> Option<u64> {
        let asked: request::Body = serde_json::from_slice(&request.body).ok()?;
        // More than was asked for is a violation, and never volume.
        reply::claimed(exchange).map(|n| n.min(asked.input.len() as u64))
    }

    fn score(params: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
        judge::score(params, cx, request, exchange)
    }
}

nineteen_sdk::export!(Embeddings);
