//! One graph of a pipeline: opened, its names and shapes checked, run with what its inputs are declared to take.
//!
//! For: single and half precision graphs, 32 and 64 bit ids, any type of time step, behind one call that takes and
//! gives single precision. Not for: knowing what a graph computes.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};

use super::config::wrong;
use super::external;
use crate::error::CheckingError;
use crate::runtime::{Runtime, one_line};

/// The graph's file in each folder.
const FILE: &str = "model.onnx";

/// A tensor in single precision, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What an input is given; it is converted to the type that the graph declares.
pub(crate) enum Feed {
    Floats(Array),
    /// Token ids, `[rows, length]`.
    Ids {
        rows: usize,
        ids: Vec<u32>,
    },
    /// The time step: a scalar, one value, or one a row, as the graph declares it.
    Time {
        rows: usize,
        value: f64,
    },
}

struct Port {
    name: String,
    ty: TensorElementType,
    /// −1 where a dimension is free.
    shape: Vec<i64>,
    /// Whether its first dimension is named after the batch.
    by_row: bool,
}

/// An opened graph.
pub(crate) struct Net {
    path: PathBuf,
    model: String,
    /// Held for one run. The binding wants a session for itself while it runs; two callers take turns.
    session: Mutex<Session>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Net {
    /// Opens `<folder>/model.onnx`.
    pub(crate) fn open(
        model: &str,
        folder: &Path,
        runtime: &Runtime,
        intra_threads: usize,
    ) -> Result<Self, CheckingError> {
        let path = folder.join(FILE);
        external::check(&path)?;
        let session = runtime
            .session_builder(intra_threads)?
            .commit_from_file(&path)
            .map_err(|e| wrong(&path, one_line(&e.to_string())))?;
        let port = |name: &str, dtype: &ValueType| match dtype {
            ValueType::Tensor { ty, shape, dimension_symbols } => Ok(Port {
                name: name.to_owned(),
                ty: *ty,
                shape: shape.iter().copied().collect(),
                by_row: dimension_symbols.iter().next().is_some_and(|s| s.to_string().contains("batch")),
            }),
            _ => Err(wrong(&path, format!("'{name}' is no tensor"))),
        };
        let inputs = session.inputs().iter().map(|i| port(i.name(), i.dtype())).collect::<Result<_, _>>()?;
        let outputs =
            session.outputs().iter().map(|o| port(o.name(), o.dtype())).collect::<Result<_, _>>()?;
        Ok(Self { path, model: model.to_owned(), session: Mutex::new(session), inputs, outputs })
    }

    pub(crate) fn wrong(&self, why: impl Into<String>) -> CheckingError {
        wrong(&self.path, why)
    }

    pub(crate) fn has_input(&self, name: &str) -> bool {
        self.inputs.iter().any(|p| p.name == name)
    }

    pub(crate) fn has_output(&self, name: &str) -> bool {
        self.outputs.iter().any(|p| p.name == name)
    }

    /// What the graph declares for one dimension of an input; −1 where it is free.
    pub(crate) fn input_size(&self, name: &str, axis: usize) -> Option<i64> {
        self.inputs.iter().find(|p| p.name == name)?.shape.get(axis).copied()
    }

    /// The same for an output.
    pub(crate) fn output_size(&self, name: &str, axis: usize) -> Option<i64> {
        self.outputs.iter().find(|p| p.name == name)?.shape.get(axis).copied()
    }

    /// Refuses inputs that nothing is fed to.
    pub(crate) fn only_inputs(&self, known: &[&str]) -> Result<(), CheckingError> {
        match self.inputs.iter().find(|p| !known.contains(&p.name.as_str())) {
            Some(port) => Err(self.wrong(format!("its input '{}' is not one that is known", port.name))),
            None => Ok(()),
        }
    }

    /// Refuses an input that is missing, has another rank, or states another size; −1 leaves a size open.
    pub(crate) fn input(&self, name: &str, shape: &[i64]) -> Result<(), CheckingError> {
        self.port("input", &self.inputs, name, shape)
    }

    /// The same for an output.
    pub(crate) fn output(&self, name: &str, shape: &[i64]) -> Result<(), CheckingError> {
        self.port("output", &self.outputs, name, shape)
    }

    /// Refuses an input that is missing or takes more than one value a row.
    pub(crate) fn scalar_input(&self, name: &str) -> Result<(), CheckingError> {
        match self.inputs.iter().find(|p| p.name == name) {
            None => Err(self.wrong(format!("it has no input '{name}'"))),
            Some(port) if port.shape.len() <= 1 => Ok(()),
            Some(port) => {
                let have = sizes(&port.shape);
                Err(self.wrong(format!("its input '{name}' has the shape {have} instead of [] or [1]")))
            }
        }
    }

    fn port(&self, kind: &str, ports: &[Port], name: &str, shape: &[i64]) -> Result<(), CheckingError> {
        let Some(port) = ports.iter().find(|p| p.name == name) else {
            return Err(self.wrong(format!("it has no {kind} '{name}'")));
        };
        let fits = |have: &i64, want: &i64| *have == *want || *have < 0 || *want < 0;
        if port.shape.len() != shape.len() || !port.shape.iter().zip(shape).all(|(h, w)| fits(h, w)) {
            let (have, want) = (sizes(&port.shape), sizes(shape));
            return Err(self.wrong(format!("its {kind} '{name}' has the shape {have} instead of {want}")));
        }
        Ok(())
    }

    /// Runs the graph; gives the outputs named, each of the shape that is asked for.
    pub(crate) fn run<const N: usize>(
        &self,
        feeds: Vec<(&str, Feed)>,
        wanted: [(&str, &[usize]); N],
    ) -> Result<[Array; N], CheckingError> {
        let failed = |e: ort::Error| self.failed(one_line(&e.to_string()));
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(feeds.len());
        for (name, feed) in feeds {
            let port = self.inputs.iter().find(|p| p.name == name);
            let port = port.ok_or_else(|| self.wrong(format!("it has no input '{name}'")))?;
            inputs.push((name, self.value(port, feed)?.into()));
        }
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(inputs).map_err(failed)?;
        let mut arrays = wanted.map(|_| Array { shape: Vec::new(), values: Vec::new() });
        for ((name, shape), array) in wanted.into_iter().zip(&mut arrays) {
            let value = outputs.get(name).ok_or_else(|| self.wrong(format!("it gave no '{name}'")))?;
            *array = self.array(name, value)?;
            if array.shape != shape {
                let why = format!("its output '{name}' came as {:?} instead of {shape:?}", array.shape);
                return Err(self.wrong(why));
            }
        }
        Ok(arrays)
    }

    /// What it gave is no number.
    pub(crate) fn not_finite(&self) -> CheckingError {
        self.failed(format!("{} gave values that are not finite", self.path.display()))
    }

    fn failed(&self, why: String) -> CheckingError {
        CheckingError::Inference { model: self.model.clone(), why }
    }

    fn value(&self, port: &Port, feed: Feed) -> Result<DynValue, CheckingError> {
        use TensorElementType as E;
        let (shape, ty) = match &feed {
            Feed::Floats(array) => (array.shape.clone(), port.ty),
            Feed::Ids { rows, ids } => (vec![*rows, ids.len() / (*rows).max(1)], port.ty),
            Feed::Time { rows, .. } => (vec![if port.by_row { *rows } else { 1 }; port.shape.len()], port.ty),
        };
        let tensor = match (feed, ty) {
            (Feed::Floats(a), E::Float32) => Tensor::from_array((shape, a.values)).map(Tensor::into_dyn),
            (Feed::Floats(a), E::Float16) => {
                let halves: Vec<f16> = a.values.into_iter().map(f16::from_f32).collect();
                Tensor::from_array((shape, halves)).map(Tensor::into_dyn)
            }
            (Feed::Floats(a), E::Float64) => {
                let doubles: Vec<f64> = a.values.into_iter().map(f64::from).collect();
                Tensor::from_array((shape, doubles)).map(Tensor::into_dyn)
            }
            (Feed::Ids { ids, .. }, E::Int64) => {
                let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
                Tensor::from_array((shape, ids)).map(Tensor::into_dyn)
            }
            (Feed::Ids { ids, .. }, E::Int32) => {
                let ids: Vec<i32> = ids.into_iter().map(|id| id as i32).collect();
                Tensor::from_array((shape, ids)).map(Tensor::into_dyn)
            }
            (Feed::Time { value, .. }, ty) => {
                let n = shape.iter().product();
                // A graph whose time is a whole number gets the part before the point, as torch casts.
                match ty {
                    E::Float32 => Tensor::from_array((shape, vec![value as f32; n])).map(Tensor::into_dyn),
                    E::Float16 => {
                        Tensor::from_array((shape, vec![f16::from_f64(value); n])).map(Tensor::into_dyn)
                    }
                    E::Float64 => Tensor::from_array((shape, vec![value; n])).map(Tensor::into_dyn),
                    E::Int64 => Tensor::from_array((shape, vec![value as i64; n])).map(Tensor::into_dyn),
                    E::Int32 => Tensor::from_array((shape, vec![value as i32; n])).map(Tensor::into_dyn),
                    ty => return Err(self.odd(&port.name, ty)),
                }
            }
            (_, ty) => return Err(self.odd(&port.name, ty)),
        };
        tensor.map_err(|e| self.failed(one_line(&e.to_string())))
    }

    fn odd(&self, name: &str, ty: TensorElementType) -> CheckingError {
        self.wrong(format!("'{name}' is of the type {ty}, which is not served"))
    }

    fn array(&self, name: &str, value: &DynValue) -> Result<Array, CheckingError> {
        let failed = |e: ort::Error| self.failed(one_line(&e.to_string()));
        let ty = match value.dtype() {
            ValueType::Tensor { ty, .. } => *ty,
            _ => return Err(self.wrong(format!("its output '{name}' is no tensor"))),
        };
        let (shape, values) = match ty {
            TensorElementType::Float32 => {
                let (shape, values) = value.try_extract_tensor::<f32>().map_err(failed)?;
                (shape, values.to_vec())
            }
            TensorElementType::Float16 => {
                let (shape, values) = value.try_extract_tensor::<f16>().map_err(failed)?;
                (shape, values.iter().map(|v| v.to_f32()).collect())
            }
            ty => return Err(self.odd(name, ty)),
        };
        Ok(Array { shape: shape.iter().filter_map(|d| usize::try_from(*d).ok()).collect(), values })
    }
}

/// A declared shape as text; a free dimension is `?`.
fn sizes(shape: &[i64]) -> String {
    let parts: Vec<String> =
        shape.iter().map(|d| if *d < 0 { "?".to_owned() } else { d.to_string() }).collect();
    format!("[{}]", parts.join(", "))
}
