//! Rules that expand into text.
//!
//! A grammar is plain text, so that a language is a file: a line that ends in a colon names a rule, the
//! indented lines below it are its alternatives, bars separate alternatives on one line, and `{rule}` stands
//! for one of a rule's alternatives. A few names are built in, because they have no list: `{int 2 9}`,
//! `{clock}`, `{money}`, `{hex}`, `{ident}`.

use nineteen_sdk::Rng;

const WORDS: &str = include_str!("grammar/words.txt");
const ENGLISH: &str = include_str!("grammar/en.txt");

/// What a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    English,
    Spanish,
    French,
    German,
    Portuguese,
    Italian,
    Indonesian,
    Russian,
    Chinese,
    Japanese,
}

impl Language {
    /// Shares of languages: most of what is asked is English.
    const SHARES: [(Self, f64); 10] = [
        (Self::English, 0.70),
        (Self::Spanish, 0.06),
        (Self::French, 0.045),
        (Self::German, 0.045),
        (Self::Portuguese, 0.035),
        (Self::Italian, 0.025),
        (Self::Indonesian, 0.02),
        (Self::Russian, 0.03),
        (Self::Chinese, 0.025),
        (Self::Japanese, 0.015),
    ];

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        rng.weighted(&Self::SHARES).copied().unwrap_or(Self::English)
    }

    pub(crate) const fn without_blanks(self) -> bool {
        matches!(self, Self::Chinese | Self::Japanese)
    }

    const fn rules(self) -> &'static str {
        match self {
            Self::English => ENGLISH,
            Self::Spanish => include_str!("grammar/es.txt"),
            Self::French => include_str!("grammar/fr.txt"),
            Self::German => include_str!("grammar/de.txt"),
            Self::Portuguese => include_str!("grammar/pt.txt"),
            Self::Italian => include_str!("grammar/it.txt"),
            Self::Indonesian => include_str!("grammar/id.txt"),
            Self::Russian => include_str!("grammar/ru.txt"),
            Self::Chinese => include_str!("grammar/zh.txt"),
            Self::Japanese => include_str!("grammar/ja.txt"),
        }
    }
}

/// Rules by name.
#[derive(Debug)]
pub(crate) struct Grammar {
    rules: Vec<(&'static str, &'static str)>,
    english: bool,
}

/// Rules may refer to rules, but not without end.
const MAX_DEPTH: usize = 8;

impl Grammar {
    /// A language's rules; what it has not is taken from English (instructions, code) and the common words.
    pub(crate) fn of(language: Language) -> Self {
        let mut rules = Vec::with_capacity(160);
        read(language.rules(), &mut rules);
        if language != Language::English {
            read(ENGLISH, &mut rules);
        }
        read(WORDS, &mut rules);
        Self { rules, english: language == Language::English }
    }

    /// One of the rule's texts.
    pub(crate) fn text(&self, rule: &str, rng: &mut Rng) -> String {
        let mut out = String::with_capacity(96);
        self.expand(rule, rng, 0, &mut out);
        if self.english || rule == "system" { articles(&out) } else { out }
    }

    /// Whether there is such a rule.
    pub(crate) fn knows(&self, rule: &str) -> bool {
        self.body(rule).is_some()
    }

    /// What an opening is about: `food` where the rule `open` offers `{open_food}`; `None` in languages that
    /// have one list of openings.
    pub(crate) fn subject(&self, rng: &mut Rng) -> Option<&'static str> {
        let body = self.body("open")?;
        let n = alternatives(body).count() as u64;
        let chosen = alternatives(body).nth(usize::try_from(rng.below(n)).ok()?)?;
        chosen.strip_prefix("{open_")?.strip_suffix('}')
    }

    fn body(&self, rule: &str) -> Option<&'static str> {
        self.rules.iter().find(|(name, _)| *name == rule).map(|(_, body)| *body)
    }

    fn expand(&self, rule: &str, rng: &mut Rng, depth: usize, out: &mut String) {
        if let Some(body) = self.body(rule) {
            let n = alternatives(body).count() as u64;
            let chosen = usize::try_from(rng.below(n)).unwrap_or(0);
            let mut rest = alternatives(body).nth(chosen).unwrap_or_default();
            while let Some((before, slot, after)) = slot(rest) {
                out.push_str(before);
                if depth < MAX_DEPTH {
                    self.expand(slot, rng, depth + 1, out);
                }
                rest = after;
            }
            out.push_str(rest);
        } else if let Some(made) = built_in(rule, rng) {
            out.push_str(&made);
        }
    }
}

fn read(text: &'static str, rules: &mut Vec<(&'static str, &'static str)>) {
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        let Some(name) = line.strip_suffix(':').filter(|n| !n.starts_with([' ', '#'])) else { continue };
        // The body is what is indented from here on.
        let mut end = 0;
        for line in after.split_inclusive('\n') {
            if !line.starts_with(' ') {
                break;
            }
            end += line.len();
        }
        rules.push((name, after.get(..end).unwrap_or_default()));
    }
}

