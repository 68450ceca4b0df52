//! The embedding executor: texts in, pooled and normalised rows out.
//!
//! For: sentence encoders with mean pooling, any number of callers at once. Not for: choosing which rows of a
//! reply are checked. The one idea: what waits is batched. Texts of all waiting jobs are sorted by length and run
//! together, because a pass over thirty short rows costs far less than thirty passes over one.

use std::sync::Arc;

use nineteen_domain::id::ModelName;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType, ValueType};
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::oneshot;

use crate::error::CheckingError;
use crate::folder::Folder;
use crate::lane::{Intake, Lane};
use crate::runtime::{Provider, one_line};

/// The most texts of one call.
pub(crate) const MOST_TEXTS: usize = 256;
/// The most bytes of one call's texts.
const MOST_BYTES: usize = 4 << 20;
/// The most jobs that are batched together.
pub(crate) const MOST_JOBS: usize = 32;
/// Rows of one pass.
const ROWS_PER_PASS: usize = 32;
/// Positions of one pass, padding included.
const POSITIONS_PER_PASS: usize = 4096;

/// Rows of one call, in the order of its texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// One row of the model's dimension a text.
    pub rows: Vec<Vec<f32>>,
    /// Tokens of each text, special ones included, after truncation.
    pub tokens: Vec<u32>,
    /// Whether the text was cut to the model's length.
    pub truncated: Vec<bool>,
}

pub(crate) struct Shared {
    pub(crate) model: String,
    pub(crate) precision: String,
    pub(crate) provider: Provider,
    pub(crate) dimension: usize,
    normalise: bool,
    tokenizer: Tokenizer,
}

pub(crate) struct Job {
    texts: Vec<String>,
    reply: oneshot::Sender<Result<Embedded, CheckingError>>,
}

/// A handle on an embedding model that is being served. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddingModel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) lane: Arc<Lane<Job>>,
}

impl std::fmt::Debug for EmbeddingModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddingModel").field("model", &self.shared.model).finish_non_exhaustive()
    }
}

impl EmbeddingModel {
    /// The name under which it is served.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.model
    }

    /// Of its weights: `fp32` or `fp16`.
    #[must_use]
    pub fn precision(&self) -> &str {
        &self.shared.precision
    }

    /// What computes.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.shared.provider
    }

    /// Values of a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.shared.dimension
    }

    /// The token ids of a text as the model reads it: special tokens added, cut to its length.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] if the text cannot be tokenised.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>, CheckingError> {
        Ok(self.shared.encode(text)?.ids)
    }

    /// Embeds 1 to 256 texts of at most 4 MiB together. Dropping the future gives the work up if it has not begun.
    ///
    /// # Errors
    /// [`CheckingError::BadParameters`] for another number or size, or a fault of the model or executors.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Embedded, CheckingError> {
        if texts.is_empty() || texts.len() > MOST_TEXTS {
            return Err(CheckingError::BadParameters(format!(
                "{} texts, 1 to {MOST_TEXTS} are taken",
                texts.len()
            )));
        }
        let bytes: usize = texts.iter().map(String::len).sum();
        if bytes > MOST_BYTES {
            return Err(CheckingError::BadParameters(format!(
                "{bytes} bytes of text, at most {MOST_BYTES} are taken"
            )));
        }
        let (reply, answer) = oneshot::channel();
        self.lane.submit(Job { texts, reply }).await?;
        answer.await.unwrap_or_else(|_| {
            let why = "the executor gave the job up; its log says why".into();
            Err(CheckingError::Inference { model: self.shared.model.clone(), why })
        })
    }
}

struct Encoded {
    ids: Vec<u32>,
    types: Vec<u32>,
    truncated: bool,
}

impl Shared {
    pub(crate) fn load(
        name: &ModelName,
        folder: &Folder,
        provider: Provider,
        max_length: usize,
        dimension: usize,
        normalise: bool,
    ) -> Result<Self, CheckingError> {
        let path = folder.path.join("tokenizer.json");
        let wrong = |e: tokenizers::Error| CheckingError::ModelFile {
            path: path.clone(),
            why: one_line(&e.to_string()),
        };
        let mut tokenizer = Tokenizer::from_file(&path).map_err(wrong)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        Ok(Self {
            model: name.as_str().to_owned(),
            precision: folder.precision.clone(),
            provider,
            dimension,
            normalise,
            tokenizer,
        })
    }

    fn encode(&self, text: &str) -> Result<Encoded, CheckingError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|e| {
            CheckingError::BadParameters(format!("a text cannot be tokenised: {}", one_line(&e.to_string())))
        })?;
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }

    fn failed(&self, why: impl std::fmt::Display) -> CheckingError {
        CheckingError::Inference { model: self.model.clone(), why: one_line(&why.to_string()) }
    }
}

