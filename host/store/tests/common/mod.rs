//! Records for the tests.

use nineteen_domain::ledger::ProbeClass;
use nineteen_domain::{Chunk, Digest, Ending, Exchange, Hotkey, PeriodId, ProbeId, Request, TaskName};
use nineteen_store::{ExchangeBody, Finished, Options, Record};

pub(crate) fn options() -> Options {
    Options { min_free_bytes: 0, ..Options::default() }
}

pub(crate) fn probe(period: u64, slot: u32) -> ProbeId {
    ProbeId {
        period: PeriodId(period),
        task: TaskName::new("chat-smollm2-135m").unwrap(),
        miner: Hotkey::from_bytes([9; 32]),
        slot,
    }
}

pub(crate) fn finished(slot: u32) -> Record {
    Record::ProbeFinished(Finished {
        probe: probe(1, slot),
        class: ProbeClass::Answered,
        units: u64::from(slot),
        expected: 64,
        took_us: 0,
        exchange: Some(Digest::of(&slot.to_le_bytes())),
        at_us: u64::from(slot),
    })
}

pub(crate) fn body(slot: u32, bytes: usize) -> Record {
    let request = Request {
        path: "/v1/chat/completions".into(),
        content_type: "application/json".into(),
        body: slot.to_string().into(),
        streamed: true,
    };
    let chunk = Chunk { at_us: 1, data: vec![slot.to_le_bytes()[0]; bytes].into() };
    let exchange =
        Exchange { status: 200, chunks: vec![chunk], ..Exchange::without_reply(Ending::Complete, 2) };
    Record::ExchangeBody(Box::new(ExchangeBody { probe: probe(1, slot), request, exchange }))
}
