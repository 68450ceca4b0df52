//! Files as people have them, made by code: text of several kinds, and binary ones with their true beginnings.

use nineteen_sdk::Rng;

const WORDS: &[&str] = &[
    "account", "balance", "cache", "delta", "engine", "filter", "graph", "handle", "index", "journal",
    "kernel", "limit", "model", "node", "offset", "packet", "queue", "record", "score", "token", "update",
    "value", "weight", "zone",
];

/// One file, 64 bytes to some kilobytes.
pub fn file(rng: &mut Rng) -> Vec<u8> {
    let lines = 4 + rng.below(40);
    match rng.below(10) {
        0 => json(rng, lines),
        1 => csv(rng, lines),
        2 => python(rng, lines),
        3 => rust(rng, lines),
        4 => html(rng, lines),
        5 => markdown(rng, lines),
        6 => toml(rng, lines),
        7 => shell(rng, lines),
        8 => binary(
            rng,
            &[0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 0x0d, b'I', b'H', b'D', b'R'],
        ),
        _ => binary(rng, &[0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03]),
    }
}

fn word(rng: &mut Rng) -> &'static str {
    rng.word(WORDS)
}

fn json(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let entry = |rng: &mut Rng| {
        format!("  {{\"{}\": {}, \"{}\": \"{}\"}}", word(rng), rng.below(100_000), word(rng), word(rng))
    };
    let all: Vec<String> = (0..lines).map(|_| entry(rng)).collect();
    format!("[\n{}\n]\n", all.join(",\n")).into_bytes()
}

fn csv(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = format!("id,{},{},{}\n", word(rng), word(rng), word(rng));
    for n in 0..lines {
        text += &format!("{n},{},{:.3},{}\n", word(rng), rng.unit() * 100.0, word(rng));
    }
    text.into_bytes()
}

fn python(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = format!("import os\nimport sys\n\n\nclass {}:\n", word(rng));
    for _ in 0..lines / 2 {
        let (name, of) = (word(rng), word(rng));
        text += &format!(
            "    def {name}(self, {of}):\n        return [x for x in {of} if x > {}]\n\n",
            rng.below(100)
        );
    }
    text.into_bytes()
}

fn rust(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = "use std::collections::BTreeMap;\n\n".to_owned();
    for _ in 0..lines / 3 {
        let (name, of) = (word(rng), word(rng));
        text +=
            &format!("pub fn {name}({of}: &[u64]) -> Option<u64> {{\n    {of}.iter().copied().max()\n}}\n\n");
    }
    text.into_bytes()
}

fn html(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = format!("<!DOCTYPE html>\n<html>\n<head><title>{}</title></head>\n<body>\n", word(rng));
    for _ in 0..lines {
        text += &format!(
            "<p class=\"{}\">{} <a href=\"/{}\">{}</a></p>\n",
            word(rng),
            word(rng),
            word(rng),
            word(rng)
        );
    }
    (text + "</body>\n</html>\n").into_bytes()
}

fn markdown(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = format!("# The {} of a {}\n\n", word(rng), word(rng));
    for _ in 0..lines {
        text += &format!("* **{}**: see [{}](https://example.com/{})\n", word(rng), word(rng), word(rng));
    }
    text.into_bytes()
}

fn toml(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = format!("[{}]\n", word(rng));
    for n in 0..lines {
        text += &format!("{}_{n} = {}\n{}_{n} = \"{}\"\n", word(rng), rng.below(1_000), word(rng), word(rng));
    }
    text.into_bytes()
}

fn shell(rng: &mut Rng, lines: u64) -> Vec<u8> {
    let mut text = "#!/bin/sh\nset -eu\n".to_owned();
    for _ in 0..lines {
        text += &format!(
            "if [ -f \"/tmp/{}\" ]; then\n  echo \"{}\" | grep -q {}\nfi\n",
            word(rng),
            word(rng),
            word(rng)
        );
    }
    text.into_bytes()
}

fn binary(rng: &mut Rng, head: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for _ in 0..8 + rng.below(300) {
        bytes.extend_from_slice(&rng.bits().to_le_bytes());
    }
    bytes
}
