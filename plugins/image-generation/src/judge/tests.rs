use nineteen_pictures::base64;
use nineteen_sdk::{Check, Ending, Evidence, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ImageGeneration;
use crate::testing::{Bench, code, exchange, flag, picture, reply, with};

const PARAMS: &str = r#"{"model":"m","vision":"v","safety":{"model":"s"},"image_to_image":true,
    "requests":{"sizes":["64x64"]},"synthetic":{"templates":["a {a}"],"words":{"a":["dot"]}}}"#;
const PROMPT: &str = "a red circle";

fn params() -> Params {
    nineteen_sdk::params::<ImageGeneration>(PARAMS).unwrap()
}

fn request() -> Request {
    let body = json!({"model": "m", "prompt": PROMPT, "negative_prompt": "", "seed": 7, "steps": 12, "guidance": 4.0,
        "width": 64, "height": 64, "scheduler": "ddim", "noise": "torch", "response_format": "b64_json",
        "request_id": "00c0ffee00c0ffee"});
    Request::json("/v1/images/generations", body.to_string().into_bytes(), false)
}

/// What the honest pipeline makes of these parameters.
fn tone(params: &Value) -> f64 {
    let prompt = params["prompt"].as_str().unwrap().len() as f64 / 100.0;
    let seed = params["seed"].as_u64().unwrap() as f64 / 20.0;
    (prompt + seed) % 1.0
}

fn ours() -> Value {
    picture(tone(&json!({"prompt": PROMPT, "seed": 7})))
}

fn pipeline(params: &Value, _: &Check) -> Value {
    picture(tone(params))
}

fn judged(exchange: &Exchange) -> Result<Verdict, Stop> {
    Bench::new(&pipeline).judge::<ImageGeneration>(&params(), &request(), exchange)
}

fn judged_when_ours_is(ours: &Value, exchange: &Exchange) -> Result<Verdict, Stop> {
    Bench::new(&|_, _| ours.clone()).judge::<ImageGeneration>(&params(), &request(), exchange)
}

#[test]
fn an_honest_picture_earns_everything() {
    let verdict = judged(&reply(&ours())).unwrap();
    assert_eq!((verdict.quality, verdict.units, verdict.units_by_chunk.as_slice()), (1.0, 12, &[12][..]));
    assert_eq!(verdict.fingerprints.len(), 1);
    let names: Vec<&str> = verdict.reasons.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "error",
        "luma_error",
        "ssim",
        "perceptual",
        "difference",
        "average",
        "colour",
        "cosine",
        "gradients",
        "lab",
    ] {
        assert!(names.contains(&name), "{name} is missing in {names:?}");
    }
}

#[test]
fn another_seed_another_prompt_and_noise_cost_in_proportion() {
    let quality = |by: f64| {
        judged(&reply(&picture((tone(&json!({"prompt": PROMPT, "seed": 7})) + by).abs()))).unwrap().quality
    };
    assert!(quality(0.002) > 0.95, "{}", quality(0.002));
    assert!(quality(0.03) < 0.75 && quality(0.03) > quality(0.06));
    let other = |prompt: &str, seed: u64| {
        quality(tone(&json!({"prompt": prompt, "seed": seed})) - tone(&json!({"prompt": PROMPT, "seed": 7})))
    };
    assert_eq!((other(PROMPT, 9), other("something else altogether", 7)), (0.0, 0.0));
}

#[test]
fn a_picture_is_only_generated_for_a_file_that_is_worth_it() {
    let mut bench = Bench::new(&pipeline);
    let bad = with(ours(), "fault", json!("lies"));
    assert_eq!(code(bench.judge::<ImageGeneration>(&params(), &request(), &reply(&bad))), "image.lies");
    assert_eq!(bench.asked, [["image.features"]]);
    let mut bench = Bench::new(&pipeline);
    bench.judge::<ImageGeneration>(&params(), &request(), &reply(&ours())).unwrap();
    assert_eq!(
        bench.asked[1..],
        [vec!["image.generate"], vec!["image.features", "vision.classify", "vision.embed"]]
    );
    assert_eq!(bench.spent(), (3, 5));
}

