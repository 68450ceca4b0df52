//! Who may send next: probes by the time they are due, then by turns among miners with room.
//!
//! A probe of a miner that has its fill under way waits in that miner's own line, so that nobody else waits
//! behind it. A miner has a line and a fill for every task: slow answers of one must not make it late in another.
//! Memory is bounded by the plans that are put in.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use nineteen_domain::{Hotkey, ProbeId, TaskName, Uid};

use crate::hash::HashMap;
use crate::types::PlannedProbe;

/// Whose line.
type Line = (Hotkey, TaskName);

fn line_of(probe: &ProbeId) -> Line {
    (probe.miner, probe.task.clone())
}

/// Until when a probe of a window waits for its miner, which has had its fill since then; `None` for others.
fn until_us(probe: &PlannedProbe, full_since_us: u64) -> Option<u64> {
    Some(probe.due_us.max(full_since_us).saturating_add(probe.hold_us?))
}

#[derive(Debug)]
pub(crate) struct Queue {
    max: usize,
    max_per_miner: usize,
    /// Not due yet.
    planned: BTreeMap<(u64, ProbeId), (Uid, u64, Option<u64>)>,
    /// Due, by miner and task; no line is empty.
    lines: BTreeMap<Line, VecDeque<PlannedProbe>>,
    /// Requests of users that wait for room, by miner; no line is empty.
    organic: BTreeMap<Line, VecDeque<u64>>,
    /// Under way, by miner; no number is 0.
    out: HashMap<Line, usize>,
    out_total: usize,
    /// Since when a miner has had its fill, by miner that has. Few: the places overall over those of a miner.
    full_since: BTreeMap<Line, u64>,
    /// The time of the last release.
    now_us: u64,
    /// Who was served last: the turn goes on after it.
    last: Option<Line>,
}

impl Queue {
    pub(crate) fn new(max: usize, max_per_miner: usize) -> Self {
        Self {
            max,
            max_per_miner,
            planned: BTreeMap::new(),
            lines: BTreeMap::new(),
            organic: BTreeMap::new(),
            out: HashMap::default(),
            out_total: 0,
            full_since: BTreeMap::new(),
            now_us: 0,
            last: None,
        }
    }

    /// Takes a probe in, to be sent when it is due.
    pub(crate) fn add(&mut self, probe: PlannedProbe) {
        self.planned.insert((probe.due_us, probe.id), (probe.uid, probe.expected_units, probe.hold_us));
    }

    /// Puts what is due by now into its miner's line.
    pub(crate) fn release(&mut self, now_us: u64) {
        self.now_us = now_us;
        while let Some(first) = self.planned.first_entry() {
            if first.key().0 > now_us {
                break;
            }
            let ((due_us, id), (uid, expected_units, hold_us)) = first.remove_entry();
            self.lines.entry(line_of(&id)).or_default().push_back(PlannedProbe {
                id,
                uid,
                due_us,
                expected_units,
                hold_us,
            });
        }
    }

    fn is_full(&self, line: &Line) -> bool {
        self.full_since.contains_key(line)
    }

    /// One more of this line is under way.
    fn leave(&mut self, line: Line) {
        let out = self.out.entry(line.clone()).or_default();
        *out += 1;
        self.out_total += 1;
        if *out >= self.max_per_miner {
            self.full_since.entry(line).or_insert(self.now_us);
        }
    }

    /// Takes out the due probes that have waited for room of their own miner for as long as they may: the time
    /// that they waited for ours does not count.
    pub(crate) fn expire(&mut self, now_us: u64) -> Vec<ProbeId> {
        if self.next_expiry_us().is_none_or(|at| at > now_us) {
            return Vec::new();
        }
        self.take_held(|p, since| until_us(p, since).is_some_and(|until| until <= now_us))
    }

