use std::collections::HashSet;

use nineteen_pictures::photo::{PhotoLimits, Picture};
use nineteen_pictures::{base64, unbase64};
use nineteen_sdk::Task;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Avatar;
use nineteen_sdk::Rng;

const FORM: &str = "multipart/form-data; boundary=q";

/// The parameters that the subnet's own task has.
fn params() -> Params {
    let manifest = std::fs::read_to_string("../../tasks/avatar-world-portraits/task.toml").unwrap();
    let manifest: Value = toml::from_str(&manifest).unwrap();
    nineteen_sdk::params::<Avatar>(&manifest["params"].to_string()).unwrap()
}

fn photograph_of(side: u32) -> Vec<u8> {
    photo::png(&Picture { width: side, height: side, rgb: vec![99; 3 * (side * side) as usize] }).unwrap()
}

fn ask(content_type: &str, body: &[u8]) -> Result<Body, Refusal> {
    let call = ClientCall { operation: "avatars", content_type, body };
    Avatar::admit(&params(), call, &mut Rng::new(&[5; 32])).map(|request| {
        assert_eq!((request.path.as_str(), request.streamed), (PATH, false));
        serde_json::from_slice(&request.body).unwrap()
    })
}

fn call(body: &Value) -> Result<Body, Refusal> {
    ask("application/json", body.to_string().as_bytes())
}

fn with(field: &str, value: Value) -> Value {
    let mut body = json!({"prompt": "a cartoon portrait", "image": base64(&photograph_of(64))});
    body[field] = value;
    body
}

/// A field's name, its file's name if it is one, and its bytes.
type Field<'a> = (&'a str, Option<&'a str>, &'a [u8]);

/// A form with these fields.
fn form(fields: &[Field<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, data) in fields {
        let file = file.map_or(String::new(), |f| format!("; filename=\"{f}\""));
        body.extend(
            format!("--q\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").into_bytes(),
        );
        body.extend(*data);
        body.extend(b"\r\n");
    }
    body.extend(b"--q--\r\n");
    body
}

