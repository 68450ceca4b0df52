use nineteen_pictures::base64;
use nineteen_pictures::photo::{self, Picture};
use nineteen_sdk::{Check, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Avatar;
use crate::testing::{Bench, code, exchange, flag, picture, reply, with};

const WORKFLOW: &str = r#"[{"do":"detect","model":"f"},{"do":"align"},{"do":"identify","model":"i"},
    {"do":"condition","with":"image-prompt"},{"do":"generate"},
    {"do":"check","one_face":true,"identity":0.6,"warp":0.03,"prompt":"v","decoy":true,"safety":{"model":"s"}}]"#;
/// Who is on the photograph, as an angle: the cosine of two is how alike they are.
const PERSON: f64 = 0.3;

fn params_with(workflow: &str) -> Params {
    let json = format!(
        r#"{{"model":"m","requests":{{"sizes":["64x64"]}},"workflow":{workflow},"synthetic":{{"templates":["a"],"words":{{}}}}}}"#
    );
    nineteen_sdk::params::<Avatar>(&json).unwrap()
}

fn params() -> Params {
    params_with(WORKFLOW)
}

/// To the executors of these tests a photograph is a document too.
fn photograph(faces: Value) -> Value {
    with(picture(0.9), "faces", faces)
}

fn request_of(photo: &Value) -> Request {
    let body = json!({"model": "m", "prompt": "a photo portrait", "negative_prompt": "", "image": base64(photo.to_string().as_bytes()),
        "seed": 7, "steps": 12, "guidance": 3.0, "width": 64, "height": 64, "scheduler": "ddim", "noise": "torch",
        "response_format": "b64_json", "request_id": "00c0ffee00c0ffee"});
    Request::json("/v1/avatars", body.to_string().into_bytes(), false)
}

fn request() -> Request {
    request_of(&photograph(json!([[0.95, PERSON]])))
}

/// The portrait of a person under a seed.
fn made(seed: u64, person: f64) -> Value {
    let tone = if seed == 7 { 0.2 } else { 0.2 + (seed % 89) as f64 / 1000.0 + 0.05 };
    with(picture(tone), "faces", json!([[0.92, person + 0.1]]))
}

/// The pipeline: whoever it is given, with a likeness that is not perfect.
fn pipeline(params: &Value, check: &Check) -> Value {
    assert_eq!(params["identity"], true);
    let (row, _) = check.blobs[0].as_chunks::<4>();
    let [x, y] = [row[0], row[1]].map(f32::from_le_bytes);
    made(params["seed"].as_u64().unwrap(), f64::from(y.atan2(x)))
}

fn ours() -> Value {
    made(7, PERSON)
}

fn judged(exchange: &Exchange) -> Result<Verdict, Stop> {
    Bench::new(&pipeline).judge::<Avatar>(&params(), &request(), exchange)
}

fn judged_when_ours_is(ours: &Value, exchange: &Exchange) -> Result<Verdict, Stop> {
    let either = |params: &Value, check: &Check| {
        if params["seed"] == 7 { ours.clone() } else { pipeline(params, check) }
    };
    Bench::new(&either).judge::<Avatar>(&params(), &request(), exchange)
}

fn sees_no_face() -> Exchange {
    exchange(json!({"data": [{"b64_json": null, "flagged": false, "no_face": true}]}).to_string())
}

#[test]
fn an_honest_portrait_earns_everything_within_the_budget() {
    let mut bench = Bench::new(&pipeline);
    let verdict = bench.judge::<Avatar>(&params(), &request(), &reply(&ours())).unwrap();
    assert_eq!((verdict.quality, verdict.units, verdict.units_by_chunk.as_slice()), (1.0, 12, &[12][..]));
    let reason = |name: &str| verdict.reasons.iter().find(|(n, _)| n == name).map(|(_, x)| *x);
    assert_eq!((reason("error"), reason("cosine"), reason("identity")), (Some(0.0), Some(0.0), Some(0.0)));
    assert!(reason("decoy.lead").unwrap() > 0.01 && reason("identity.reply").unwrap() > 0.99);
    let (rounds, checks) = bench.spent();
    assert!(rounds < 6 && checks <= 16, "{rounds} rounds, {checks} checks: {:?}", bench.asked);
}

