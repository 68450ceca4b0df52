//! How far evidence moves when its checks run again, on another machine or another executor.
//!
//! A verdict is exact given its evidence; the evidence is what an executor computed, and executors round
//! differently. This compares two answers number by number, under the path of the number in the answer's JSON
//! (`tokens[].margin`: all tokens together), and rows of `f32` in blobs under `blob.f32`.

use std::collections::BTreeMap;

use bytes::Bytes;
use nineteen_domain::meet::Checker;
use nineteen_domain::{Answer, Check, Evidence};
use serde::Serialize;
use serde_json::Value;

/// Numbers of different paths that are told apart for one kind of check.
const MOST_PATHS: usize = 512;
/// How deep an answer's JSON is followed; serde_json itself stops at 128.
const DEEPEST: usize = 64;

/// How far the numbers under one path moved.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Moved {
    /// Numbers that were compared.
    pub compared: u64,
    /// The largest absolute difference.
    pub largest: f64,
}

/// How far the evidence of one kind of check moved.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Drift {
    /// Checks that were run again.
    pub checks: u64,
    /// By the path of the number.
    pub numbers: BTreeMap<String, Moved>,
    /// What is not a number and is not the same: path and how often.
    pub differs: BTreeMap<String, u64>,
}

impl Drift {
    /// The number that moved most, if any did.
    #[must_use]
    pub fn largest(&self) -> Option<(&str, f64)> {
        let moved = self.numbers.iter().filter(|(_, m)| m.largest > 0.0);
        moved.max_by(|a, b| a.1.largest.total_cmp(&b.1.largest)).map(|(path, m)| (path.as_str(), m.largest))
    }

    /// Whether every answer is the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.differs.is_empty() && self.largest().is_none()
    }

    /// Takes the two answers to one check into account.
    pub fn see(&mut self, recorded: &Evidence, again: &Evidence) {
        self.checks += 1;
        match (recorded, again) {
            (Evidence::Answered(a), Evidence::Answered(b)) => self.answers(a, b),
            (Evidence::Unavailable(_), Evidence::Unavailable(_)) => {}
            (Evidence::Answered(_), Evidence::Unavailable(_)) => self.differ("(answered then, not now)"),
            (Evidence::Unavailable(_), Evidence::Answered(_)) => self.differ("(answered now, not then)"),
        }
    }

    fn answers(&mut self, a: &Answer, b: &Answer) {
        let (was, is): (Option<Value>, Option<Value>) =
            (serde_json::from_str(&a.params).ok(), serde_json::from_str(&b.params).ok());
        let row = match (&was, &is) {
            (Some(was), Some(is)) => {
                self.values(&mut String::new(), was, is, 0);
                was.get("dimension").and_then(Value::as_u64)
            }
            _ => {
                if a.params != b.params {
                    self.differ("(no JSON)");
                }
                None
            }
        };
        if a.blobs.len() != b.blobs.len() {
            self.differ("blobs, their number");
        }
        for (was, is) in a.blobs.iter().zip(&b.blobs) {
            self.blobs(was, is, row);
        }
    }

    fn values(&mut self, path: &mut String, was: &Value, is: &Value, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let whole = path.len();
        match (was, is) {
            (Value::Number(was), Value::Number(is)) => {
                let by = match (was.as_f64(), is.as_f64()) {
                    (Some(was), Some(is)) => (was - is).abs(),
                    _ => f64::INFINITY,
                };
                self.moved(path, by);
            }
            (Value::Array(was), Value::Array(is)) => {
                path.push_str("[]");
                if was.len() != is.len() {
                    self.differ(&format!("{path}, their number"));
                }
                for (was, is) in was.iter().zip(is) {
                    self.values(path, was, is, depth + 1);
                }
            }
            (Value::Object(was), Value::Object(is)) => {
                for name in was.keys().chain(is.keys().filter(|name| !was.contains_key(*name))) {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.extend(name.chars().take(64));
                    match (was.get(name), is.get(name)) {
                        (Some(was), Some(is)) => self.values(path, was, is, depth + 1),
                        _ => self.differ(path),
                    }
                    path.truncate(whole);
                }
            }
            (was, is) if was == is => {}
            _ => self.differ(path),
        }
        path.truncate(whole);
    }

    /// Rows of little-endian `f32` where the answer names a dimension that they have; otherwise plain bytes.
    fn blobs(&mut self, was: &Bytes, is: &Bytes, row: Option<u64>) {
        let whole_rows = |b: &Bytes| {
            row.and_then(|n| n.checked_mul(4)).is_some_and(|n| n > 0 && (b.len() as u64).is_multiple_of(n))
        };
        if was.len() == is.len() && whole_rows(was) {
            for (was, is) in was.as_chunks::<4>().0.iter().zip(is.as_chunks::<4>().0) {
                let by = f64::from(f32::from_le_bytes(*was)) - f64::from(f32::from_le_bytes(*is));
                self.moved("blob.f32", by.abs());
            }
        } else if was != is {
            self.differ("blob");
        }
    }

    fn moved(&mut self, path: &str, by: f64) {
        if let Some(moved) = entry(&mut self.numbers, path) {
            moved.compared += 1;
            // A NaN is as far as can be.
            moved.largest = if by.is_nan() { f64::INFINITY } else { moved.largest.max(by) };
        }
    }

    fn differ(&mut self, path: &str) {
        if let Some(times) = entry(&mut self.differs, path) {
            *times += 1;
        }
    }
}

