//! The tensor executor: named tensors in, named tensors out, of any ONNX file.
//!
//! For: tasks that bring a model of a kind that this host knows nothing of. Not for: knowing what a tensor means; that is the
//! plugin's. The one idea is that of wasi-nn's named graphs: a folder is a graph under a name, and its own inputs and outputs
//! say what fits.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use nineteen_domain::id::ModelName;
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, Tensor, TensorElementType, ValueType};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::error::CheckingError;
use crate::folder::{Folder, wrong};
use crate::lane::{Lane, lane, work};
use crate::runtime::{Provider, Runtime, one_line};

/// Tensors of one check, in and out each.
const MOST_TENSORS: usize = 16;
/// Dimensions of a tensor.
const MOST_RANK: usize = 8;
/// Bytes of all tensors that go in: what a graph makes of them inside may be a thousand times as much.
const MOST_IN: usize = 1 << 20;
/// Bytes of all tensors that come out.
const MOST_OUT: usize = 4 << 20;

/// What a tensor is made of. Numbers are little-endian; a bool is one byte, 0 or 1.
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
    /// Truth value.
    Bool,
}

impl Dtype {
    const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::I64 => 8,
            Self::U8 | Self::Bool => 1,
        }
    }

    const fn of(t: TensorElementType) -> Option<Self> {
        match t {
            TensorElementType::Float32 => Some(Self::F32),
            TensorElementType::Int32 => Some(Self::I32),
            TensorElementType::Int64 => Some(Self::I64),
            TensorElementType::Uint8 => Some(Self::U8),
            TensorElementType::Bool => Some(Self::Bool),
            _ => None,
        }
    }
}

/// A tensor as it crosses the boundary.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Of the graph's input or output.
    pub name: String,
    /// What it is made of.
    pub dtype: Dtype,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its numbers, row by row.
    pub data: Bytes,
}

impl Named {
    /// Whether its bytes are as many as its shape says.
    fn check(&self) -> Result<(), String> {
        let name: String = self.name.chars().take(80).collect();
        if self.dims.len() > MOST_RANK {
            return Err(format!("'{name}' has {} dimensions; {MOST_RANK} are the most", self.dims.len()));
        }
        if self.dtype == Dtype::Bool && self.data.iter().any(|b| *b > 1) {
            return Err(format!("'{name}' holds a byte that is no truth value"));
        }
        let elements = self.dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        let bytes = elements.and_then(|n| n.checked_mul(self.dtype.bytes()));
        match bytes {
            Some(0) => Err(format!("'{name}' is empty: {:?}", self.dims)),
            Some(bytes) if bytes == self.data.len() => Ok(()),
            _ => Err(format!(
                "'{name}' has {} bytes, which is not {:?} of {:?}",
                self.data.len(),
                self.dims,
                self.dtype
            )),
        }
    }
}

pub(crate) struct Job {
    inputs: Vec<Named>,
    outputs: Vec<String>,
    reply: oneshot::Sender<Result<Vec<Named>, CheckingError>>,
}

struct Shared {
    model: String,
    precision: String,
    provider: Provider,
}

/// A handle on a graph that is being served. Cheap to clone.
#[derive(Clone)]
pub struct TensorModel {
    shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane<Job>>,
}

