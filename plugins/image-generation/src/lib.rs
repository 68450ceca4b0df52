//! Pictures from text.
//!
//! One component serves any number of tasks: pipeline, sizes, schedulers, the words of synthetic captions, the models that
//! look at a picture and the scale of quality come from the manifest. It makes and admits requests ([`request`]) and judges
//! replies beside its own regeneration from the same seed ([`judge`]).

pub mod judge;
pub mod params;
pub mod request;

use std::collections::BTreeMap;

use nineteen_pictures::reply;
use nineteen_pictures::request::Body;
use nineteen_sdk::{
    ClientCall, Cx, Description, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict, openai,
};
use serde_json::value::RawValue;

use crate::params::Params;

const OPERATION: &str = "images.generations";

/// The task.
#[derive(Debug)]
pub struct ImageGeneration;

impl Task for ImageGeneration {
    type Params = Params;

    fn validate(params: &Params) -> Result<(), String> {
        params.validate()
    }

    fn describe(params: &Params) -> Result<Description, String> {
        let mut checks =
            BTreeMap::from([("image.generate", vec![params.model.clone()]), ("image.features", Vec::new())]);
        checks.extend(params.vision.iter().map(|model| ("vision.embed", vec![model.clone()])));
        checks.extend(params.safety.iter().map(|s| ("vision.classify", vec![s.model.clone()])));
        Ok(Description {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            modality: "image",
            unit: "steps",
            operations: vec![OPERATION],
            streaming: false,
            checks,
            params_schema: RawValue::from_string(include_str!("schema.json").to_owned())
                .map_err(|e| e.to_string())?,
            reply_extras: Vec::new(),
        })
    }

    fn synthesize(params: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
        request::synthesize(params, rng)
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
        let asked: Body = serde_json::from_slice(&request.body).ok()?;
        // What was asked for and nothing more, whatever the reply says.
        reply::claims(exchange).then(|| asked.units())
    }

    fn score(params: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
        judge::score(params, cx, request, exchange)
    }
}

nineteen_sdk::export!(ImageGeneration);

#[cfg(test)]
#[path = "../../pictures/testing/mod.rs"]
mod testing;
