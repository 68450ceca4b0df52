//! The vision executor: pictures in; vectors, classes or faces out.
//!
//! For: any ONNX file beside a manifest that says how a picture becomes its input and what its output means. Not for:
//! decoding files, that is `pixels`. The one idea: what differs between models (size, layout, order of colours, mean,
//! deviation, output) is data in `model.toml`, so a new model is a new folder.

mod face;
mod manifest;
mod prepare;

use std::sync::Arc;
use std::thread::JoinHandle;

use nineteen_domain::id::ModelName;
use ort::session::builder::PrepackedWeights;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType, ValueType};
use tokio::sync::oneshot;

pub use face::{Face, Landmarks};

use crate::diffusion::Pixels;
use crate::error::CheckingError;
use crate::folder::{Folder, wrong};
use crate::lane::{Lane, lane, work};
use crate::runtime::{Provider, Runtime, one_line};
use manifest::{Manifest, Output};

/// The most pictures of one call.
const MOST_PICTURES: usize = 64;

/// What a model says of pictures, one entry a picture.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// Vectors.
    Vectors(Vec<Vec<f32>>),
    /// Probabilities in the order of [`VisionModel::classes`].
    Classes(Vec<Vec<f32>>),
    /// Faces, the most certain first.
    Faces(Vec<Vec<Face>>),
}

struct Shared {
    model: String,
    precision: String,
    provider: Provider,
    manifest: Manifest,
}

pub(crate) struct Job {
    pictures: Vec<Pixels>,
    /// For a model of faces: where each one is.
    faces: Option<Vec<Landmarks>>,
    threshold: f32,
    reply: oneshot::Sender<Result<Sight, CheckingError>>,
}

/// A handle on a vision model that is being served. Cheap to clone.
#[derive(Clone)]
pub struct VisionModel {
    shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane<Job>>,
}

impl std::fmt::Debug for VisionModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VisionModel").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl VisionModel {
    /// Loads a model and starts its threads. Blocks for a while.
    pub(crate) fn start(
        name: &ModelName,
        folder: &Folder,
        runtime: &Runtime,
        [threads, intra_threads, queue]: [usize; 3],
    ) -> Result<(Self, Vec<JoinHandle<()>>), CheckingError> {
        let manifest = Manifest::read(&folder.path.join("model.toml"))?;
        let shared = Arc::new(Shared {
            model: name.to_string(),
            precision: folder.precision.clone(),
            provider: runtime.provider(),
            manifest,
        });
        let weights = PrepackedWeights::new();
        let mut workers = Vec::with_capacity(threads);
        for _ in 0..threads.max(1) {
            let refuse = |e: ort::Error<_>| wrong(&folder.graph(), one_line(&e.to_string()));
            let session = runtime
                .session_builder(intra_threads)?
                .with_prepacked_weights(&weights)
                .map_err(|e| wrong(&folder.graph(), one_line(&e.to_string())))?
                .commit_from_file(folder.graph())
                .map_err(refuse)?;
            fits(&shared.manifest, folder, &session)?;
            let mut worker = Worker { shared: Arc::clone(&shared), session };
            let [w, h] = shared.manifest.size();
            let grey = Pixels { width: w, height: h, rgb: vec![128; 3 * w * h] };
            worker.look(&[grey], None, 0.5).map_err(|e| wrong(&folder.graph(), e.to_string()))?;
            workers.push(worker);
        }
        let (lane, intake) = lane(queue);
        let mut running = Vec::with_capacity(workers.len());
        for (i, mut worker) in workers.into_iter().enumerate() {
            let stopping = intake.clone();
            let each = move |jobs: Vec<Job>| {
                for Job { pictures, faces, threshold, reply } in jobs {
                    let seen = if stopping.stopping() {
                        Err(CheckingError::Stopped)
                    } else {
                        worker.look(&pictures, faces.as_deref(), threshold)
                    };
                    // A caller that is gone wants no answer.
                    let _ = reply.send(seen);
                }
            };
            running.push(work(format!("vision-{i}"), intake.clone(), 1, each)?);
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

    /// Names of its classes; empty for a model of something else.
    #[must_use]
    pub fn classes(&self) -> &[String] {
        match &self.shared.manifest.output {
            Output::Classes { classes, .. } => classes,
            _ => &[],
        }
    }

    /// Values of a vector; 0 for a model of something else.
    #[must_use]
    pub fn dimension(&self) -> usize {
        match &self.shared.manifest.output {
            Output::Vector { dimension, .. } => *dimension,
            _ => 0,
        }
    }

    /// The check kind that it answers.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.shared.manifest.output {
            Output::Vector { .. } => "vision.embed",
            Output::Classes { .. } => "vision.classify",
            Output::Faces { .. } => "vision.faces",
        }
    }

    /// Looks at 1 to 64 pictures. A model of faces that aligns them takes five landmarks a picture; `threshold` is for
    /// models that find faces. Dropping the future gives the work up if it has not begun.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] for another number, or landmarks where they are not taken or missing; a fault of the
    /// model or executors.
    pub async fn look(
        &self,
        pictures: Vec<Pixels>,
        faces: Option<Vec<Landmarks>>,
        threshold: f32,
    ) -> Result<Sight, CheckingError> {
        let refuse = |why: String| Err(CheckingError::BadParameters(why));
        if pictures.is_empty() || pictures.len() > MOST_PICTURES {
            return refuse(format!("{} pictures, 1 to {MOST_PICTURES} are taken", pictures.len()));
        }
        let bytes = |p: &Pixels| p.width.checked_mul(p.height)?.checked_mul(3);
        if pictures.iter().any(|p| p.rgb.is_empty() || bytes(p) != Some(p.rgb.len())) {
            return refuse("a picture has not 3 bytes a pixel".into());
        }
        match (&faces, self.shared.manifest.template()) {
            (Some(faces), Some(_)) if faces.len() == pictures.len() => {}
            (None, None) => {}
            (Some(_), None) => return refuse(format!("{} takes no landmarks", self.shared.model)),
            _ => return refuse(format!("{} takes five landmarks for every picture", self.shared.model)),
        }
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job { pictures, faces, threshold, reply }).await?;
        answer.await.unwrap_or_else(|_| {
            let why = "the executor gave the job up; its log says why".into();
            Err(CheckingError::Inference { model: self.shared.model.clone(), why })
        })
    }
}