#[test]
fn a_portrait_is_only_generated_for_a_file_that_is_worth_it() {
    let mut bench = Bench::new(&pipeline);
    let bad = with(ours(), "fault", json!("animated"));
    assert_eq!(code(bench.judge::<Avatar>(&params(), &request(), &reply(&bad))), "image.animated");
    assert_eq!(bench.asked.len(), 1);
    for (field, value, wanted) in [
        ("fault", json!("lies"), "image.lies"),
        ("fault", json!("too-large"), "image.too_large"),
        ("w", json!(32), "image.size"),
        ("format", json!("webp"), "image.format"),
        ("trailing", json!(1), "image.trailing"),
    ] {
        assert_eq!(code(judged(&reply(&with(ours(), field, value)))), wanted);
    }
    assert_eq!(code(judged(&exchange("<html>"))), "reply.malformed");
    assert_eq!(code(judged(&Exchange { status: 500, ..reply(&ours()) })), "reply.status");
}

#[test]
fn the_photograph_is_no_portrait_of_itself() {
    // 0.9 is the photograph's tone.
    let same = with(picture(0.89), "faces", json!([[0.95, PERSON]]));
    assert_eq!(code(judged(&reply(&same))), "photo.returned");
    let alike = with(ours(), "tone", json!(0.89));
    assert_eq!(
        judged_when_ours_is(&alike, &reply(&alike)).unwrap().quality,
        1.0,
        "where ours is as near, nobody is blamed"
    );
}

#[test]
fn exactly_one_face_where_ours_shows_one() {
    let faces = |faces: Value| with(ours(), "faces", faces);
    assert_eq!(code(judged(&reply(&faces(json!([]))))), "faces.none");
    assert_eq!(code(judged(&reply(&faces(json!([[0.9, PERSON], [0.85, 1.0]]))))), "faces.several");
    let shadow = judged(&reply(&faces(json!([[0.9, PERSON], [0.45, 1.0]])))).unwrap();
    assert!(shadow.quality > 0.9, "a doubtful second face blames nobody");
    let none = faces(json!([]));
    assert_eq!(
        judged_when_ours_is(&none, &reply(&none)).unwrap().quality,
        1.0,
        "the pipeline itself may fail"
    );
}

#[test]
fn somebody_elses_face_is_a_violation_where_ours_is_the_right_one() {
    let face = |angle: f64| with(ours(), "faces", json!([[0.9, angle]]));
    assert_eq!(code(judged(&reply(&face(PERSON + 1.5)))), "identity.other");
    // A likeness that is just below the bound, and ours just above it, is noise.
    let near = f64::acos(0.61);
    let ours_near = face(PERSON + near);
    assert!(judged_when_ours_is(&ours_near, &reply(&face(PERSON + near + 0.02))).is_ok());
    let ours_wrong = face(PERSON + 2.0);
    assert!(
        judged_when_ours_is(&ours_wrong, &reply(&face(PERSON + 2.0))).is_ok(),
        "the pipeline itself may fail"
    );
}

#[test]
fn nearer_to_another_seed_than_to_this_one_is_another_seed() {
    let mut decoys = vec![];
    let seen = std::cell::RefCell::new(&mut decoys);
    let watching = |params: &Value, check: &Check| {
        seen.borrow_mut().push(params["seed"].as_u64().unwrap());
        pipeline(params, check)
    };
    Bench::new(&watching).judge::<Avatar>(&params(), &request(), &reply(&ours())).unwrap();
    let decoy = *decoys.iter().find(|s| **s != 7).unwrap();
    assert_eq!(code(judged(&reply(&made(decoy, PERSON)))), "decoy.nearer");
    // The decoy depends on when the reply ended, which nobody knows beforehand.
    let body: Body = serde_json::from_slice(&request().body).unwrap();
    let at = |ended_us: u64| decoy_seed(&body, &Exchange { ended_us, ..reply(&ours()) });
    assert_eq!(at(900), decoy);
    assert_ne!(at(901), at(900));
    assert!(at(900) < 1 << 53);
}

#[test]
fn a_photograph_without_a_face_is_refused_and_nothing_else_is() {
    let judged = |faces: Value, exchange: &Exchange| {
        Bench::new(&pipeline).judge::<Avatar>(&params(), &request_of(&photograph(faces)), exchange)
    };
    let right = judged(json!([]), &sees_no_face()).unwrap();
    assert_eq!((right.quality, right.units), (1.0, 0));
    assert_eq!(code(judged(json!([[0.95, PERSON]]), &sees_no_face())), "photo.false_no_face");
    assert!(matches!(judged(json!([[0.45, PERSON]]), &sees_no_face()), Err(Stop::Inconclusive(_))));
    assert!(matches!(judged(json!([[0.45, PERSON]]), &reply(&ours())), Err(Stop::Inconclusive(_))));
    assert_eq!(code(judged(json!([]), &reply(&ours()))), "photo.no_face");
    let refused = Exchange { status: 422, ..sees_no_face() };
    assert_eq!(code(judged(json!([]), &refused)), "reply.status");
}