    /// Takes out the due probes of windows that wait for room of their own miner and that this is true of.
    pub(crate) fn withdraw_held(&mut self, unwanted: impl Fn(&ProbeId) -> bool) -> Vec<ProbeId> {
        self.take_held(|p, _| p.hold_us.is_some() && unwanted(&p.id))
    }

    /// Takes out what waits in the lines of those that have their fill, and that this is true of by probe and the
    /// time since then. Looks at no other line: of those there may be thousands.
    fn take_held(&mut self, gone: impl Fn(&PlannedProbe, u64) -> bool) -> Vec<ProbeId> {
        let mut held = Vec::new();
        for (miner, since) in &self.full_since {
            let Some(line) = self.lines.get_mut(miner) else { continue };
            line.retain(|p| {
                let goes = gone(p, *since);
                if goes {
                    held.push(p.id.clone());
                }
                !goes
            });
            if line.is_empty() {
                self.lines.remove(miner);
            }
        }
        held
    }

    /// When the next probe will have waited for as long as it may. Of a line only the first of a window is looked
    /// at: they stand in the order of their times and may wait equally long.
    pub(crate) fn next_expiry_us(&self) -> Option<u64> {
        self.full_since
            .iter()
            .filter_map(|(miner, since)| self.lines.get(miner)?.iter().find_map(|p| until_us(p, *since)))
            .min()
    }

    /// How many probes outside windows are not due yet and this is true of.
    pub(crate) fn count_planned(&self, of: impl Fn(&ProbeId) -> bool) -> usize {
        self.planned.iter().filter(|((_, id), (_, _, hold))| hold.is_none() && of(id)).count()
    }

    /// Takes a user's request in.
    pub(crate) fn add_organic(&mut self, miner: Hotkey, task: TaskName, id: u64) {
        self.organic.entry((miner, task)).or_default().push_back(id);
    }

    /// The next of them that may leave, if any: they go before every probe, the lowest number first.
    pub(crate) fn take_organic(&mut self) -> Option<u64> {
        if self.out_total >= self.max {
            return None;
        }
        let with_room = self.organic.iter().filter(|(m, _)| !self.is_full(m));
        let miner = with_room.min_by_key(|(_, line)| line.front().copied())?.0.clone();
        let line = self.organic.get_mut(&miner)?;
        let id = line.pop_front();
        if line.is_empty() {
            self.organic.remove(&miner);
        }
        if id.is_some() {
            self.leave(miner);
        }
        id
    }

    /// Takes a user's request out that has not left.
    pub(crate) fn withdraw_organic(&mut self, miner: Hotkey, task: TaskName, id: u64) {
        let key = (miner, task);
        if let Some(line) = self.organic.get_mut(&key) {
            line.retain(|waiting| *waiting != id);
            if line.is_empty() {
                self.organic.remove(&key);
            }
        }
    }