/// The graph has the input and outputs that the manifest names, in single precision and of a size that fits.
fn fits(manifest: &Manifest, folder: &Folder, session: &Session) -> Result<(), CheckingError> {
    let refuse = |why: String| Err(wrong(&folder.graph(), why));
    let Some(input) = session.inputs().iter().find(|i| i.name() == manifest.input.name) else {
        return refuse(format!("it has no input '{}' ([input] name in model.toml)", manifest.input.name));
    };
    let ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } = input.dtype() else {
        return refuse(format!("its input '{}' takes no fp32 tensor", manifest.input.name));
    };
    let wanted = manifest.shape(1);
    let free_or = |(given, wanted): (&i64, &i64)| *given < 0 || given == wanted;
    if shape.len() != 4 || !shape.iter().zip(&wanted).skip(1).all(free_or) {
        return refuse(format!(
            "its input '{}' has the shape {:?}, [input] in model.toml says {wanted:?}",
            manifest.input.name,
            shape.to_vec()
        ));
    }
    for name in manifest.outputs() {
        let Some(output) = session.outputs().iter().find(|o| o.name() == name) else {
            return refuse(format!("it has no output '{name}' ([output] in model.toml)"));
        };
        if !matches!(output.dtype(), ValueType::Tensor { ty: TensorElementType::Float32, .. }) {
            return refuse(format!("its output '{name}' is no fp32 tensor"));
        }
    }
    Ok(())
}

struct Worker {
    shared: Arc<Shared>,
    session: Session,
}

impl Worker {
    fn look(
        &mut self,
        pictures: &[Pixels],
        faces: Option<&[Landmarks]>,
        threshold: f32,
    ) -> Result<Sight, CheckingError> {
        let manifest = &self.shared.manifest;
        let failed = |why: String| CheckingError::Inference { model: self.shared.model.clone(), why };
        let (mut vectors, mut classes, mut found) = (Vec::new(), Vec::new(), Vec::new());
        // One at a time: what a picture gives does not depend on its neighbours.
        for (i, picture) in pictures.iter().enumerate() {
            let prepared = match faces.and_then(|f| f.get(i)).zip(manifest.template()) {
                Some((landmarks, template)) => {
                    let aligned = face::aligned(picture, landmarks, &template, manifest.size())
                        .ok_or_else(|| CheckingError::Invalid("landmarks that no face has".into()))?;
                    manifest.prepare(&aligned)
                }
                None => manifest.prepare(picture),
            };
            let input = Tensor::from_array((manifest.shape(1).to_vec(), prepared))
                .map_err(|e| failed(one_line(&e.to_string())))?;
            let feed: Vec<(&str, SessionInputValue<'_>)> = vec![(manifest.input.name.as_str(), input.into())];
            let outputs = self.session.run(feed).map_err(|e| failed(one_line(&e.to_string())))?;
            let read = |name: &str| -> Result<Vec<f32>, CheckingError> {
                let value = outputs.get(name).ok_or_else(|| failed(format!("no output '{name}'")))?;
                let (_, values) =
                    value.try_extract_tensor::<f32>().map_err(|e| failed(one_line(&e.to_string())))?;
                if values.iter().all(|v| v.is_finite()) {
                    Ok(values.to_vec())
                } else {
                    Err(CheckingError::NotFinite { model: self.shared.model.clone() })
                }
            };
            match &manifest.output {
                Output::Vector { name, dimension, normalise } => {
                    let mut row = read(name)?;
                    if row.len() != *dimension {
                        return Err(failed(format!("{} values instead of {dimension}", row.len())));
                    }
                    if *normalise {
                        let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
                        #[expect(
                            clippy::cast_possible_truncation,
                            reason = "rounded to the row's own precision"
                        )]
                        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm.max(1e-12)) as f32);
                    }
                    vectors.push(row);
                }
                Output::Classes { name, classes: names } => {
                    let row = read(name)?;
                    if row.len() != names.len() {
                        return Err(failed(format!(
                            "{} probabilities for {} classes",
                            row.len(),
                            names.len()
                        )));
                    }
                    // Whoever forgets the softmax would have every threshold mean something else.
                    if !row.iter().all(|p| (-1e-3..=1.001).contains(p)) {
                        return Err(failed(format!("'{name}' gives no probabilities: they are 0 to 1")));
                    }
                    classes.push(row);
                }
                Output::Faces { scores, boxes, landmarks } => {
                    let (s, b, l) = (read(scores)?, read(boxes)?, read(landmarks)?);
                    if b.len() != s.len() * 4 || l.len() != s.len() * 10 {
                        return Err(failed("scores, boxes and landmarks are not of as many places".into()));
                    }
                    found.push(face::strongest(&s, &b, &l, picture, threshold));
                }
            }
        }
        Ok(match &manifest.output {
            Output::Vector { .. } => Sight::Vectors(vectors),
            Output::Classes { .. } => Sight::Classes(classes),
            Output::Faces { .. } => Sight::Faces(found),
        })
    }
}
