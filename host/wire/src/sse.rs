//! Where the events of a stream end, byte by byte; what they say is the plugin's business.
//!
//! The one idea: only a *complete event with data* is progress. Comments, empty events and half-sent lines
//! cost their sender bytes and time and gain nothing, so a miner cannot hold a connection open for nothing.

/// Follows a `text/event-stream`. Lines end in LF, CR or CRLF; a blank line ends an event.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Complete events with data so far.
    complete: u64,
    /// Bytes since the last event ended.
    pending: u64,
    /// Bytes of the line so far that were matched against `data`, or that it is another line.
    line: Line,
    /// Whether this event has data.
    has_data: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Line {
    #[default]
    Empty,
    /// So many bytes of `data:` matched.
    Field(u8),
    /// Behind `data:`.
    Value,
    /// Any other line.
    Other,
}

const FIELD: &[u8] = b"data:";

impl Events {
    /// Reads on. Returns the largest number of bytes that one unfinished event held.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> u64 {
        let mut largest = 0;
        for &byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            if byte == b'\n' && after_cr {
                continue;
            }
            self.pending += 1;
            largest = largest.max(self.pending);
            if byte == b'\n' || byte == b'\r' {
                if self.line == Line::Empty {
                    self.complete += u64::from(self.has_data);
                    self.has_data = false;
                    self.pending = 0;
                }
                self.line = Line::Empty;
                continue;
            }
            self.line = match self.line {
                Line::Empty | Line::Field(_) => {
                    let at = if let Line::Field(n) = self.line { n } else { 0 };
                    match FIELD.get(usize::from(at)) {
                        Some(&want) if want == byte && usize::from(at) + 1 == FIELD.len() => Line::Value,
                        Some(&want) if want == byte => Line::Field(at + 1),
                        _ => Line::Other,
                    }
                }
                Line::Value => {
                    self.has_data |= byte != b' ';
                    Line::Value
                }
                Line::Other => Line::Other,
            };
        }
        largest
    }

    /// Complete events with data so far.
    pub(crate) const fn complete(&self) -> u64 {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> u64 {
        let mut e = Events::default();
        e.feed(text.as_bytes());
        e.complete()
    }

    #[test]
    fn only_complete_events_with_data_count() {
        assert_eq!(count("data: a\n\ndata: b\r\n\r\ndata:c\r\r"), 3);
        assert_eq!(count("event: x\nid: 1\ndata: a\ndata: b\n\n"), 1);
        assert_eq!(count("data: a\n"), 0);
        assert_eq!(count(": keep-alive\n\n: x\n\n\n\n\n"), 0);
        assert_eq!(count("data:\n\ndata: \n\ndata\n\n"), 0);
        assert_eq!(count("database: a\n\nxdata: a\n\n"), 0);
        assert_eq!(count("event: ping\n\n"), 0);
    }

    #[test]
    fn an_event_that_never_ends_is_measured() {
        let mut e = Events::default();
        assert_eq!(e.feed(b"data: 1234567890"), 16);
        assert_eq!(e.feed(b"1234\n"), 21);
        assert_eq!(e.feed(b": more\n"), 28);
        e.feed(b"\n");
        assert_eq!(e.feed(b"d"), 1);
    }

    proptest::proptest! {
        #[test]
        fn a_stream_split_anywhere_has_the_same_events(
            lines in proptest::collection::vec("(data: ?[ab ]{0,3}|: c|event: e|)(\n|\r\n|\r)", 0..30),
            cut in 0_usize..200,
        ) {
            let all = lines.concat();
            let cut = cut.min(all.len());
            let mut e = Events::default();
            e.feed(&all.as_bytes()[..cut]);
            e.feed(&all.as_bytes()[cut..]);
            assert_eq!(e.complete(), count(&all));
        }
    }
}
