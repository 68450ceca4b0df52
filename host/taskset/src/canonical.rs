//! The bytes that stand for what a set means, and the message that its owners sign.
//!
//! Owners sign meaning and not a file's bytes: a set passes through editors, version control and web servers, and m
//! people on m machines sign what each of them read. A changed line ending, comment or order of keys then breaks
//! nothing, and any change of a number, name, digest or date does. What is checked is the same value that is run:
//! there is no second reading of the file. The price is that a comment is nobody's word.
//!
//! The encoding is injective: every value begins with a tag, everything of variable length says its length, and the
//! keys of a table are sorted. Numbers are 64 bits, big-endian; doubles by their IEEE bits, and −0 is 0.

use nineteen_domain::Digest;
use serde::Serialize;
use serde_json::Value;

use crate::refusal::Refusal;
use crate::set::Set;

const SEPARATOR: &str = "nineteen-taskset-v1";

/// Canonical bytes of a set.
///
/// # Errors
/// [`Refusal::Field`]: a number in it is infinite or none.
pub fn bytes(set: &Set) -> Result<Vec<u8>, Refusal> {
    // The order of keys and of tasks means nothing, so it is not signed.
    let mut set = set.clone();
    set.owner.keys.sort_unstable();
    set.tasks.sort_by(|a, b| a.name.cmp(&b.name));
    of(SEPARATOR, &set)
}

/// What an owner's key signs: a line of text, so that a signer of any kind can show it to its owner.
#[must_use]
pub fn message(set: &Digest) -> Vec<u8> {
    format!("{SEPARATOR} {set}").into_bytes()
}

/// Canonical bytes of a value, behind a separator that says what it is.
///
/// # Errors
/// As [`bytes`].
pub(crate) fn of<T: Serialize>(separator: &str, value: &T) -> Result<Vec<u8>, Refusal> {
    let not_a_number = || Refusal::Field {
        field: "policy".into(),
        why: "a number in it is infinite or not a number".into(),
    };
    let value = serde_json::to_value(value).map_err(|_| not_a_number())?;
    let mut out = Vec::with_capacity(4096);
    text(separator, &mut out);
    encode(&value, &mut out).ok_or_else(not_a_number)?;
    Ok(out)
}

/// `None`: there is a null, which is how JSON writes what is no number; nothing of ours is null by itself.
fn encode(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Null => return None,
        Value::Bool(b) => out.extend_from_slice(&[b'b', u8::from(*b)]),
        Value::Number(n) => {
            let (tag, bits) = match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => (b'u', n.to_be_bytes()),
                (None, Some(n)) => (b'i', n.to_be_bytes()),
                (None, None) => {
                    let x = n.as_f64().filter(|x| x.is_finite())?;
                    (b'f', if x == 0.0 { 0.0_f64 } else { x }.to_bits().to_be_bytes())
                }
            };
            out.push(tag);
            out.extend_from_slice(&bits);
        }
        Value::String(s) => text(s, out),
        Value::Array(items) => {
            out.push(b'a');
            length(items.len(), out);
            items.iter().try_for_each(|item| encode(item, out))?;
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by(|a, b| a.0.cmp(b.0));
            out.push(b'o');
            length(fields.len(), out);
            for (key, value) in fields {
                text(key, out);
                encode(value, out)?;
            }
        }
    }
    Some(())
}

fn text(s: &str, out: &mut Vec<u8>) {
    out.push(b's');
    length(s.len(), out);
    out.extend_from_slice(s.as_bytes());
}

fn length(n: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(n as u64).to_be_bytes());
}
