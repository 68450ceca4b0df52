//! Replay: every row of a completion from one prefill, reduced to numbers on the spot.

use std::sync::Arc;

use super::{Completion, Replay, ReplayRequest, Shared, Worker};
use crate::error::CheckingError;
use crate::graph::ROWS_PER_PASS;
use crate::pieces::Growing;
use crate::reduce;
use crate::sampler::Drawer;

/// The most entries of a row's list of likeliest tokens.
const MOST_TOP: u8 = 20;

impl Worker {
    pub(super) fn replay(&mut self, request: &ReplayRequest) -> Result<Replay, CheckingError> {
        let (graph, shared) = (Arc::clone(&self.graph), Arc::clone(&self.shared));
        if request.top > MOST_TOP {
            return Err(CheckingError::BadParameters(format!(
                "top is {}, at most {MOST_TOP} are listed",
                request.top
            )));
        }
        let drawer = Drawer::new(request.sampler)?;
        let (text, prompt) = shared.prompt(&request.prompt)?;
        let (ids, retokenised) = match &request.completion {
            Completion::Ids(ids) => (ids.clone(), false),
            Completion::Text { text: said, finished } => {
                (shared.retokenise(text.as_deref(), &prompt, said, *finished)?, true)
            }
        };
        shared.admit(&prompt, &ids)?;
        let mut rows = Rows::new(&shared, &ids, drawer, usize::from(request.top));
        // The last token is never an input: no row after it is asked for.
        let inputs: Vec<u32> =
            prompt.iter().chain(ids.get(..ids.len() - 1).unwrap_or_default()).copied().collect();
        let mut rest = inputs.as_slice();
        let mut past = graph.fresh()?;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(graph.pass_len(rest.len(), ids.len() - rows.done));
            // Rows of this piece that predict a token of the completion.
            let wanted = ids.len() - rows.done - after.len().min(ids.len() - rows.done);
            let wanted = wanted.min(piece.len()).min(ROWS_PER_PASS);
            rest = after;
            // Where nothing is wanted yet, one row is computed and not read (0 would mean all of them).
            graph.pass(&mut self.session, piece, &mut past, wanted.max(1), shared.vocabulary, |logits| {
                logits.chunks_exact(shared.vocabulary).take(wanted).try_for_each(|row| rows.push(row))
            })?;
        }
        let mut replay = rows.replay;
        if replay.rank.len() != ids.len() {
            return Err(shared.lost());
        }
        let mut growing = Growing::default();
        for id in &ids {
            replay.text.push_str(&growing.push(&shared.pieces, *id));
            replay.text_ends.push(u32::try_from(replay.text.len()).unwrap_or(u32::MAX));
        }
        replay.prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        replay.retokenised = retokenised;
        replay.ids = ids;
        Ok(replay)
    }
}

impl Shared {
    /// The ids of a completion that came as text: tokenised together with the prompt, so that a merge over the
    /// seam is seen; by itself where that would change the prompt's own ids.
    fn retokenise(
        &self,
        prompt_text: Option<&str>,
        prompt: &[u32],
        said: &str,
        finished: bool,
    ) -> Result<Vec<u32>, CheckingError> {
        let together = match prompt_text {
            Some(text) => self.tokenize(&format!("{text}{said}"))?.strip_prefix(prompt).map(<[u32]>::to_vec),
            None => None,
        };
        let mut ids = match together {
            Some(ids) => ids,
            None => self.tokenize(said)?,
        };
        if finished {
            ids.extend(self.eos_ids.first());
        }
        Ok(ids)
    }

    /// Refuses completions that cannot be this model's.
    fn admit(&self, prompt: &[u32], ids: &[u32]) -> Result<(), CheckingError> {
        let invalid = |why: String| Err(CheckingError::Invalid(why));
        if ids.is_empty() {
            return invalid("the completion is empty".into());
        }
        if prompt.len() + ids.len() > self.context {
            return invalid(format!(
                "{} tokens of prompt and {} of completion exceed the context of {}",
                prompt.len(),
                ids.len(),
                self.context
            ));
        }
        if let Some((t, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= self.vocabulary) {
            return invalid(format!(
                "token {t} has the id {id}, outside the vocabulary of {}",
                self.vocabulary
            ));
        }
        Ok(())
    }
}

/// Collects the numbers of rows as they come.
struct Rows<'a> {
    shared: &'a Shared,
    ids: &'a [u32],
    drawer: Drawer,
    top: usize,
    likeliest: Vec<(u32, f32)>,
    done: usize,
    replay: Replay,
}

impl<'a> Rows<'a> {
    fn new(shared: &'a Shared, ids: &'a [u32], drawer: Drawer, top: usize) -> Self {
        let n = ids.len();
        let replay = Replay {
            version: 1,
            model: shared.model.clone(),
            precision: shared.precision.clone(),
            provider: shared.provider,
            prompt_tokens: 0,
            retokenised: false,
            eos_ids: shared.eos_ids.clone(),
            ids: Vec::new(),
            text: String::new(),
            text_ends: Vec::with_capacity(n),
            margin: Vec::with_capacity(n),
            rank: Vec::with_capacity(n),
            logprob: Vec::with_capacity(n),
            entropy: Vec::with_capacity(n),
            varentropy: Vec::with_capacity(n),
            p_eos: Vec::with_capacity(n),
            in_support: Vec::with_capacity(n),
            top: Vec::with_capacity(n),
        };
        Self { shared, ids, drawer, top, likeliest: Vec::with_capacity(top), done: 0, replay }
    }

    fn push(&mut self, logits: &[f32]) -> Result<(), CheckingError> {
        let not_finite = || self.shared.not_finite();
        let Some(y) = self.ids.get(self.done).copied() else { return Ok(()) };
        let (row, logprob, mut in_support) = self.drawer.reduce(logits, y).ok_or_else(not_finite)?;
        let probability = |id: &u32| {
            let logit = logits.get(*id as usize).copied();
            logit.filter(|_| self.drawer.was_kept(*id)).map_or(0.0, |l| row.logprob(l).exp())
        };
        let p_eos = self.shared.eos_ids.iter().map(probability).sum::<f64>();
        reduce::top(logits, self.top, &mut self.likeliest);
        let top = self
            .likeliest
            .iter()
            .filter(|(id, _)| self.drawer.was_kept(*id))
            .map(|(id, l)| (*id, row.logprob(*l)));
        let top = top.collect();
        let t = u32::try_from(self.done).unwrap_or(u32::MAX);
        if let Some(margin) = self.drawer.margin(logits, row.max, t, y) {
            self.replay.margin.push(margin.margin);
            in_support = margin.in_support;
        }
        self.replay.rank.push(row.rank);
        self.replay.logprob.push(logprob);
        self.replay.entropy.push(row.entropy);
        self.replay.varentropy.push(row.varentropy);
        self.replay.p_eos.push(p_eos.min(1.0));
        self.replay.in_support.push(in_support);
        self.replay.top.push(top);
        self.done += 1;
        Ok(())
    }
}
