//! `nineteen:task@0.1`: bindings generated from `wit/0.1`, and their mapping to domain types.
//!
//! Arguments are borrowed, so a body is copied once, from where the host has it into the guest's memory;
//! results are lifted into vectors that [`bytes::Bytes`] takes over without a copy.

use bytes::Bytes;
use nineteen_domain as domain;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use super::{Broken, Guest};
use crate::state::CallState;
use crate::wasi;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "nineteen:task/plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

use bindings::nineteen::task::{assets, log, types};

/// A linked component of this version.
pub(super) struct Linked(bindings::PluginPre<CallState>);

pub(super) fn link(engine: &Engine, component: &Component, with_wasi: bool) -> wasmtime::Result<Linked> {
    let mut linker = Linker::new(engine);
    bindings::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    if with_wasi {
        wasi::link(&mut linker)?;
    }
    bindings::PluginPre::new(linker.instantiate_pre(component)?).map(Linked)
}

impl types::Host for CallState {}

impl log::Host for CallState {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
        };
        self.log(level, &message, &fields);
        Ok(())
    }
}

impl assets::Host for CallState {
    fn read(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.asset(&name)?.map(Vec::from))
    }
}

impl Linked {
    fn fresh(&self, store: &mut Store<CallState>) -> Result<bindings::Plugin, Broken> {
        self.0.instantiate(store).map_err(Broken::Instantiate)
    }
}

impl Guest for Linked {
    fn describe(&self, store: &mut Store<CallState>, params: &str) -> Result<Result<String, String>, Broken> {
        let guest = self.fresh(store)?;
        guest.nineteen_task_task().call_describe(store, params).map_err(Broken::Call)
    }

    fn synthesize(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        seed: &[u8; 32],
    ) -> Result<Result<domain::Synthetic, String>, Broken> {
        let guest = self.fresh(store)?;
        let made = guest.nineteen_task_task().call_synthesize(store, params, seed).map_err(Broken::Call)?;
        Ok(made.map(|s| domain::Synthetic { request: request(s.request), expected_units: s.expected_units }))
    }

    fn admit(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        operation: &str,
        content_type: &str,
        body: &[u8],
        seed: &[u8; 32],
    ) -> Result<domain::Admission, Broken> {
        let guest = self.fresh(store)?;
        let admission = guest
            .nineteen_task_task()
            .call_admit(store, params, operation, content_type, body, seed)
            .map_err(Broken::Call)?;
        Ok(match admission {
            types::Admission::Admitted(r) => domain::Admission::Admitted(request(r)),
            types::Admission::Refused(r) => domain::Admission::Refused(domain::Refusal {
                status: r.status,
                code: r.code,
                message: r.message,
            }),
        })
    }

    fn count(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &domain::Request,
        exchange: &domain::Exchange,
    ) -> Result<Option<u64>, Broken> {
        let guest = self.fresh(store)?;
        let parts = ExchangeParts::of(exchange);
        guest
            .nineteen_task_task()
            .call_count(store, params, lower_request(request), parts.lower(exchange))
            .map_err(Broken::Call)
    }

    fn score(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &domain::Request,
        exchange: &domain::Exchange,
        evidence: &[(domain::Check, domain::Evidence)],
    ) -> Result<domain::Outcome, Broken> {
        let guest = self.fresh(store)?;
        let parts = ExchangeParts::of(exchange);
        let blobs: Vec<(Slices<'_>, Slices<'_>)> = evidence
            .iter()
            .map(|(check, evidence)| {
                let answered = match evidence {
                    domain::Evidence::Answered(answer) => slices(&answer.blobs),
                    domain::Evidence::Unavailable(_) => Vec::new(),
                };
                (slices(&check.blobs), answered)
            })
            .collect();
        let evidence: Vec<_> = evidence
            .iter()
            .zip(&blobs)
            .map(|((check, evidence), (asked, answered))| {
                let check = types::CheckParam {
                    kind: &check.kind,
                    model: check.model.as_deref(),
                    params: &check.params,
                    blobs: asked,
                };
                let evidence = match evidence {
                    domain::Evidence::Answered(a) => {
                        types::Evidence::Answered(types::Answer { params: &a.params, blobs: answered })
                    }
                    domain::Evidence::Unavailable(why) => types::Evidence::Unavailable(why),
                };
                (check, evidence)
            })
            .collect();
        let outcome = guest
            .nineteen_task_task()
            .call_score(store, params, lower_request(request), parts.lower(exchange), &evidence)
            .map_err(Broken::Call)?;
        Ok(match outcome {
            types::Outcome::Need(checks) => domain::Outcome::Need(checks.into_iter().map(check).collect()),
            types::Outcome::Scored(v) => domain::Outcome::Scored(domain::Verdict {
                quality: v.quality,
                units: v.units,
                units_by_chunk: v.units_by_chunk,
                suspicions: v.suspicions,
                fingerprints: v.fingerprints.into_iter().map(Bytes::from).collect(),
                reasons: v.reasons,
            }),
            types::Outcome::Violation(why) => domain::Outcome::Violation(why),
            types::Outcome::Inconclusive(why) => domain::Outcome::Inconclusive(why),
        })
    }
}

/// Blobs as the bindings want them.
type Slices<'a> = Vec<&'a [u8]>;

fn slices(blobs: &[Bytes]) -> Slices<'_> {
    blobs.iter().map(|b| &**b).collect()
}

fn lower_request(r: &domain::Request) -> types::RequestParam<'_> {
    types::RequestParam { path: &r.path, content_type: &r.content_type, body: &r.body, streamed: r.streamed }
}

/// Lists of an exchange in the shape that lowering borrows.
struct ExchangeParts<'a> {
    headers: Vec<(&'a str, &'a str)>,
    chunks: Vec<types::Chunk<'a>>,
}

impl<'a> ExchangeParts<'a> {
    fn of(exchange: &'a domain::Exchange) -> Self {
        Self {
            headers: exchange.headers.iter().map(|(k, v)| (&**k, &**v)).collect(),
            chunks: exchange.chunks.iter().map(|c| types::Chunk { at_us: c.at_us, data: &c.data }).collect(),
        }
    }

    fn lower(&'a self, exchange: &domain::Exchange) -> types::Exchange<'a> {
        types::Exchange {
            status: exchange.status,
            headers: &self.headers,
            chunks: &self.chunks,
            ended_us: exchange.ended_us,
            ending: match exchange.ending {
                domain::Ending::Complete => types::Ending::Complete,
                domain::Ending::Refused => types::Ending::Refused,
                domain::Ending::Timeout(domain::Phase::Connect) => {
                    types::Ending::Timeout(types::Phase::Connect)
                }
                domain::Ending::Timeout(domain::Phase::FirstByte) => {
                    types::Ending::Timeout(types::Phase::FirstByte)
                }
                domain::Ending::Timeout(domain::Phase::Idle) => types::Ending::Timeout(types::Phase::Idle),
                domain::Ending::Timeout(domain::Phase::Total) => types::Ending::Timeout(types::Phase::Total),
                domain::Ending::Disconnected => types::Ending::Disconnected,
                domain::Ending::TooLarge => types::Ending::TooLarge,
            },
        }
    }
}

fn request(r: types::RequestResult) -> domain::Request {
    domain::Request { path: r.path, content_type: r.content_type, body: r.body.into(), streamed: r.streamed }
}

fn check(c: types::CheckResult) -> domain::Check {
    domain::Check {
        kind: c.kind,
        model: c.model,
        params: c.params,
        blobs: c.blobs.into_iter().map(Bytes::from).collect(),
    }
}