impl std::fmt::Debug for TensorModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorModel").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl TensorModel {
    /// Loads a graph and starts its threads. Blocks for a while.
    pub(crate) fn start(
        name: &ModelName,
        folder: &Folder,
        runtime: &Runtime,
        [threads, intra_threads, queue]: [usize; 3],
    ) -> Result<(Self, Vec<JoinHandle<()>>), CheckingError> {
        let shared = Arc::new(Shared {
            model: name.to_string(),
            precision: folder.precision.clone(),
            provider: runtime.provider(),
        });
        let weights = PrepackedWeights::new();
        let refuse = |why: String| wrong(&folder.graph(), one_line(&why));
        let (lane, intake) = lane(queue);
        let mut running = Vec::with_capacity(threads);
        for i in 0..threads.max(1) {
            let session = runtime
                .session_builder(intra_threads)?
                .with_prepacked_weights(&weights)
                .map_err(|e| refuse(e.to_string()))?
                .commit_from_file(folder.graph())
                .map_err(|e| refuse(e.to_string()))?;
            let mut worker = Worker { model: shared.model.clone(), session };
            let stopping = intake.clone();
            let each = move |jobs: Vec<Job>| {
                for Job { inputs, outputs, reply } in jobs {
                    let run = if stopping.stopping() {
                        Err(CheckingError::Stopped)
                    } else {
                        worker.run(&inputs, &outputs)
                    };
                    // A caller that is gone wants no answer.
                    let _ = reply.send(run);
                }
            };
            running.push(work(format!("tensors-{i}"), intake.clone(), 1, each)?);
        }
        Ok((Self { shared, lane }, running))
    }

    /// The name under which it is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.model
    }

    /// Of its weights, as its manifest says.
    #[must_use]
    pub fn precision(&self) -> &str {
        &self.shared.precision
    }

    /// What computes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.shared.provider
    }

    /// Runs the graph once: 1 to 16 tensors in, the named ones out (all where none is named), at most 1 MiB in and 4 MiB out. Dropping
    /// the future gives the work up if it has not begun.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] naming the tensor that does not fit; [`CheckingError::NotFinite`] for an output that holds
    /// no numbers; a fault of the model or the executors.
    pub async fn run(&self, inputs: Vec<Named>, outputs: Vec<String>) -> Result<Vec<Named>, CheckingError> {
        let refuse = |why: String| Err(CheckingError::BadParameters(format!("tensors.run: {why}")));
        if inputs.is_empty() || inputs.len() > MOST_TENSORS || outputs.len() > MOST_TENSORS {
            let given = (inputs.len(), outputs.len());
            return refuse(format!(
                "{given:?} tensors in and out; 1 to {MOST_TENSORS} go in, and as many come out"
            ));
        }
        let bytes = inputs.iter().fold(0_usize, |n, t| n.saturating_add(t.data.len()));
        if bytes > MOST_IN {
            return refuse(format!("{bytes} bytes go in; {MOST_IN} are the most"));
        }
        if let Err(why) = inputs.iter().try_for_each(Named::check) {
            return refuse(why);
        }
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job { inputs, outputs, reply }).await?;
        answer.await.unwrap_or_else(|_| {
            let why = "the executor gave the job up; its log says why".into();
            Err(CheckingError::Inference { model: self.shared.model.clone(), why })
        })
    }
}

struct Worker {
    model: String,
    session: Session,
}

impl Worker {
    fn run(&mut self, inputs: &[Named], outputs: &[String]) -> Result<Vec<Named>, CheckingError> {
        let failed =
            |why: String| CheckingError::Inference { model: self.model.clone(), why: one_line(&why) };
        self.fits(inputs, outputs)
            .map_err(|why| CheckingError::BadParameters(format!("tensors.run: {why}")))?;
        let mut feed: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for input in inputs {
            let value = value(input).map_err(|e| failed(e.to_string()))?;
            feed.push((input.name.as_str(), value.into()));
        }
        let given = self.session.run(feed).map_err(|e| failed(e.to_string()))?;
        let (mut all, mut sum) = (Vec::new(), 0_usize);
        for (name, value) in given.iter() {
            if !outputs.is_empty() && !outputs.iter().any(|o| o == name) {
                continue;
            }
            let named = read(name, &value).map_err(failed)?;
            sum = sum.saturating_add(named.data.len());
            if sum > MOST_OUT {
                return Err(failed(format!("more than {MOST_OUT} bytes come out")));
            }
            let finite = |b: &[u8; 4]| f32::from_le_bytes(*b).is_finite();
            if named.dtype == Dtype::F32 && !named.data.as_chunks::<4>().0.iter().all(finite) {
                return Err(CheckingError::NotFinite { model: self.model.clone() });
            }
            all.push(named);
        }
        // In the order that was asked for.
        all.sort_by_key(|n| outputs.iter().position(|o| *o == n.name));
        Ok(all)
    }

