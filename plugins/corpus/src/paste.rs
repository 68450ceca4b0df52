//! What people paste into a chat: tables, code, logs, notes, mails, lists.

use std::fmt::Write as _;

use nineteen_sdk::Rng;

use crate::grammar::{Grammar, ident};

/// Material of about so many words, of a kind that people paste when they talk about this subject.
pub(crate) fn material(grammar: &Grammar, rng: &mut Rng, subject: Option<&str>, words: usize) -> String {
    let any: [(Kind, f64); 7] =
        [(csv, 0.14), (markdown, 0.10), (code, 0.16), (log, 0.10), (notes, 0.24), (mail, 0.16), (list, 0.10)];
    let technical: [(Kind, f64); 3] = [(code, 0.65), (log, 0.25), (csv, 0.10)];
    let office: [(Kind, f64); 4] = [(mail, 0.45), (csv, 0.20), (markdown, 0.15), (notes, 0.20)];
    let private: [(Kind, f64); 3] = [(notes, 0.35), (list, 0.45), (mail, 0.20)];
    let kinds: &[(Kind, f64)] = match subject {
        Some("code") => &technical,
        Some("work" | "money" | "data" | "thing") => &office,
        Some("food" | "travel" | "home" | "body" | "garden" | "people" | "write" | "learn") => &private,
        _ => &any,
    };
    rng.weighted(kinds).map_or_else(String::new, |kind| kind(grammar, rng, words.max(6)))
}

type Kind = fn(&Grammar, &mut Rng, usize) -> String;

/// Column heads with the rule that fills them.
const COLUMNS: [(&str, &str); 14] = [
    ("name", "name"),
    ("surname", "surname"),
    ("city", "place"),
    ("item", "thing"),
    ("job", "job"),
    ("firm", "firm"),
    ("qty", "int 1 400"),
    ("price", "money"),
    ("model", "model"),
    ("month", "month"),
    ("score", "int 0 100"),
    ("time", "clock"),
    ("ref", "hex"),
    ("field", "ident"),
];

fn columns(rng: &mut Rng) -> Vec<(&'static str, &'static str)> {
    let mut left = COLUMNS.to_vec();
    let n = rng.between(2, 5);
    (0..n)
        .filter_map(|_| {
            let at = usize::try_from(rng.below(left.len() as u64)).ok()?;
            (at < left.len()).then(|| left.swap_remove(at))
        })
        .collect()
}

/// A rule's text, or what a built-in makes: both are rules to the grammar.
fn cell(grammar: &Grammar, rng: &mut Rng, rule: &str) -> String {
    grammar.text(rule, rng)
}

fn csv(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let columns = columns(rng);
    let separator = rng.word(&[",", ";", "\t", ", "]);
    let mut out = columns.iter().map(|(head, _)| *head).collect::<Vec<_>>().join(separator);
    for _ in 0..(words / columns.len().max(1)).clamp(2, 80) {
        let row: Vec<String> = columns.iter().map(|(_, rule)| cell(grammar, rng, rule)).collect();
        out.push('\n');
        out.push_str(&row.join(separator));
    }
    out
}

fn markdown(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let columns = columns(rng);
    let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
    let mut out = format!("| {} |\n|{}", heads.join(" | "), "---|".repeat(columns.len()));
    for _ in 0..(words / columns.len().max(1)).clamp(2, 60) {
        let row: Vec<String> = columns.iter().map(|(_, rule)| cell(grammar, rng, rule)).collect();
        let _ = write!(out, "\n| {} |", row.join(" | "));
    }
    out
}

