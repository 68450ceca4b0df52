//! The arguments of a call: how many bytes they are of the budget, and what randomness comes from.

use bytes::Bytes;
use nineteen_domain::{Check, Evidence, Exchange, Request};

use crate::batch::Scoring;

// Sizes as they lie in a guest's memory: bytes, and the fixed part of every record. They are the budget's
// measure, not the allocator's.

pub(crate) fn size(lens: &[usize]) -> u64 {
    lens.iter().fold(0_u64, |n, len| n.saturating_add(*len as u64))
}

pub(crate) fn size_of_request(r: &Request) -> u64 {
    size(&[r.path.len(), r.content_type.len(), r.body.len(), 28])
}

pub(crate) fn size_of_exchange(e: &Exchange) -> u64 {
    let headers = e.headers.iter().fold(0, |n, (k, v)| size(&[k.len(), v.len(), 16]).saturating_add(n));
    e.chunks.iter().fold(headers, |n, c| size(&[c.data.len(), 16]).saturating_add(n)).saturating_add(40)
}

pub(crate) fn size_of_exchanged(
    request: &Request,
    exchange: &Exchange,
    evidence: &[(Check, Evidence)],
) -> u64 {
    size_of_request(request)
        .saturating_add(size_of_exchange(exchange))
        .saturating_add(size_of_evidence(evidence))
}

pub(crate) fn size_of_scoring(one: &Scoring) -> u64 {
    size_of_exchanged(&one.request, &one.exchange, &one.evidence).saturating_add(8)
}

fn size_of_evidence(all: &[(Check, Evidence)]) -> u64 {
    all.iter().fold(0, |n, (check, evidence)| {
        let model = check.model.as_ref().map_or(0, String::len);
        let asked = size(&[check.kind.len(), model, check.params.len(), 60]);
        let (words, answered): (_, &[Bytes]) = match evidence {
            Evidence::Answered(a) => (a.params.len(), &a.blobs),
            Evidence::Unavailable(why) => (why.len(), &[]),
        };
        let blobs = check.blobs.iter().chain(answered).fold(0, |n, b| size(&[b.len(), 8]).saturating_add(n));
        n.saturating_add(asked).saturating_add(words as u64).saturating_add(blobs)
    })
}

// Inputs as randomness sees them, every part with its length.

pub(crate) fn put(dice: &mut blake3::Hasher, bytes: &[u8]) {
    dice.update(&(bytes.len() as u64).to_le_bytes());
    dice.update(bytes);
}

pub(crate) fn put_exchange(dice: &mut blake3::Hasher, r: &Request, e: &Exchange) {
    put(dice, r.path.as_bytes());
    put(dice, r.content_type.as_bytes());
    put(dice, &r.body);
    dice.update(&[u8::from(r.streamed)]);
    dice.update(&e.status.to_le_bytes());
    dice.update(&(e.headers.len() as u64).to_le_bytes());
    for (name, value) in &e.headers {
        put(dice, name.as_bytes());
        put(dice, value.as_bytes());
    }
    dice.update(&(e.chunks.len() as u64).to_le_bytes());
    for chunk in &e.chunks {
        dice.update(&chunk.at_us.to_le_bytes());
        put(dice, &chunk.data);
    }
    dice.update(&e.ended_us.to_le_bytes());
    put(dice, format!("{:?}", e.ending).as_bytes());
}

pub(crate) fn put_evidence(dice: &mut blake3::Hasher, all: &[(Check, Evidence)]) {
    dice.update(&(all.len() as u64).to_le_bytes());
    for (check, evidence) in all {
        dice.update(check.digest().as_bytes());
        match evidence {
            Evidence::Answered(a) => {
                put(dice, b"answered");
                put(dice, a.params.as_bytes());
                dice.update(&(a.blobs.len() as u64).to_le_bytes());
                a.blobs.iter().for_each(|b| put(dice, b));
            }
            Evidence::Unavailable(why) => {
                put(dice, b"unavailable");
                put(dice, why.as_bytes());
            }
        }
    }
}
