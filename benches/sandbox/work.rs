//! The function that every contender runs: what the template of `nineteen task new` does to score an exchange. As a native
//! function, in an Extism plugin (both from this file), and as the templates' own code in Rust, Python and JavaScript.

use serde::Deserialize;

/// What can be done with a text.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Op {
    Reverse,
    Upper,
    SortWords,
}

#[derive(Deserialize)]
struct Body {
    op: Op,
    texts: Vec<String>,
}

#[derive(Deserialize)]
struct Reply {
    texts: Vec<String>,
}

/// How many of the texts came back as they were asked for, of how many; `None` for bytes that are no exchange of the task.
pub(crate) fn right(request: &[u8], reply: &[u8]) -> Option<(u64, u64)> {
    let asked: Body = serde_json::from_slice(request).ok()?;
    let reply: Reply = serde_json::from_slice(reply).ok()?;
    let change = |text: &str| -> String {
        match asked.op {
            Op::Reverse => text.chars().rev().collect(),
            Op::Upper => text.to_uppercase(),
            Op::SortWords => {
                let mut words: Vec<&str> = text.split_whitespace().collect();
                words.sort_unstable();
                words.join(" ")
            }
        }
    };
    let right = asked.texts.iter().zip(&reply.texts).filter(|(text, said)| change(text) == **said).count();
    Some((right as u64, asked.texts.len() as u64))
}
