//! Embeddings: one vector a text, in their order, in both encodings.

use base64::Engine as _;
use nineteen_domain::ledger::ProbeClass;
use nineteen_wire::schema::Schema;
use serde_json::{Value, json};

use super::{EMBEDDINGS, Probe, Report, Status, describe, parsed, schema};

const TEXTS: [&str; 3] = ["A river runs to the sea.", "Interest rates rose again.", "水は低きに流れる。"];

async fn ask(probe: &Probe, model: &str, texts: &[&str], encoding: &str) -> Result<Value, String> {
    let body = json!({"model": model, "input": texts, "encoding_format": encoding});
    let reply = probe.post(EMBEDDINGS, &body).await;
    if ProbeClass::of(&reply) != ProbeClass::Answered {
        return Err(describe(&reply));
    }
    parsed(&reply).ok_or_else(|| "the body is not JSON".to_owned())
}

fn decode(embedding: &Value) -> Option<Vec<f64>> {
    match embedding {
        Value::Array(numbers) => numbers.iter().map(Value::as_f64).collect(),
        Value::String(text) => {
            let raw = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            let (words, rest) = raw.as_chunks::<4>();
            rest.is_empty().then(|| words.iter().map(|w| f64::from(f32::from_le_bytes(*w))).collect())
        }
        _ => None,
    }
}

/// Vectors by place; `None` unless the entries are numbered 0, 1, 2 … in that order.
fn vectors(reply: &Value) -> Option<Vec<Vec<f64>>> {
    let data = reply.get("data")?.as_array()?;
    data.iter()
        .enumerate()
        .map(|(i, entry)| {
            let index = entry.get("index")?.as_u64()?;
            if usize::try_from(index) == Ok(i) { decode(entry.get("embedding")?) } else { None }
        })
        .collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3)
}

pub(super) async fn check(probe: &Probe, model: &str, report: &mut Report) {
    let prefix = "embeddings";
    let name = |what: &str| format!("{prefix}.{what}");
    let reply = match ask(probe, model, &TEXTS, "float").await {
        Ok(reply) => {
            report.add(name("answers"), Status::Ok, "200", "");
            reply
        }
        Err(seen) => {
            let advice = "POST /v1/embeddings with this model has to give 200";
            report.add(name("answers"), Status::Fail, seen, advice);
            return;
        }
    };
    schema(report, name("schema"), Schema::EmbeddingsReply, Some(&reply));
    let vectors_of = vectors(&reply).unwrap_or_default();
    let dimension = vectors_of.first().map_or(0, Vec::len);
    let shaped = vectors_of.len() == TEXTS.len()
        && dimension > 0
        && vectors_of.iter().all(|v| v.len() == dimension && v.iter().all(|x| x.is_finite()));
    let seen = format!("{} vectors of {dimension}", vectors_of.len());
    let advice = "one vector a text, indices 0, 1, 2 … in their order, all of the model's dimension";
    if !report.hold(name("shape"), shaped, Status::Fail, seen, advice) {
        return;
    }
    let reversed: Vec<&str> = TEXTS.iter().rev().copied().collect();
    let turned =
        ask(probe, model, &reversed, "float").await.ok().and_then(|r| vectors(&r)).unwrap_or_default();
    let same =
        turned.len() == TEXTS.len() && vectors_of.iter().zip(turned.iter().rev()).all(|(a, b)| near(a, b));
    let differ = vectors_of.iter().zip(vectors_of.iter().skip(1)).all(|(a, b)| !near(a, b));
    report.hold(
        name("order"),
        same && differ,
        Status::Fail,
        if same && differ {
            "vectors follow their texts"
        } else {
            "the same texts in another order gave other vectors"
        },
        "embedding i belongs to input i, whatever stands beside it",
    );
    let coded = ask(probe, model, &TEXTS, "base64").await;
    let is_text = coded.as_ref().is_ok_and(|r| r.pointer("/data/0/embedding").is_some_and(Value::is_string));
    let decoded = coded.as_ref().ok().and_then(vectors).unwrap_or_default();
    let equal = decoded.len() == TEXTS.len() && vectors_of.iter().zip(&decoded).all(|(a, b)| near(a, b));
    report.hold(
        name("base64"),
        is_text && equal,
        Status::Fail,
        coded
            .err()
            .unwrap_or_else(|| if equal { "equal to the numbers" } else { "other vectors" }.to_owned()),
        "encoding_format base64: little-endian f32 in standard base64, the same vectors",
    );
    let unit = vectors_of.iter().all(|v| (v.iter().map(|x| x * x).sum::<f64>().sqrt() - 1.0).abs() < 1e-2);
    let advice = "most embedding models are used normalised to length 1: check that this one is not";
    report.hold(
        name("length"),
        unit,
        Status::Warn,
        if unit { "length 1" } else { "not of length 1" },
        advice,
    );
    let usage = |key: &str| reply.get("usage").and_then(|u| u.get(key)).and_then(Value::as_u64);
    let counted = usage("prompt_tokens").is_some_and(|n| n > 0 && usage("total_tokens") == Some(n));
    let advice = "usage counts the tokens of all inputs; prompt_tokens and total_tokens are equal";
    report.hold(name("usage"), counted, Status::Fail, format!("{:?}", usage("prompt_tokens")), advice);
}
