//! How a person types: capitals or none, full stops or none, and slips.

use nineteen_sdk::Rng;

/// One person's habits, the same through a chat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    lower: bool,
    capital: bool,
    bare_end: bool,
    slips: f64,
}

impl Style {
    /// 18 % write without capitals, 55 % begin with one; 25 % leave the last stop away; 20 % slip in one word
    /// of thirty.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let lower = rng.chance(0.18);
        Self {
            lower,
            capital: !lower && rng.chance(0.67),
            bare_end: rng.chance(0.25),
            slips: if rng.chance(0.2) { 1.0 / 30.0 } else { 0.0 },
        }
    }

    /// The text as this person types it.
    pub(crate) fn apply(&self, text: &str, rng: &mut Rng) -> String {
        let mut out = String::with_capacity(text.len() + 4);
        for (i, word) in text.split(' ').enumerate() {
            if i > 0 {
                out.push(' ');
            }
            let plain = word.chars().all(|c| c.is_alphabetic() || ".,?!:;'\"".contains(c));
            if plain && self.slips > 0.0 && rng.chance(self.slips) {
                out.push_str(&slip(word, rng));
            } else if plain && self.lower {
                out.push_str(&word.to_lowercase());
            } else {
                out.push_str(word);
            }
        }
        if self.bare_end && out.ends_with(['.', '?']) {
            out.pop();
        }
        let mut letters = out.chars();
        match letters.next() {
            Some(first) if self.capital && first.is_lowercase() => {
                first.to_uppercase().chain(letters).collect()
            }
            _ => out,
        }
    }
}

/// Two letters swapped, one missing, or one twice; never the first, which people get right.
fn slip(word: &str, rng: &mut Rng) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    if letters.len() < 4 {
        return word.to_owned();
    }
    let at = 1 + usize::try_from(rng.below(letters.len() as u64 - 2)).unwrap_or(0);
    match rng.below(3) {
        0 => letters.swap(at, at + 1),
        1 => {
            letters.remove(at);
        }
        _ => {
            let twice = letters.get(at).copied().unwrap_or('e');
            letters.insert(at, twice);
        }
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_touch_words_and_not_code() {
        let mut rng = Rng::new(&[1; 32]);
        let quiet = Style { lower: true, capital: false, bare_end: true, slips: 0.0 };
        assert_eq!(quiet.apply("Why does Foo_Bar fail?", &mut rng), "why does Foo_Bar fail");
        let proper = Style { lower: false, capital: true, bare_end: false, slips: 0.0 };
        assert_eq!(proper.apply("éclairs, why?", &mut rng), "Éclairs, why?");
        assert_eq!(proper.apply("", &mut rng), "");
    }

    #[test]
    fn a_slip_keeps_the_first_letter_and_short_words() {
        let mut rng = Rng::new(&[2; 32]);
        for _ in 0..200 {
            assert!(slip("because", &mut rng).starts_with('b'));
            assert_eq!(slip("the", &mut rng), "the");
        }
    }
}
