//! Invented text that reads like people's: questions and chats, notes, tables, code, logs.
//!
//! Not a list of prompts: a grammar per language (`grammar/*.txt`) with a few thousand words, whose openings
//! put what is particular (names, places, numbers, invented firms and identifiers) into the first words. A
//! miner that keeps answers, or prefixes, finds nothing to keep; and nothing is added to the text to make it
//! unique that a person would not write.
//!
//! The draws come from the caller's seed; the same seed gives the same text on every machine.

mod grammar;
mod paste;
mod style;

use nineteen_sdk::Rng;

use crate::grammar::{Grammar, Language};
use crate::style::Style;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions before the chat.
    System,
    /// A person.
    User,
    /// A model.
    Assistant,
}

/// What a chat shall be like.
#[derive(Debug, Clone)]
pub struct ChatShape {
    /// Turns of the person, at least 1.
    pub turns: usize,
    /// Whether instructions come first.
    pub system: bool,
    /// Words wanted of each turn; a turn is never cut in the middle of a sentence, so it is a wish.
    pub words: Vec<usize>,
    /// Words of pasted material in the first turn; 0 for none.
    pub pasted_words: usize,
}

/// Sentences that one turn may have, whatever is wished for.
const MAX_SENTENCES: usize = 120;

/// A chat that ends with the person's turn.
#[must_use]
pub fn chat(rng: &mut Rng, shape: &ChatShape) -> Vec<(Role, String)> {
    let language = Language::draw(rng);
    let grammar = Grammar::of(language);
    let style = Style::draw(rng);
    let mut said = Vec::with_capacity(2 * shape.turns + 1);
    if shape.system {
        said.push((Role::System, grammar.text("system", rng)));
    }
    let wish = |turn: usize| shape.words.get(turn).copied().unwrap_or(12);
    let mut subject = grammar.subject(rng);
    let opening =
        style.apply(&turn(&Said { grammar: &grammar, language, subject }, rng, "open", wish(0)), rng);
    let opening = match shape.pasted_words {
        0 => opening,
        words => {
            let material = paste::material(&grammar, rng, subject, words);
            if rng.chance(0.8) {
                format!("{opening}\n\n{material}")
            } else {
                format!("{material}\n\n{opening}")
            }
        }
    };
    said.push((Role::User, opening));
    for i in 1..shape.turns.max(1) {
        said.push((Role::Assistant, answer(&Said { grammar: &grammar, language, subject }, rng)));
        // Some people change the subject.
        let mut rule = "follow";
        if rng.chance(0.2) {
            (rule, subject) = ("open", grammar.subject(rng));
        }
        let text = turn(&Said { grammar: &grammar, language, subject }, rng, rule, wish(i));
        said.push((Role::User, style.apply(&text, rng)));
    }
    said
}

/// A text as people embed them: a search query, a question, a sentence or several, code, a table, a log.
#[must_use]
pub fn passage(rng: &mut Rng, words: usize) -> String {
    let language = Language::draw(rng);
    let grammar = Grammar::of(language);
    let style = Style::draw(rng);
    let about = Said { grammar: &grammar, language, subject: grammar.subject(rng) };
    if language != Language::English {
        return style.apply(&turn(&about, rng, "open", words), rng);
    }
    let kinds = [("query", 0.12), ("open", 0.26), ("doc", 0.50), ("paste", 0.12)];
    let kind = if words <= 7 { "query" } else { rng.weighted(&kinds).copied().unwrap_or("doc") };
    match kind {
        "query" => style.apply(&grammar.text("query", rng), rng),
        "paste" => paste::material(&grammar, rng, None, words),
        "doc" => {
            let mut text = capital(&grammar.text("doc", rng));
            more(&mut text, words, language, || capital(&grammar.text("doc", rng)));
            text
        }
        rule => style.apply(&turn(&about, rng, rule, words), rng),
    }
}

/// In which language, and about what.
struct Said<'a> {
    grammar: &'a Grammar,
    language: Language,
    subject: Option<&'static str>,
}

impl Said<'_> {
    /// One of the rule's texts: of the subject's own, mostly, where it has any.
    fn text(&self, rule: &str, rng: &mut Rng) -> String {
        let own = self.subject.map(|subject| format!("{rule}_{subject}")).filter(|r| self.grammar.knows(r));
        match own {
            Some(own) if rule == "open" || rng.chance(0.75) => self.grammar.text(&own, rng),
            _ => self.grammar.text(rule, rng),
        }
    }
}

/// One turn of a person: what they want, what they add, how they want it.
fn turn(about: &Said<'_>, rng: &mut Rng, rule: &str, words: usize) -> String {
    let language = about.language;
    let english = language == Language::English;
    let mut text = String::new();
    if english && rng.chance(0.12) {
        text.push_str(&about.text("greet", rng));
        text.push(' ');
    }
    text.push_str(&about.text(rule, rng));
    more(&mut text, words.saturating_sub(4), language, || about.text("detail", rng));
    if length(&text, language) + 3 < words {
        add(&mut text, &about.text("ask", rng), language);
    }
    if english && rng.chance(0.08) {
        add(&mut text, &about.text("thanks", rng), language);
    }
    text
}

/// What an assistant said before: prose, or a list.
fn answer(about: &Said<'_>, rng: &mut Rng) -> String {
    let mut text = about.text("answer_head", rng);
    let points = rng.between(1, 5);
    let list = points > 2 && rng.chance(0.5);
    for i in 1..=points {
        let mut point = about.text("answer_point", rng);
        for _ in 0..4 {
            if text.contains(&point) {
                point = about.text("answer_point", rng);
            }
        }
        if list {
            text.push_str(&format!("\n{i}. {}", capital(&point)));
        } else {
            add(&mut text, &capital(&point), about.language);
        }
    }
    let tail = about.text("answer_tail", rng);
    if !tail.is_empty() {
        text.push_str(if list { "\n" } else { " " });
        text.push_str(&tail);
    }
    text
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Adds sentences until there are enough words; what was said is not said again, if it can be helped.
fn more(text: &mut String, words: usize, language: Language, mut sentence: impl FnMut() -> String) {
    for _ in 0..MAX_SENTENCES {
        if length(text, language) >= words {
            return;
        }
        let mut next = sentence();
        for _ in 0..4 {
            if text.contains(&next) {
                next = sentence();
            }
        }
        add(text, &next, language);
    }
}

/// Puts a stop between sentences where the first has none.
fn add(text: &mut String, sentence: &str, language: Language) {
    if !text.is_empty() && !sentence.is_empty() {
        let open = text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || "\"`)»“".contains(c));
        match (language.without_blanks(), open) {
            (true, true) => text.push('。'),
            (true, false) => {}
            (false, true) => text.push_str(". "),
            (false, false) => text.push(' '),
        }
    }
    text.push_str(sentence);
}

/// Words; where a language writes no blanks, two characters count as one.
fn length(text: &str, language: Language) -> usize {
    if language.without_blanks() { text.chars().count() / 2 } else { text.split_whitespace().count() }
}

#[cfg(test)]
mod tests;
