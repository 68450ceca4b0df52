//! Portraits of the person on a photograph.
//!
//! One component serves any number of tasks: pipeline, the models that find and know faces, the order of the steps, the words
//! of synthetic captions and the scale of quality come from the manifest. It makes and admits requests ([`request`], with
//! drawn photographs from [`portrait`] and forms read by [`multipart`]), follows the declared [`workflow`], and judges replies
//! beside its own portrait from the same seed ([`judge`]).

pub mod judge;
pub mod multipart;
pub mod params;
pub mod portrait;
pub mod request;
pub mod workflow;

use std::collections::BTreeMap;

use nineteen_pictures::reply;
use nineteen_pictures::request::Body;
use nineteen_sdk::{
    ClientCall, Cx, Description, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict,
};
use serde_json::value::RawValue;

use crate::params::Params;

const OPERATION: &str = "avatars";

/// The task.
#[derive(Debug)]
pub struct Avatar;

impl Task for Avatar {
    type Params = Params;

    fn validate(params: &Params) -> Result<(), String> {
        params.validate()
    }

    fn describe(params: &Params) -> Result<Description, String> {
        let plan = params.plan()?;
        let mut checks =
            BTreeMap::from([("image.generate", vec![plan.model.to_owned()]), ("image.features", Vec::new())]);
        let vectors: Vec<String> =
            plan.identify.map(str::to_owned).into_iter().chain(plan.demands.prompt.clone()).collect();
        if !vectors.is_empty() {
            checks.insert("vision.embed", vectors);
        }
        checks.extend(plan.detect.map(|d| ("vision.faces", vec![d.model.clone()])));
        checks.extend(plan.demands.safety.as_ref().map(|s| ("vision.classify", vec![s.model.clone()])));
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
        request::admit(params, request::read(call)?, rng)
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

nineteen_sdk::export!(Avatar);

#[cfg(test)]
#[path = "../../pictures/testing/mod.rs"]
mod testing;
