use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::TextGeneration;
use nineteen_sdk::{ClientCall, Rng, Task};

fn params() -> Params {
    nineteen_sdk::params::<TextGeneration>(r#"{"model":"m","max_tokens_cap":100,"default_max_tokens":50}"#)
        .unwrap()
}

fn call(body: &Value) -> Result<Body, Refusal> {
    let bytes = serde_json::to_vec(body).unwrap();
    let call = ClientCall { operation: "chat.completions", content_type: "application/json", body: &bytes };
    TextGeneration::admit(&params(), call, &mut Rng::new(&[5; 32])).map(|request| {
        assert_eq!((request.path.as_str(), request.content_type.as_str()), (PATH, "application/json"));
        let body: Body = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(request.streamed, body.stream);
        body
    })
}

fn hello() -> Value {
    json!({"model": "whatever", "messages": [{"role": "user", "content": "hello"}]})
}

fn with(field: &str, value: Value) -> Value {
    let mut body = hello();
    body[field] = value;
    body
}

#[test]
fn a_clients_temperature_and_lengths_are_kept() {
    let mut asked = hello();
    for (field, value) in [
        ("temperature", json!(0.35)),
        ("max_tokens", json!(42)),
        ("top_p", json!(0.9)),
        ("top_k", json!(7)),
        ("stream", json!(true)),
    ] {
        asked[field] = value;
    }
    let body = call(&asked).unwrap();
    assert_eq!((body.temperature, body.max_tokens, body.top_p, body.top_k), (0.35, 42, 0.9, 7));
    assert!(body.stream && body.stream_options.unwrap().include_usage);
    assert!(body.logprobs && body.return_token_ids);
    assert_eq!(body.model, "m");
}

#[test]
fn what_a_client_leaves_out_gets_defaults_and_what_exceeds_is_capped() {
    let body = call(&hello()).unwrap();
    assert_eq!((body.temperature, body.max_tokens, body.top_p, body.top_k), (1.0, 50, 1.0, 0));
    assert!(!body.stream && body.stream_options.is_none());
    assert_eq!(call(&with("max_tokens", json!(9999))).unwrap().max_tokens, 100);
    assert_eq!(call(&with("max_completion_tokens", json!(7))).unwrap().max_tokens, 7);
    assert_eq!(call(&with("top_k", json!(-1))).unwrap().top_k, 0);
    assert_eq!(call(&with("temperature", json!(1e-9))).unwrap().temperature, 0.0);
    assert!(body.seed < 1 << 53);
    assert!(body.request_id.len() == 16 && u64::from_str_radix(&body.request_id, 16).is_ok());
}

#[test]
fn a_clients_own_seed_gives_the_same_noise_again_and_does_not_show() {
    let (a, b) = (call(&with("seed", json!(42))).unwrap(), call(&with("seed", json!(42))).unwrap());
    assert_eq!((a.seed, &a.request_id), (b.seed, &b.request_id));
    assert_ne!(a.seed, 42);
    assert_ne!(a.seed, call(&with("seed", json!(-42))).unwrap().seed);
}

#[test]
fn parts_of_text_are_one_text_and_developers_are_the_system() {
    let messages = json!([
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "x"},
    ]);
    let body = call(&with("messages", messages)).unwrap();
    assert_eq!(body.messages, [Message::new("system", "be brief"), Message::new("user", "a\nb")]);
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let user = |content: Value| json!([{"role": "user", "content": content}]);
    let cases = [
        ("n", json!(2), "unsupported_parameter", "`n`"),
        ("tools", json!([{"type": "function"}]), "unsupported_parameter", "`tools`"),
        ("stop", json!(["\n"]), "unsupported_parameter", "`stop`"),
        ("presence_penalty", json!(0.5), "unsupported_parameter", "`presence_penalty`"),
        ("response_format", json!({"type": "json_object"}), "unsupported_parameter", "`response_format`"),
        ("temperature", json!(3), "invalid_value", "`temperature`"),
        ("temperature", json!("hot"), "invalid_body", "hot"),
        ("top_p", json!(0), "invalid_value", "`top_p`"),
        ("top_k", json!(-2), "invalid_value", "`top_k`"),
        ("max_tokens", json!(0), "invalid_value", "`max_tokens`"),
        ("max_tokens", json!(1.5), "invalid_body", ""),
        ("messages", json!([]), "invalid_value", "`messages`"),
        ("messages", json!("hi"), "invalid_body", ""),
        ("messages", json!([{"role": "tool", "content": "x"}]), "invalid_value", "`tool`"),
        ("messages", json!([{"role": "system", "content": "x"}]), "invalid_value", "`user`"),
        ("messages", json!([{"role": "user"}]), "invalid_value", "`messages[0].content`"),
        ("messages", user(json!([{"type": "image_url", "image_url": {}}])), "invalid_value", "image_url"),
        ("messages", user(json!("7".repeat(5000))), "context_length_exceeded", "2048"),
    ];
    for (field, value, code, words) in cases {
        let refused = call(&with(field, value.clone())).expect_err(&format!("{field}: {value}"));
        assert_eq!((refused.status, refused.code.as_str()), (400, code), "{field}: {value}");
        assert!(refused.message.contains(words), "{}", refused.message);
    }
}

#[test]
fn what_changes_nothing_is_admitted() {
    for (field, value) in [
        ("n", json!(1)),
        ("tools", json!([])),
        ("stop", Value::Null),
        ("presence_penalty", json!(0)),
        ("frequency_penalty", json!(0.0)),
        ("response_format", json!({"type": "text"})),
        ("user", json!("u-1")),
        ("metadata", json!({"a": 1})),
    ] {
        assert!(call(&with(field, value)).is_ok(), "{field}");
    }
}

#[test]
fn a_body_that_is_no_json_or_another_operation_is_refused() {
    let ask = |operation: &str, content_type: &str, body: &[u8]| {
        TextGeneration::admit(
            &params(),
            ClientCall { operation, content_type, body },
            &mut Rng::new(&[1; 32]),
        )
        .unwrap_err()
    };
    assert_eq!(ask("chat.completions", "application/json", b"{").status, 400);
    assert_eq!(ask("chat.completions", "text/plain", b"{}").status, 415);
    assert_eq!(ask("images", "application/json", b"{}").status, 404);
}

#[test]
fn a_long_prompt_shortens_the_completion_before_it_is_refused() {
    let body = call(&with("messages", json!([{"role": "user", "content": "7".repeat(1950)}]))).unwrap();
    assert!(body.max_tokens < 100 && body.max_tokens >= 8, "{}", body.max_tokens);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_with_a_4xx_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let call = ClientCall { operation: "chat.completions", content_type: "application/json", body: &bytes };
        if let Err(refusal) = TextGeneration::admit(&params(), call, &mut Rng::new(&[1; 32])) {
            prop_assert!((400..500).contains(&refusal.status) && !refusal.message.is_empty());
        }
    }
}