    /// The last planned probes of this miner and task outside windows, at most `most` of them, taken out.
    pub(crate) fn relieve(&mut self, of: impl Fn(&ProbeId) -> bool, most: usize) -> Vec<ProbeId> {
        let found: Vec<(u64, ProbeId)> = self
            .planned
            .iter()
            .rev()
            .filter(|((_, id), (_, _, hold))| hold.is_none() && of(id))
            .take(most)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &found {
            self.planned.remove(key);
        }
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Takes out probes that are not due yet, and that this is true of by id and time.
    pub(crate) fn cancel(&mut self, mut unwanted: impl FnMut(&ProbeId, u64) -> bool) -> Vec<ProbeId> {
        let mut gone = Vec::new();
        self.planned.retain(|(due, id), _| {
            let keep = !unwanted(id, *due);
            if !keep {
                gone.push(id.clone());
            }
            keep
        });
        gone
    }

    /// The next probe that may leave, if any; it is under way from now on.
    pub(crate) fn take(&mut self) -> Option<PlannedProbe> {
        if self.out_total >= self.max {
            return None;
        }
        let has_room = |line: &Line| !self.is_full(line);
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.lines.range((after, Bound::Unbounded));
        let again = self.lines.iter().take_while(|(line, _)| self.last.as_ref().is_some_and(|l| *line <= l));
        let miner = rest.chain(again).map(|(line, _)| line.clone()).find(has_room)?;
        let line = self.lines.get_mut(&miner)?;
        let probe = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&miner);
        }
        if probe.is_some() {
            self.last = Some(miner.clone());
            self.leave(miner);
        }
        probe
    }

    /// One to this miner of this task is under way no more.
    pub(crate) fn done(&mut self, miner: Hotkey, task: &TaskName) {
        let line = (miner, task.clone());
        if let Some(n) = self.out.get_mut(&line) {
            *n -= 1;
            self.out_total -= 1;
            if *n < self.max_per_miner {
                self.full_since.remove(&line);
            }
            if *n == 0 {
                self.out.remove(&line);
            }
        }
    }

    /// Takes out probes that have not left and that this is true of, and returns their ids.
    pub(crate) fn withdraw(&mut self, mut unwanted: impl FnMut(&ProbeId) -> bool) -> Vec<ProbeId> {
        let mut gone = Vec::new();
        self.planned.retain(|(_, id), _| {
            let keep = !unwanted(id);
            if !keep {
                gone.push(id.clone());
            }
            keep
        });
        self.lines.retain(|_, line| {
            line.retain(|probe| {
                let keep = !unwanted(&probe.id);
                if !keep {
                    gone.push(probe.id.clone());
                }
                keep
            });
            !line.is_empty()
        });
        gone
    }

    /// When the next probe becomes due that is not yet.
    pub(crate) fn next_due_us(&self) -> Option<u64> {
        self.planned.first_key_value().map(|((due, _), _)| *due)
    }

    pub(crate) const fn in_flight(&self) -> usize {
        self.out_total
    }

    /// Due, without room.
    pub(crate) fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }

    /// Not due yet.
    pub(crate) fn planned(&self) -> usize {
        self.planned.len()
    }
}

#[cfg(test)]
mod tests {
    use nineteen_domain::{PeriodId, TaskName};

    use super::*;

    fn chat() -> TaskName {
        TaskName::new("chat").unwrap()
    }

    fn probe(miner: u8, slot: u32, due_us: u64) -> PlannedProbe {
        PlannedProbe {
            id: ProbeId { period: PeriodId(0), task: chat(), miner: Hotkey::from_bytes([miner; 32]), slot },
            uid: Uid(miner.into()),
            due_us,
            expected_units: 1,
            hold_us: None,
        }
    }

