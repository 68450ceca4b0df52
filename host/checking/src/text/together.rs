//! Generation of several completions in one batch.
//!
//! On a CPU a token costs reading the weights once; a batch reads them once for all its sequences. Sequences are padded
//! on the left, so that all end at the same place, and one that has ended is carried along until the last has.

use std::sync::Arc;

use super::{GenerateRequest, GeneratedToken, MOST_TOGETHER, Worker};
use crate::error::CheckingError;
use crate::graph::Step;
use crate::pieces::Growing;
use crate::reduce;
use crate::sampler::Drawer;

struct Sequence<'a> {
    request: &'a GenerateRequest,
    drawer: Drawer,
    growing: Growing,
    most: usize,
    made: Vec<GeneratedToken>,
    ended: bool,
}

impl Worker {
    pub(super) fn generate_together(
        &mut self,
        requests: &[GenerateRequest],
        abandoned: impl Fn() -> bool,
    ) -> Result<Vec<Vec<GeneratedToken>>, CheckingError> {
        let (graph, shared) = (Arc::clone(&self.graph), Arc::clone(&self.shared));
        if requests.len() > MOST_TOGETHER {
            return Err(CheckingError::BadParameters(format!(
                "{} completions, at most {MOST_TOGETHER} are sampled together",
                requests.len()
            )));
        }
        if requests.iter().any(|r| r.max_tokens == 0 || !r.stop.is_empty()) {
            return Err(CheckingError::BadParameters(
                "completions that are sampled together have max_tokens above 0 and no stop strings".into(),
            ));
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let (mut prompts, mut sequences) = (Vec::new(), Vec::new());
        for request in requests {
            let (_, prompt) = shared.prompt(&request.prompt)?;
            let most = (shared.context - prompt.len()).min(request.max_tokens as usize);
            let drawer = Drawer::new(request.sampler)?;
            sequences.push(Sequence {
                request,
                drawer,
                growing: Growing::default(),
                most,
                made: Vec::new(),
                ended: false,
            });
            prompts.push(prompt);
        }
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts.iter().map(|p| longest - p.len()).collect();
        let filler = shared.eos_ids.first().copied().unwrap_or_default();
        let mut next: Vec<Vec<u32>> = prompts
            .into_iter()
            .zip(&padding)
            .map(|(prompt, pad)| std::iter::repeat_n(filler, *pad).chain(prompt).collect())
            .collect();
        let mut past = graph.fresh_batch(requests.len())?;
        while sequences.iter().any(|s| !s.ended) {
            if abandoned() || self.intake.stopping() {
                return Err(CheckingError::Stopped);
            }
            let ids: Vec<&[u32]> = next.iter().map(Vec::as_slice).collect();
            let step = Step { ids: &ids, padding: &padding };
            let drawn = graph.step(&mut self.session, &step, &mut past, 1, shared.vocabulary, |logits| {
                let rows = logits.chunks_exact(shared.vocabulary).zip(&mut sequences);
                rows.map(|(row, sequence)| {
                    if sequence.ended {
                        return Ok(filler);
                    }
                    let t = u32::try_from(sequence.made.len()).unwrap_or(u32::MAX);
                    let id = sequence.drawer.draw(row, t).ok_or_else(|| shared.not_finite())?;
                    let own = row.get(id as usize).copied().unwrap_or_default();
                    let logprob = sequence
                        .request
                        .logprobs
                        .then(|| reduce::reduce(row, own, 1.0).map(|r| r.logprob(own)))
                        .flatten();
                    let text = sequence.growing.push(&shared.pieces, id);
                    let bytes = shared.pieces.of(id).to_vec();
                    sequence.made.push(GeneratedToken { id, text, logprob, bytes });
                    sequence.ended = shared.eos_ids.contains(&id) || sequence.made.len() >= sequence.most;
                    Ok(id)
                })
                .collect::<Result<Vec<u32>, CheckingError>>()
            })?;
            next = drawn.into_iter().map(|id| vec![id]).collect();
        }
        Ok(sequences.into_iter().map(|s| s.made).collect())
    }
}
