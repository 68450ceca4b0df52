//! Whose answer is judged next.
//!
//! The checkers can do less than the miners answer, so answers wait, by (task, miner). Each of these lines has a
//! clock of its own that a judgement moves on by one over the line's weight, and the line that is furthest behind
//! goes first: checks are shared in proportion to the weights, nobody starves, and a line that was empty does not
//! save up. Within a line the order is that of a secret seed which is chosen before the period and told after it, so a
//! miner can neither foresee which of its answers are looked at nor could we pick them: others can work the order out
//! again. Where too many wait, the last in that order of whoever has most waiting is let go.

use std::collections::BTreeSet;

use nineteen_domain::{Hotkey, ProbeId, TaskName};

use crate::hash::{HashMap, HashSet};

type Key = (TaskName, Hotkey);

/// What everybody has, beside its standing: a miner without any is looked at all the same.
const FLOOR: f64 = 0.02;
/// One judgement at weight 1 moves a line's clock on by this much.
const STEP: f64 = 1_000.0;

#[derive(Debug, Default)]
struct Line {
    /// By their places in the period's secret order.
    waiting: BTreeSet<(u64, ProbeId)>,
    /// Its clock.
    at: u64,
}

#[derive(Debug)]
pub(crate) struct CheckQueue {
    max: usize,
    max_backlog: usize,
    lines: HashMap<Key, Line>,
    /// Lines with something in them, by their clocks.
    turns: BTreeSet<(u64, Key)>,
    /// The same by how many wait in them: whoever fills the backlog is found without looking at everybody.
    lengths: BTreeSet<(usize, Key)>,
    weights: HashMap<Key, f64>,
    checking: HashSet<ProbeId>,
    backlog: usize,
    /// Clock of the line that was served last.
    now: u64,
    dropped: u64,
}

impl CheckQueue {
    pub(crate) fn new(max: usize, max_backlog: usize) -> Self {
        Self {
            max,
            max_backlog,
            lines: HashMap::default(),
            turns: BTreeSet::new(),
            lengths: BTreeSet::new(),
            weights: HashMap::default(),
            checking: HashSet::default(),
            backlog: 0,
            now: 0,
            dropped: 0,
        }
    }

    /// What each (task, miner) has earned, in [0, 1]; whoever is not named has nothing but the floor.
    pub(crate) fn weigh(&mut self, standing: Vec<(TaskName, Hotkey, f64)>) {
        self.weights = standing
            .into_iter()
            .filter(|(_, _, w)| w.is_finite())
            .map(|(task, miner, w)| ((task, miner), w.clamp(0.0, 1.0)))
            .collect();
    }

    /// Takes an answer in at its place in the secret order; returns the one that is let go for it.
    pub(crate) fn add(&mut self, rank: u64, probe: ProbeId) -> Option<ProbeId> {
        let key = (probe.task.clone(), probe.miner);
        self.lines.entry(key.clone()).or_default();
        if self.backlog >= self.max_backlog {
            // The last of the longest line goes, which may be this one itself.
            let longest = self.lengths.last().cloned();
            let waiting = self.lines.get(&key).map_or(0, |l| l.waiting.len());
            self.dropped += 1;
            let longest =
                longest.filter(|(n, _)| *n > waiting).map_or_else(|| key.clone(), |(_, longest)| longest);
            self.change(&key, |waiting| {
                waiting.insert((rank, probe));
                None
            });
            return self.change(&longest, BTreeSet::pop_last);
        }
        self.change(&key, |waiting| {
            waiting.insert((rank, probe));
            None
        });
        self.backlog += 1;
        None
    }

