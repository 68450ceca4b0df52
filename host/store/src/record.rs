//! What the journal holds: one enum, one encoding.
//!
//! Records are CBOR behind one byte of version. CBOR, because doubles (also NaN and infinities) and byte
//! strings come back exactly, and because fields may be added later under `#[serde(default)]`.

use nineteen_domain::ledger::{PeriodRow, ProbeClass, QualitySample};
use nineteen_domain::{Check, Digest, Evidence, Exchange, PeriodId, ProbeId, Request, TaskName, Uid};
use serde::{Deserialize, Serialize};

use crate::error::{Result, StoreError};
use crate::segment::Family;

const VERSION: u8 = 1;

/// A finished probe: the end of its story for the tally.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Which probe.
    pub probe: ProbeId,
    /// How it ended.
    pub class: ProbeClass,
    /// Units of work served, as `count` read them.
    pub units: u64,
    /// Units of work expected.
    pub expected: u64,
    /// From the last byte of the request to the end of the reply, in microseconds; 0 where there was none.
    #[serde(default)]
    pub took_us: u64,
    /// Digest of the exchange, where one took place; its body is found by the probe.
    pub exchange: Option<Digest>,
    /// Microseconds of the Unix epoch.
    pub at_us: u64,
}

/// Request and exchange of a probe, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExchangeBody {
    /// Which probe.
    pub probe: ProbeId,
    /// What was sent.
    pub request: Request,
    /// What came back.
    pub exchange: Exchange,
}

/// One attempt to set weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsSet {
    /// Microseconds of the Unix epoch; one attempt per instant.
    pub at_us: u64,
    /// Max-scaled u16 by uid.
    pub weights: Vec<(Uid, u16)>,
    /// Why the chain did not take them; `None` when it did.
    pub refused: Option<String>,
}

/// Something worth keeping. Appended to a segment first, shown in the view afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Record {
    /// The plan of a period. One per period.
    PlanStored {
        /// Which period.
        period: PeriodId,
        /// The plan, as its owner writes it.
        plan: serde_json::Value,
    },
    /// A window of a period that began at a moment which its plan did not know. One per period, task and index.
    WindowStarted {
        /// Which period.
        period: PeriodId,
        /// Of which task.
        task: TaskName,
        /// The how manieth of the two.
        index: u32,
        /// The window, as its owner writes it.
        window: serde_json::Value,
    },
    /// The intent to send a probe, written ahead: send only what was booked new, and what is sent but not
    /// finished after a restart was interrupted by us.
    ProbeSent {
        /// Which probe.
        probe: ProbeId,
        /// Microseconds of the Unix epoch.
        at_us: u64,
        /// Digest of the request's body: what a miner that kept its own log of requests can be asked about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<Digest>,
    },
    /// A probe ended. One per probe.
    ProbeFinished(Finished),
    /// An exchange was judged. One per probe.
    Sample(QualitySample),
    /// A period of one (miner, task) was settled. One per period, task and miner.
    Row(PeriodRow),
    /// A period was settled. One per period; append it with its rows, as one.
    Settled {
        /// Which period.
        period: PeriodId,
        /// The settlement, as its owner writes it.
        settlement: serde_json::Value,
    },
    /// Weights were offered to the chain. One per instant.
    WeightsSet(WeightsSet),
    /// The bytes of an exchange. One per probe; kept as long as retention says.
    ExchangeBody(Box<ExchangeBody>),
    /// What our executors answered to the checks on a probe. One per probe; kept as long as retention says.
    EvidenceBody {
        /// Which probe.
        probe: ProbeId,
        /// Checks and answers in the order in which they were asked.
        transcript: Vec<(Check, Evidence)>,
    },
}

impl Record {
    /// The family of segments that it goes to. Bodies have their own, so that their retention drops no score.
    pub(crate) const fn family(&self) -> Family {
        match self {
            Self::ExchangeBody(_) => Family::Exchanges,
            Self::EvidenceBody { .. } => Family::Evidence,
            Self::PlanStored { .. }
            | Self::WindowStarted { .. }
            | Self::ProbeSent { .. }
            | Self::ProbeFinished(_)
            | Self::Sample(_)
            | Self::Row(_)
            | Self::Settled { .. }
            | Self::WeightsSet(_) => Family::Ledger,
        }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = vec![VERSION];
        to_cbor(self, &mut out)?;
        Ok(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((&VERSION, body)) => from_cbor(body),
            Some((other, _)) => Err(StoreError::Codec {
                action: "decoded",
                why: format!("its version is {other}, this program knows {VERSION}"),
            }),
            None => Err(StoreError::Codec { action: "decoded", why: "it is empty".into() }),
        }
    }
}

pub(crate) fn to_cbor<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    ciborium::into_writer(value, out).map_err(|e| StoreError::Codec { action: "encoded", why: e.to_string() })
}

