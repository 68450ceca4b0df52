use nineteen_sdk::{Answer, Check, Chunk, Evidence, Rng, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Embeddings;

const D: usize = 8;

fn params(more: &str) -> Params {
    nineteen_sdk::params::<Embeddings>(&format!(r#"{{"model":"m","dimension":{D}{more}}}"#)).unwrap()
}

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("text {i}")).collect()
}

fn request(texts: &[String]) -> Request {
    let body = json!({"model": "m", "input": texts, "encoding_format": "float"});
    Request::json("/v1/embeddings", serde_json::to_vec(&body).unwrap(), false)
}

/// The reference's vector: some direction that the text decides.
fn vector(text: &str) -> Vec<f32> {
    let mut rng = Rng::new(text.as_bytes());
    let raw: Vec<f64> = (0..D).map(|_| rng.normal()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f64>().sqrt();
    raw.iter().map(|x| (x / length) as f32).collect()
}

fn reply(rows: &[Vec<f32>]) -> Value {
    let data: Vec<Value> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| json!({"object": "embedding", "index": i, "embedding": row}))
        .collect();
    json!({"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}})
}

fn exchange(body: impl Into<Vec<u8>>, ended_us: u64) -> Exchange {
    let chunks = vec![Chunk { at_us: ended_us, data: body.into() }];
    Exchange { status: 200, headers: vec![], chunks, ended_us, ending: Ending::Complete }
}

fn honest(texts: &[String]) -> Vec<Vec<f32>> {
    texts.iter().map(|t| vector(t)).collect()
}

fn asked_texts(check: &Check) -> Vec<String> {
    let asked: Value = serde_json::from_str(&check.params).unwrap();
    serde_json::from_value(asked["texts"].clone()).unwrap()
}

fn judged(p: &Params, texts: &[String], exchange: &Exchange) -> Result<Verdict, Stop> {
    let request = request(texts);
    match Embeddings::score(p, &mut Cx::default(), &request, exchange) {
        Err(Stop::Need(checks)) => {
            let texts = asked_texts(&checks[0]);
            let blob: Vec<u8> = texts.iter().flat_map(|t| vector(t)).flat_map(f32::to_le_bytes).collect();
            let n = texts.len();
            let params = json!({"version": 1, "model": "m", "dimension": D, "tokens": vec![5; n], "truncated": vec![false; n]});
            let answer = Evidence::Answered(Answer { params: params.to_string(), blobs: vec![blob] });
            Embeddings::score(p, &mut Cx::new(vec![(checks[0].clone(), answer)]), &request, exchange)
        }
        other => other,
    }
}

fn judged_rows(rows: &[Vec<f32>]) -> Result<Verdict, Stop> {
    judged(&params(""), &texts(4), &exchange(reply(rows).to_string(), 900))
}

fn code(result: Result<Verdict, Stop>) -> String {
    match result {
        Err(Stop::Violation(why)) => why.split(':').next().unwrap_or_default().to_owned(),
        other => panic!("no violation: {other:?}"),
    }
}

#[test]
fn honest_rows_earn_everything() {
    let verdict = judged_rows(&honest(&texts(4))).unwrap();
    assert!(verdict.quality > 0.9999, "{}", verdict.quality);
    assert_eq!((verdict.units, verdict.units_by_chunk), (4, vec![4]));
}

#[test]
fn noise_costs_in_proportion_to_its_relative_size() {
    let noisy = |by: f32| {
        let mut rows = honest(&texts(4));
        for row in &mut rows {
            row[0] += by;
        }
        judged(&params(r#","norm_tolerance":0.5"#), &texts(4), &exchange(reply(&rows).to_string(), 1))
            .unwrap()
            .quality
    };
    assert!((noisy(0.02) - 0.9).abs() < 1e-3, "{}", noisy(0.02));
    assert!(noisy(0.1) < noisy(0.02) && noisy(0.3) == 0.0);
}

#[test]
fn another_model_earns_nothing() {
    let other: Vec<Vec<f32>> = (0..4).map(|i| vector(&format!("other {i}"))).collect();
    assert_eq!(judged_rows(&other).unwrap().quality, 0.0);
}

#[test]
fn rows_that_are_wrong_by_themselves_are_violations() {
    let good = honest(&texts(4));
    assert_eq!(code(judged_rows(&good[..3])), "rows.count");
    let mut swapped = good.clone();
    swapped.swap(0, 2);
    assert_eq!(code(judged_rows(&swapped)), "rows.swapped");
    let canned = vec![vector("canned"); 4];
    assert_eq!(code(judged_rows(&canned)), "rows.duplicate");
    let mut short = good.clone();
    short[1].pop();
    assert_eq!(code(judged_rows(&short)), "vector.dimension");
    let long: Vec<Vec<f32>> = good.iter().map(|r| r.iter().map(|x| x * 2.0).collect()).collect();
    assert_eq!(code(judged_rows(&long)), "vector.norm");
    let one = |body: Value| code(judged(&params(""), &texts(1), &exchange(body.to_string(), 1)));
    let mut out_of_order = reply(&good[..1]);
    out_of_order["data"][0]["index"] = json!(1);
    assert_eq!(one(out_of_order), "rows.order");
    let mut none = reply(&good[..1]);
    none["data"][0]["embedding"][0] = Value::Null;
    assert_eq!(one(none), "reply.malformed");
    let mut huge = reply(&good[..1]);
    huge["data"][0]["embedding"][0] = json!(1e300);
    assert!(["vector.finite", "reply.malformed"].contains(&one(huge).as_str()));
    let mut nan = reply(&good[..1]);
    // Base64 of 8 times the bits of a NaN.
    nan["data"][0]["embedding"] = json!("AADAfwAAwH8AAMB/AADAfwAAwH8AAMB/AADAfwAAwH8=");
    assert_eq!(one(nan), "vector.finite");
}

#[test]
fn equal_texts_may_have_equal_rows() {
    let texts = vec!["same".to_owned(), "same".to_owned(), "other".to_owned()];
    let verdict = judged(&params(""), &texts, &exchange(reply(&honest(&texts)).to_string(), 1)).unwrap();
    assert!(verdict.quality > 0.9999);
}

#[test]
fn of_many_rows_some_are_recomputed_and_the_clock_decides_which() {
    let p = params(r#","rows_checked":4"#);
    let texts = texts(40);
    let body = reply(&honest(&texts)).to_string();
    let asked_at = |ended_us: u64| match Embeddings::score(
        &p,
        &mut Cx::default(),
        &request(&texts),
        &exchange(body.clone(), ended_us),
    ) {
        Err(Stop::Need(checks)) => asked_texts(&checks[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked_at(5_000_000).len(), 4);
    assert_eq!(asked_at(5_000_000), asked_at(5_000_000), "a replay chooses the same rows");
    let different = (0..50).filter(|i| asked_at(5_000_000 + i) != asked_at(5_000_000)).count();
    assert!(different > 45, "{different}");
    assert_eq!(judged(&p, &texts, &exchange(body.clone(), 7)).unwrap().units, 40);
}

#[test]
fn rows_that_fill_up_a_reply_are_looked_at_first() {
    let p = params(r#","rows_checked":4"#);
    let texts = texts(40);
    let mut rows = honest(&texts);
    rows[33] = rows[7].clone();
    for ended_us in 0..20 {
        assert_eq!(code(judged(&p, &texts, &exchange(reply(&rows).to_string(), ended_us))), "rows.duplicate");
    }
}

#[test]
fn a_missing_answer_says_nothing_about_the_miner() {
    let texts = texts(2);
    let (request, exchange) = (request(&texts), exchange(reply(&honest(&texts)).to_string(), 1));
    let Err(Stop::Need(checks)) = score(&params(""), &mut Cx::default(), &request, &exchange) else {
        panic!()
    };
    let evidence = vec![(checks[0].clone(), Evidence::Unavailable("busy".into()))];
    let stop = score(&params(""), &mut Cx::new(evidence), &request, &exchange).unwrap_err();
    assert!(matches!(stop, Stop::Unavailable(_)));
}

#[test]
fn claimed_rows_never_exceed_what_was_asked() {
    let count =
        |body: String, n: usize| Embeddings::count(&params(""), &request(&texts(n)), &exchange(body, 1));
    let body = reply(&honest(&texts(4))).to_string();
    assert_eq!(count(body.clone(), 4), Some(4));
    assert_eq!(count(body, 3), Some(3));
    assert_eq!(count("<html>".into(), 3), None);
}

#[test]
fn the_schema_knows_every_parameter_and_its_default() {
    let p = nineteen_sdk::params::<Embeddings>(r#"{"model":"m"}"#).unwrap();
    let value = serde_json::to_value(Embeddings::describe(&p).unwrap()).unwrap();
    let mut all = serde_json::Map::new();
    for (name, property) in value["params_schema"]["properties"].as_object().unwrap() {
        if let Some(inner) = property.get("properties") {
            let inner =
                inner.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v["default"].clone())).collect();
            all.insert(name.clone(), Value::Object(inner));
        } else if let Some(default) = property.get("default") {
            all.insert(name.clone(), default.clone());
        }
    }
    all.insert("model".into(), json!("m"));
    let from_schema = nineteen_sdk::params::<Embeddings>(&Value::Object(all).to_string()).unwrap();
    assert_eq!(format!("{from_schema:?}"), format!("{p:?}"));
    assert!(
        nineteen_sdk::params::<Embeddings>(r#"{"model":"m","epsilom":1}"#).unwrap_err().contains("epsilom")
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let exchange = exchange(bytes, 1);
        let _ = Embeddings::count(&params(""), &request(&texts(2)), &exchange);
        prop_assert!(matches!(judged(&params(""), &texts(2), &exchange), Err(Stop::Violation(_))));
    }
}

/// A suspect's vector: the reference's, a little off in a direction that the text decides.
fn suspects(text: &str) -> Vec<f32> {
    let other = vector(&format!("{text} for the suspect"));
    let mixed: Vec<f32> = vector(text).iter().zip(&other).map(|(r, o)| r + 0.05 * o).collect();
    let length = mixed.iter().map(|x| x * x).sum::<f32>().sqrt();
    mixed.iter().map(|x| x / length).collect()
}

#[test]
fn the_matched_filter_knows_the_suspects_rows_from_noise_of_the_same_size() {
    let p = params(r#","suspects":["k"]"#);
    let texts = texts(4);
    let request = request(&texts);
    let leaning = |rows: &[Vec<f32>]| {
        let exchange = exchange(reply(rows).to_string(), 900);
        let Err(Stop::Need(checks)) = Embeddings::score(&p, &mut Cx::default(), &request, &exchange) else {
            panic!("evidence is needed")
        };
        assert_eq!(checks.len(), 2, "both models in one round");
        let evidence = checks
            .into_iter()
            .map(|check| {
                let of = if check.model.as_deref() == Some("k") { suspects } else { vector };
                let blob = asked_texts(&check).iter().flat_map(|t| of(t)).flat_map(f32::to_le_bytes).collect();
                let params = json!({"version": 1, "dimension": D, "tokens": [5, 5, 5, 5], "truncated": [false, false, false, false]});
                (check, Evidence::Answered(Answer { params: params.to_string(), blobs: vec![blob] }))
            })
            .collect();
        let verdict = Embeddings::score(&p, &mut Cx::new(evidence), &request, &exchange).unwrap();
        verdict.reasons.iter().find(|(code, _)| code == "matched.k").unwrap().1
    };
    assert!(leaning(&honest(&texts)).abs() < 1e-6);
    let cheat: Vec<Vec<f32>> = texts.iter().map(|t| suspects(t)).collect();
    assert!((leaning(&cheat) - 1.0).abs() < 1e-4);
    let noisy: Vec<Vec<f32>> = texts
        .iter()
        .map(|t| vector(t).iter().zip(&vector(&format!("noise {t}"))).map(|(r, n)| r + 0.005 * n).collect())
        .collect();
    assert!(leaning(&noisy).abs() < 0.2, "{}", leaning(&noisy));
}

#[test]
fn the_tasks_own_model_is_no_suspect() {
    assert!(nineteen_sdk::params::<Embeddings>(r#"{"model":"m","suspects":["m"]}"#).is_err());
}
