//! A reply as one picture, or as what stands in its place.

use nineteen_sdk::{Exchange, Stop, clip};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What the bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The picture's file.
    Picture(Vec<u8>),
    /// The miner withholds it as unsafe.
    Flagged,
    /// The miner sees no face on the photograph.
    NoFace,
}

#[derive(Deserialize)]
struct Given {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    b64_json: Option<String>,
    #[serde(default)]
    flagged: bool,
    #[serde(default)]
    no_face: bool,
}

/// Reads a whole reply; `most_bytes` is of the picture's file.
///
/// # Errors
/// A violation that says what is wrong with the bytes.
pub fn read(exchange: &Exchange, most_bytes: usize) -> Result<Reply, Stop> {
    let body = exchange.body();
    // Before it is parsed: base64 takes 4 bytes for 3, and little stands around it.
    if body.len() / 4 > most_bytes / 3 + 4096 {
        return Err(Stop::violation("image.too_large", format!("a reply of {} bytes", body.len())));
    }
    let given: Given =
        serde_json::from_slice(&body).map_err(|e| Stop::violation("reply.malformed", e.to_string()))?;
    let n = given.data.len();
    let Ok([entry]) = <[Entry; 1]>::try_from(given.data) else {
        return Err(Stop::violation("reply.count", format!("{n} pictures, 1 was asked for")));
    };
    if entry.flagged {
        return Ok(Reply::Flagged);
    }
    if entry.no_face {
        return Ok(Reply::NoFace);
    }
    let Some(text) = entry.b64_json else {
        return Err(Stop::violation("reply.empty", "neither a picture nor a flag"));
    };
    let bytes = crate::unbase64(&text).ok_or_else(|| {
        let words = format!("`{}` is not standard base64 with padding", clip(&text, 24));
        Stop::violation("reply.base64", words)
    })?;
    if bytes.len() > most_bytes {
        let words = format!("a file of {} bytes, at most {most_bytes}", bytes.len());
        return Err(Stop::violation("image.too_large", words));
    }
    Ok(Reply::Picture(bytes))
}

/// Whether the bytes claim to be a reply with one picture.
#[must_use]
pub fn claims(exchange: &Exchange) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        data: [IgnoredAny; 1],
    }
    exchange.status == 200
        && serde_json::from_slice::<Shape>(&exchange.body()).is_ok_and(|s| s.data.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nineteen_sdk::{Chunk, Ending};
    use proptest::prelude::*;

    fn exchange(body: impl Into<Vec<u8>>) -> Exchange {
        let chunks = vec![Chunk { at_us: 9, data: body.into() }];
        Exchange { status: 200, headers: vec![], chunks, ended_us: 9, ending: Ending::Complete }
    }

    fn code(body: impl Into<Vec<u8>>) -> String {
        match read(&exchange(body), 100) {
            Err(Stop::Violation(why)) => why.split(':').next().unwrap_or_default().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_picture_or_a_flag() {
        let picture = r#"{"created":1,"model":"m","data":[{"b64_json":"Zm9v","flagged":false,"extra":1}]}"#;
        assert_eq!(read(&exchange(picture), 100).unwrap(), Reply::Picture(b"foo".to_vec()));
        for flagged in [
            r#"{"data":[{"b64_json":null,"flagged":true}]}"#,
            r#"{"data":[{"b64_json":"?","flagged":true}]}"#,
        ] {
            assert_eq!(read(&exchange(flagged), 100).unwrap(), Reply::Flagged);
            assert!(claims(&exchange(flagged)));
        }
    }

    #[test]
    fn anything_else_has_a_name() {
        assert_eq!(code("<html>"), "reply.malformed");
        assert_eq!(code(r#"{"data":[]}"#), "reply.count");
        assert_eq!(code(r#"{"data":[{"b64_json":"Zm9v"},{"b64_json":"Zm9v"}]}"#), "reply.count");
        assert_eq!(code(r#"{"data":[{}]}"#), "reply.empty");
        assert_eq!(code(r#"{"data":[{"b64_json":"Zm9"}]}"#), "reply.base64");
        assert_eq!(code(r#"{"data":[{"b64_json":"Zm9v","flagged":"no"}]}"#), "reply.malformed");
        let large = format!(r#"{{"data":[{{"b64_json":"{}"}}]}}"#, "AAAA".repeat(40));
        assert_eq!(code(large), "image.too_large");
        assert_eq!(code(vec![b' '; 100_000]), "image.too_large");
        let none = r#"{"data":[{"b64_json":null,"flagged":false,"no_face":true}]}"#;
        assert_eq!(read(&exchange(none), 100).unwrap(), Reply::NoFace);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let exchange = exchange(bytes);
            let _ = claims(&exchange);
            prop_assert!(matches!(read(&exchange, 100), Err(Stop::Violation(_))));
        }
    }
}