    /// Changes a line and keeps what is known of its length and turn in step.
    fn change(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut BTreeSet<(u64, ProbeId)>) -> Option<(u64, ProbeId)>,
    ) -> Option<ProbeId> {
        let now = self.now;
        let line = self.lines.get_mut(key)?;
        let (before, was_at) = (line.waiting.len(), line.at);
        let out = change(&mut line.waiting);
        if before == 0 {
            line.at = line.at.max(now);
        }
        let (after, at) = (line.waiting.len(), line.at);
        self.lengths.remove(&(before, key.clone()));
        if after > 0 {
            self.lengths.insert((after, key.clone()));
        }
        if (before > 0) != (after > 0) || was_at != at {
            self.turns.remove(&(was_at, key.clone()));
            if after > 0 {
                self.turns.insert((at, key.clone()));
            }
        }
        out.map(|(_, probe)| probe)
    }

    /// The next answer to be judged, if a checker is free; it is being judged from now on.
    pub(crate) fn take(&mut self) -> Option<ProbeId> {
        if self.checking.len() >= self.max {
            return None;
        }
        let (at, key) = self.turns.first().cloned()?;
        let probe = self.change(&key, BTreeSet::pop_first)?;
        self.now = self.now.max(at);
        let weight = FLOOR + self.weights.get(&key).copied().unwrap_or(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 980 and 50,000: the weight is in [FLOOR, 1 + FLOOR]"
        )]
        let step = (STEP / weight) as u64;
        let line = self.lines.get_mut(&key)?;
        let waits = !line.waiting.is_empty();
        line.at = at.saturating_add(step.max(1));
        let next = line.at;
        self.turns.remove(&(at, key.clone()));
        if waits {
            self.turns.insert((next, key));
        }
        self.backlog -= 1;
        self.checking.insert(probe.clone());
        Some(probe)
    }

    /// This one is judged, or never will be.
    pub(crate) fn done(&mut self, probe: &ProbeId) {
        self.checking.remove(probe);
    }

    /// How many wait.
    pub(crate) const fn backlog(&self) -> usize {
        self.backlog
    }

    /// How many were let go.
    pub(crate) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nineteen_domain::PeriodId;

    use super::*;

    fn probe(miner: u8, slot: u32) -> ProbeId {
        ProbeId {
            period: PeriodId(0),
            task: TaskName::new("chat").unwrap(),
            miner: Hotkey::from_bytes([miner; 32]),
            slot,
        }
    }

    /// The slots' own order is the secret one here.
    fn add(q: &mut CheckQueue, probe: ProbeId) -> Option<ProbeId> {
        q.add(probe.slot.into(), probe)
    }

    /// Judges so many and says how many of them were whose.
    fn judged(q: &mut CheckQueue, n: usize) -> BTreeMap<u8, usize> {
        let mut of = BTreeMap::new();
        for _ in 0..n {
            let Some(p) = q.take() else { break };
            q.done(&p);
            *of.entry(p.miner.as_bytes()[0]).or_default() += 1;
        }
        of
    }

    #[test]
    fn who_answers_most_is_not_checked_most() {
        let mut q = CheckQueue::new(1, 10_000);
        for slot in 0..1_000 {
            assert_eq!(add(&mut q, probe(1, slot)), None);
        }
        for slot in 0..10 {
            add(&mut q, probe(2, slot));
        }
        assert_eq!(judged(&mut q, 20), BTreeMap::from([(1, 10), (2, 10)]));
    }

    #[test]
    fn checks_follow_standing_and_nobody_starves() {
        let mut q = CheckQueue::new(1, 10_000);
        let task = TaskName::new("chat").unwrap();
        q.weigh(vec![
            (task.clone(), Hotkey::from_bytes([1; 32]), 0.58),
            (task.clone(), Hotkey::from_bytes([2; 32]), 0.28),
            (task, Hotkey::from_bytes([4; 32]), f64::NAN),
        ]);
        for slot in 0..500 {
            (1..=4).for_each(|m| drop(add(&mut q, probe(m, slot))));
        }
        // Weights .6, .3, .02 and .02.
        let of = judged(&mut q, 470);
        assert!(of[&1].abs_diff(300) <= 3 && of[&2].abs_diff(150) <= 3, "{of:?}");
        assert!(of[&3].abs_diff(10) <= 2 && of[&4].abs_diff(10) <= 2, "{of:?}");
    }

    #[test]
    fn an_empty_line_saves_nothing_up() {
        let mut q = CheckQueue::new(1, 10_000);
        (0..200).for_each(|slot| drop(add(&mut q, probe(1, slot))));
        judged(&mut q, 100);
        (0..100).for_each(|slot| drop(add(&mut q, probe(2, slot))));
        let of = judged(&mut q, 100);
        assert!(of[&1].abs_diff(50) <= 1, "{of:?}");
    }

    #[test]
    fn the_backlog_is_bounded_at_the_cost_of_whoever_fills_it() {
        let mut q = CheckQueue::new(1, 50);
        (0..49).for_each(|slot| assert_eq!(add(&mut q, probe(1, slot)), None));
        assert_eq!(add(&mut q, probe(2, 0)), None);
        assert_eq!(add(&mut q, probe(2, 1)), Some(probe(1, 48)));
        assert_eq!((q.backlog(), q.dropped()), (50, 1));
        // Whoever has the longest line itself gains nothing by answering more.
        assert_eq!(add(&mut q, probe(1, 49)), Some(probe(1, 49)));
        assert_eq!((q.backlog(), q.dropped()), (50, 2));
        assert_eq!(judged(&mut q, 99).values().sum::<usize>(), 50);
        assert_eq!(q.backlog(), 0);
    }

    #[test]
    fn the_longest_line_is_known_whatever_comes_and_goes() {
        let mut q = CheckQueue::new(1, 20);
        for i in 0..500_u32 {
            add(&mut q, probe((i * i % 7) as u8, i));
            if i % 3 == 0
                && let Some(p) = q.take()
            {
                q.done(&p);
            }
            let longest = q.lines.values().map(|line| line.waiting.len()).max().unwrap();
            assert_eq!(q.lengths.last().map_or(0, |(n, _)| *n), longest);
            assert_eq!(q.lengths.iter().map(|(n, _)| n).sum::<usize>(), q.backlog());
        }
    }

    #[test]
    fn no_more_are_judged_at_once_than_there_are_checkers() {
        let mut q = CheckQueue::new(2, 50);
        (0..5).for_each(|slot| drop(add(&mut q, probe(1, slot))));
        let first = q.take().unwrap();
        assert!(q.take().is_some());
        assert_eq!(q.take(), None);
        q.done(&first);
        assert!(q.take().is_some());
    }

    #[test]
    fn the_secret_order_decides_who_is_looked_at_and_not_when_it_came() {
        let mut q = CheckQueue::new(1, 3);
        for rank in [5, 1, 9, 7] {
            let gone = add(&mut q, probe(1, rank));
            assert_eq!(gone, (rank == 7).then(|| probe(1, 9)));
        }
        let slots: Vec<u32> =
            std::iter::from_fn(|| q.take().inspect(|p| q.done(p)).map(|p| p.slot)).collect();
        assert_eq!(slots, [1, 5, 7]);
    }
}
