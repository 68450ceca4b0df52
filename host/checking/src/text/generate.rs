//! Generation with a key-value cache, cancellable between tokens.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Finish, GenerateEnd, GenerateRequest, GeneratedToken, Worker};
use crate::error::CheckingError;
use crate::pieces::Growing;
use crate::reduce;
use crate::sampler::Drawer;

/// Text on its way out, held back as long as a stop string may have begun in it.
struct Outlet<'a> {
    stop: Vec<&'a str>,
    held: String,
}

impl<'a> Outlet<'a> {
    fn new(stop: &'a [String]) -> Self {
        Self {
            stop: stop.iter().map(String::as_str).filter(|s| !s.is_empty()).collect(),
            held: String::new(),
        }
    }

    /// Adds text; gives what may leave, and whether a stop string was met (which then is cut off).
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stop.iter().filter_map(|s| self.held.find(s)).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        // The longest end of what is held that a stop string begins with.
        let keep = self.held.char_indices().map(|(i, _)| i).find(|i| {
            let (_, end) = self.held.split_at(*i);
            self.stop.iter().any(|s| s.starts_with(end))
        });
        let rest = keep.map(|i| self.held.split_off(i)).unwrap_or_default();
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is left when the completion ends without a stop string.
    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

impl Worker {
    pub(super) fn generate(
        &mut self,
        request: &GenerateRequest,
        tokens: &mpsc::Sender<GeneratedToken>,
        abandoned: impl Fn() -> bool,
    ) -> Result<GenerateEnd, CheckingError> {
        let (graph, shared) = (Arc::clone(&self.graph), Arc::clone(&self.shared));
        if request.max_tokens == 0 {
            return Err(CheckingError::BadParameters("max_tokens has to be at least 1".into()));
        }
        let mut drawer = Drawer::new(request.sampler)?;
        let (_, prompt) = shared.prompt(&request.prompt)?;
        let room = shared.context - prompt.len();
        let most = room.min(request.max_tokens as usize);
        let prompt_tokens = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let end = |finish, completion_tokens| GenerateEnd { finish, prompt_tokens, completion_tokens };

        let (mut growing, mut outlet) = (Growing::default(), Outlet::new(&request.stop));
        let mut past = graph.fresh()?;
        let mut next = prompt;
        let mut made = 0_u32;
        loop {
            if tokens.is_closed() || abandoned() || self.intake.stopping() {
                return Ok(end(Finish::Cancelled, made));
            }
            // A long prompt goes in by pieces where the graph computes every row.
            let mut drawn = None;
            let mut rest = next.as_slice();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(graph.pass_len(rest.len(), 1));
                rest = after;
                drawn = graph.pass(&mut self.session, piece, &mut past, 1, shared.vocabulary, |logits| {
                    if !rest.is_empty() {
                        return Ok(None);
                    }
                    let id = drawer.draw(logits, made).ok_or_else(|| shared.not_finite())?;
                    let own = logits.get(id as usize).copied().unwrap_or_default();
                    let logprob = request
                        .logprobs
                        .then(|| reduce::reduce(logits, own, 1.0).map(|row| row.logprob(own)))
                        .flatten();
                    Ok(Some((id, logprob)))
                })?;
            }
            let Some((id, logprob)) = drawn else { return Err(shared.lost()) };
            made += 1;
            let ended = shared.eos_ids.contains(&id);
            let full = made as usize >= most;
            let (mut text, stopped) = outlet.push(&growing.push(&shared.pieces, id));
            if !stopped && (ended || full) {
                text.push_str(&outlet.finish());
            }
            let token = GeneratedToken { id, text, logprob, bytes: shared.pieces.of(id).to_vec() };
            if tokens.blocking_send(token).is_err() {
                return Ok(end(Finish::Cancelled, made));
            }
            if ended || stopped {
                return Ok(end(Finish::Stop, made));
            }
            if full {
                return Ok(end(Finish::Length, made));
            }
            next = vec![id];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_string_split_over_tokens_is_found_and_cut_off() {
        let stop = vec!["\n\n".to_owned(), "END".to_owned(), String::new()];
        let mut outlet = Outlet::new(&stop);
        assert_eq!(outlet.push("one\n"), ("one".into(), false));
        assert_eq!(outlet.push("two E"), ("\ntwo ".into(), false));
        assert_eq!(outlet.push("N"), (String::new(), false));
        assert_eq!(outlet.push("Dless"), (String::new(), true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_not_lost() {
        let stop = vec!["END".to_owned()];
        let mut outlet = Outlet::new(&stop);
        assert_eq!(outlet.push("EN"), (String::new(), false));
        assert_eq!(outlet.push("ough é EEN"), ("ENough é E".into(), false));
        assert_eq!(outlet.finish(), "EN");
    }
}
