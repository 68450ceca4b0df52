//! Answers that were seen before: copies between miners, and replays over time.
//!
//! A right answer is no cheat, whoever gave it first, and the checks say whether it is right. So what is found here
//! moves no score: it is written beside it, because "the answer of another miner to another request" is why a wrong
//! answer is wrong.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use nineteen_domain::{Digest, Hotkey, TaskName};

/// Answers that are remembered; the oldest are forgotten first. Some hundred bytes each.
const MOST: usize = 100_000;

/// What was found of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// This miner gave it to another request.
    Replayed,
    /// Another miner gave it to another request.
    Copied,
}

type Key = (TaskName, Bytes);

#[derive(Default)]
struct Memory {
    first: HashMap<Key, (Digest, Hotkey)>,
    order: VecDeque<Key>,
}

/// What was answered by whom, since the start. A std mutex: held for a look-up.
#[derive(Default)]
pub(crate) struct Fingerprints(Mutex<Memory>);

impl Fingerprints {
    /// Remembers an answer; says whether it was given to another request before.
    pub(crate) fn see(
        &self,
        task: &TaskName,
        prints: &[Bytes],
        request: Digest,
        miner: Hotkey,
    ) -> Option<Seen> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = None;
        for print in prints {
            let key = (task.clone(), print.clone());
            match memory.first.get(&key) {
                Some((other, _)) if *other == request => {}
                Some((_, whose)) => {
                    found = Some(if *whose == miner { Seen::Replayed } else { Seen::Copied });
                }
                None => {
                    if memory.order.len() >= MOST
                        && let Some(oldest) = memory.order.pop_front()
                    {
                        memory.first.remove(&oldest);
                    }
                    memory.order.push_back(key.clone());
                    memory.first.insert(key, (request, miner));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replays_and_copies_are_told_apart_from_the_same_question() {
        let seen = Fingerprints::default();
        let task = TaskName::new("chat").unwrap();
        let (a, b) = (Hotkey::from_bytes([1; 32]), Hotkey::from_bytes([2; 32]));
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let print = vec![Bytes::from(vec![7; 16])];
        assert_eq!(seen.see(&task, &print, one, a), None);
        assert_eq!(seen.see(&task, &print, one, b), None, "the same question has the same answer");
        assert_eq!(seen.see(&task, &print, two, a), Some(Seen::Replayed));
        assert_eq!(seen.see(&task, &print, two, b), Some(Seen::Copied));
        assert_eq!(seen.see(&TaskName::new("other").unwrap(), &print, two, b), None);
    }

    #[test]
    fn memory_is_bounded() {
        let seen = Fingerprints::default();
        let task = TaskName::new("chat").unwrap();
        for n in 0..(MOST as u64 + 10) {
            seen.see(
                &task,
                &[n.to_le_bytes().to_vec().into()],
                Digest::of(b"r"),
                Hotkey::from_bytes([1; 32]),
            );
        }
        assert_eq!(seen.0.lock().unwrap().first.len(), MOST);
    }
}
