//! Whether an ONNX file is whole, and whether the weights beside it are as long as it says.
//!
//! For: naming the file that was cut before a runtime trips over it. Not for: understanding the graph. The one idea:
//! protobuf states the length of everything, so a walk over lengths reads a few kilobytes of a file of gigabytes.
//!
//! What is followed: `ModelProto.graph` = 7; `GraphProto.initializer` = 5; `TensorProto.name` = 8,
//! `.external_data` = 13; `StringStringEntryProto.key` = 1, `.value` = 2.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Component, Path};

use super::config::wrong;
use crate::error::CheckingError;

/// The longest name or path that is read.
const MOST_TEXT: u64 = 4096;

/// Refuses a graph that ends too soon or names weights that are not there.
pub(crate) fn check(graph: &Path) -> Result<(), CheckingError> {
    let file = match File::open(graph) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(wrong(graph, "it is missing")),
        Err(e) => return Err(wrong(graph, e.to_string())),
    };
    let length = file.metadata().map_err(|e| wrong(graph, e.to_string()))?.len();
    let mut walk = Walk { file: BufReader::new(file), at: 0 };
    let weights = walk.model(length).map_err(|fault| match fault {
        Fault::Cut => {
            wrong(graph, format!("it is cut or no ONNX graph: {length} bytes are less than it states"))
        }
        Fault::System(e) => wrong(graph, e.to_string()),
    })?;
    let folder = graph.parent().unwrap_or(Path::new(""));
    for tensor in weights {
        let plain = Path::new(&tensor.location).components().all(|part| matches!(part, Component::Normal(_)));
        if tensor.location.is_empty() || !plain {
            let why =
                format!("'{}' has its weights in '{}', outside the folder", tensor.name, tensor.location);
            return Err(wrong(graph, why));
        }
        let path = folder.join(&tensor.location);
        let have = match std::fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(_) => return Err(wrong(&path, format!("it is missing, and holds '{}'", tensor.name))),
        };
        let need = tensor.offset.saturating_add(tensor.length);
        if have < need {
            let why = format!("it has {have} bytes, and '{}' ends at byte {need}", tensor.name);
            return Err(wrong(&path, why));
        }
    }
    Ok(())
}

/// Weights beside the graph.
#[derive(Default)]
struct External {
    name: String,
    location: String,
    offset: u64,
    length: u64,
}

enum Fault {
    Cut,
    System(std::io::Error),
}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == std::io::ErrorKind::UnexpectedEof { Self::Cut } else { Self::System(e) }
    }
}

/// What stands behind a tag.
enum Payload {
    Number,
    /// So many bytes, which the caller reads or skips.
    Bytes(u64),
}

struct Walk {
    file: BufReader<File>,
    at: u64,
}

impl Walk {
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0_u8];
            self.file.read_exact(&mut byte)?;
            self.at += 1;
            let [byte] = byte;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Cut)
    }

    fn skip(&mut self, n: u64) -> Result<(), Fault> {
        self.file.seek_relative(i64::try_from(n).map_err(|_| Fault::Cut)?)?;
        self.at += n;
        Ok(())
    }

    fn text(&mut self, n: u64) -> Result<String, Fault> {
        if n > MOST_TEXT {
            return Err(Fault::Cut);
        }
        let mut bytes = vec![0; n as usize];
        self.file.read_exact(&mut bytes)?;
        self.at += n;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The next field of a message that ends at `end`; nothing at its end.
    fn next(&mut self, end: u64) -> Result<Option<(u64, Payload)>, Fault> {
        if self.at >= end {
            return if self.at == end { Ok(None) } else { Err(Fault::Cut) };
        }
        let tag = self.varint()?;
        let payload = match tag & 7 {
            0 => {
                self.varint()?;
                Payload::Number
            }
            1 | 5 => {
                self.skip(if tag & 7 == 1 { 8 } else { 4 })?;
                Payload::Number
            }
            2 => Payload::Bytes(self.varint()?),
            _ => return Err(Fault::Cut),
        };
        if let Payload::Bytes(n) = payload
            && self.at.checked_add(n).is_none_or(|to| to > end)
        {
            return Err(Fault::Cut);
        }
        Ok(Some((tag >> 3, payload)))
    }

    fn model(&mut self, end: u64) -> Result<Vec<External>, Fault> {
        let (mut found, mut seen) = (Vec::new(), false);
        while let Some((field, payload)) = self.next(end)? {
            match (field, payload) {
                (7, Payload::Bytes(n)) => {
                    seen = true;
                    self.graph(self.at + n, &mut found)?;
                }
                (_, Payload::Bytes(n)) => self.skip(n)?,
                (_, Payload::Number) => {}
            }
        }
        if seen { Ok(found) } else { Err(Fault::Cut) }
    }

    fn graph(&mut self, end: u64, found: &mut Vec<External>) -> Result<(), Fault> {
        while let Some((field, payload)) = self.next(end)? {
            match (field, payload) {
                (5, Payload::Bytes(n)) => found.extend(self.tensor(self.at + n)?),
                (_, Payload::Bytes(n)) => self.skip(n)?,
                (_, Payload::Number) => {}
            }
        }
        Ok(())
    }

    fn tensor(&mut self, end: u64) -> Result<Option<External>, Fault> {
        let (mut external, mut outside) = (External::default(), false);
        while let Some((field, payload)) = self.next(end)? {
            match (field, payload) {
                (8, Payload::Bytes(n)) => external.name = self.text(n)?,
                (13, Payload::Bytes(n)) => {
                    outside = true;
                    let (key, value) = self.entry(self.at + n)?;
                    match key.as_str() {
                        "location" => external.location = value,
                        "offset" => external.offset = value.parse().map_err(|_| Fault::Cut)?,
                        "length" => external.length = value.parse().map_err(|_| Fault::Cut)?,
                        _ => {}
                    }
                }
                (_, Payload::Bytes(n)) => self.skip(n)?,
                (_, Payload::Number) => {}
            }
        }
        Ok(outside.then_some(external))
    }

    fn entry(&mut self, end: u64) -> Result<(String, String), Fault> {
        let (mut key, mut value) = (String::new(), String::new());
        while let Some((field, payload)) = self.next(end)? {
            match (field, payload) {
                (1, Payload::Bytes(n)) => key = self.text(n)?,
                (2, Payload::Bytes(n)) => value = self.text(n)?,
                (_, Payload::Bytes(n)) => self.skip(n)?,
                (_, Payload::Number) => {}
            }
        }
        Ok((key, value))
    }
}
