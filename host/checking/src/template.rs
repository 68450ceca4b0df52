//! A model's own chat template: messages in, the text that the model was trained on out.
//!
//! For: rendering exactly as transformers does. Not for: tokenising. The one idea: the template is the model's
//! file, so this module only provides the surroundings that templates expect (Python's string methods,
//! `raise_exception`, `strftime_now`, `tojson`).

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::CheckingError;
use crate::runtime::one_line;

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `system`, `user` or `assistant`; what else is allowed is the template's business.
    pub role: String,
    /// The text.
    pub content: String,
}

/// A compiled template with the tokens that it may mention.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    tokens: BTreeMap<String, Value>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source`; `tokens` are `bos_token`, `eos_token` and the like.
    pub(crate) fn new(source: String, tokens: BTreeMap<String, String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        // As transformers sets Jinja2 up.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|e| one_line(&e.to_string()))?;
        environment.set_syntax(syntax);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, now()));
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source).map_err(|e| one_line(&e.to_string()))?;
        Ok(Self { environment, tokens: tokens.into_iter().map(|(k, v)| (k, Value::from(v))).collect() })
    }

    /// The chat as text.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, CheckingError> {
        let refuse = |e: Error| {
            CheckingError::BadParameters(format!(
                "the model's chat template refuses these messages: {}",
                one_line(&e.to_string())
            ))
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|m| {
                Value::from_pairs([
                    ("role", Value::from(m.role.as_str())),
                    ("content", Value::from(m.content.as_str())),
                ])
            })
            .collect();
        self.environment
            .get_template(NAME)
            .and_then(|t| {
                t.render(context! { messages, add_generation_prompt, ..Value::from(self.tokens.clone()) })
            })
            .map_err(refuse)
    }
}

/// As transformers' `tojson`: Python's separators, nothing escaped for HTML or to ASCII.
fn tojson(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        let _: Option<Value> = kwargs.get(ignored)?;
    }
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(Value::from(out))
}

fn write_json(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > 64 {
        return Err(Error::new(ErrorKind::InvalidOperation, "nested too deeply for tojson"));
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let gap = |out: &mut String, depth: usize, first: bool| match indent {
        Some(width) => {
            out.push_str(if first { "\n" } else { ",\n" });
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
        None if !first => out.push_str(", "),
        None => {}
    };
    let close = |out: &mut String, empty: bool| {
        if let (Some(width), false) = (indent, empty) {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Map => {
            out.push('{');
            let mut first = true;
            for key in value.try_iter()? {
                gap(out, depth + 1, first);
                first = false;
                out.push_str(&quoted(&key.to_string()));
                out.push_str(": ");
                write_json(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            close(out, first);
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut first = true;
            for item in value.try_iter()? {
                gap(out, depth + 1, first);
                first = false;
                write_json(&item, indent, depth + 1, out)?;
            }
            close(out, first);
            out.push(']');
        }
        _ => out.push_str(&quoted(&value.to_string())),
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The fields of C's `strftime` that templates use, in UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], i: u64| {
        usize::try_from(i).ok().and_then(|i| names.get(i).copied()).unwrap_or_default()
    };
    let (weekday, month_name) = (name(&DAYS, (days + 3) % 7), name(&MONTHS, month - 1));
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let text = match chars.next() {
            Some('Y') => year.to_string(),
            Some('y') => format!("{:02}", year % 100),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('B') => month_name.into(),
            Some('b') => month_name.chars().take(3).collect(),
            Some('A') => weekday.into(),
            Some('a') => weekday.chars().take(3).collect(),
            Some('H') => format!("{:02}", rest / 3600),
            Some('M') => format!("{:02}", rest / 60 % 60),
            Some('S') => format!("{:02}", rest % 60),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('%') => "%".into(),
            other => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now does not know %{}", other.map(String::from).unwrap_or_default()),
                ));
            }
        };
        out.push_str(&text);
    }
    Ok(out)
}

/// Year, month (1 to 12) and day of a day since 1970-01-01, by whole eras of 400 years counted from March.
const fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let tokens = [("bos_token".to_owned(), "<s>".to_owned())].into();
        ChatTemplate::new(source.to_owned(), tokens).unwrap()
    }

    fn user(text: &str) -> Vec<Message> {
        vec![Message { role: "user".into(), content: text.into() }]
    }

    #[test]
    fn blocks_leave_no_lines_behind_and_python_methods_work() {
        let t = template(
            "{{ bos_token }}{% for m in messages %}\n    {% if m['role'].startswith('u') %}\n[{{ m.content.strip() }}]{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}>{% endif %}",
        );
        assert_eq!(t.render(&user("  hi "), true).unwrap(), "<s>[hi]>");
    }

    #[test]
    fn a_template_that_raises_says_why() {
        let t = template("{{ raise_exception('roles must alternate') }}");
        let err = t.render(&user("x"), true).unwrap_err();
        assert!(err.to_string().contains("roles must alternate"), "{err}");
        assert_eq!(err.code(), "checking.parameters");
    }

    #[test]
    fn json_is_pythons_and_not_escaped_for_html() {
        let t = template("{{ messages | tojson }}|{{ messages[0] | tojson(indent=2) }}");
        let text = t.render(&user("<a> & 'ü'"), false).unwrap();
        let (flat, wide) = text.split_once('|').unwrap();
        assert_eq!(flat, r#"[{"content": "<a> & 'ü'", "role": "user"}]"#);
        assert!(wide.starts_with("{\n  \"content\": "), "{wide}");
    }

    #[test]
    fn dates_are_right_on_both_sides_of_a_leap_day() {
        let show = |s| strftime("%a %d %b %Y %H:%M:%S", s).unwrap();
        assert_eq!(show(0), "Thu 01 Jan 1970 00:00:00");
        assert_eq!(show(951_782_399), "Mon 28 Feb 2000 23:59:59");
        assert_eq!(show(951_782_400), "Tue 29 Feb 2000 00:00:00");
        assert_eq!(show(1_735_689_600), "Wed 01 Jan 2025 00:00:00");
        assert!(strftime("%Q", 0).is_err());
    }

    #[test]
    fn a_broken_template_is_refused_when_it_is_compiled() {
        assert!(ChatTemplate::new("{% for %}".into(), BTreeMap::new()).is_err());
    }
}