    fn taken(q: &mut Queue) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| q.take()).map(|p| (p.uid.0, p.id.slot)).collect()
    }

    #[test]
    fn nothing_leaves_before_it_is_due() {
        let mut q = Queue::new(9, 9);
        q.add(probe(1, 0, 10));
        q.release(9);
        assert_eq!(q.take(), None);
        q.release(10);
        assert_eq!(taken(&mut q), [(1, 0)]);
    }

    #[test]
    fn a_miner_with_its_fill_holds_up_nobody_else() {
        let mut q = Queue::new(9, 1);
        (0..5).for_each(|slot| q.add(probe(1, slot, 0)));
        q.add(probe(2, 0, 5));
        q.release(5);
        assert_eq!(taken(&mut q), [(1, 0), (2, 0)]);
        q.done(Hotkey::from_bytes([1; 32]), &chat());
        assert_eq!(taken(&mut q), [(1, 1)]);
        assert_eq!((q.in_flight(), q.waiting()), (2, 3));
    }

    #[test]
    fn slow_answers_of_one_task_hold_up_no_other() {
        let mut q = Queue::new(9, 1);
        (0..2).for_each(|slot| q.add(PlannedProbe { hold_us: Some(5), ..probe(1, slot, 0) }));
        let mut other = probe(1, 7, 0);
        other.id.task = TaskName::new("embed").unwrap();
        q.add(other);
        q.release(0);
        assert_eq!(taken(&mut q), [(1, 0), (1, 7)]);
        assert_eq!(q.expire(5).len(), 1);
    }

    #[test]
    fn when_room_is_scarce_miners_take_turns() {
        let mut q = Queue::new(3, 3);
        for miner in [1, 2, 3] {
            (0..3).for_each(|slot| q.add(probe(miner, slot, u64::from(miner))));
        }
        q.release(5);
        assert_eq!(taken(&mut q), [(1, 0), (2, 0), (3, 0)]);
        q.done(Hotkey::from_bytes([1; 32]), &chat());
        assert_eq!(taken(&mut q), [(1, 1)]);
        q.done(Hotkey::from_bytes([1; 32]), &chat());
        assert_eq!(taken(&mut q), [(2, 1)]);
    }

    #[test]
    fn the_zero_key_has_its_turn_too() {
        let mut q = Queue::new(9, 9);
        q.add(probe(0, 0, 0));
        q.add(probe(255, 0, 0));
        q.release(0);
        assert_eq!(taken(&mut q), [(0, 0), (255, 0)]);
    }

    #[test]
    fn what_is_withdrawn_never_leaves() {
        let mut q = Queue::new(9, 1);
        for slot in 0..3 {
            q.add(probe(1, slot, 0));
            q.add(probe(2, slot, 100));
        }
        q.release(0);
        assert_eq!(q.withdraw(|id| id.slot > 0).len(), 4);
        q.release(100);
        assert_eq!(taken(&mut q), [(1, 0), (2, 0)]);
        assert_eq!((q.waiting(), q.planned()), (0, 0));
    }

    #[test]
    fn a_user_goes_before_every_probe_and_takes_the_same_room() {
        let mut q = Queue::new(2, 1);
        q.add(probe(1, 0, 0));
        q.add(probe(2, 0, 0));
        q.release(0);
        q.add_organic(Hotkey::from_bytes([1; 32]), chat(), 7);
        q.add_organic(Hotkey::from_bytes([1; 32]), chat(), 8);
        assert_eq!((q.take_organic(), q.take_organic()), (Some(7), None));
        assert_eq!(taken(&mut q), [(2, 0)]);
        q.done(Hotkey::from_bytes([1; 32]), &chat());
        q.withdraw_organic(Hotkey::from_bytes([1; 32]), chat(), 8);
        assert_eq!(q.take_organic(), None);
        assert_eq!(taken(&mut q), [(1, 0)]);
    }

    #[test]
    fn a_probe_of_a_window_waits_for_its_own_miner_only_so_long() {
        let mut q = Queue::new(9, 1);
        for slot in 0..3 {
            q.add(PlannedProbe { hold_us: (slot > 0).then_some(10), ..probe(1, slot, 0) });
        }
        q.release(0);
        assert_eq!(taken(&mut q), [(1, 0)]);
        assert_eq!((q.expire(9).len(), q.next_expiry_us()), (0, Some(10)));
        assert_eq!((q.expire(10).len(), q.next_expiry_us()), (2, None));
    }

    #[test]
    fn who_waits_for_us_is_not_held_back() {
        let mut q = Queue::new(1, 9);
        q.add(probe(1, 0, 0));
        q.add(PlannedProbe { hold_us: Some(10), ..probe(2, 0, 0) });
        q.release(0);
        assert_eq!(taken(&mut q), [(1, 0)]);
        assert_eq!((q.expire(99).len(), q.next_expiry_us()), (0, None));
    }

    #[test]
    fn an_end_that_nobody_waited_for_makes_no_room() {
        let mut q = Queue::new(1, 1);
        q.done(Hotkey::from_bytes([1; 32]), &chat());
        assert_eq!(q.in_flight(), 0);
    }
}
