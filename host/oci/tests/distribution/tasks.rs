//! Tasks to carry: those of this repository, with a component that is small.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use nineteen_oci::{Limits, Packed};

/// A component with `pad` bytes more than it needs.
pub(crate) fn component(pad: usize) -> Bytes {
    let mut bytes = wat::parse_str(
        r#"(component
            (import "nineteen:task/log@0.1.0" (instance))
            (instance $i)
            (export "nineteen:task/task@0.1.0" (instance $i)))"#,
    )
    .unwrap();
    if pad > 0 {
        // A custom section: id, length as LEB128, name, content that does not compress into one chunk.
        let mut section = b"\x03pad".to_vec();
        section.extend((0..pad).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8));
        bytes.push(0);
        let mut length = section.len();
        while length >= 0x80 {
            bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend(section);
    }
    bytes.into()
}

/// The chat task's folder.
pub(crate) fn chat() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tasks/chat-smollm2-135m")
}

/// The files of the chat task, as of another version, with an asset.
pub(crate) fn files(version: &str) -> BTreeMap<String, Bytes> {
    let read = |name: &str| std::fs::read_to_string(chat().join(name)).unwrap();
    let task = read("task.toml");
    let old = task.lines().find(|line| line.starts_with("version = ")).unwrap().to_owned();
    BTreeMap::from([
        ("task.toml".to_owned(), Bytes::from(task.replace(&old, &format!("version = \"{version}\"")))),
        ("calibration.json".to_owned(), Bytes::from(read("calibration.json"))),
        ("assets/words.txt".to_owned(), Bytes::from_static(b"one two three\n")),
    ])
}

/// The chat task, packed.
pub(crate) fn packed(version: &str, pad: usize) -> Packed {
    Packed::new(files(version), component(pad), &Limits::default()).unwrap()
}
