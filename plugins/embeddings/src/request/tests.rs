use std::collections::{HashMap, HashSet};

use nineteen_sdk::{ClientCall, Rng, Task};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Embeddings;

fn params() -> Params {
    nineteen_sdk::params::<Embeddings>(r#"{"model":"m"}"#).unwrap()
}

fn call(body: &Value) -> Result<Body, Refusal> {
    let bytes = serde_json::to_vec(body).unwrap();
    let call = ClientCall { operation: "embeddings", content_type: "application/json", body: &bytes };
    Embeddings::admit(&params(), call, &mut Rng::new(&[5; 32])).map(|request| {
        assert_eq!((request.path.as_str(), request.streamed), (PATH, false));
        serde_json::from_slice(&request.body).unwrap()
    })
}

#[test]
fn one_text_and_a_list_of_one_are_the_same_request() {
    let one = call(&json!({"model": "x", "input": "a"})).unwrap();
    assert_eq!(one, call(&json!({"model": "x", "input": ["a"]})).unwrap());
    assert_eq!((one.model.as_str(), one.encoding_format), ("m", Encoding::Float));
    let packed = call(&json!({"input": "a", "encoding_format": "base64", "user": "u", "dimensions": 384}));
    assert_eq!(packed.unwrap().encoding_format, Encoding::Base64);
}

#[test]
fn what_cannot_be_honoured_is_refused_in_words() {
    for (body, code, words) in [
        (json!({}), "invalid_body", "input"),
        (json!({"input": [1, 2, 3]}), "invalid_body", "token ids"),
        (json!({"input": []}), "invalid_value", "0 texts"),
        (json!({"input": ["a", ""]}), "invalid_value", "`input[1]`"),
        (json!({"input": "a".repeat(9000)}), "invalid_value", "8192 bytes"),
        (json!({"input": vec!["a"; 65]}), "invalid_value", "65 texts"),
        (json!({"input": "a", "dimensions": 128}), "invalid_value", "384"),
        (json!({"input": "a", "encoding_format": "hex"}), "invalid_body", "hex"),
    ] {
        let refused = call(&body).unwrap_err();
        assert_eq!((refused.status, refused.code.as_str()), (400, code), "{body}");
        assert!(refused.message.contains(words), "{}", refused.message);
    }
}

#[test]
fn synthetic_requests_are_varied_and_indistinguishable_from_organic_ones() {
    let (mut texts, mut sizes, mut packed) = (HashSet::new(), HashMap::new(), 0);
    let mut all = 0;
    for i in 0..1_000_u64 {
        let mut seed = [6; 32];
        seed[..8].copy_from_slice(&i.to_le_bytes());
        let made = Embeddings::synthesize(&params(), &mut Rng::new(&seed)).unwrap();
        assert_eq!(made, Embeddings::synthesize(&params(), &mut Rng::new(&seed)).unwrap());
        let body: Body = serde_json::from_slice(&made.request.body).unwrap();
        assert_eq!(made.expected_units, body.input.len() as u64);
        let again = call(&serde_json::to_value(&body).unwrap()).unwrap();
        assert_eq!(serde_json::to_vec(&again).unwrap(), made.request.body);
        *sizes.entry(body.input.len()).or_insert(0) += 1;
        packed += usize::from(body.encoding_format == Encoding::Base64);
        all += body.input.len();
        texts.extend(body.input);
    }
    assert_eq!(texts.len(), all, "a text came twice");
    assert!((350..550).contains(&sizes[&1]) && sizes.len() > 15, "{sizes:?}");
    assert!((330..470).contains(&packed), "{packed}");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_with_a_4xx_and_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let call = ClientCall { operation: "embeddings", content_type: "application/json", body: &body };
        if let Err(refusal) = Embeddings::admit(&params(), call, &mut Rng::new(&[1; 32])) {
            prop_assert!((400..500).contains(&refusal.status));
        }
    }
}
