//! What kind of file is this? A request holds files, an answer a label and its probability for each.
//!
//! The plugin knows magika's features and labels; the host knows tensors. Some rows, chosen so that the miner cannot foresee
//! them, are computed again and held against what the miner said.

mod files;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nineteen_sdk::checks::{NamedTensor, TensorsRun};
use nineteen_sdk::hash::Fingerprint;
use nineteen_sdk::{
    ClientCall, Cx, Description, Ending, Exchange, Refusal, Request, Rng, Stop, Synthetic, Task, Verdict,
    openai,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const OPERATION: &str = "files.classify";
const PATH: &str = "/v1/files/classify";
/// The model's classes, in its order.
const LABELS: &str = include_str!("labels.txt");
/// Features from the beginning, and as many from the end.
const SIDE: usize = 1_024;
/// What they are taken from.
const BLOCK: usize = 4_096;
/// Stands where there is no byte.
const PADDING: i32 = 256;

/// `[params]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The graph.
    pub model: String,
    /// Files of one request, at most.
    pub max_files: usize,
    /// Bytes of one file, at most.
    pub max_bytes: usize,
    /// Files of a request that are computed again, at most.
    pub rows_checked: usize,
    /// How far a probability may be off.
    pub tolerance: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    model: String,
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Client {
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Reply {
    results: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    label: String,
    score: f64,
}

/// The task.
#[derive(Debug)]
pub struct FileKinds;

impl Task for FileKinds {
    type Params = Params;

    fn validate(p: &Params) -> Result<(), String> {
        let fits = (1..=16).contains(&p.max_files) && (16..=65_536).contains(&p.max_bytes);
        let judges = (1..=16).contains(&p.rows_checked) && p.tolerance > 0.0 && p.tolerance < 0.5;
        if fits && judges {
            Ok(())
        } else {
            Err("max_files and rows_checked: 1 to 16; max_bytes: 16 to 65536; tolerance: above 0 and below 0.5".into())
        }
    }

    fn describe(p: &Params) -> Result<Description, String> {
        Ok(Description {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            modality: "file",
            unit: "files",
            operations: vec![OPERATION],
            streaming: false,
            checks: BTreeMap::from([("tensors.run", vec![p.model.clone()])]),
            params_schema: RawValue::from_string(SCHEMA.into()).map_err(|e| e.to_string())?,
            reply_extras: Vec::new(),
        })
    }

    fn synthesize(p: &Params, rng: &mut Rng) -> Result<Synthetic, String> {
        let count = 1 + rng.below(p.max_files as u64);
        let made = (0..count).map(|_| {
            let mut file = files::file(rng);
            file.truncate(p.max_bytes);
            STANDARD.encode(file)
        });
        let request = admit(p, Client { files: made.collect() }).map_err(|refusal| refusal.message)?;
        Ok(Synthetic { request, expected_units: count })
    }

    fn admit(p: &Params, call: ClientCall<'_>, _: &mut Rng) -> Result<Request, Refusal> {
        if call.operation != OPERATION {
            let message =
                format!("this task serves {OPERATION}, not {}", nineteen_sdk::clip(call.operation, 60));
            return Err(Refusal { status: 404, code: "unknown_operation".into(), message });
        }
        admit(p, openai::client_body(call.content_type, call.body)?)
    }

    fn count(_: &Params, request: &Request, exchange: &Exchange) -> Option<u64> {
        let asked: Body = serde_json::from_slice(&request.body).ok()?;
        let reply: Reply = serde_json::from_slice(&exchange.body()).ok()?;
        Some(reply.results.len().min(asked.files.len()) as u64)
    }

    fn score(p: &Params, cx: &mut Cx, request: &Request, exchange: &Exchange) -> Result<Verdict, Stop> {
        let asked: Body =
            serde_json::from_slice(&request.body).map_err(|e| Stop::Inconclusive(format!("request: {e}")))?;
        if exchange.ending != Ending::Complete {
            return Err(Stop::violation("reply.incomplete", "the reply broke off"));
        }
        if exchange.status != 200 {
            return Err(Stop::violation("reply.status", exchange.status.to_string()));
        }
        let reply: Reply = serde_json::from_slice(&exchange.body())
            .map_err(|e| Stop::violation("reply.shape", e.to_string()))?;
        if reply.results.len() != asked.files.len() {
            let words = format!("{} results for {} files", reply.results.len(), asked.files.len());
            return Err(Stop::violation("reply.count", words));
        }
        if let Some(said) = reply.results.iter().find(|r| !(0.0..=1.0).contains(&r.score)) {
            return Err(Stop::violation("reply.score", said.score.to_string()));
        }
        let rows = chosen(exchange, asked.files.len(), p.rows_checked);
        let mut features = Vec::with_capacity(rows.len() * 2 * SIDE);
        for row in &rows {
            let file = asked.files.get(*row).and_then(|f| STANDARD.decode(f).ok());
            let file = file.ok_or_else(|| Stop::Inconclusive("request: a file is no base64".into()))?;
            features.extend(featured(&file));
        }
        let input = NamedTensor::of_i32("bytes", &[rows.len(), 2 * SIDE], &features);
        let answer =
            cx.check(TensorsRun { model: &p.model, inputs: vec![input], outputs: &["target_label"] })?;
        let ours = answer.first().map(NamedTensor::to_f32).unwrap_or_default();
        let labels: Vec<&str> = LABELS.lines().collect();
        if ours.len() != rows.len() * labels.len() {
            return Err(Stop::Inconclusive(format!(
                "evidence: {} probabilities for {} rows",
                ours.len(),
                rows.len()
            )));
        }
        let (mut right, mut furthest) = (0_usize, 0.0_f64);
        for (row, probabilities) in rows.iter().zip(ours.chunks(labels.len())) {
            let Some(said) = reply.results.get(*row) else { continue };
            let (best, probability) = likeliest(probabilities);
            let off = (said.score - f64::from(probability)).abs();
            // Where two labels are as likely, either is right.
            let of_said = labels.iter().position(|l| *l == said.label).and_then(|i| probabilities.get(i));
            let tied = of_said.is_some_and(|p_said| f64::from(probability - p_said) <= p.tolerance);
            if (labels.get(best) == Some(&said.label.as_str()) || tied) && off <= p.tolerance {
                right += 1;
            }
            furthest = furthest.max(off);
        }
        let share = right as f64 / rows.len() as f64;
        // What was not computed again is believed as far as what was.
        let units = (share * asked.files.len() as f64).floor() as u64;
        let mut verdict = Verdict {
            // Guessing is not half of knowing: one wrong row in four leaves a third.
            quality: nineteen_sdk::clip_unit(share.powi(4)),
            units,
            units_by_chunk: exchange.units_at_the_end(units),
            ..Verdict::default()
        };
        verdict.because("rows.checked", rows.len() as f64);
        verdict.because("rows.right", right as f64);
        verdict.because("score.furthest", furthest);
        Ok(verdict)
    }
}

fn likeliest(of: &[f32]) -> (usize, f32) {
    let best = of.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or((0, 0.0), |(i, p)| (i, *p))
}

/// Rows that are computed again: decided by the reply and by the microsecond at which it ended on the validator's clock. The
/// request alone must not decide: a miner that can foresee the rows computes those and makes the rest up.
fn chosen(exchange: &Exchange, files: usize, most: usize) -> Vec<usize> {
    let mut rng = Rng::new(&Fingerprint::default().number(exchange.ended_us).bytes(&exchange.body()).seed());
    let mut left: Vec<usize> = (0..files).collect();
    while left.len() > most {
        let at = usize::try_from(rng.below(left.len() as u64)).unwrap_or(0);
        left.remove(at);
    }
    left
}

/// magika's features of a file.
fn featured(file: &[u8]) -> Vec<i32> {
    // As Python's `bytes.strip` has it.
    let white = |b: &u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let block = file.len().min(BLOCK);
    let (head, tail) =
        (file.get(..block).unwrap_or_default(), file.get(file.len() - block..).unwrap_or_default());
    let skipped = head.iter().take_while(|b| white(b)).count();
    let kept = tail.len() - tail.iter().rev().take_while(|b| white(b)).count();
    let head = head.get(skipped..).unwrap_or_default();
    let tail = tail.get(..kept).unwrap_or_default();
    let mut all: Vec<i32> = head.iter().take(SIDE).map(|b| i32::from(*b)).collect();
    all.resize(SIDE, PADDING);
    let tail = tail.get(tail.len().saturating_sub(SIDE)..).unwrap_or_default();
    all.resize(2 * SIDE - tail.len(), PADDING);
    all.extend(tail.iter().map(|b| i32::from(*b)));
    all
}

fn admit(p: &Params, client: Client) -> Result<Request, Refusal> {
    let invalid = |message: String| Err(Refusal::bad_request("invalid_value", message));
    if client.files.is_empty() || client.files.len() > p.max_files {
        return invalid(format!("`files` has {}; 1 to {} are possible", client.files.len(), p.max_files));
    }
    for (i, file) in client.files.iter().enumerate() {
        match STANDARD.decode(file) {
            Ok(bytes) if (8..=p.max_bytes).contains(&bytes.len()) => {}
            Ok(bytes) => {
                return invalid(format!(
                    "`files[{i}]` has {} bytes; 8 to {} are possible",
                    bytes.len(),
                    p.max_bytes
                ));
            }
            Err(e) => return invalid(format!("`files[{i}]` is no base64: {e}")),
        }
    }
    match serde_json::to_vec(&Body { model: p.model.clone(), files: client.files }) {
        Ok(bytes) => Ok(Request::json(PATH, bytes, false)),
        Err(e) => invalid(e.to_string()),
    }
}

const SCHEMA: &str = r#"{
  "type": "object", "additionalProperties": false,
  "required": ["model", "max_files", "max_bytes", "rows_checked", "tolerance"],
  "properties": {
    "model": {"type": "string"},
    "max_files": {"type": "integer", "minimum": 1, "maximum": 16},
    "max_bytes": {"type": "integer", "minimum": 16, "maximum": 65536},
    "rows_checked": {"type": "integer", "minimum": 1, "maximum": 16},
    "tolerance": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}
  }
}"#;