#[test]
fn unsafe_portraits_are_flagged_and_only_those() {
    let unsafe_ours = with(ours(), "unsafe", json!(0.97));
    assert_eq!(code(judged_when_ours_is(&unsafe_ours, &reply(&unsafe_ours))), "unsafe.unflagged");
    assert_eq!(code(judged(&flag())), "unsafe.false_flag");
    let verdict = judged_when_ours_is(&unsafe_ours, &flag()).unwrap();
    assert_eq!((verdict.quality, verdict.units), (1.0, 12));
    let doubtful = with(ours(), "unsafe", json!(0.5));
    assert!(matches!(judged_when_ours_is(&doubtful, &flag()), Err(Stop::Inconclusive(_))));
}

#[test]
fn blank_and_other_portraits_earn_nothing() {
    let blank = with(with(ours(), "tone", json!(0.5)), "most_common", json!(1.0));
    assert_eq!(code(judged(&reply(&blank))), "image.blank");
    let mut short = params();
    short.workflow.pop();
    let other = with(picture(0.6), "faces", json!([]));
    let verdict = Bench::new(&pipeline).judge::<Avatar>(&short, &request(), &reply(&other)).unwrap();
    assert_eq!(verdict.quality, 0.0);
}

#[test]
fn steps_that_are_left_out_ask_nothing() {
    let plain = params_with(r#"[{"do":"generate","model":"other"}]"#);
    let unconditioned = |params: &Value, check: &Check| {
        assert_eq!(
            (params.get("identity"), check.model.as_deref(), check.blobs.len()),
            (None, Some("other"), 0)
        );
        ours()
    };
    let mut bench = Bench::new(&unconditioned);
    assert_eq!(bench.judge::<Avatar>(&plain, &request(), &reply(&ours())).unwrap().quality, 1.0);
    assert_eq!(bench.asked, [["image.features"], ["image.generate"], ["image.features"]]);
}

#[test]
fn the_same_evidence_gives_the_same_bits() {
    let once = || format!("{:?}", judged(&reply(&with(ours(), "tone", json!(0.21)))));
    assert_eq!(once(), once());
}

#[test]
fn a_real_photograph_reaches_the_executors_as_it_was_sent() {
    let file = photo::png(&Picture { width: 64, height: 64, rgb: vec![9; 3 * 64 * 64] }).unwrap();
    let mut body: Value = serde_json::from_slice(&request().body).unwrap();
    body["image"] = json!(base64(&file));
    let request = Request::json("/v1/avatars", body.to_string().into_bytes(), false);
    match score(&params(), &mut Cx::default(), &request, &reply(&ours())) {
        Err(Stop::Need(checks)) => assert_eq!((&checks[0].blobs[1], &checks[1].blobs[0]), (&file, &file)),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), status in prop_oneof![Just(200_u16), Just(422)]) {
        let exchange = Exchange { status, ..exchange(bytes) };
        let _ = Avatar::count(&params(), &request(), &exchange);
        prop_assert!(matches!(judged(&exchange), Err(Stop::Violation(_))));
    }

    #[test]
    fn any_faces_give_a_quality_within_0_and_1(
        tone in 0.0..1.0_f64, theirs in proptest::collection::vec((0.0..1.0_f64, -3.0..3.0_f64), 0..3),
        own in proptest::collection::vec((0.0..1.0_f64, -3.0..3.0_f64), 0..3),
    ) {
        let faces = |of: &[(f64, f64)]| {
            let mut of = of.to_vec();
            of.sort_by(|a, b| b.0.total_cmp(&a.0));
            json!(of.iter().map(|(score, angle)| json!([score, angle])).collect::<Vec<_>>())
        };
        let picture = with(picture(tone), "faces", faces(&theirs));
        if let Ok(verdict) = judged_when_ours_is(&with(ours(), "faces", faces(&own)), &reply(&picture)) {
            prop_assert!((0.0..=1.0).contains(&verdict.quality));
            prop_assert!(verdict.reasons.iter().all(|(_, n)| n.is_finite()));
        }
    }
}