/// The entry of this path; past the most of them, none.
fn entry<'a, T: Default>(all: &'a mut BTreeMap<String, T>, path: &str) -> Option<&'a mut T> {
    if !all.contains_key(path) {
        if all.len() >= MOST_PATHS {
            return None;
        }
        all.insert(path.to_owned(), T::default());
    }
    all.get_mut(path)
}

/// Runs the checks of a receipt again, one after the other, and compares. Also gives the new evidence, from
/// which the plugin can be asked what it would say now.
pub async fn rerun(
    evidence: &[(Check, Evidence)],
    checker: &dyn Checker,
) -> (BTreeMap<String, Drift>, Vec<(Check, Evidence)>) {
    let mut drifts: BTreeMap<String, Drift> = BTreeMap::new();
    let mut anew = Vec::with_capacity(evidence.len());
    for (check, recorded) in evidence {
        let again = checker.check(check.clone()).await;
        if let Some(drift) = entry(&mut drifts, &check.kind) {
            drift.see(recorded, &again);
        }
        anew.push((check.clone(), again));
    }
    (drifts, anew)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(params: &str, blobs: &[&[u8]]) -> Evidence {
        let blobs = blobs.iter().map(|b| Bytes::copy_from_slice(b)).collect();
        Evidence::Answered(Answer { params: params.into(), blobs })
    }

    fn drift(a: &Evidence, b: &Evidence) -> Drift {
        let mut drift = Drift::default();
        drift.see(a, b);
        drift
    }

    #[test]
    fn the_same_answer_has_not_moved() {
        let a = answer(r#"{"tokens":[{"m":1.5},{"m":2}],"provider":"cpu"}"#, &[b"png"]);
        assert!(drift(&a, &a).is_none());
    }

    #[test]
    fn numbers_of_all_tokens_are_under_one_path() {
        let a = answer(r#"{"tokens":[{"m":1.5},{"m":2}],"p":"cpu"}"#, &[]);
        let b = answer(r#"{"tokens":[{"m":1.25},{"m":2.5}],"p":"cuda"}"#, &[]);
        let d = drift(&a, &b);
        assert_eq!(d.numbers["tokens[].m"], Moved { compared: 2, largest: 0.5 });
        assert_eq!(d.differs["p"], 1);
        assert_eq!(d.largest(), Some(("tokens[].m", 0.5)));
    }

    #[test]
    fn rows_of_floats_are_compared_as_numbers_and_pictures_as_bytes() {
        let row = |x: f32| [1.0_f32, x].map(f32::to_le_bytes).concat();
        let rows = |x| answer(r#"{"dimension":2}"#, &[&row(x)]);
        assert_eq!(drift(&rows(0.5), &rows(0.75)).numbers["blob.f32"].largest, 0.25);
        assert!(drift(&rows(0.5), &rows(f32::NAN)).numbers["blob.f32"].largest.is_infinite());
        let picture = |b: &[u8]| answer("{}", &[b]);
        assert_eq!(drift(&picture(b"abcd"), &picture(b"abce")).differs["blob"], 1);
    }

    #[test]
    fn what_is_missing_is_said() {
        let gone = Evidence::Unavailable("no model".into());
        let d = drift(&answer("{}", &[]), &gone);
        assert!(!d.is_none() && d.differs.contains_key("(answered then, not now)"));
        assert!(drift(&answer(r#"{"a":1}"#, &[]), &answer("{}", &[])).differs.contains_key("a"));
        assert!(drift(&answer("[1]", &[]), &answer("[1,2]", &[])).differs.contains_key("[], their number"));
        assert!(drift(&answer("x", &[]), &answer("y", &[])).differs.contains_key("(no JSON)"));
    }

    #[test]
    fn a_strangers_answer_does_not_fill_the_memory() {
        let many: String = (0..5000).map(|n| format!("\"k{n}\":{n},")).collect();
        let a = answer(&format!("{{{many}\"z\":0}}"), &[]);
        assert_eq!(drift(&a, &a).numbers.len(), MOST_PATHS);
    }
}