fn made(i: u64) -> (Body, Synthetic) {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&i.to_le_bytes());
    let made = Avatar::synthesize(&params(), &mut Rng::new(&seed)).unwrap();
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
        "image",
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
fn a_form_and_json_give_the_same_request() {
    let file = photograph_of(90);
    let json = json!({"prompt": "a sketch portrait", "image": format!("data:image/png;base64,{}", base64(&file)),
        "seed": 42, "steps": 20, "guidance": 2.5, "n": 1, "size": "64x64"});
    let fields: [Field<'_>; 7] = [
        ("prompt", None, b"a sketch portrait"),
        ("image", Some("me.png"), &file),
        ("seed", None, b"42"),
        ("steps", None, b"20"),
        ("guidance", None, b"2.5"),
        ("n", None, b"1"),
        ("size", None, b"64x64"),
    ];
    let (json, form) = (call(&json).unwrap(), ask(FORM, &form(&fields)).unwrap());
    assert_eq!(json, form);
    assert_eq!((json.model.as_str(), json.steps, json.guidance), ("world-portraits", 20, 2.5));
    assert_eq!(unbase64(&json.image.unwrap()).unwrap(), photograph_of(64), "made plain");
    let bare = ask(FORM, &self::form(&[("image", Some("me.png"), &file)])).unwrap();
    assert_eq!((bare.prompt.as_str(), bare.steps), ("a photo portrait", 12));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let file = photograph_of(64);
    for (field, value, code, words) in [
        ("n", json!(2), "unsupported_parameter", "`n`"),
        ("strength", json!(0.5), "unsupported_parameter", "`strength`"),
        ("response_format", json!("url"), "unsupported_parameter", "no URL"),
        ("size", json!("640x640"), "invalid_value", "64x64"),
        ("steps", json!(99), "invalid_value", "25"),
        ("image", Value::Null, "invalid_value", "`image` is missing"),
        ("image", json!("not base64"), "invalid_value", "base64"),
        ("image", json!("https://example.org/me.png"), "invalid_value", "base64"),
        ("image", json!(base64(b"GIF89a")), "invalid_image", "PNG nor JPEG"),
        ("image", json!(base64(&file[..40])), "invalid_image", "decoded"),
        ("image", json!(base64(b"\xff\xd8\xff\xe0")), "invalid_image", "decoded"),
    ] {
        let refused = call(&with(field, value.clone())).expect_err(&format!("{field}: {value}"));
        assert_eq!((refused.status, refused.code.as_str()), (400, code), "{field}: {value}");
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    let forms: [(&[Field<'_>], &str); 5] = [
        (&[("image", Some("a"), &file), ("mask", Some("b"), &file)], "`mask`"),
        (&[("image", Some("a"), &file), ("image[]", Some("b"), &file)], "`image[]`"),
        (&[("image", Some("a"), &file), ("steps", None, b"many")], "no number"),
        (&[("image", Some("a"), &file), ("guidance", None, b"NaN")], "no number"),
        (&[("image", Some("a"), &file), ("prompt", None, b"\xff")], "no text"),
    ];
    for (fields, words) in forms {
        let refused = ask(FORM, &form(fields)).unwrap_err();
        assert!(refused.status == 400 && refused.message.contains(words), "{refused:?}");
    }
    assert_eq!(ask("text/plain", b"{}").unwrap_err().status, 415);
    assert_eq!(ask(FORM, b"{}").unwrap_err().status, 400);
}

#[test]
fn a_photograph_that_is_too_large_is_refused_by_its_header() {
    let p = Params { photo: PhotoLimits { max_bytes: 1 << 20, max_pixels: 100 * 100 }, ..params() };
    let wish = |side| Wish { file: Some(photograph_of(side)), ..Wish::default() };
    assert!(admit(&p, wish(100), &mut Rng::new(&[1; 32])).is_ok());
    let refused = admit(&p, wish(101), &mut Rng::new(&[1; 32])).unwrap_err();
    assert_eq!((refused.status, refused.code.as_str()), (413, "image_too_large"));
}

#[test]
fn nothing_in_a_body_tells_synthetic_from_organic() {
    for i in 0..100 {
        let (body, synthetic) = made(i);
        let client = json!({"prompt": body.prompt, "negative_prompt": body.negative_prompt, "image": body.image,
            "steps": body.steps, "guidance": body.guidance, "scheduler": body.scheduler});
        let bytes = client.to_string().into_bytes();
        let call = ClientCall { operation: "avatars", content_type: "application/json", body: &bytes };
        let organic = Avatar::admit(&params(), call, &mut Rng::new(&[9; 32])).unwrap();
        assert_eq!((&organic.path, organic.streamed), (&synthetic.request.path, synthetic.request.streamed));
        // But for the drawn noise, byte for byte the same: a plain photograph stays as it is.
        let mut again: Body = serde_json::from_slice(&organic.body).unwrap();
        (again.seed, again.request_id) = (body.seed, body.request_id.clone());
        assert_eq!(serde_json::to_vec(&again).unwrap(), synthetic.request.body);
    }
}

#[test]
fn five_hundred_photographs_are_five_hundred_people() {
    let (mut photos, mut prompts) = (HashSet::new(), HashSet::new());
    for i in 0..500 {
        let (body, synthetic) = made(i);
        assert_eq!(synthetic.expected_units, u64::from(body.steps));
        photos.insert(body.image.unwrap());
        prompts.insert(body.prompt);
    }
    assert_eq!(photos.len(), 500);
    assert!(prompts.len() > 300, "{}", prompts.len());
    assert_eq!(made(7).1, made(7).1);
}

#[test]
fn captions_are_made_of_the_worlds_words() {
    let grammar = std::fs::read("../../tasks/models/world/grammar.json").unwrap();
    let grammar: Value = serde_json::from_slice(&grammar).unwrap();
    let (theirs, ours) = (&grammar["portraits"], params().synthetic.words);
    for (slot, field) in [
        ("style", "style"),
        ("expression", "expression"),
        ("hair_colour", "hair_colour"),
        ("ground", "ground"),
    ] {
        assert_eq!(json!(ours[slot]), theirs[field], "{slot}");
    }
    assert_eq!(json!(ours["opening"]), theirs["openings"]);
    assert_eq!(
        ours["light"].iter().map(|l| json!(l)).collect::<HashSet<_>>(),
        theirs["light"].as_object().unwrap().values().cloned().collect()
    );
    let cuts: Vec<&str> = ours["hair"].iter().filter_map(|h| h.split(' ').next()).collect();
    assert_eq!(json!(cuts), theirs["hair"]);
}

#[test]
fn the_schema_knows_every_parameter_and_its_default() {
    let bare = r#"{"model":"m","workflow":[{"do":"generate"}],"synthetic":{"templates":["a"],"words":{}}}"#;
    let p = nineteen_sdk::params::<Avatar>(bare).unwrap();
    let value = serde_json::to_value(Avatar::describe(&p).unwrap()).unwrap();
    let properties = &value["params_schema"]["properties"];
    let mut all = crate::testing::defaults(properties);
    let mut synthetic = crate::testing::defaults(&properties["synthetic"]["properties"]);
    synthetic.extend([("templates".into(), json!(["a"])), ("words".into(), json!({}))]);
    all.extend([
        ("model".into(), json!("m")),
        ("workflow".into(), json!([{"do": "generate"}])),
        ("synthetic".into(), Value::Object(synthetic)),
    ]);
    let from_schema = nineteen_sdk::params::<Avatar>(&Value::Object(all).to_string()).unwrap();
    assert_eq!(format!("{from_schema:?}"), format!("{p:?}"));
    for (from, to) in [
        ("{\"do\":\"generate\"}", "{\"do\":\"align\"}"),
        ("{\"model\"", "{\"photo_side\":65,\"model\""),
        ("{\"model\"", "{\"default_prompt\":\" \",\"model\""),
        ("{\"model\"", "{\"studio\":{\"odd_share\":2},\"model\""),
        ("{\"model\"", "{\"photo\":{\"max_pixels\":0},\"model\""),
    ] {
        assert!(nineteen_sdk::params::<Avatar>(&bare.replacen(from, to, 1)).is_err(), "{to}");
    }
    let own = Avatar::describe(&params()).unwrap().checks;
    let manifest = std::fs::read_to_string("../../tasks/avatar-world-portraits/task.toml").unwrap();
    let manifest: Value = toml::from_str(&manifest).unwrap();
    assert_eq!(json!(own), manifest["grants"], "what is asked for is what is granted");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_with_a_4xx_and_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), form in any::<bool>(),
    ) {
        let content_type = if form { FORM } else { "application/json" };
        if let Err(refusal) = ask(content_type, &bytes) {
            prop_assert!((400..500).contains(&refusal.status) && !refusal.message.is_empty());
        }
    }
}