    /// Whether the graph takes these and has those: said before it runs, in the tensor's name.
    fn fits(&self, inputs: &[Named], outputs: &[String]) -> Result<(), String> {
        let known = |outlets: &[ort::value::Outlet]| {
            outlets.iter().map(|o| format!("'{}'", o.name())).collect::<Vec<_>>().join(", ")
        };
        for input in inputs {
            let Some(wanted) = self.session.inputs().iter().find(|i| i.name() == input.name) else {
                let name: String = input.name.chars().take(80).collect();
                return Err(format!("no input '{name}'; it has {}", known(self.session.inputs())));
            };
            let ValueType::Tensor { ty, shape, .. } = wanted.dtype() else {
                return Err(format!("its input '{}' is no tensor", input.name));
            };
            if Dtype::of(*ty) != Some(input.dtype) {
                return Err(format!("its input '{}' takes {ty}, not {:?}", input.name, input.dtype));
            }
            let fits = |(wanted, given): (&i64, &usize)| *wanted < 0 || i64::try_from(*given) == Ok(*wanted);
            if shape.len() != input.dims.len() || !shape.iter().zip(&input.dims).all(fits) {
                return Err(format!(
                    "its input '{}' has the shape {:?}, not {:?}",
                    input.name,
                    shape.to_vec(),
                    input.dims
                ));
            }
        }
        if let Some(missing) =
            self.session.inputs().iter().find(|i| !inputs.iter().any(|g| g.name == i.name()))
        {
            return Err(format!("its input '{}' is missing", missing.name()));
        }
        if let Some(twice) =
            inputs.iter().enumerate().find(|(i, a)| inputs.iter().skip(i + 1).any(|b| b.name == a.name))
        {
            return Err(format!("'{}' is given twice", twice.1.name));
        }
        if let Some((_, twice)) =
            outputs.iter().enumerate().find(|(i, a)| outputs.iter().skip(i + 1).any(|b| b == *a))
        {
            let name: String = twice.chars().take(80).collect();
            return Err(format!("the output '{name}' is asked for twice"));
        }
        if let Some(unknown) =
            outputs.iter().find(|o| !self.session.outputs().iter().any(|h| h.name() == **o))
        {
            let name: String = unknown.chars().take(80).collect();
            return Err(format!("no output '{name}'; it has {}", known(self.session.outputs())));
        }
        Ok(())
    }
}

fn value(of: &Named) -> ort::Result<DynTensor> {
    let dims = of.dims.clone();
    let words = || of.data.as_chunks::<4>().0.iter();
    Ok(match of.dtype {
        Dtype::F32 => {
            Tensor::from_array((dims, words().map(|w| f32::from_le_bytes(*w)).collect::<Vec<_>>()))?.upcast()
        }
        Dtype::I32 => {
            Tensor::from_array((dims, words().map(|w| i32::from_le_bytes(*w)).collect::<Vec<_>>()))?.upcast()
        }
        Dtype::I64 => {
            let longs = of.data.as_chunks::<8>().0.iter().map(|w| i64::from_le_bytes(*w));
            Tensor::from_array((dims, longs.collect::<Vec<_>>()))?.upcast()
        }
        Dtype::U8 => Tensor::from_array((dims, of.data.to_vec()))?.upcast(),
        Dtype::Bool => {
            Tensor::from_array((dims, of.data.iter().map(|b| *b != 0).collect::<Vec<_>>()))?.upcast()
        }
    })
}

fn read(name: &str, value: &ort::value::DynValue) -> Result<Named, String> {
    let ValueType::Tensor { ty, .. } = value.dtype() else { return Err(format!("'{name}' is no tensor")) };
    let dtype = Dtype::of(*ty).ok_or_else(|| format!("'{name}' is made of {ty}, which is not handed out"))?;
    let says = |e: ort::Error| e.to_string();
    let (dims, data): (Vec<i64>, Vec<u8>) = match dtype {
        Dtype::F32 => {
            let (shape, v) = value.try_extract_tensor::<f32>().map_err(says)?;
            (shape.to_vec(), v.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        Dtype::I32 => {
            let (shape, v) = value.try_extract_tensor::<i32>().map_err(says)?;
            (shape.to_vec(), v.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        Dtype::I64 => {
            let (shape, v) = value.try_extract_tensor::<i64>().map_err(says)?;
            (shape.to_vec(), v.iter().flat_map(|x| x.to_le_bytes()).collect())
        }
        Dtype::U8 => {
            let (shape, v) = value.try_extract_tensor::<u8>().map_err(says)?;
            (shape.to_vec(), v.to_vec())
        }
        Dtype::Bool => {
            let (shape, v) = value.try_extract_tensor::<bool>().map_err(says)?;
            (shape.to_vec(), v.iter().map(|b| u8::from(*b)).collect())
        }
    };
    let dims = dims.into_iter().map(|d| usize::try_from(d).unwrap_or(0)).collect();
    Ok(Named { name: name.to_owned(), dtype, dims, data: data.into() })
}