nineteen_sdk::export!(FileKinds);

#[cfg(test)]
mod tests {
    use super::*;
    use nineteen_sdk::checks::Kind as _;
    use nineteen_sdk::{Answer, Check, Chunk, Evidence};

    #[test]
    fn features_are_padded_between_beginning_and_end() {
        let short = featured(b"  abcdefgh \n");
        // What is white is taken from the beginning here, and from the end there.
        assert_eq!((short.len(), short[0], short[7], short[8], short[10]), (2 * SIDE, 97, 104, 32, PADDING));
        assert_eq!((short[2 * SIDE - 11], short[2 * SIDE - 10], short[2 * SIDE - 1]), (PADDING, 32, 104));
        let long = featured(&vec![7; 10_000]);
        assert!(long.iter().all(|f| *f == 7));
        assert!(featured(b"").iter().all(|f| *f == PADDING));
        assert!(featured(&[b' '; 9_000]).iter().all(|f| *f == PADDING));
    }

    fn exchange(body: &str, ended_us: u64) -> Exchange {
        let chunks = vec![Chunk { at_us: ended_us, data: body.into() }];
        Exchange { status: 200, headers: vec![], chunks, ended_us, ending: Ending::Complete }
    }

    #[test]
    fn rows_cannot_be_foreseen_and_are_the_same_when_judged_again() {
        let at = |ended_us| chosen(&exchange("{}", ended_us), 8, 4);
        assert_eq!(chosen(&exchange("{}", 9), 3, 4), [0, 1, 2]);
        assert_eq!((at(9).len(), at(9)), (4, at(9)));
        // A microsecond later they are others, and every row has its turn.
        let drawn: Vec<Vec<usize>> = (0..256).map(at).collect();
        assert!(drawn.iter().filter(|rows| **rows == drawn[0]).count() < 16);
        for row in 0..8 {
            let times = drawn.iter().filter(|rows| rows.contains(&row)).count();
            assert!((90..170).contains(&times), "row {row}: {times} of 256");
        }
    }