/// A thread's own.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Session,
    pub(crate) intake: Intake<Job>,
    types: bool,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Session,
        intake: Intake<Job>,
    ) -> Result<Self, CheckingError> {
        let unfit = |why: &str| CheckingError::Model { model: shared.model.clone(), why: why.to_owned() };
        let mut types = false;
        for input in session.inputs() {
            match input.name() {
                "input_ids" | "attention_mask" => {}
                "token_type_ids" => types = true,
                other => return Err(unfit(&format!("its input '{other}' is not one that is known"))),
            }
        }
        match session.outputs().first().map(|o| o.dtype()) {
            Some(ValueType::Tensor { ty: TensorElementType::Float32, shape, .. }) if shape.len() == 3 => {}
            _ => return Err(unfit("its first output is not float32 of [batch, sequence, width]")),
        }
        let mut worker = Self { shared, session, intake, types };
        // An honest first pass, so that a graph that does not fit is refused at the start.
        let probe = worker.shared.encode("a")?;
        worker.pass(&[&probe])?;
        Ok(worker)
    }

    /// Works off everything that was waiting, in passes over texts of like length.
    pub(crate) fn run(&mut self, jobs: Vec<Job>) {
        let stopping = self.intake.stopping();
        let mut open = Vec::new();
        for job in jobs {
            if job.reply.is_closed() {
                continue;
            }
            let encoded: Result<Vec<Encoded>, CheckingError> = if stopping {
                Err(CheckingError::Stopped)
            } else {
                job.texts.iter().map(|t| self.shared.encode(t)).collect()
            };
            match encoded {
                Ok(texts) => open.push((texts, job.reply)),
                Err(e) => drop(job.reply.send(Err(e))),
            }
        }
        let all: Vec<&Encoded> = open.iter().flat_map(|(texts, _)| texts).collect();
        let rows = self.rows(&all);
        let mut rows = rows.map(Vec::into_iter);
        for (texts, reply) in open {
            let answer = match &mut rows {
                Ok(rows) => Ok(Embedded {
                    rows: rows.take(texts.len()).collect(),
                    tokens: texts.iter().map(|t| u32::try_from(t.ids.len()).unwrap_or(u32::MAX)).collect(),
                    truncated: texts.iter().map(|t| t.truncated).collect(),
                }),
                Err(e) => Err(e.clone()),
            };
            let _ = reply.send(answer);
        }
    }

    fn rows(&mut self, texts: &[&Encoded]) -> Result<Vec<Vec<f32>>, CheckingError> {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        let len = |i: &usize| texts.get(*i).map_or(0, |t| t.ids.len());
        order.sort_by_key(len);
        let mut rows = vec![Vec::new(); texts.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            // Lengths ascend, so the next text is the longest so far and sets the padding.
            let fits = rest
                .iter()
                .enumerate()
                .take_while(|(n, i)| {
                    *n == 0 || (*n < ROWS_PER_PASS && (n + 1) * len(i) <= POSITIONS_PER_PASS)
                })
                .count();
            let (batch, after) = rest.split_at(fits);
            rest = after;
            let members: Vec<&Encoded> = batch.iter().filter_map(|i| texts.get(*i).copied()).collect();
            for (i, row) in batch.iter().zip(self.pass(&members)?) {
                if let Some(place) = rows.get_mut(*i) {
                    *place = row;
                }
            }
        }
        Ok(rows)
    }

    /// One pass over a batch, padded to its longest.
    fn pass(&mut self, batch: &[&Encoded]) -> Result<Vec<Vec<f32>>, CheckingError> {
        let shared = Arc::clone(&self.shared);
        let failed = |e: ort::Error| shared.failed(e);
        let (n, width) = (batch.len(), batch.iter().map(|t| t.ids.len()).max().unwrap_or(0));
        let pad = |value: fn(&Encoded) -> &[u32]| {
            let mut flat = Vec::with_capacity(n * width);
            for text in batch {
                let have = value(text);
                flat.extend(have.iter().map(|id| i64::from(*id)));
                flat.extend(std::iter::repeat_n(0_i64, width - have.len()));
            }
            Tensor::from_array(([n, width], flat))
        };
        let mut mask = Vec::with_capacity(n * width);
        for text in batch {
            mask.extend(std::iter::repeat_n(1_i64, text.ids.len()));
            mask.extend(std::iter::repeat_n(0_i64, width - text.ids.len()));
        }
        let mask = Tensor::from_array(([n, width], mask)).map_err(failed)?;
        let mut inputs: Vec<(&str, SessionInputValue<'_>)> =
            vec![("input_ids", pad(|t| &t.ids).map_err(failed)?.into()), ("attention_mask", mask.into())];
        if self.types {
            inputs.push(("token_type_ids", pad(|t| &t.types).map_err(failed)?.into()));
        }
        let outputs = self.session.run(inputs).map_err(failed)?;
        let hidden = outputs.values().next().ok_or_else(|| shared.failed("it gave no output"))?;
        let (shape, values) = hidden.try_extract_tensor::<f32>().map_err(failed)?;
        let got: Vec<usize> = shape.iter().filter_map(|d| usize::try_from(*d).ok()).collect();
        if got != [n, width, shared.dimension] {
            let why =
                format!("its output has the shape {got:?} instead of {:?}", [n, width, shared.dimension]);
            return Err(CheckingError::Model { model: shared.model.clone(), why });
        }
        let per_text = values.chunks_exact(width * shared.dimension);
        batch.iter().zip(per_text).map(|(text, states)| shared.pool(states, text.ids.len())).collect()
    }
}

impl Shared {
    /// Mean over the first `len` positions, scaled to length 1 if the model's folder says so. Sums in `f64`.
    fn pool(&self, states: &[f32], len: usize) -> Result<Vec<f32>, CheckingError> {
        let mut sums = vec![0.0_f64; self.dimension];
        for state in states.chunks_exact(self.dimension).take(len) {
            sums.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        #[expect(clippy::cast_precision_loss, reason = "a few hundred positions")]
        let mut scale = 1.0 / (len.max(1) as f64);
        if self.normalise {
            let norm = sums.iter().map(|s| (s * scale) * (s * scale)).sum::<f64>().sqrt();
            scale /= norm.max(1e-12);
        }
        #[expect(clippy::cast_possible_truncation, reason = "rows are single precision")]
        let row: Vec<f32> = sums.iter().map(|s| (s * scale) as f32).collect();
        if row.iter().all(|v| v.is_finite()) {
            Ok(row)
        } else {
            Err(CheckingError::NotFinite { model: self.model.clone() })
        }
    }
}