pub(crate) fn from_cbor<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    ciborium::from_reader(bytes).map_err(|e| StoreError::Codec { action: "decoded", why: e.to_string() })
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use nineteen_domain::ledger::{
        Failure, Judgement, OursFault, Stream, Suspect, Suspicion, Tally, WindowKind, WindowResult,
    };
    use nineteen_domain::{Answer, Chunk, Ending, Hotkey, Phase, TaskName};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn probe(period: u64, slot: u32) -> ProbeId {
        ProbeId {
            period: PeriodId(period),
            task: TaskName::new("chat").unwrap(),
            miner: Hotkey::from_bytes([7; 32]),
            slot,
        }
    }

    pub(crate) fn one_of_each() -> Vec<Record> {
        let probe = probe(3, 9);
        let body = Bytes::from_static(b"\x00\xff\n\ndata");
        let exchange = Exchange {
            status: 200,
            headers: vec![("content-type".into(), "text/event-stream".into())],
            chunks: vec![Chunk { at_us: 5, data: body.clone() }, Chunk { at_us: 6, data: Bytes::new() }],
            ended_us: 7,
            ending: Ending::Timeout(Phase::Idle),
        };
        let request =
            Request { path: "/x".into(), content_type: "a/b".into(), body: body.clone(), streamed: true };
        let check =
            Check { kind: "text.replay".into(), model: None, params: "{}".into(), blobs: vec![body.clone()] };
        let finished = |class| Finished {
            probe: probe.clone(),
            class,
            units: 9,
            expected: 11,
            took_us: 13,
            exchange: Some(Digest::of(b"x")),
            at_us: 12,
        };
        vec![
            Record::PlanStored {
                period: PeriodId(3),
                plan: serde_json::json!({"n": [1, -2, 0.1, null, "ü"]}),
            },
            Record::WindowStarted {
                period: PeriodId(3),
                task: probe.task.clone(),
                index: 1,
                window: serde_json::json!({"started_us": 5}),
            },
            Record::ProbeSent { probe: probe.clone(), at_us: u64::MAX, request: Some(Digest::of(b"r")) },
            Record::ProbeFinished(finished(ProbeClass::Failed(Failure::IdleTimeout))),
            Record::ProbeFinished(finished(ProbeClass::Ours(OursFault::Interrupted))),
            Record::ProbeFinished(finished(ProbeClass::Answered)),
            Record::Sample(QualitySample {
                probe: probe.clone(),
                judgement: Judgement::Violation("text.length".into()),
                quality: 0.1 + 0.2,
                units: 4,
                response_us: 5,
                first_unit_us: Some(1),
                at_us: 77,
                reasons: vec![("margin".into(), f64::INFINITY), ("x".into(), 1e-300)],
                period_us: 60,
                suspicion: Some(Box::new(Suspicion {
                    exchange: vec![("int8".into(), -0.1)],
                    stream: Stream {
                        exchanges: 2,
                        suspects: vec![Suspect { name: "int8".into(), wealth: -1.5 }],
                        mixed: f64::NEG_INFINITY,
                        accused_us: Some(9),
                        accused_of: None,
                    },
                    epoch: Some("0.1".into()),
                })),
            }),
            Record::Row(PeriodRow {
                period: PeriodId(3),
                task: probe.task.clone(),
                miner: probe.miner,
                uid: Uid(4),
                announced: Some(f64::NEG_INFINITY),
                capacity: 100,
                tally: Tally { answered: 1, ..Tally::default() },
                score: Some(1.0 / 3.0),
                windows: vec![WindowResult {
                    kind: WindowKind::Beacon,
                    started_us: 1,
                    rate: 1.25,
                    asked: 10,
                    delivered: 9,
                }],
                started_us: 1,
                ended_us: 2,
            }),
            Record::Settled { period: PeriodId(3), settlement: serde_json::json!({"w": 0.1}) },
            Record::WeightsSet(WeightsSet {
                at_us: 1,
                weights: vec![(Uid(1), 65_535)],
                refused: Some("no".into()),
            }),
            Record::ExchangeBody(Box::new(ExchangeBody { probe: probe.clone(), request, exchange })),
            Record::EvidenceBody {
                probe,
                transcript: vec![
                    (check.clone(), Evidence::Answered(Answer { params: "{}".into(), blobs: vec![body] })),
                    (Check { model: Some("m".into()), ..check }, Evidence::Unavailable("busy".into())),
                ],
            },
        ]
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        for record in one_of_each() {
            assert_eq!(Record::decode(&record.encode().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn a_verdict_that_is_not_a_number_does_not_make_the_journal_unreadable() {
        let Some(Record::Sample(mut sample)) =
            one_of_each().into_iter().find(|r| matches!(r, Record::Sample(_)))
        else {
            unreachable!()
        };
        sample.quality = f64::NAN;
        sample.reasons = vec![("margin".into(), f64::NAN)];
        let Record::Sample(back) = Record::decode(&Record::Sample(sample).encode().unwrap()).unwrap() else {
            unreachable!()
        };
        assert!(back.quality.is_nan() && back.reasons[0].1.is_nan());
    }

    #[test]
    fn bytes_are_stored_as_bytes() {
        let mut records = one_of_each();
        let Some(Record::ExchangeBody(mut body)) =
            records.drain(..).find(|r| matches!(r, Record::ExchangeBody(_)))
        else {
            unreachable!()
        };
        body.exchange.chunks = vec![Chunk { at_us: 1, data: vec![255; 100_000].into() }];
        assert!(Record::ExchangeBody(body).encode().unwrap().len() < 101_000);
    }

    #[test]
    fn a_record_of_a_later_version_is_named_as_such() {
        let mut bytes = one_of_each()[0].encode().unwrap();
        bytes[0] = 2;
        assert!(Record::decode(&bytes).unwrap_err().to_string().contains("version is 2"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Record::decode(&bytes);
            let mut with_version = vec![VERSION];
            with_version.extend_from_slice(&bytes);
            let _ = Record::decode(&with_version);
        }

        #[test]
        fn a_damaged_record_never_panics_the_decoder(which: prop::sample::Index, at: prop::sample::Index, to: u8) {
            let all = one_of_each();
            let mut bytes = all[which.index(all.len())].encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Record::decode(&bytes);
        }
    }
}