fn alternatives(body: &'static str) -> impl Iterator<Item = &'static str> {
    body.lines().flat_map(|line| line.trim_start().split('|'))
}

fn slot(text: &'static str) -> Option<(&'static str, &'static str, &'static str)> {
    let (before, rest) = text.split_once('{')?;
    let (slot, after) = rest.split_once('}')?;
    Some((before, slot, after))
}

fn built_in(rule: &str, rng: &mut Rng) -> Option<String> {
    let mut parts = rule.split(' ');
    match parts.next()? {
        "int" => {
            let low = parts.next()?.parse().ok()?;
            Some(rng.between(low, parts.next()?.parse().ok()?).to_string())
        }
        "clock" => Some(match rng.below(3) {
            0 => format!("{}:{:02}", rng.between(0, 23), rng.between(0, 59)),
            1 => format!("{}{}", rng.between(1, 12), if rng.chance(0.5) { "am" } else { "pm" }),
            _ => format!("{:02}:{:02}", rng.between(5, 23), 5 * rng.between(0, 11)),
        }),
        "money" => Some(money(rng)),
        "hex" => Some(format!("{:x}", rng.below(1 << 28) + (1 << 20))),
        "ident" => Some(ident(rng)),
        _ => None,
    }
}

fn money(rng: &mut Rng) -> String {
    let magnitude = 10_i64.pow(u32::try_from(rng.between(1, 4)).unwrap_or(2));
    let amount = rng.between(magnitude, 10 * magnitude - 1);
    match rng.below(6) {
        0 => format!("${amount}"),
        1 => format!("{amount} €"),
        2 => format!("£{amount}"),
        3 => format!("{amount} euros"),
        4 => format!("${amount}.{:02}", rng.below(100)),
        _ => format!("{} CHF", amount / 10 * 10),
    }
}

/// An identifier as programmers make them.
pub(crate) fn ident(rng: &mut Rng) -> String {
    const VERBS: &[&str] = &[
        "get", "load", "parse", "merge", "build", "fetch", "apply", "check", "drop", "emit", "fill", "find",
        "flush", "init", "join", "list", "make", "map", "mark", "move", "open", "pack", "pick", "pull",
        "push", "rank", "read", "reset", "run", "scan", "send", "set", "sort", "split", "sum", "sync",
        "trim", "update", "walk", "wrap",
    ];
    const NOUNS: &[&str] = &[
        "account", "batch", "booking", "bucket", "buffer", "cart", "chunk", "client", "color", "cursor",
        "depot", "device", "digest", "edge", "event", "field", "frame", "gauge", "grid", "group", "handle",
        "index", "invoice", "item", "job", "key", "label", "ledger", "level", "line", "lock", "meter",
        "node", "offset", "order", "packet", "page", "parcel", "path", "pixel", "player", "price", "queue",
        "range", "record", "region", "report", "route", "row", "sample", "score", "sensor", "shape", "shift",
        "slot", "stage", "stock", "tag", "ticket", "token", "tree", "user", "value", "vertex", "voucher",
        "window", "worker", "zone",
    ];
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect::<String>()
    };
    let (verb, noun, other) = (rng.word(VERBS), rng.word(NOUNS), rng.word(NOUNS));
    let base = match rng.below(6) {
        0 => format!("{verb}_{noun}_{other}"),
        1 => format!("{verb}{}{}", capital(noun), capital(other)),
        2 => format!("{}{}", capital(noun), capital(other)),
        3 => format!("{noun}_{other}"),
        4 => format!("{verb}_{noun}"),
        _ => format!("{verb}{}", capital(noun)),
    };
    if rng.chance(0.2) { format!("{base}{}", rng.between(2, 64)) } else { base }
}

/// "a apple" as English writes it.
fn articles(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        out.push_str(word);
        let vowel =
            words.peek().and_then(|next| next.chars().next()).is_some_and(|c| "aeiouAEIO".contains(c));
        if vowel && matches!(word, "a" | "A" | "(a" | "\"a") {
            out.push('n');
        }
        if words.peek().is_some() {
            out.push(' ');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_of_every_language_leads_somewhere() {
        let mut rng = Rng::new(&[1; 32]);
        for (language, _) in Language::SHARES {
            let grammar = Grammar::of(language);
            for (name, body) in &grammar.rules {
                assert!(alternatives(body).count() > 0, "{language:?}: {name} has no alternatives");
                for alternative in alternatives(body) {
                    let mut rest = alternative;
                    while let Some((_, slot, after)) = slot(rest) {
                        let known = grammar.body(slot).is_some() || built_in(slot, &mut rng).is_some();
                        assert!(known, "{language:?}: {name} refers to {{{slot}}}");
                        rest = after;
                    }
                    assert!(
                        !rest.contains(['{', '}']),
                        "{language:?}: {name} has a stray brace: {alternative}"
                    );
                }
            }
            for rule in ["open", "detail", "ask", "follow", "answer_head", "answer_point", "answer_tail"] {
                assert!(language.rules().contains(&format!("\n{rule}:\n")), "{language:?} has no {rule}");
            }
        }
    }

    #[test]
    fn articles_fit_what_follows() {
        assert_eq!(articles("a apple and a pear, a old one"), "an apple and a pear, an old one");
        assert_eq!(articles("la apple"), "la apple");
    }
}
