use std::collections::{BTreeMap, HashSet};

use nineteen_sdk::{ClientCall, Task};
use serde_json::{Value, json};

use super::*;
use crate::TextGeneration;

const N: u64 = 2_000;

fn params() -> Params {
    nineteen_sdk::params::<TextGeneration>(r#"{"model":"m"}"#).unwrap()
}

fn made(i: u64) -> (Body, Synthetic) {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    let made = TextGeneration::synthesize(&params(), &mut Rng::new(&seed)).unwrap();
    (serde_json::from_slice(&made.request.body).unwrap(), made)
}

/// Names and order of the fields, as they are written.
fn fields(body: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(body).unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    // The last place is the field's: messages may hold the same characters, but they come first.
    names.sort_by_key(|name| text.rfind(&format!("\"{name}\":")));
    names
}

#[test]
fn nothing_in_a_body_tells_synthetic_from_organic() {
    for i in 0..200 {
        let (body, synthetic) = made(i);
        let messages: Vec<Value> =
            body.messages.iter().map(|m| json!({"role": m.role, "content": m.content})).collect();
        let client = json!({
            "model": "gpt", "messages": messages, "stream": body.stream, "temperature": body.temperature,
            "max_tokens": body.max_tokens, "top_p": body.top_p, "top_k": body.top_k,
        });
        let bytes = serde_json::to_vec(&client).unwrap();
        let call =
            ClientCall { operation: "chat.completions", content_type: "application/json", body: &bytes };
        let organic = TextGeneration::admit(&params(), call, &mut Rng::new(&[9; 32])).unwrap();
        assert_eq!(fields(&organic.body), fields(&synthetic.request.body));
        assert_eq!(organic.streamed, synthetic.request.streamed);
        assert_eq!(organic.path, synthetic.request.path);
        // But for the drawn noise, byte for byte the same.
        let mut again: Body = serde_json::from_slice(&organic.body).unwrap();
        (again.seed, again.request_id) = (body.seed, body.request_id.clone());
        assert_eq!(serde_json::to_vec(&again).unwrap(), synthetic.request.body);
    }
}

#[test]
fn two_thousand_chats_begin_differently_and_carry_different_noise() {
    let (mut starts, mut whole, mut noise) = (HashSet::new(), HashSet::new(), HashSet::new());
    for i in 0..N {
        let (body, _) = made(i);
        let first = &body.messages[0].content;
        starts.insert(first.split_whitespace().take(5).collect::<Vec<_>>().join(" ").to_lowercase());
        whole.insert(serde_json::to_string(&body.messages).unwrap());
        noise.insert((body.seed, body.request_id));
    }
    assert_eq!(whole.len() as u64, N);
    assert!(starts.len() as u64 >= N - 2, "{} of {N} starts differ", starts.len());
    // Clients with a liked seed share their noise, all others do not.
    assert!(noise.len() as u64 > N * 9 / 10, "{}", noise.len());
}

#[test]
fn settings_follow_the_stated_distributions() {
    let p = params();
    let (mut greedy, mut sevens, mut ones, mut full, mut streams, mut systems, mut single) =
        (0, 0, 0, 0, 0, 0, 0);
    let mut cut: BTreeMap<u32, u64> = BTreeMap::new();
    for i in 0..N {
        let (body, synthetic) = made(i);
        greedy += u64::from(body.temperature == 0.0);
        sevens += u64::from(body.temperature == 0.7);
        ones += u64::from(body.temperature == 1.0);
        full += u64::from(body.top_p == 1.0);
        streams += u64::from(body.stream);
        systems += u64::from(body.messages[0].role == "system");
        single += u64::from(body.messages.iter().filter(|m| m.role == "user").count() == 1);
        *cut.entry(body.max_tokens).or_default() += 1;
        assert!((0.0..=1.3).contains(&body.temperature) && body.top_p >= 0.5);
        assert!((1..=p.max_tokens_cap).contains(&body.max_tokens));
        assert!(synthetic.expected_units >= 1 && synthetic.expected_units <= u64::from(body.max_tokens));
        assert_eq!(body.messages.last().unwrap().role, "user");
    }
    let near = |name: &str, n: u64, share: f64| {
        let seen = n as f64 / N as f64;
        assert!((seen - share).abs() < 0.04, "{name}: {seen} where {share} is stated");
    };
    // 0.14 and 1 of 121 of the last class; 0.2 and 1 of 13; 0.3 and 1 of 13.
    near("greedy", greedy, 0.14 + 0.10 / 121.0);
    near("0.7", sevens, 0.20 + 0.26 / 13.0);
    near("1.0", ones, 0.30 + 0.26 / 13.0);
    near("top_p", full, 0.70);
    near("stream", streams, 0.70);
    near("system", systems, 0.30);
    near("single turn", single, 0.60);
    assert!(cut.len() > 100, "{} different lengths", cut.len());
}

#[test]
fn requests_fit_the_context_and_repeat_by_seed() {
    let p = Params { context_tokens: 400, ..params() };
    for i in 0..100 {
        let mut seed = [4; 32];
        seed[0] = i;
        let one = synthesize(&p, &mut Rng::new(&seed)).unwrap();
        assert_eq!(one, synthesize(&p, &mut Rng::new(&seed)).unwrap());
        let body: Body = serde_json::from_slice(&one.request.body).unwrap();
        assert!(body.max_tokens >= 8);
        // An organic copy of it is admitted with the same length: nothing synthetic is out of a client's reach.
        let letters: usize = body.messages.iter().map(|m| m.content.len()).sum();
        assert!(letters / 4 < 400);
    }
}

#[test]
fn a_context_without_room_is_an_error_in_words() {
    let p = Params { context_tokens: 30, ..params() };
    assert!(synthesize(&p, &mut Rng::new(&[1; 32])).unwrap_err().contains("context_tokens"));
}
