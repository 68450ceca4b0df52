//! What the kinds of embedding miners answer.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::oracle::Asker;
use super::traps::noise;
use super::{Plan, Result, Seen, after};

/// Texts per second of an honest miner of the zoo: twice the task's reference.
const PACE: f64 = 50.0;

/// The request's body, as far as a cheat reads it.
#[derive(Debug, Deserialize)]
struct Asked {
    model: String,
    input: Vec<String>,
    encoding_format: String,
}

pub(crate) async fn plan(
    kind: &str,
    body: &[u8],
    oracle: &Asker,
    seen: &Seen<Vec<Vec<f32>>>,
) -> Result<Plan> {
    let Asked { model, input, encoding_format } = serde_json::from_slice(body)?;
    let texts = input.len();
    let used = if kind == "int8-rows" { format!("{model}-int8") } else { model.clone() };
    let read = |text: &String| match kind {
        "cut-texts" => text.split_whitespace().take(8).collect::<Vec<_>>().join(" "),
        "prefixed-texts" => format!("query: {text}"),
        "lower-cased" => text.to_lowercase(),
        _ => text.clone(),
    };
    let mut rows = oracle.embed(&used, input.iter().map(read).collect()).await?;
    match kind {
        "random-rows" => rows.iter_mut().zip(0_u32..).for_each(|(row, n)| random(row, n)),
        "one-row" => {
            let first = rows.first().cloned().unwrap_or_default();
            rows.fill(first);
        }
        "swapped-rows" => rows.reverse(),
        "replayed-rows" => {
            let kept = seen.instead(&String::from_utf8_lossy(body), &rows, false);
            rows = kept.into_iter().cycle().take(texts).collect();
        }
        "long-rows" => rows.iter_mut().flatten().for_each(|x| *x *= 1.5),
        "short-rows" => rows.iter_mut().for_each(|row| {
            row.pop();
        }),
        "not-numbers" => rows.iter_mut().for_each(|row| row.fill(f32::NAN)),
        _ => {}
    }
    let pace = match kind {
        "random-rows" | "replayed-rows" | "not-numbers" => f64::INFINITY,
        "int8-rows" => 2.0 * PACE,
        _ => PACE,
    };
    let written = |row: &Vec<f32>| -> Value {
        if encoding_format != "base64" {
            return json!(row);
        }
        let raw: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
        json!(base64::engine::general_purpose::STANDARD.encode(raw))
    };
    let entry =
        |(i, row): (usize, &Vec<f32>)| json!({"object": "embedding", "index": i, "embedding": written(row)});
    let data: Vec<Value> = rows.iter().enumerate().map(entry).collect();
    // Nobody judges these counts.
    let usage = json!({"prompt_tokens": texts, "total_tokens": texts});
    let body = json!({"object": "list", "model": model, "data": data, "usage": usage}).to_string();
    Ok(Plan { pieces: vec![(after(texts, pace), body.into())], ..Plan::default() })
}

/// A direction without a meaning, of length 1.
fn random(row: &mut [f32], n: u32) {
    let len = u32::try_from(row.len()).unwrap_or_default();
    let offset = usize::try_from(n * len).unwrap_or_default();
    let bytes = noise((n + 1) * len);
    row.iter_mut().zip(bytes.iter().skip(offset)).for_each(|(x, b)| *x = f32::from(*b) - 127.5);
    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= length);
}