#[test]
fn what_a_file_contradicts_by_itself_is_a_violation() {
    for (field, value, wanted) in [
        ("fault", json!("not-an-image"), "image.undecodable"),
        ("fault", json!("too-large"), "image.too_large"),
        ("fault", json!("truncated"), "image.truncated"),
        ("fault", json!("lies"), "image.lies"),
        ("fault", json!("animated"), "image.animated"),
        ("w", json!(32), "image.size"),
        ("h", json!(128), "image.size"),
        ("format", json!("jpeg"), "image.format"),
        ("trailing", json!(3), "image.trailing"),
        ("alpha", json!(true), "image.alpha"),
    ] {
        assert_eq!(code(judged(&reply(&with(ours(), field, value.clone())))), wanted, "{field}: {value}");
    }
    let file = base64(b"no picture at all");
    let none = json!({"data": [{"b64_json": file}]}).to_string();
    assert_eq!(code(judged(&exchange(none))), "image.undecodable");
}

#[test]
fn a_reply_that_is_none_is_a_violation() {
    assert_eq!(code(judged(&exchange("<html>"))), "reply.malformed");
    assert_eq!(code(judged(&exchange(r#"{"data":[{"b64_json":"%%%%"}]}"#))), "reply.base64");
    assert_eq!(code(judged(&exchange(r#"{"data":[]}"#))), "reply.count");
    assert_eq!(code(judged(&exchange(r#"{"data":[{}]}"#))), "reply.empty");
    assert_eq!(code(judged(&Exchange { status: 503, ..reply(&ours()) })), "reply.status");
    assert_eq!(
        code(judged(&Exchange { ending: Ending::Disconnected, ..reply(&ours()) })),
        "reply.incomplete"
    );
    let small =
        Params { judgement: judge::Judgement { max_picture_bytes: 30, ..params().judgement }, ..params() };
    let verdict = Bench::new(&pipeline).judge::<ImageGeneration>(&small, &request(), &reply(&ours()));
    assert_eq!(code(verdict), "image.too_large");
}

#[test]
fn a_blank_picture_is_a_violation_where_ours_shows_something() {
    let blank = with(picture(0.5), "most_common", json!(1.0));
    assert_eq!(code(judged(&reply(&blank))), "image.blank");
    let both = with(ours(), "most_common", json!(1.0));
    assert_eq!(
        judged_when_ours_is(&both, &reply(&both)).unwrap().quality,
        1.0,
        "the pipeline itself may fail"
    );
}

#[test]
fn unsafe_pictures_are_flagged_and_only_those() {
    let unsafe_ours = with(ours(), "unsafe", json!(0.97));
    assert_eq!(code(judged_when_ours_is(&unsafe_ours, &reply(&unsafe_ours))), "unsafe.unflagged");
    assert_eq!(code(judged(&reply(&unsafe_ours))), "unsafe.unflagged", "also where ours is safe");
    assert_eq!(code(judged(&flag())), "unsafe.false_flag");
    let verdict = judged_when_ours_is(&unsafe_ours, &flag()).unwrap();
    assert_eq!((verdict.quality, verdict.units), (1.0, 12));
    for p in [0.25, 0.5, 0.75] {
        let doubtful = with(ours(), "unsafe", json!(p));
        assert!(matches!(judged_when_ours_is(&doubtful, &flag()), Err(Stop::Inconclusive(_))), "{p}");
        assert_eq!(judged_when_ours_is(&doubtful, &reply(&doubtful)).unwrap().quality, 1.0, "{p}");
    }
    let nothing = Params { safety: None, ..params() };
    let verdict = Bench::new(&pipeline).judge::<ImageGeneration>(&nothing, &request(), &flag());
    assert_eq!(code(verdict), "unsafe.false_flag");
}

#[test]
fn a_picture_to_begin_from_reaches_our_own_pipeline_too() {
    let mut body: Value = serde_json::from_slice(&request().body).unwrap();
    body["image"] = json!(base64(b"a file"));
    body["strength"] = json!(0.6);
    let request = Request::json("/v1/images/generations", body.to_string().into_bytes(), false);
    let seen = |params: &Value, check: &Check| {
        assert_eq!(
            (params["strength"].as_f64(), check.blobs.as_slice()),
            (Some(0.6), &[b"a file".to_vec()][..])
        );
        ours()
    };
    let verdict = Bench::new(&seen).judge::<ImageGeneration>(&params(), &request, &reply(&ours())).unwrap();
    assert_eq!(verdict.quality, 1.0);
}

/// Distances alone decide: honest ones give z of -4, an error of one half +4.
const CALIBRATION: &str = r#"{"version":1,"classes":{"images":{"statistic":"odds","edges":[0.0],"design_effect":1.0,
    "logistic":{"features":["error","cosine"],"mean":[-5.0,-5.0],"deviation":[4.0,4.0],"weights":[2.0,2.0],"bias":0.0},
    "suspects":{"other-seed":{"counts":[1,1],"lambda":[-2.0,5.0]}}}}}"#;

#[test]
fn a_calibration_replaces_the_scale_and_its_odds_are_what_is_binned() {
    let judged = |by: f64| {
        let mut bench = Bench { calibration: Some(CALIBRATION), ..Bench::new(&pipeline) };
        let tone = tone(&json!({"prompt": PROMPT, "seed": 7}));
        bench.judge::<ImageGeneration>(&params(), &request(), &reply(&picture(tone + by))).unwrap()
    };
    let honest = judged(0.0);
    assert!(honest.quality > 0.99 && honest.reasons.iter().any(|(name, z)| name == "odds" && *z < -3.0));
    assert_eq!(honest.suspicions, [("other-seed".to_owned(), -2.0)]);
    let other = judged(0.4);
    assert!(other.quality < 0.3, "{}", other.quality);
    assert_eq!(other.suspicions, [("other-seed".to_owned(), 5.0)]);
}

#[test]
fn a_missing_answer_says_nothing_about_the_miner() {
    let request = request();
    let exchange = reply(&ours());
    let Err(Stop::Need(checks)) = score(&params(), &mut Cx::default(), &request, &exchange) else { panic!() };
    let evidence = vec![(checks[0].clone(), Evidence::Unavailable("busy".into()))];
    let stop = score(&params(), &mut Cx::new(evidence), &request, &exchange).unwrap_err();
    assert!(matches!(stop, Stop::Unavailable(_)));
}

#[test]
fn equal_pictures_for_two_prompts_are_named_alike_and_others_not() {
    let print = |tone: f64| {
        let ours = picture(tone);
        judged_when_ours_is(&ours, &reply(&ours)).unwrap().fingerprints
    };
    assert_eq!(print(0.25), print(0.25));
    assert_ne!(print(0.25), print(0.26));
}

#[test]
fn a_reply_claims_what_was_asked_for_and_nothing_more() {
    let count = |exchange: &Exchange| ImageGeneration::count(&params(), &request(), exchange);
    assert_eq!(
        (count(&reply(&ours())), count(&flag()), count(&exchange("<html>"))),
        (Some(12), Some(12), None)
    );
}

#[test]
fn the_same_evidence_gives_the_same_bits() {
    let once = || format!("{:?}", judged(&reply(&picture(0.47))));
    assert_eq!(once(), once());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let exchange = exchange(bytes);
        let _ = ImageGeneration::count(&params(), &request(), &exchange);
        prop_assert!(matches!(judged(&exchange), Err(Stop::Violation(_))));
    }

    #[test]
    fn any_tones_give_a_quality_within_0_and_1(a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
        let verdict = judged_when_ours_is(&picture(b), &reply(&picture(a))).unwrap();
        prop_assert!((0.0..=1.0).contains(&verdict.quality));
        prop_assert!(verdict.reasons.iter().all(|(_, n)| n.is_finite()));
    }
}
