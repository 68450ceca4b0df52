//! A causal language model's graph: its inputs and outputs by the names that real exports use, and one forward
//! pass of it.
//!
//! For: optimum and onnxruntime-genai exports alike (`input_ids`, `attention_mask`, optional `position_ids`,
//! `past_key_values.N.key/value`, optional `num_logits_to_keep` and `use_cache_branch`; `logits`,
//! `present.N.key/value`). Not for: sampling or reading rows, which borrow the logits. The one idea: a prefill is
//! a pass with a past of length zero, so generation, replay and long inputs in pieces are all the same call.

use std::borrow::Cow;

use ort::memory::Allocator;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynTensor, DynValue, Tensor, TensorElementType, ValueType};

use crate::error::CheckingError;
use crate::runtime::one_line;

/// Rows of logits that one pass may produce: 256 rows of 50,000 words are 50 MB.
pub(crate) const ROWS_PER_PASS: usize = 256;
/// Positions that one pass may have: attention's scores grow with them times all before them.
const POSITIONS_PER_PASS: usize = 1024;

/// The key-value cache between passes of one sequence.
pub(crate) struct Past {
    values: Vec<DynValue>,
    /// Tokens that it covers.
    pub(crate) len: usize,
}

/// New positions of several sequences.
pub(crate) struct Step<'a> {
    /// Of each sequence, all as long.
    pub(crate) ids: &'a [&'a [u32]],
    /// Positions at the beginning of each sequence, the past included, that are not its own.
    pub(crate) padding: &'a [usize],
}

fn count(v: usize) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

struct Cell {
    past: String,
    present: String,
    ty: TensorElementType,
    heads: i64,
    width: i64,
}

/// What the graph has; the same for every session of a model.
pub(crate) struct Graph {
    model: String,
    cells: Vec<Cell>,
    positions: bool,
    /// The input that limits rows before the head, and its rank.
    keep: Option<(String, usize)>,
    branch: bool,
}

