//! A JSON file of a pipeline, read field by field.
//!
//! For: refusals that name the file and the field. Not for: deciding what a value means.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::CheckingError;
use crate::folder::read_text;
use crate::runtime::one_line;

pub(crate) fn wrong(path: &Path, why: impl Into<String>) -> CheckingError {
    CheckingError::ModelFile { path: path.to_path_buf(), why: why.into() }
}

/// The fields of one file.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    fields: Map<String, Value>,
}

impl Config {
    pub(crate) fn read(path: &Path) -> Result<Self, CheckingError> {
        if !path.is_file() {
            return Err(wrong(path, "it is missing"));
        }
        let text = read_text(path)?;
        let value: Value = serde_json::from_str(&with_quoted_infinities(&text))
            .map_err(|e| wrong(path, one_line(&e.to_string())))?;
        match value {
            Value::Object(fields) => Ok(Self { path: path.to_path_buf(), fields }),
            _ => Err(wrong(path, "it holds no JSON object")),
        }
    }

    /// A refusal of one field.
    pub(crate) fn refuse(&self, field: &str, why: impl std::fmt::Display) -> CheckingError {
        wrong(&self.path, format!("'{field}' {why}"))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// The value, unless it is absent or null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool, CheckingError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.refuse(field, format!("is {value}, not true or false")))
            }
        }
    }

    /// A number; `-Infinity` and `Infinity` count, as Python writes them.
    pub(crate) fn number(&self, field: &str) -> Result<Option<f64>, CheckingError> {
        let read = |value: &Value| match value {
            Value::Number(n) => n.as_f64(),
            Value::String(s) if s == "-Infinity" => Some(f64::NEG_INFINITY),
            Value::String(s) if s == "Infinity" => Some(f64::INFINITY),
            _ => None,
        };
        self.get(field)
            .map(|value| read(value).ok_or_else(|| self.refuse(field, format!("is {value}, not a number"))))
            .transpose()
    }

    /// A finite number.
    pub(crate) fn finite(&self, field: &str, default: f64) -> Result<f64, CheckingError> {
        let value = self.number(field)?.unwrap_or(default);
        if value.is_finite() { Ok(value) } else { Err(self.refuse(field, "is not finite")) }
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn count(
        &self,
        field: &str,
        default: Option<usize>,
        least: usize,
        most: usize,
    ) -> Result<usize, CheckingError> {
        let value = match (self.get(field), default) {
            (Some(value), _) => value.as_u64().and_then(|v| usize::try_from(v).ok()).ok_or_else(|| {
                self.refuse(field, format!("is {value}, not a whole number from {least} to {most}"))
            })?,
            (None, Some(default)) => default,
            (None, None) => return Err(self.refuse(field, "is missing")),
        };
        if (least..=most).contains(&value) {
            Ok(value)
        } else {
            Err(self.refuse(field, format!("is {value}, not a whole number from {least} to {most}")))
        }
    }

    pub(crate) fn word<'a>(&'a self, field: &str, default: &'a str) -> Result<&'a str, CheckingError> {
        match self.get(field) {
            None => Ok(default),
            Some(value) => {
                value.as_str().ok_or_else(|| self.refuse(field, format!("is {value}, not a word")))
            }
        }
    }

    /// Refuses a field that says anything but what is done here anyway.
    pub(crate) fn only(&self, field: &str, neutral: &Value) -> Result<(), CheckingError> {
        match self.get(field) {
            Some(value) if value != neutral => {
                Err(self.refuse(field, format!("is {value}; only {neutral} is served")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a field that is there and not null.
    pub(crate) fn absent(&self, field: &str) -> Result<(), CheckingError> {
        self.only(field, &Value::Null)
    }
}

/// Python writes infinities and NaN into JSON as bare words, which JSON does not have; here they become strings.
fn with_quoted_infinities(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quoted, mut escaped, mut rest) = (false, false, text);
    while let Some(c) = rest.chars().next() {
        if !quoted && let Some(word) = WORDS.iter().find(|word| rest.starts_with(**word)) {
            out.extend(["\"", word, "\""]);
            rest = rest.strip_prefix(*word).unwrap_or_default();
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        out.push(c);
        rest = rest.strip_prefix(c).unwrap_or_default();
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_infinities_are_quoted_and_words_in_strings_are_left() {
        let text = r#"{"a": -Infinity, "b": [Infinity,NaN], "c": "a \"NaN\" -Infinity"}"#;
        let value: Value = serde_json::from_str(&with_quoted_infinities(text)).unwrap();
        assert_eq!(value["a"], "-Infinity");
        assert_eq!(value["b"][0], "Infinity");
        assert_eq!(value["c"], "a \"NaN\" -Infinity");
    }

    #[test]
    fn refusals_name_the_file_and_the_field() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"n": -1, "f": 3, "w": 2, "x": "y", "inf": Infinity}"#).unwrap();
        let config = Config::read(&path).unwrap();
        for err in [
            config.count("n", None, 1, 5).unwrap_err(),
            config.count("f", None, 4, 5).unwrap_err(),
            config.flag("f", true).unwrap_err(),
            config.word("w", "").unwrap_err(),
            config.finite("inf", 0.0).unwrap_err(),
            config.number("x").unwrap_err(),
            config.absent("x").unwrap_err(),
            config.count("missing", None, 1, 5).unwrap_err(),
        ] {
            let text = err.to_string();
            assert!(text.contains("config.json") && text.contains('\'') && !text.contains('\n'), "{text}");
        }
        std::fs::write(&path, "{").unwrap();
        assert!(Config::read(&path).unwrap_err().to_string().contains("config.json"));
    }
}
