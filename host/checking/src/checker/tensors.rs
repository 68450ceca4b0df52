//! `tensors.run`: tensors as a check says them, and back.

use bytes::Bytes;
use nineteen_domain::check::{Answer, Check};
use serde::{Deserialize, Serialize};

use super::{Head, Models, VERSION, cut, read, write};
use crate::error::CheckingError;
use crate::tensors::{Dtype, Named};

/// The kind.
pub(super) const RUN: &str = "tensors.run";

/// A tensor; its bytes are the blob of the same place.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    name: String,
    dtype: Dtype,
    dims: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(rename = "version")]
    _version: u64,
    inputs: Vec<Said>,
    /// Which come back, in this order; all where there is none.
    #[serde(default)]
    outputs: Vec<String>,
}

#[derive(Serialize)]
struct Given<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    outputs: Vec<Said>,
}

impl Models {
    pub(super) async fn tensors(&self, name: &str, check: &Check) -> Result<Answer, CheckingError> {
        let unknown = || CheckingError::UnknownModel { model: cut(name) };
        let model = self.tensors.get(name).cloned().ok_or_else(unknown)?;
        let params: Params = read(RUN, &check.params)?;
        if params.inputs.len() != check.blobs.len() {
            let (said, came) = (params.inputs.len(), check.blobs.len());
            return Err(CheckingError::BadParameters(format!(
                "{RUN}: {said} inputs and {came} blobs: one for each"
            )));
        }
        let named = |(said, data): (Said, &Bytes)| Named {
            name: said.name,
            dtype: said.dtype,
            dims: said.dims,
            data: data.clone(),
        };
        let inputs = params.inputs.into_iter().zip(&check.blobs).map(named).collect();
        let given = model.run(inputs, params.outputs).await?;
        let (mut outputs, mut blobs) = (Vec::with_capacity(given.len()), Vec::with_capacity(given.len()));
        for Named { name, dtype, dims, data } in given {
            outputs.push(Said { name, dtype, dims });
            blobs.push(data);
        }
        let head = Head {
            version: VERSION,
            model: model.name(),
            precision: model.precision(),
            provider: model.provider(),
        };
        write(&Given { head, outputs }, blobs)
    }
}
