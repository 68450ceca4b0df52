//! Pictures: one PNG of the size that was asked for, decided by its seed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nineteen_checking::{Pixels, pixels};
use nineteen_domain::ledger::ProbeClass;
use nineteen_wire::schema::Schema;
use serde_json::{Value, json};

use super::{Probe, Report, Status, describe, parsed, schema};
use crate::config::Operation;

const SIDE: usize = 64;
const SEED: u64 = 19;

fn body(model: &str, seed: u64) -> Value {
    json!({
        "model": model, "prompt": "a large red circle on a grey background", "negative_prompt": "", "seed": seed, "steps": 4,
        "guidance": 3.0, "width": SIDE, "height": SIDE, "scheduler": "ddim", "noise": "torch",
        "response_format": "b64_json",
    })
}

async fn ask(probe: &Probe, operation: Operation, body: &Value) -> Result<Value, String> {
    let reply = probe.post(operation.path(), body).await;
    if ProbeClass::of(&reply) != ProbeClass::Answered {
        return Err(describe(&reply));
    }
    parsed(&reply).ok_or_else(|| "the body is not JSON".to_owned())
}

fn picture(reply: &Value) -> Result<Pixels, String> {
    let text = reply.pointer("/data/0/b64_json").and_then(Value::as_str).ok_or("no picture")?;
    let file = STANDARD.decode(text).map_err(|e| e.to_string())?;
    let read = pixels::decode(&file, &pixels::DecodeLimits::default()).map_err(|e| e.to_string())?;
    Ok(read.pixels)
}

/// The first answer, if there is one of the right form.
async fn answered(
    probe: &Probe,
    operation: Operation,
    body: &Value,
    form: Schema,
    report: &mut Report,
) -> Option<Value> {
    let name = |what: &str| format!("{}.{what}", operation.as_str());
    match ask(probe, operation, body).await {
        Ok(reply) => {
            report.add(name("answers"), Status::Ok, "200", "");
            schema(report, name("schema"), form, Some(&reply)).then_some(reply)
        }
        Err(seen) => {
            let advice = format!("POST {} with this model has to give 200", operation.path());
            report.add(name("answers"), Status::Fail, seen, &advice);
            None
        }
    }
}

pub(super) async fn images(probe: &Probe, model: &str, report: &mut Report) {
    let operation = Operation::Images;
    let name = |what: &str| format!("{}.{what}", operation.as_str());
    let asked = body(model, SEED);
    let Some(reply) = answered(probe, operation, &asked, Schema::ImagesReply, report).await else { return };
    if reply.pointer("/data/0/flagged") == Some(&Value::Bool(true)) {
        let advice = "it was withheld as unsafe: if this is a safe picture, the classifier is wrong";
        report.add(name("picture"), Status::Warn, "flagged", advice);
        return;
    }
    let first = picture(&reply);
    let (right, seen) = match &first {
        Ok(p) => ((p.width, p.height) == (SIDE, SIDE), format!("{} × {} pixels", p.width, p.height)),
        Err(why) => (false, why.clone()),
    };
    let advice = "answer with one still PNG of the width and height that were asked for";
    if !report.hold(name("picture"), right, Status::Fail, seen, advice) {
        return;
    }
    let again = ask(probe, operation, &asked).await.and_then(|r| picture(&r));
    let near =
        again.as_ref().is_ok_and(|again| first.as_ref().is_ok_and(|first| apart(first, again) <= 0.01));
    let advice =
        "the same request has to give the same picture: begin from the noise of its `seed` (docs/checks.md)";
    report.hold(name("seed"), near, Status::Fail, "the same request twice", advice);
    let other = ask(probe, operation, &body(model, SEED + 1)).await.and_then(|r| picture(&r));
    let differs =
        other.as_ref().is_ok_and(|other| first.as_ref().is_ok_and(|first| apart(first, other) > 0.0));
    let advice = "another seed has to give another picture";
    report.hold(name("other-seed"), differs, Status::Fail, "another seed", advice);
}

pub(super) async fn avatars(probe: &Probe, model: &str, report: &mut Report) {
    let operation = Operation::Avatars;
    let name = |what: &str| format!("{}.{what}", operation.as_str());
    let mut asked = body(model, SEED);
    // No face is on it, so that nobody's is needed here.
    let grey = Pixels { width: SIDE, height: SIDE, rgb: vec![128; SIDE * SIDE * 3] };
    if let Some(asked) = asked.as_object_mut() {
        asked.insert("image".into(), STANDARD.encode(pixels::encode_png(&grey)).into());
    }
    let Some(reply) = answered(probe, operation, &asked, Schema::AvatarsReply, report).await else { return };
    let said = reply.pointer("/data/0/no_face") == Some(&Value::Bool(true));
    let advice = "a photograph without a face is answered with `no_face`: true";
    report.hold(name("no-face"), said, Status::Fail, "a grey photograph", advice);
}

/// Mean absolute difference, in [0, 1]; 1 for pictures of different sizes.
fn apart(a: &Pixels, b: &Pixels) -> f64 {
    if (a.width, a.height) != (b.width, b.height) || a.rgb.is_empty() {
        return 1.0;
    }
    let off: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    off / 255.0 / a.rgb.len() as f64
}
