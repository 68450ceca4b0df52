//! Domain values to and from those of the WIT. Versions share what did not change between them: 0.2 maps its
//! `types` to the ones generated for 0.1, so there is one mapping.
//!
//! Arguments are borrowed, so a body is copied once, from where the host has it into the guest's memory;
//! results are lifted into vectors that [`Bytes`] takes over without a copy.

use bytes::Bytes;
use nineteen_domain as domain;

use super::v0_1::bindings::nineteen::task::types;

/// Blobs as the bindings want them.
type Slices<'a> = Vec<&'a [u8]>;

fn slices(blobs: &[Bytes]) -> Slices<'_> {
    blobs.iter().map(|b| &**b).collect()
}

pub(super) fn lower_request(r: &domain::Request) -> types::RequestParam<'_> {
    types::RequestParam { path: &r.path, content_type: &r.content_type, body: &r.body, streamed: r.streamed }
}

/// Lists of an exchange in the shape that lowering borrows.
pub(super) struct ExchangeParts<'a> {
    headers: Vec<(&'a str, &'a str)>,
    chunks: Vec<types::Chunk<'a>>,
}

impl<'a> ExchangeParts<'a> {
    pub(super) fn of(exchange: &'a domain::Exchange) -> Self {
        Self {
            headers: exchange.headers.iter().map(|(k, v)| (&**k, &**v)).collect(),
            chunks: exchange.chunks.iter().map(|c| types::Chunk { at_us: c.at_us, data: &c.data }).collect(),
        }
    }

    pub(super) fn lower(&'a self, exchange: &domain::Exchange) -> types::Exchange<'a> {
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

/// Blobs of evidence in the shape that lowering borrows.
pub(super) struct EvidenceParts<'a>(Vec<(Slices<'a>, Slices<'a>)>);

impl<'a> EvidenceParts<'a> {
    pub(super) fn of(evidence: &'a [(domain::Check, domain::Evidence)]) -> Self {
        let blobs = |(check, evidence): &'a (domain::Check, domain::Evidence)| {
            let answered = match evidence {
                domain::Evidence::Answered(answer) => slices(&answer.blobs),
                domain::Evidence::Unavailable(_) => Vec::new(),
            };
            (slices(&check.blobs), answered)
        };
        Self(evidence.iter().map(blobs).collect())
    }

    /// Of the same evidence.
    pub(super) fn lower(
        &'a self,
        evidence: &'a [(domain::Check, domain::Evidence)],
    ) -> Vec<(types::CheckParam<'a>, types::Evidence<'a>)> {
        let lower = |((check, evidence), (asked, answered)): (&'a (_, _), &'a (Slices<'a>, Slices<'a>))| {
            let check: &domain::Check = check;
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
        };
        evidence.iter().zip(&self.0).map(lower).collect()
    }
}

pub(super) fn outcome(outcome: types::Outcome) -> domain::Outcome {
    match outcome {
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
    }
}

pub(super) fn admission(admission: types::Admission) -> domain::Admission {
    match admission {
        types::Admission::Admitted(r) => domain::Admission::Admitted(request(r)),
        types::Admission::Refused(r) => {
            domain::Admission::Refused(domain::Refusal { status: r.status, code: r.code, message: r.message })
        }
    }
}

pub(super) fn synthetic(s: types::Synthetic) -> domain::Synthetic {
    domain::Synthetic { request: request(s.request), expected_units: s.expected_units }
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
