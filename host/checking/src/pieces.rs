//! From token ids back to text, one token at a time.
//!
//! For: streams and the byte positions of a replay, which have to agree to the byte. Not for: encoding. The one
//! idea: a token is bytes, text is what the bytes so far say in UTF-8; an unfinished character waits for the
//! token that finishes it, and one that never is finished leaves nothing behind.

use std::collections::HashMap;

use tokenizers::{DecoderWrapper, Tokenizer};

use crate::error::CheckingError;

/// The bytes of every token.
pub(crate) struct Pieces {
    bytes: Vec<Box<[u8]>>,
    special: Vec<bool>,
}

impl Pieces {
    /// Reads a byte-level vocabulary (GPT-2's alphabet), or one with SentencePiece's byte fallback.
    pub(crate) fn new(model: &str, tokenizer: &Tokenizer, vocabulary: usize) -> Result<Self, CheckingError> {
        let unfit = |why: &str| CheckingError::Model { model: model.to_owned(), why: why.to_owned() };
        let how = Alphabet::of(tokenizer.get_decoder())
            .ok_or_else(|| unfit("its tokenizer's decoder is neither byte-level nor with byte fallback"))?;
        let added = tokenizer.get_added_tokens_decoder();
        let table = byte_alphabet();
        let (mut bytes, mut special) = (Vec::with_capacity(vocabulary), Vec::with_capacity(vocabulary));
        for id in 0..u32::try_from(vocabulary).map_err(|_| unfit("its vocabulary is too large"))? {
            let token = tokenizer.id_to_token(id).unwrap_or_default();
            let extra = added.get(&id);
            special.push(extra.is_some_and(|t| t.special));
            bytes.push(match extra {
                Some(extra) => extra.content.as_bytes().into(),
                None => how.bytes(&token, &table),
            });
        }
        Ok(Self { bytes, special })
    }

    /// The bytes that a token stands for; its own text for a special one.
    pub(crate) fn of(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |b| b)
    }

    /// What the token adds to the text: nothing for a special one.
    fn shown(&self, id: u32) -> &[u8] {
        if self.special.get(id as usize).copied().unwrap_or(true) { &[] } else { self.of(id) }
    }
}

enum Alphabet {
    ByteLevel,
    Sentence,
}

impl Alphabet {
    fn of(decoder: Option<&DecoderWrapper>) -> Option<Self> {
        match decoder? {
            DecoderWrapper::ByteLevel(_) => Some(Self::ByteLevel),
            DecoderWrapper::Sequence(sequence) => {
                let parts = sequence.get_decoders();
                if parts.iter().any(|d| matches!(d, DecoderWrapper::ByteFallback(_))) {
                    Some(Self::Sentence)
                } else {
                    parts.iter().find_map(|d| Self::of(Some(d)))
                }
            }
            _ => None,
        }
    }

    fn bytes(&self, token: &str, table: &HashMap<char, u8>) -> Box<[u8]> {
        match self {
            Self::ByteLevel => {
                let mapped: Option<Vec<u8>> = token.chars().map(|c| table.get(&c).copied()).collect();
                mapped.unwrap_or_else(|| token.as_bytes().to_vec()).into()
            }
            Self::Sentence => {
                let raw = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                match raw.filter(|hex| hex.len() == 2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => [byte].into(),
                    None => token.replace('\u{2581}', " ").into_bytes().into(),
                }
            }
        }
    }
}

/// GPT-2's printable stand-ins: printable Latin-1 for itself, everything else from U+0100 on, in order.
fn byte_alphabet() -> HashMap<char, u8> {
    let mut next = 0x100_u32;
    (0..=255_u8)
        .map(|byte| {
            let itself = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let code = if itself {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            (char::from_u32(code).unwrap_or_default(), byte)
        })
        .collect()
}

/// Text that grows by tokens.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    waiting: Vec<u8>,
}

impl Growing {
    /// What this token completes; may be empty. Bytes that can never become a character are U+FFFD each time
    /// a decoder would put one.
    pub(crate) fn push(&mut self, pieces: &Pieces, id: u32) -> String {
        self.waiting.extend_from_slice(pieces.shown(id));
        let mut text = String::new();
        let mut rest = self.waiting.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(all) => {
                    text.push_str(all);
                    rest = &[];
                    break;
                }
                Err(e) => {
                    let (good, bad) = rest.split_at(e.valid_up_to());
                    text.push_str(std::str::from_utf8(good).unwrap_or_default());
                    match e.error_len() {
                        None => {
                            rest = bad;
                            break;
                        }
                        Some(n) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = bad.get(n..).unwrap_or_default();
                        }
                    }
                }
            }
        }
        self.waiting = rest.to_vec();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single_bytes() -> Pieces {
        let bytes = (0..=255_u8).map(|b| Box::from([b].as_slice()));
        Pieces {
            bytes: bytes.chain([Box::from(b"<end>".as_slice())]).collect(),
            special: [vec![false; 256], vec![true]].concat(),
        }
    }

    #[test]
    fn the_alphabet_is_gpt2s() {
        let table = byte_alphabet();
        assert_eq!(table.len(), 256);
        assert_eq!((table[&'Ġ'], table[&'Ċ'], table[&'a'], table[&'é']), (b' ', b'\n', b'a', 0xE9));
    }

    #[test]
    fn a_character_shows_once_it_is_complete_and_special_tokens_do_not_show() {
        let pieces = single_bytes();
        let mut growing = Growing::default();
        let steps: Vec<String> = "a🐙".bytes().map(|b| growing.push(&pieces, b.into())).collect();
        assert_eq!(steps, ["a", "", "", "", "🐙"]);
        assert_eq!(growing.push(&pieces, 256), "");
        assert_eq!(growing.push(&pieces, 9999), "");
    }

    proptest! {
        #[test]
        fn any_bytes_grow_into_what_a_lossy_decoder_says_less_the_unfinished_end(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let pieces = single_bytes();
            let mut growing = Growing::default();
            let grown: String = raw.iter().map(|b| growing.push(&pieces, u32::from(*b))).collect();
            let whole = String::from_utf8_lossy(&raw[..raw.len() - growing.waiting.len()]).into_owned();
            prop_assert_eq!(grown, whole);
            prop_assert!(growing.waiting.len() < 4);
        }
    }
}
