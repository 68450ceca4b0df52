//! Server-sent events out of bytes that are cut anywhere.
//!
//! The one idea: only the byte decides, never the chunk. The parser is a state machine over single bytes, so
//! a stream that is split inside a character, between CR and LF, inside the byte order mark or inside a
//! field name gives the same events as the same bytes in one piece. For each event it remembers in which
//! chunk it became complete: that is when a client could have read it.
//!
//! Follows the event stream format of the HTML standard: lines end in LF, CRLF or CR; one leading byte order
//! mark is skipped; `:` opens a comment; several `data` lines are joined by LF; an empty line ends an event.
//! It differs in one point, on purpose: an event that the end of the stream cuts off before its empty line
//! counts, if its last line is there. Real servers forget it, and a whole JSON body shows by itself whether
//! it is whole.

use crate::types::Chunk;

/// An event with data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The joined `data` lines. Bytes, because whether they are UTF-8 is for the reader to judge.
    pub data: Vec<u8>,
    /// Index of the chunk whose bytes completed it.
    pub chunk: usize,
}

/// The parser. Feed it with [`Parser::push`], end it with [`Parser::finish`].
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    past_first_line: bool,
    chunk: usize,
    events: Vec<Event>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Parser {
    /// Takes the bytes of one chunk.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.after_cr
            && let Some((first, rest)) = bytes.split_first()
        {
            self.after_cr = false;
            if *first == b'\n' {
                bytes = rest;
            }
        }
        while let Some(end) = bytes.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            if self.line.is_empty() {
                self.take_line(line);
            } else {
                self.line.extend_from_slice(line);
                let whole = std::mem::take(&mut self.line);
                self.take_line(&whole);
            }
            bytes = match rest {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => rest,
            };
            self.after_cr = matches!(rest, [b'\r']);
        }
        self.line.extend_from_slice(bytes);
        self.chunk += 1;
    }

    /// Everything that was read, including an event that the end cut off.
    #[must_use]
    pub fn finish(mut self) -> Vec<Event> {
        self.chunk = self.chunk.saturating_sub(1);
        if !self.line.is_empty() {
            let whole = std::mem::take(&mut self.line);
            self.take_line(&whole);
        }
        self.dispatch();
        self.events
    }

    fn take_line(&mut self, mut line: &[u8]) {
        if !std::mem::replace(&mut self.past_first_line, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let Some(rest) = line.strip_prefix(b"data") else { return };
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return,
        };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }

    fn dispatch(&mut self) {
        if std::mem::take(&mut self.has_data) {
            let data = std::mem::take(&mut self.data);
            self.events.push(Event { data, chunk: self.chunk });
        }
    }
}

/// The events of a whole exchange.
#[must_use]
pub fn events(chunks: &[Chunk]) -> Vec<Event> {
    let mut parser = Parser::default();
    chunks.iter().for_each(|c| parser.push(&c.data));
    parser.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let mut parser = Parser::default();
        pieces.into_iter().for_each(|p| parser.push(p));
        parser.finish()
    }

    fn texts(stream: &[u8]) -> Vec<String> {
        parse([stream]).into_iter().map(|e| String::from_utf8(e.data).unwrap()).collect()
    }

    #[test]
    fn lines_end_in_lf_crlf_or_cr() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!("data: a{end}{end}data:b{end}data:  c{end}{end}");
            assert_eq!(texts(stream.as_bytes()), ["a", "b\n c"], "{end:?}");
        }
    }

    #[test]
    fn comments_other_fields_and_empty_events_say_nothing() {
        let stream =
            b": ping\n\nevent: x\nid: 7\nretry: 3\n\ndatabase: no\n\ndata: yes\n: in between\n\n\n\n";
        assert_eq!(texts(stream), ["yes"]);
        assert_eq!(texts(b"data\n\n"), [""], "a bare field name is an empty line of data");
    }

    #[test]
    fn one_byte_order_mark_is_skipped_and_only_at_the_start() {
        assert_eq!(texts("\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes()), ["a"]);
        assert_eq!(texts("\u{feff}\u{feff}data: a\n\n".as_bytes()).len(), 0);
    }

    #[test]
    fn an_event_without_its_last_newlines_counts() {
        for cut in ["data: a\n\ndata: [DONE]", "data: a\n\ndata: [DONE]\n", "data: a\r\n\r\ndata: [DONE]\r"] {
            assert_eq!(texts(cut.as_bytes()), ["a", "[DONE]"]);
        }
    }

    #[test]
    fn an_event_belongs_to_the_chunk_that_completed_it() {
        let chunks = [&b"data: a\n"[..], b"\ndata: ", b"b", b"\n\n", b"data: c"];
        let at: Vec<usize> = parse(chunks).iter().map(|e| e.chunk).collect();
        assert_eq!(at, [1, 3, 4]);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just("data: ".to_owned()),
            Just("data:".to_owned()),
            Just("\n".to_owned()),
            Just("\r\n".to_owned()),
            Just("\r".to_owned()),
            Just("\n\n".to_owned()),
            Just(": note".to_owned()),
            Just("event: e".to_owned()),
            Just("\u{feff}".to_owned()),
            Just("žluťoučký 😀 {\"a\":1}".to_owned()),
            "[a-z ]{0,6}",
        ];
        proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn a_stream_split_at_any_byte_gives_the_same_events(
            bytes in prop_oneof![stream(), proptest::collection::vec(any::<u8>(), 0..200)],
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let whole: Vec<_> = parse([&bytes[..]]).into_iter().map(|e| e.data).collect();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces = at.windows(2).map(|w| &bytes[w[0]..w[1]]);
            let split: Vec<_> = parse(pieces).into_iter().map(|e| e.data).collect();
            prop_assert_eq!(&split, &whole);
            let single: Vec<_> = parse(bytes.chunks(1)).into_iter().map(|e| e.data).collect();
            prop_assert_eq!(&single, &whole);
        }
    }
}
