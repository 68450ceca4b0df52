//! Reading what diffusers left: JSON with base64, and NumPy's archive.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;

pub(crate) fn folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/diffusion")).join(name)
}

pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder(name)).unwrap()).unwrap()
}

pub(crate) fn bytes(text: &serde_json::Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
}

pub(crate) fn singles(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Copies a folder's files over those of another, folders below it too.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::write(target, std::fs::read(&path).unwrap()).unwrap();
        }
    }
}

/// An `.npz`: a zip of `.npy` files.
pub(crate) struct Archive(Vec<u8>);

impl Archive {
    pub(crate) fn open(name: &str) -> Self {
        Self(std::fs::read(folder(name)).unwrap())
    }

    /// The values of a member, without the header that says what they are.
    pub(crate) fn data(&self, name: &str) -> Vec<u8> {
        let member = self.member(name);
        assert_eq!(&member[..6], b"\x93NUMPY");
        let header = usize::from(u16::from_le_bytes([member[8], member[9]]));
        assert!(!String::from_utf8_lossy(&member[10..10 + header]).contains("'fortran_order': True"));
        member[10 + header..].to_vec()
    }

    pub(crate) fn singles(&self, name: &str) -> Vec<f32> {
        singles(&self.data(name))
    }

    /// By the directory at the end, which has every size.
    fn member(&self, name: &str) -> Vec<u8> {
        let file = &self.0;
        let long = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let short = |at: usize| usize::from(u16::from_le_bytes(file[at..at + 2].try_into().unwrap()));
        let end = (0..file.len() - 3).rev().find(|at| &file[*at..at + 4] == b"PK\x05\x06").unwrap();
        let mut at = long(end + 16);
        while &file[at..at + 4] == b"PK\x01\x02" {
            let (method, packed, size) = (short(at + 10), long(at + 20), long(at + 24));
            let (named, extra, comment) = (short(at + 28), short(at + 30), short(at + 32));
            if &file[at + 46..at + 46 + named] == name.as_bytes() {
                let local = long(at + 42);
                let start = local + 30 + short(local + 26) + short(local + 28);
                let packed = &file[start..start + packed];
                let mut out = Vec::with_capacity(size);
                match method {
                    0 => out.extend_from_slice(packed),
                    _ => {
                        flate2::read::DeflateDecoder::new(packed).read_to_end(&mut out).unwrap();
                    }
                }
                assert_eq!(out.len(), size);
                return out;
            }
            at += 46 + named + extra + comment;
        }
        panic!("{name} is not in the archive");
    }
}