    #[test]
    fn features_and_labels_are_the_packages_own() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/magika.json");
        let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(place).unwrap()).unwrap();
        let labels: Vec<&str> =
            all["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        assert_eq!(labels, LABELS.lines().collect::<Vec<_>>());
        for case in all["files"].as_array().unwrap() {
            let file = STANDARD.decode(case["base64"].as_str().unwrap()).unwrap();
            let bytes = featured(&file).into_iter().flat_map(i32::to_le_bytes);
            let hash = bytes
                .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
            assert_eq!(format!("{hash:016x}"), case["features_fnv1a"], "{}", case["name"]);
        }
    }

    /// What the host would answer: every row is surely the first label.
    fn evidence(files: &[Vec<u8>], rows: &[usize]) -> (Check, Evidence) {
        let features: Vec<i32> = rows.iter().flat_map(|r| featured(&files[*r])).collect();
        let input = NamedTensor::of_i32("bytes", &[rows.len(), 2 * SIDE], &features);
        let check = TensorsRun { model: "m", inputs: vec![input], outputs: &["target_label"] }.check();
        let row = (0..214_u8).map(|i| if i == 0 { 1.0_f32 } else { 0.0 });
        let blob = rows.iter().flat_map(|_| row.clone()).flat_map(f32::to_le_bytes).collect();
        let params = format!(
            r#"{{"version":1,"outputs":[{{"name":"target_label","dtype":"f32","dims":[{},214]}}]}}"#,
            rows.len()
        );
        (check, Evidence::Answered(Answer { params, blobs: vec![blob] }))
    }

    fn judged(reply: &str, ending: Ending) -> Result<Verdict, Stop> {
        let p =
            Params { model: "m".into(), max_files: 8, max_bytes: 16_384, rows_checked: 4, tolerance: 0.01 };
        let files: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 64]).collect();
        let request =
            admit(&p, Client { files: files.iter().map(|f| STANDARD.encode(f)).collect() }).unwrap();
        let exchange = Exchange { ending, ..exchange(reply, 1_234) };
        let mut cx = Cx::new(vec![evidence(&files, &chosen(&exchange, 8, 4))]);
        FileKinds::score(&p, &mut cx, &request, &exchange)
    }

    fn results(of: impl Fn(usize) -> String) -> String {
        format!(r#"{{"results":[{}]}}"#, (0..8).map(of).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn who_computes_what_the_request_alone_would_choose_is_not_paid_for_the_rest() {
        let right = || r#"{"label":"3gp","score":1.0}"#.to_owned();
        let made_up = || r#"{"label":"json","score":0.99}"#.to_owned();
        let honest = judged(&results(|_| right()), Ending::Complete).unwrap();
        assert_eq!((honest.units, honest.quality.to_bits()), (8, 1.0_f64.to_bits()));
        let body = serde_json::json!({ "model": "m" }).to_string();
        let guess = chosen(&exchange(&body, 0), 8, 4);
        let lazy = results(|i| if guess.contains(&i) { right() } else { made_up() });
        let lazy = judged(&lazy, Ending::Complete).unwrap();
        assert!(lazy.quality < 0.5 && lazy.units < 8, "{lazy:?}");
    }

    #[test]
    fn hostile_replies_are_violations_and_never_more() {
        let one = |s: &str| format!(r#"{{"results":[{s}]}}"#);
        let many = results(|_| r#"{"label":"3gp","score":1.0}"#.into());
        for reply in [
            String::new(),
            "null".into(),
            "[".repeat(100_000),
            one(""),
            one(r#"{"label":"3gp","score":1.0}"#),
            many.replace("]}", r#",{"label":"3gp","score":1.0}]}"#),
            results(|_| r#"{"label":"3gp","score":NaN}"#.into()),
            results(|_| r#"{"label":"3gp","score":null}"#.into()),
            results(|_| r#"{"label":"3gp","score":1e999}"#.into()),
            results(|_| r#"{"label":"3gp","score":-0.1}"#.into()),
            results(|_| r#"{"label":"3gp","score":1.1}"#.into()),
            results(|_| r#"{"label":7,"score":1.0}"#.into()),
        ] {
            let stop = judged(&reply, Ending::Complete).unwrap_err();
            assert!(matches!(stop, Stop::Violation { .. }), "{stop:?}: {}", nineteen_sdk::clip(&reply, 90));
        }
        assert!(judged(&many, Ending::Disconnected).is_err(), "a reply that broke off");
        // Labels that there are not, and labels of megabytes, are only wrong.
        for label in ["no such label".to_owned(), "x".repeat(1 << 20)] {
            let wrong =
                judged(&results(|_| format!(r#"{{"label":"{label}","score":1.0}}"#)), Ending::Complete)
                    .unwrap();
            assert_eq!((wrong.units, wrong.quality.to_bits()), (0, 0.0_f64.to_bits()));
        }
    }

    #[test]
    fn there_are_as_many_labels_as_classes() {
        assert_eq!(LABELS.lines().count(), 214);
    }
}
