//! A reply as rows: numbers or base64, one vector per text, in order.

use nineteen_sdk::openai::Usage;
use nineteen_sdk::{Exchange, Stop};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What the bytes say.
#[derive(Debug, Deserialize)]
pub struct Reply {
    /// The rows.
    pub data: Vec<Row>,
    /// Claimed counts.
    pub usage: Option<Usage>,
}

/// One row.
#[derive(Debug, Deserialize)]
pub struct Row {
    /// Its place.
    pub index: usize,
    /// Its numbers.
    pub embedding: Vector,
}

/// A vector, however it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector(pub Vec<f32>);

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vector;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of numbers, or base64")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vector, E> {
                let bytes = base64(text.as_bytes()).ok_or_else(|| E::custom("not base64"))?;
                let (words, rest) = bytes.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(E::custom("base64 of a part of a number"));
                }
                Ok(Vector(words.iter().map(|w| f32::from_le_bytes(*w)).collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vector, A::Error> {
                let mut all = Vec::with_capacity(384);
                while let Some(x) = seq.next_element::<f32>()? {
                    all.push(x);
                    if all.len() > MAX_DIMENSION {
                        return Err(A::Error::custom("a vector of more than 65536 numbers"));
                    }
                }
                Ok(Vector(all))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

const MAX_DIMENSION: usize = 65_536;

/// Standard base64 with padding; `None` for anything else, unused bits that are not 0 included.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (i, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && i + 1 != groups.len()) {
            return None;
        }
        let mut bits = 0_u32;
        for symbol in group.iter().take(4 - padding) {
            let six = match symbol {
                b'A'..=b'Z' => symbol - b'A',
                b'a'..=b'z' => symbol - b'a' + 26,
                b'0'..=b'9' => symbol - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(six);
        }
        bits <<= 6 * padding;
        let [_, a, b, c] = bits.to_be_bytes();
        let whole = [a, b, c];
        if whole.iter().skip(3 - padding).any(|b| *b != 0) {
            return None;
        }
        bytes.extend(whole.iter().take(3 - padding));
    }
    Some(bytes)
}

/// Reads a whole reply.
///
/// # Errors
/// A violation that says what is wrong with the bytes.
pub fn read(exchange: &Exchange) -> Result<Reply, Stop> {
    serde_json::from_slice(&exchange.body()).map_err(|e| Stop::violation("reply.malformed", e.to_string()))
}

/// Rows that the bytes claim; numbers are not read.
#[must_use]
pub fn claimed(exchange: &Exchange) -> Option<u64> {
    #[derive(Deserialize)]
    struct Shape {
        data: Vec<serde::de::IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(&exchange.body()).ok()?;
    Some(shape.data.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_strictly() {
        assert_eq!(base64(b"Zm9vYmFy").unwrap(), b"foobar");
        assert_eq!(base64(b"Zm9vYg==").unwrap(), b"foob");
        assert_eq!(base64(b"Zm9vYmE=").unwrap(), b"fooba");
        assert_eq!(base64(b"").unwrap(), b"");
        for wrong in [&b"Zm9"[..], b"Zm9=Zm9v", b"Z===", b"Zm9v!m9v", b"Zm9vYh==", b"===="] {
            assert!(base64(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_and_base64_give_the_same_vector() {
        let numbers: Vector = serde_json::from_str("[1.0, -0.5]").unwrap();
        let packed: Vector = serde_json::from_str("\"AACAPwAAAL8=\"").unwrap();
        assert_eq!(numbers, packed);
        assert!(serde_json::from_str::<Vector>("[null]").is_err());
        assert!(serde_json::from_str::<Vector>("{}").is_err());
    }
}