fn code(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let mut out = String::new();
    let fenced = rng.chance(0.5);
    let language = rng.below(4);
    if fenced {
        let _ = writeln!(
            out,
            "```{}",
            ["python", "js", "rust", "sql"].get(usize::try_from(language).unwrap_or(0)).unwrap_or(&"")
        );
    }
    for _ in 0..(words / 28 + 1).clamp(1, 12) {
        let (f, a, b, c, d) = (ident(rng), ident(rng), ident(rng), ident(rng), ident(rng));
        let (n, m) = (rng.between(1, 900), rng.between(2, 64));
        let note = cell(grammar, rng, "codething");
        let _ = match language {
            0 => match rng.below(3) {
                0 => writeln!(
                    out,
                    "def {f}({a}, {b}={n}):\n    # {note}\n    {c} = [{d}(x) for x in {a} if x > {b}]\n    return {c}[:{m}]\n"
                ),
                1 => writeln!(
                    out,
                    "class {f}:\n    def __init__(self, {a}, {b}):\n        self.{a} = {a}\n        self.{b} = {b} or {n}\n\n    def {c}(self):\n        return self.{a}.{d}(self.{b} % {m})\n"
                ),
                _ => writeln!(
                    out,
                    "with open(\"{f}.csv\") as {a}:\n    for {b} in {a}:\n        {c} = {b}.strip().split(\",\")\n        if len({c}) < {m}:\n            continue\n        {d}({c}[{}], {n})\n",
                    m / 2
                ),
            },
            1 => match rng.below(2) {
                0 => writeln!(
                    out,
                    "async function {f}({a}, {b} = {n}) {{\n  const {c} = await {d}({a});\n  return {c}.filter(x => x.{b} > {m}); // {note}\n}}\n"
                ),
                _ => writeln!(
                    out,
                    "const {f} = ({a}) => {{\n  let {b} = {n};\n  {a}.forEach(({c}) => {{ {b} += {c}.{d} || {m}; }});\n  return {b};\n}};\n"
                ),
            },
            2 => match rng.below(2) {
                0 => writeln!(
                    out,
                    "fn {f}({a}: &[u32], {b}: usize) -> Option<u32> {{\n    // {note}\n    let {c} = {a}.iter().skip({b}).take({m}).sum::<u32>();\n    ({c} > {n}).then_some({c})\n}}\n"
                ),
                _ => writeln!(
                    out,
                    "struct {f} {{\n    {a}: Vec<String>,\n    {b}: HashMap<u64, {d}>,\n}}\n\nimpl {f} {{\n    fn {c}(&mut self) {{\n        self.{a}.truncate({m});\n    }}\n}}\n"
                ),
            },
            _ => writeln!(
                out,
                "SELECT {a}.{b}, COUNT(*) AS {c}\nFROM {a}\nLEFT JOIN {d} ON {d}.{f} = {a}.{f}\nWHERE {a}.{b} > {n}\nGROUP BY {a}.{b}\nHAVING COUNT(*) > {m};\n"
            ),
        };
    }
    if fenced {
        out.push_str("```");
    }
    out.trim_end().to_owned()
}

fn log(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let (day, mut second) = (rng.between(1, 28), rng.between(0, 80_000));
    let (month, service) = (rng.between(1, 12), ident(rng));
    let mut lines = Vec::new();
    for _ in 0..(words / 9).clamp(2, 60) {
        second += rng.between(0, 90);
        let at = format!("{:02}:{:02}:{:02}", second / 3600 % 24, second / 60 % 60, second % 60);
        let level = rng.word(&["INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG"]);
        let message = match rng.below(4) {
            0 => format!("{} took {} ms", ident(rng), rng.between(1, 9000)),
            1 => format!("{}: {}", cell(grammar, rng, "errname"), ident(rng)),
            2 => format!(
                "request {:08x} from 10.{}.{}.{} {}",
                rng.below(1 << 32),
                rng.below(256),
                rng.below(256),
                rng.below(256),
                rng.word(&["ok", "404", "500", "retry"])
            ),
            _ => format!(
                "{} {} queued for {}",
                rng.between(2, 4000),
                cell(grammar, rng, "codething"),
                ident(rng)
            ),
        };
        lines.push(format!("2026-{month:02}-{day:02} {at} {level} [{service}] {message}"));
    }
    lines.join("\n")
}

fn notes(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let mut out = String::new();
    while out.split_whitespace().count() < words.min(900) {
        if !out.is_empty() {
            out.push_str(if rng.chance(0.2) { "\n\n" } else { " " });
        }
        out.push_str(&grammar.text("doc", rng));
    }
    out
}

fn mail(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let (to, from, firm) =
        (cell(grammar, rng, "name"), cell(grammar, rng, "name"), cell(grammar, rng, "firm"));
    let mut body = String::new();
    while body.split_whitespace().count() < words.min(600) {
        if !body.is_empty() {
            body.push(' ');
        }
        body.push_str(&grammar.text(if rng.chance(0.6) { "detail" } else { "doc" }, rng));
    }
    let greeting = rng.word(&["Dear", "Hi", "Hello", "Good morning"]);
    let end = rng.word(&["Best", "Kind regards", "Cheers", "Thanks"]);
    format!("{greeting} {to},\n\n{body}\n\n{end},\n{from}\n{firm}")
}

fn list(grammar: &Grammar, rng: &mut Rng, words: usize) -> String {
    let mark = rng.word(&["- ", "* ", "• ", ""]);
    let rules = ["food", "thing", "hobby", "place", "workthing", "topic"];
    let rule = rng.word(&rules);
    let mut lines = Vec::new();
    for _ in 0..(words / 4).clamp(3, 60) {
        let entry = cell(grammar, rng, rule);
        lines.push(match rng.below(3) {
            0 => format!("{mark}{entry} ({})", rng.between(1, 99)),
            1 => format!("{mark}{entry}, {}", cell(grammar, rng, "name")),
            _ => format!("{mark}{entry}"),
        });
    }
    lines.join("\n")
}
