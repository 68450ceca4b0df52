//! `tensors.run`: any ONNX model, on plain tensors.

use serde::{Deserialize, Serialize};

use super::{Kind, V1, ask, read};
use crate::types::{Answer, Check};

/// What a tensor is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// Byte.
    U8,
    /// Truth value, one byte each.
    Bool,
}

/// A tensor under its name in the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Of the input or output.
    pub name: String,
    /// What it is made of.
    pub dtype: Dtype,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its numbers, little-endian, row by row.
    pub data: Vec<u8>,
}

impl Dtype {
    /// Bytes of one.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
            Self::U8 | Self::Bool => 1,
        }
    }
}

impl NamedTensor {
    /// Of 32-bit integers.
    #[must_use]
    pub fn of_i32(name: &str, dims: &[usize], values: &[i32]) -> Self {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: Dtype::I32, dims: dims.to_vec(), data }
    }

    /// As floats; empty for a tensor of something else.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let words = if self.dtype == Dtype::F32 { self.data.as_chunks::<4>().0 } else { &[] };
        words.iter().map(|w| f32::from_le_bytes(*w)).collect()
    }
}

/// `tensors.run`.
#[derive(Debug, Clone)]
pub struct TensorsRun<'a> {
    /// The model.
    pub model: &'a str,
    /// What goes in: every input of the graph once.
    pub inputs: Vec<NamedTensor>,
    /// What comes out, in this order; everything where none is named.
    pub outputs: &'a [&'a str],
}

#[derive(Serialize, Deserialize)]
struct Said {
    name: String,
    dtype: Dtype,
    dims: Vec<usize>,
}

impl Kind for TensorsRun<'_> {
    type Answer = Vec<NamedTensor>;

    fn check(&self) -> Check {
        #[derive(Serialize)]
        struct Params<'a> {
            version: V1,
            inputs: Vec<Said>,
            outputs: &'a [&'a str],
        }
        let said = |t: &NamedTensor| Said { name: t.name.clone(), dtype: t.dtype, dims: t.dims.clone() };
        let params =
            Params { version: V1, inputs: self.inputs.iter().map(said).collect(), outputs: self.outputs };
        let blobs = self.inputs.iter().map(|t| t.data.clone()).collect();
        Check { blobs, ..ask("tensors.run", self.model, &params) }
    }

    fn read(&self, answer: &Answer) -> Result<Self::Answer, String> {
        #[derive(Deserialize)]
        struct Given {
            #[expect(dead_code, reason = "read to refuse any other version")]
            version: V1,
            outputs: Vec<Said>,
        }
        let given: Given = read(answer)?;
        if given.outputs.len() != answer.blobs.len() {
            return Err(format!("{} outputs and {} blobs", given.outputs.len(), answer.blobs.len()));
        }
        for (i, (said, data)) in given.outputs.iter().zip(&answer.blobs).enumerate() {
            let asked = self.outputs.get(i).copied();
            if !self.outputs.is_empty() && asked != Some(&said.name) {
                return Err(format!("output {i} is {:?}, and {asked:?} was asked for", said.name));
            }
            let elements = said.dims.iter().try_fold(said.dtype.bytes(), |n, d| n.checked_mul(*d));
            if elements != Some(data.len()) {
                let (name, dims, dtype) = (&said.name, &said.dims, said.dtype);
                return Err(format!("{name:?} has {} bytes, which is not {dims:?} of {dtype:?}", data.len()));
            }
        }
        if given.outputs.len() < self.outputs.len() {
            return Err(format!("{} outputs of {} asked for", given.outputs.len(), self.outputs.len()));
        }
        let named = given.outputs.into_iter().zip(&answer.blobs);
        let named = named.map(|(s, data)| NamedTensor {
            name: s.name,
            dtype: s.dtype,
            dims: s.dims,
            data: data.clone(),
        });
        Ok(named.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_travel_as_blobs_and_come_back_by_name() {
        let input = NamedTensor::of_i32("bytes", &[1, 2], &[7, 256]);
        let run = TensorsRun { model: "m", inputs: vec![input], outputs: &["out"] };
        let check = run.check();
        assert_eq!(
            check.params,
            r#"{"version":1,"inputs":[{"name":"bytes","dtype":"i32","dims":[1,2]}],"outputs":["out"]}"#
        );
        assert_eq!(check.blobs, [vec![7, 0, 0, 0, 0, 1, 0, 0]]);
        let params = r#"{"version":1,"model":"m","outputs":[{"name":"out","dtype":"f32","dims":[1]}]}"#;
        let answer = Answer { params: params.into(), blobs: vec![1.5_f32.to_le_bytes().to_vec()] };
        assert_eq!(run.read(&answer).unwrap()[0].to_f32(), [1.5]);
    }

    #[test]
    fn an_answer_that_is_not_what_was_asked_for_is_no_answer() {
        let run = TensorsRun { model: "m", inputs: vec![], outputs: &["out"] };
        let said = |dims: &str, name: &str| {
            format!(r#"{{"version":1,"outputs":[{{"name":"{name}","dtype":"f32","dims":{dims}}}]}}"#)
        };
        let four = || vec![vec![0; 4]];
        for (params, blobs, word) in [
            (said("[1]", "out"), vec![], "1 outputs and 0 blobs"),
            (said("[2]", "out"), four(), "4 bytes"),
            (said("[18446744073709551615,4]", "out"), four(), "4 bytes"),
            (said("[0]", "out"), four(), "4 bytes"),
            (said("[1]", "other"), four(), "was asked for"),
            (r#"{"version":1,"outputs":[]}"#.into(), vec![], "0 outputs of 1"),
        ] {
            let why = run.read(&Answer { params, blobs }).unwrap_err();
            assert!(why.contains(word), "{word} in {why}");
        }
        let empty = Answer { params: said("[3,0]", "out"), blobs: vec![vec![]] };
        assert_eq!(run.read(&empty).unwrap()[0].to_f32(), [0.0; 0]);
    }
}