impl Graph {
    /// Reads the names; refuses what would silently go wrong later.
    pub(crate) fn of(model: &str, session: &Session) -> Result<Self, CheckingError> {
        let unfit = |why: String| CheckingError::Model { model: model.to_owned(), why };
        let mut cells = Vec::new();
        let (mut positions, mut keep, mut branch, mut ids, mut mask) = (false, None, false, false, false);
        let outputs: Vec<&str> = session.outputs().iter().map(|o| o.name()).collect();
        for input in session.inputs() {
            let name = input.name();
            let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
                return Err(unfit(format!("its input '{name}' is no tensor")));
            };
            match name {
                "input_ids" => ids = true,
                "attention_mask" => mask = true,
                "position_ids" => positions = true,
                "num_logits_to_keep" | "logits_to_keep" => keep = Some((name.to_owned(), shape.len())),
                "use_cache_branch" => branch = true,
                _ => {
                    let Some(rest) = name.strip_prefix("past_key_values.") else {
                        return Err(unfit(format!("its input '{name}' is not one that is known")));
                    };
                    let present = format!("present.{rest}");
                    let [_, heads, _, width] = shape.iter().copied().collect::<Vec<_>>()[..] else {
                        return Err(unfit(format!("its input '{name}' has not four dimensions")));
                    };
                    if heads < 1 || width < 1 {
                        return Err(unfit(format!("its input '{name}' does not state heads and width")));
                    }
                    if !outputs.contains(&present.as_str()) {
                        return Err(unfit(format!("it has '{name}' but no output '{present}'")));
                    }
                    cells.push(Cell { past: name.to_owned(), present, ty: *ty, heads, width });
                }
            }
        }
        if !ids || !mask || cells.is_empty() {
            return Err(unfit(
                "it needs the inputs input_ids, attention_mask and past_key_values.N.key/value".into(),
            ));
        }
        match session.outputs().iter().find(|o| o.name() == "logits").map(|o| o.dtype()) {
            Some(ValueType::Tensor { ty: TensorElementType::Float32, .. }) => {}
            Some(_) => return Err(unfit("its logits are not float32; export it with float32 logits".into())),
            None => return Err(unfit("it has no output 'logits'".into())),
        }
        Ok(Self { model: model.to_owned(), cells, positions, keep, branch })
    }

    fn failed(&self, e: &ort::Error) -> CheckingError {
        CheckingError::Inference { model: self.model.clone(), why: one_line(&e.to_string()) }
    }

    /// An empty past of one sequence.
    pub(crate) fn fresh(&self) -> Result<Past, CheckingError> {
        self.fresh_batch(1)
    }

    /// An empty past of several.
    pub(crate) fn fresh_batch(&self, batch: usize) -> Result<Past, CheckingError> {
        let values: ort::Result<Vec<DynValue>> = self
            .cells
            .iter()
            .map(|c| {
                DynTensor::new(&Allocator::default(), c.ty, [count(batch), c.heads, 0, c.width])
                    .map(ort::value::Value::into_dyn)
            })
            .collect();
        Ok(Past { values: values.map_err(|e| self.failed(&e))?, len: 0 })
    }

    /// The most positions that a pass may have when the last `rows` of all that are left are wanted.
    pub(crate) fn pass_len(&self, left: usize, rows: usize) -> usize {
        if self.keep.is_none() {
            return left.min(ROWS_PER_PASS);
        }
        // Positions before the wanted rows cost no head, so they ride along with the first piece.
        left.min((left - rows.min(left)) + ROWS_PER_PASS).min(POSITIONS_PER_PASS)
    }

    /// One forward pass over `ids` behind `past`, which it extends. `read` gets the logits of the last `rows`
    /// positions, row by row, `vocabulary` values each.
    pub(crate) fn pass<R>(
        &self,
        session: &mut Session,
        ids: &[u32],
        past: &mut Past,
        rows: usize,
        vocabulary: usize,
        read: impl FnOnce(&[f32]) -> Result<R, CheckingError>,
    ) -> Result<R, CheckingError> {
        let step = Step { ids: std::slice::from_ref(&ids), padding: &[0] };
        self.step(session, &step, past, rows, vocabulary, read)
    }

    /// One pass over as many new positions of several sequences, which stand below each other and end together: shorter
    /// ones have padding before them. `read` gets the logits of the last `rows` positions of the first, then of the second.
    pub(crate) fn step<R>(
        &self,
        session: &mut Session,
        step: &Step<'_>,
        past: &mut Past,
        rows: usize,
        vocabulary: usize,
        read: impl FnOnce(&[f32]) -> Result<R, CheckingError>,
    ) -> Result<R, CheckingError> {
        let failed = |e: ort::Error| self.failed(&e);
        let (batch, n) = (step.ids.len(), step.ids.first().map_or(0, |ids| ids.len()));
        let all = past.len + n;
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(self.cells.len() + 5);
        let ids: Vec<i64> = step.ids.iter().flat_map(|ids| ids.iter().map(|id| i64::from(*id))).collect();
        inputs.push(("input_ids".into(), Tensor::from_array(([batch, n], ids)).map_err(failed)?.into()));
        let mask: Vec<i64> =
            step.padding.iter().flat_map(|pad| (0..all).map(move |at| i64::from(at >= *pad))).collect();
        inputs.push((
            "attention_mask".into(),
            Tensor::from_array(([batch, all], mask)).map_err(failed)?.into(),
        ));
        if self.positions {
            let from = past.len;
            let positions: Vec<i64> = step
                .padding
                .iter()
                .flat_map(|pad| (from..all).map(move |at| count(at.saturating_sub(*pad))))
                .collect();
            inputs.push((
                "position_ids".into(),
                Tensor::from_array(([batch, n], positions)).map_err(failed)?.into(),
            ));
        }
        if let Some((name, rank)) = &self.keep {
            let shape = vec![1_i64; *rank];
            let keep = Tensor::from_array((shape, vec![count(rows)])).map_err(failed)?;
            inputs.push((name.as_str().into(), keep.into()));
        }
        if self.branch {
            let branch = Tensor::from_array(([1], vec![past.len > 0])).map_err(failed)?;
            inputs.push(("use_cache_branch".into(), branch.into()));
        }
        for (cell, value) in self.cells.iter().zip(&past.values) {
            inputs.push((cell.past.as_str().into(), value.into()));
        }
        let mut outputs = session.run(inputs).map_err(failed)?;
        let result = {
            let logits = outputs.get("logits").ok_or_else(|| self.unfit("it gave no logits".into()))?;
            let (shape, values) = logits.try_extract_tensor::<f32>().map_err(failed)?;
            let got: Vec<i64> = shape.iter().copied().collect();
            let given = if self.keep.is_some() { rows } else { n };
            if got != [count(batch), count(given), count(vocabulary)] {
                return Err(self.unfit(format!(
                    "its logits have the shape {got:?} where [{batch}, {given}, {vocabulary}] was asked for; an export \
                     whose head keeps only the last row cannot be checked"
                )));
            }
            let start = (given - rows.min(given)) * vocabulary;
            if batch == 1 {
                read(values.get(start..).unwrap_or_default())
            } else if given == rows {
                read(values)
            } else {
                let of_each = values.chunks_exact(given * vocabulary);
                let last: Vec<f32> =
                    of_each.flat_map(|v| v.get(start..).unwrap_or_default()).copied().collect();
                read(&last)
            }
        };
        for (cell, value) in self.cells.iter().zip(&mut past.values) {
            *value = outputs
                .remove(cell.present.as_str())
                .ok_or_else(|| self.unfit(format!("it gave no '{}'", cell.present)))?;
        }
        past.len = all;
        result
    }

    fn unfit(&self, why: String) -> CheckingError {
        CheckingError::Model { model: self.model.clone(), why }
    }
}
