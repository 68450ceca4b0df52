//! The wasm side: the generated bindings, and the adapter from the WIT's functions to a [`Task`].
//!
//! Bytes move, they are not copied: a reply of a megabyte is lifted once.

use std::marker::PhantomData;

use crate::task::{Cx, Stop, Task, params};
use crate::types;
use crate::{Refusal, Rng};

#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/0.1",
        world: "plugin",
        pub_export_macro: true,
        export_macro_name: "__export_plugin",
        default_bindings_module: "nineteen_sdk::guest::bindings",
        runtime_path: "nineteen_sdk::guest::rt",
        generate_unused_types: true,
    });
}

pub use wit_bindgen::rt;

use bindings::exports::nineteen::task::task as wit_task;
use bindings::nineteen::task::types as wit;

/// Implements the WIT's interface for a [`Task`].
#[derive(Debug)]
pub struct Adapter<T>(PhantomData<T>);

impl<T: Task> wit_task::Guest for Adapter<T> {
    fn describe(json: String) -> Result<String, String> {
        let description = T::describe(&params::<T>(&json)?)?;
        serde_json::to_string(&description).map_err(|e| e.to_string())
    }

    fn synthesize(json: String, seed: Vec<u8>) -> Result<wit::Synthetic, String> {
        let made = T::synthesize(&params::<T>(&json)?, &mut Rng::new(&seed))?;
        Ok(wit::Synthetic { request: request_out(made.request), expected_units: made.expected_units })
    }

    fn admit(
        json: String,
        operation: String,
        content_type: String,
        body: Vec<u8>,
        seed: Vec<u8>,
    ) -> wit::Admission {
        let call = types::ClientCall { operation: &operation, content_type: &content_type, body: &body };
        let admitted = params::<T>(&json)
            .map_err(|e| Refusal::bad_request("invalid_manifest", e))
            .and_then(|p| T::admit(&p, call, &mut Rng::new(&seed)));
        match admitted {
            Ok(request) => wit::Admission::Admitted(request_out(request)),
            Err(Refusal { status, code, message }) => {
                wit::Admission::Refused(wit::Refusal { status, code, message })
            }
        }
    }

    fn count(json: String, request: wit::Request, exchange: wit::Exchange) -> Option<u64> {
        T::count(&params::<T>(&json).ok()?, &request_in(request), &exchange_in(exchange))
    }

    fn score(
        json: String,
        request: wit::Request,
        exchange: wit::Exchange,
        evidence: Vec<(wit::Check, wit::Evidence)>,
    ) -> wit::Outcome {
        let params = match params::<T>(&json) {
            Ok(params) => params,
            Err(e) => return wit::Outcome::Inconclusive(e),
        };
        let evidence = evidence.into_iter().map(|(c, e)| (check_in(c), evidence_in(e))).collect();
        match T::score(&params, &mut Cx::new(evidence), &request_in(request), &exchange_in(exchange)) {
            Ok(v) => wit::Outcome::Scored(wit::Verdict {
                quality: v.quality,
                units: v.units,
                units_by_chunk: v.units_by_chunk,
                suspicions: v.suspicions,
                fingerprints: v.fingerprints,
                reasons: v.reasons,
            }),
            Err(Stop::Need(checks)) => wit::Outcome::Need(checks.into_iter().map(check_out).collect()),
            Err(Stop::Violation(why)) => wit::Outcome::Violation(why),
            Err(Stop::Unavailable(why) | Stop::Inconclusive(why)) => wit::Outcome::Inconclusive(why),
        }
    }
}

fn request_in(r: wit::Request) -> types::Request {
    types::Request { path: r.path, content_type: r.content_type, body: r.body, streamed: r.streamed }
}

fn request_out(r: types::Request) -> wit::Request {
    wit::Request { path: r.path, content_type: r.content_type, body: r.body, streamed: r.streamed }
}

fn exchange_in(e: wit::Exchange) -> types::Exchange {
    let phase = |p| match p {
        wit::Phase::Connect => types::Phase::Connect,
        wit::Phase::FirstByte => types::Phase::FirstByte,
        wit::Phase::Idle => types::Phase::Idle,
        wit::Phase::Total => types::Phase::Total,
    };
    types::Exchange {
        status: e.status,
        headers: e.headers,
        chunks: e.chunks.into_iter().map(|c| types::Chunk { at_us: c.at_us, data: c.data }).collect(),
        ended_us: e.ended_us,
        ending: match e.ending {
            wit::Ending::Complete => types::Ending::Complete,
            wit::Ending::Refused => types::Ending::Refused,
            wit::Ending::Timeout(p) => types::Ending::Timeout(phase(p)),
            wit::Ending::Disconnected => types::Ending::Disconnected,
            wit::Ending::TooLarge => types::Ending::TooLarge,
        },
    }
}

fn check_in(c: wit::Check) -> types::Check {
    types::Check { kind: c.kind, model: c.model, params: c.params, blobs: c.blobs }
}

fn check_out(c: types::Check) -> wit::Check {
    wit::Check { kind: c.kind, model: c.model, params: c.params, blobs: c.blobs }
}

fn evidence_in(e: wit::Evidence) -> types::Evidence {
    match e {
        wit::Evidence::Answered(a) => {
            types::Evidence::Answered(types::Answer { params: a.params, blobs: a.blobs })
        }
        wit::Evidence::Unavailable(why) => types::Evidence::Unavailable(why),
    }
}
