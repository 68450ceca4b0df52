use std::collections::HashSet;

use nineteen_pictures::photo::{self, Picture};
use nineteen_pictures::{base64, unbase64};
use nineteen_sdk::{ClientCall, Rng, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ImageGeneration;

const N: u64 = 1_000;

/// The parameters that the subnet's own task has.
fn params() -> Params {
    let manifest = std::fs::read_to_string("../../tasks/image-world-scenes/task.toml").unwrap();
    let manifest: Value = toml::from_str(&manifest).unwrap();
    nineteen_sdk::params::<ImageGeneration>(&manifest["params"].to_string()).unwrap()
}

fn call(body: &Value) -> Result<Body, Refusal> {
    let bytes = body.to_string().into_bytes();
    let call = ClientCall { operation: "images.generations", content_type: "application/json", body: &bytes };
    ImageGeneration::admit(&params(), call, &mut Rng::new(&[5; 32])).map(|request| {
        assert_eq!((request.path.as_str(), request.streamed), (PATH, false));
        serde_json::from_slice(&request.body).unwrap()
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"model": "whatever", "prompt": "a red circle"});
    body[field] = value;
    body
}

fn made(i: u64) -> (Body, Synthetic) {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    let made = ImageGeneration::synthesize(&params(), &mut Rng::new(&seed)).unwrap();
    (serde_json::from_slice(&made.request.body).unwrap(), made)
}

#[test]
fn miners_get_exactly_these_fields_in_this_order() {
    let (_, synthetic) = made(1);
    let text = String::from_utf8(synthetic.request.body).unwrap();
    let fields = [
        "model",
        "prompt",
        "negative_prompt",
        "seed",
        "steps",
        "guidance",
        "width",
        "height",
        "scheduler",
        "noise",
        "response_format",
        "request_id",
    ];
    let places: Vec<usize> = fields.iter().map(|f| text.rfind(&format!("\"{f}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value.as_object().unwrap().len(), fields.len());
}

#[test]
fn a_clients_settings_are_kept_and_the_rest_gets_defaults() {
    let plain = call(&with("user", json!("u"))).unwrap();
    assert_eq!((plain.steps, plain.guidance, plain.width, plain.height), (12, 4.0, 64, 64));
    assert_eq!(
        (plain.scheduler.as_str(), plain.noise.as_str(), plain.model.as_str()),
        ("ddim", "torch", "world-scenes")
    );
    assert!(plain.negative_prompt.is_empty() && plain.seed < 1 << 53 && plain.request_id.len() == 16);
    let mut asked = with("negative_prompt", json!("striped"));
    for (field, value) in [
        ("steps", json!(20)),
        ("guidance", json!(2.5)),
        ("scheduler", json!("euler")),
        ("size", json!("64x64")),
    ] {
        asked[field] = value;
    }
    let body = call(&asked).unwrap();
    assert_eq!(
        (body.steps, body.guidance, body.scheduler.as_str(), body.negative_prompt.as_str()),
        (20, 2.5, "euler", "striped")
    );
}

#[test]
fn a_clients_own_seed_gives_the_same_noise_again_and_does_not_show() {
    let seed = |n: i64, rng: u8| {
        let bytes = with("seed", json!(n)).to_string().into_bytes();
        let call =
            ClientCall { operation: "images.generations", content_type: "application/json", body: &bytes };
        let request = ImageGeneration::admit(&params(), call, &mut Rng::new(&[rng; 32])).unwrap();
        serde_json::from_slice::<Body>(&request.body).unwrap()
    };
    assert_eq!(seed(42, 1).seed, seed(42, 2).seed);
    assert_ne!(seed(42, 1).request_id, seed(42, 2).request_id);
    assert!(seed(42, 1).seed != 42 && seed(42, 1).seed != seed(-42, 1).seed);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    for (field, value, code, words) in [
        ("n", json!(2), "unsupported_parameter", "`n`"),
        ("response_format", json!("url"), "unsupported_parameter", "no URL"),
        ("output_format", json!("webp"), "unsupported_parameter", "png"),
        ("background", json!("transparent"), "unsupported_parameter", "`background`"),
        ("stream", json!(true), "unsupported_parameter", "`stream`"),
        ("mask", json!("x"), "unsupported_parameter", "`mask`"),
        ("prompt", json!(""), "invalid_value", "`prompt`"),
        ("prompt", json!(" \n"), "invalid_value", "`prompt`"),
        ("prompt", json!("x".repeat(500)), "invalid_value", "400"),
        ("negative_prompt", json!("x".repeat(500)), "invalid_value", "`negative_prompt`"),
        ("prompt", json!(7), "invalid_body", ""),
        ("size", json!("1024x1024"), "invalid_value", "64x64"),
        ("steps", json!(0), "invalid_value", "`steps`"),
        ("steps", json!(26), "invalid_value", "25"),
        ("steps", json!(i64::MAX), "invalid_value", "`steps`"),
        ("guidance", json!(0.5), "invalid_value", "`guidance`"),
        ("guidance", json!(80), "invalid_value", "`guidance`"),
        ("scheduler", json!("lcm"), "invalid_value", "ddim, euler"),
        ("strength", json!(0.5), "invalid_value", "`image`"),
        ("image", json!("%"), "invalid_value", "base64"),
        ("image", json!("data:text/html;base64,AAAA"), "invalid_value", "data URL"),
        ("image", json!("AAAA"), "invalid_image", "PNG"),
    ] {
        let refused = call(&with(field, value.clone())).expect_err(&format!("{field}: {value}"));
        assert_eq!((refused.status, refused.code.as_str()), (400, code), "{field}: {value}");
        assert!(refused.message.contains(words), "{}", refused.message);
    }
}

#[test]
fn what_changes_nothing_is_admitted() {
    for (field, value) in [
        ("n", json!(1)),
        ("n", Value::Null),
        ("response_format", json!("b64_json")),
        ("size", json!("auto")),
        ("quality", json!("hd")),
        ("style", json!("vivid")),
        ("user", json!("u-1")),
        ("background", json!("opaque")),
        ("moderation", json!("auto")),
        ("stream", json!(false)),
    ] {
        assert!(call(&with(field, value)).is_ok(), "{field}");
    }
}

#[test]
fn a_body_that_is_no_json_or_another_operation_is_refused() {
    let ask = |operation: &str, content_type: &str, body: &[u8]| {
        let call = ClientCall { operation, content_type, body };
        ImageGeneration::admit(&params(), call, &mut Rng::new(&[1; 32])).unwrap_err().status
    };
    assert_eq!(ask("images.generations", "application/json", b"{"), 400);
    assert_eq!(ask("images.generations", "text/plain", b"{}"), 415);
    assert_eq!(ask("avatars", "application/json", b"{}"), 404);
}

#[test]
fn a_picture_to_begin_from_is_made_plain() {
    let large = Picture { width: 200, height: 100, rgb: vec![77; 3 * 200 * 100] };
    let file = photo::png(&large).unwrap();
    for image in [base64(&file), format!("data:image/png;base64,{}", base64(&file))] {
        let body = call(&with("image", json!(image))).unwrap();
        assert_eq!(body.strength, Some(0.6));
        let sent = unbase64(&body.image.unwrap()).unwrap();
        let small = Picture { width: 64, height: 64, rgb: vec![77; 3 * 64 * 64] };
        assert_eq!(sent, photo::png(&small).unwrap());
    }
    let without = Params { image_to_image: false, ..params() };
    let client: Client = serde_json::from_value(with("image", json!(base64(&file)))).unwrap();
    let refused = admit(&without, client, &mut Rng::new(&[1; 32])).unwrap_err();
    assert_eq!(refused.code, "unsupported_parameter");
}

#[test]
fn nothing_in_a_body_tells_synthetic_from_organic() {
    for i in 0..200 {
        let (body, synthetic) = made(i);
        let client = json!({"model": "dall-e-3", "prompt": body.prompt, "negative_prompt": body.negative_prompt,
            "steps": body.steps, "guidance": body.guidance, "size": format!("{}x{}", body.width, body.height),
            "scheduler": body.scheduler, "n": 1, "response_format": "b64_json"});
        let bytes = client.to_string().into_bytes();
        let call =
            ClientCall { operation: "images.generations", content_type: "application/json", body: &bytes };
        let organic = ImageGeneration::admit(&params(), call, &mut Rng::new(&[9; 32])).unwrap();
        assert_eq!((&organic.path, organic.streamed), (&synthetic.request.path, synthetic.request.streamed));
        // But for the drawn noise, byte for byte the same.
        let mut again: Body = serde_json::from_slice(&organic.body).unwrap();
        (again.seed, again.request_id) = (body.seed, body.request_id.clone());
        assert_eq!(serde_json::to_vec(&again).unwrap(), synthetic.request.body);
    }
}

#[test]
fn a_thousand_requests_are_a_thousand_pictures() {
    let (mut prompts, mut noise, mut pairs) = (HashSet::new(), HashSet::new(), HashSet::new());
    let (mut sigils, mut negatives, mut usual) = (0, 0, 0);
    for i in 0..N {
        let (body, synthetic) = made(i);
        assert_eq!(synthetic.expected_units, u64::from(body.steps));
        assert!((1..=25).contains(&body.steps) && (1.0..=8.0).contains(&body.guidance));
        sigils += u64::from(body.prompt.contains("sigil"));
        negatives += u64::from(!body.negative_prompt.is_empty());
        usual += u64::from(body.steps == 12);
        pairs.insert((body.prompt.clone(), body.seed));
        prompts.insert(body.prompt);
        noise.insert(body.seed);
    }
    assert_eq!(pairs.len() as u64, N);
    assert!(prompts.len() as u64 > N * 9 / 10, "{} prompts", prompts.len());
    assert!(noise.len() as u64 > N * 9 / 10, "{} seeds", noise.len());
    assert!((5..40).contains(&sigils), "{sigils}");
    assert!((140..260).contains(&negatives), "{negatives}");
    assert!((450..700).contains(&usual), "{usual}");
}

#[test]
fn the_seed_alone_decides() {
    assert_eq!(made(7).1, made(7).1);
    assert_ne!(made(7).1, made(8).1);
    let narrow = Params {
        requests: nineteen_pictures::request::Bounds { max_prompt_bytes: 3, ..params().requests },
        ..params()
    };
    assert!(synthesize(&narrow, &mut Rng::new(&[1; 32])).unwrap_err().contains("max_prompt_bytes"));
}

#[test]
fn captions_are_made_of_the_worlds_words() {
    let grammar = std::fs::read("../../tasks/models/world/grammar.json").unwrap();
    let grammar: Value = serde_json::from_slice(&grammar).unwrap();
    let (theirs, ours) = (&grammar["scenes"], params().synthetic);
    for slot in ["shape", "colour", "ground", "size", "style"] {
        assert_eq!(json!(ours.words[slot]), theirs[slot], "{slot}");
    }
    let places: Vec<&Value> =
        theirs["places"].as_object().unwrap().values().flat_map(|p| p.as_array().unwrap()).collect();
    let ours_places: Vec<Value> = ours.words["place"].iter().map(|p| json!(p)).collect();
    assert_eq!(places.into_iter().collect::<HashSet<_>>(), ours_places.iter().collect());
    let tight = |of: &Value| -> Vec<String> {
        of.as_array().unwrap().iter().map(|t| t.as_str().unwrap().replace(" ,", ",")).collect()
    };
    assert_eq!((ours.templates, ours.forbidden), (tight(&theirs["templates"]), tight(&theirs["forbidden"])));
    assert_eq!(json!(ours.optional), theirs["optional"]);
}

#[test]
fn the_schema_knows_every_parameter_and_its_default() {
    let bare = r#"{"model":"m","synthetic":{"templates":["a"],"words":{}}}"#;
    let p = nineteen_sdk::params::<ImageGeneration>(bare).unwrap();
    let value = serde_json::to_value(ImageGeneration::describe(&p).unwrap()).unwrap();
    let properties = &value["params_schema"]["properties"];
    let mut all = crate::testing::defaults(properties);
    let mut synthetic = crate::testing::defaults(&properties["synthetic"]["properties"]);
    synthetic.extend([("templates".into(), json!(["a"])), ("words".into(), json!({}))]);
    all.extend([("model".into(), json!("m")), ("synthetic".into(), Value::Object(synthetic))]);
    let from_schema = nineteen_sdk::params::<ImageGeneration>(&Value::Object(all).to_string()).unwrap();
    assert_eq!(format!("{from_schema:?}"), format!("{p:?}"));
    for (from, to) in [
        ("\"model\"", "\"modell\""),
        ("[\"a\"]", "[]"),
        ("[\"a\"]", "[\"{b}\"]"),
        ("{\"model\"", "{\"requests\":{\"sizes\":[\"65x64\"]},\"model\""),
        ("{\"model\"", "{\"requests\":{\"schedulers\":[\"plms\"]},\"model\""),
        ("{\"model\"", "{\"requests\":{\"default_steps\":51},\"model\""),
        ("{\"model\"", "{\"judgement\":{\"epsilon\":0},\"model\""),
        ("{\"model\"", "{\"safety\":{\"model\":\"s\",\"margin\":0.6},\"model\""),
        ("{\"model\"", "{\"default_strength\":0,\"model\""),
    ] {
        let broken = bare.replacen(from, to, 1);
        assert!(nineteen_sdk::params::<ImageGeneration>(&broken).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_with_a_4xx_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let call = ClientCall { operation: "images.generations", content_type: "application/json", body: &bytes };
        if let Err(refusal) = ImageGeneration::admit(&params(), call, &mut Rng::new(&[1; 32])) {
            prop_assert!((400..500).contains(&refusal.status) && !refusal.message.is_empty());
        }
    }
}
