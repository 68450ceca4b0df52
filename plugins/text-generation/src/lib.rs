//! Chat completions.
//!
//! One component serves any number of tasks: model, lengths, sampler classes and the scale of quality come
//! from the manifest. It makes and admits requests ([`request`], [`synth`]), reads replies ([`reply`]), and
//! judges them by replaying their tokens through the reference ([`judge`]).

pub mod judge;
pub mod params;
pub mod reply;
pub mod request;
pub mod synth;

use std::collections::BTreeMap;

use nineteen_sdk::{
    ClientCall, Cx, Description, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict, openai,
};
use serde_json::value::RawValue;

use crate::params::Params;

const OPERATION: &str = "chat.completions";

/// The task.
#[derive(Debug)]
pub struct TextGeneration;

impl Task for TextGeneration {
    type Params = Params;

    fn validate(params: &Params) -> Result<(), String> {
        params.validate()
    }

    fn describe(params: &Params) -> Result<Description, String> {
        Ok(Description {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            modality: "text",
            unit: "tokens",
            operations: vec![OPERATION],
            streaming: true,
            checks: BTreeMap::from([("text.replay", vec![params.model.clone()])]),
            params_schema: RawValue::from_string(include_str!("schema.json").to_owned())
                .map_err(|e| e.to_string())?,
            reply_extras: vec!["token_ids", "logprobs", "nineteen"],
        })
    }

    fn synthesize(params: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
        synth::synthesize(params, rng)
    }

    fn admit(params: &Params, call: ClientCall<'_>, rng: &mut Rng) -> Result<Request, Refusal> {
        if call.operation != OPERATION {
            let message =
                format!("this task serves {OPERATION}, not {}", nineteen_sdk::clip(call.operation, 60));
            return Err(Refusal { status: 404, code: "unknown_operation".to_owned(), message });
        }
        request::admit(params, openai::client_body(call.content_type, call.body)?, rng)
    }

    fn count(_params: &Params, request: &Request, exchange: &Exchange) -> Option<u64> {
        let asked: request::Body = serde_json::from_slice(&request.body).ok()?;
        // More than was allowed is a violation, and never volume.
        reply::claimed(request.streamed, exchange).map(|n| n.min(asked.max_tokens.into()))
    }

    fn score(params: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
        judge::score(params, cx, request, exchange)
    }
}

nineteen_sdk::export!(TextGeneration);
