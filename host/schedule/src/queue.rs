//! Who may send next: probes by the time they are due, then by turns among miners with room.
//!
//! A probe of a miner that has its fill under way waits in that miner's own line, so that nobody else waits
//! behind it. Memory is bounded by the plans that are put in.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use nineteen_domain::{Hotkey, ProbeId, Uid};

use crate::types::PlannedProbe;

#[derive(Debug)]
pub(crate) struct Queue {
    max: usize,
    max_per_miner: usize,
    /// Not due yet.
    planned: BTreeMap<(u64, ProbeId), (Uid, u64)>,
    /// Due, by miner; no line is empty.
    lines: BTreeMap<Hotkey, VecDeque<PlannedProbe>>,
    /// Under way, by miner; no number is 0.
    out: BTreeMap<Hotkey, usize>,
    out_total: usize,
    /// Who was served last: the turn goes on after it.
    last: Option<Hotkey>,
}

impl Queue {
    pub(crate) const fn new(max: usize, max_per_miner: usize) -> Self {
        Self {
            max,
            max_per_miner,
            planned: BTreeMap::new(),
            lines: BTreeMap::new(),
            out: BTreeMap::new(),
            out_total: 0,
            last: None,
        }
    }

    /// Takes a probe in, to be sent when it is due.
    pub(crate) fn add(&mut self, probe: PlannedProbe) {
        self.planned.insert((probe.due_us, probe.id), (probe.uid, probe.expected_units));
    }

    /// Puts what is due by now into its miner's line.
    pub(crate) fn release(&mut self, now_us: u64) {
        while let Some(first) = self.planned.first_entry() {
            if first.key().0 > now_us {
                break;
            }
            let ((due_us, id), (uid, expected_units)) = first.remove_entry();
            self.lines.entry(id.miner).or_default().push_back(PlannedProbe {
                id,
                uid,
                due_us,
                expected_units,
            });
        }
    }

    /// The next probe that may leave, if any; it is under way from now on.
    pub(crate) fn take(&mut self) -> Option<PlannedProbe> {
        if self.out_total >= self.max {
            return None;
        }
        let has_room = |miner: &Hotkey| self.out.get(miner).copied().unwrap_or(0) < self.max_per_miner;
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self.last.map_or(Bound::Excluded(Hotkey::from_bytes([0; 32])), Bound::Included);
        let miner = self
            .lines
            .range((after, Bound::Unbounded))
            .chain(self.lines.range((Bound::Unbounded, upto)))
            .map(|(miner, _)| *miner)
            .find(has_room)?;
        let line = self.lines.get_mut(&miner)?;
        let probe = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&miner);
        }
        if probe.is_some() {
            self.last = Some(miner);
            *self.out.entry(miner).or_default() += 1;
            self.out_total += 1;
        }
        probe
    }

    /// A probe of this miner is under way no more.
    pub(crate) fn done(&mut self, miner: &Hotkey) {
        if let Some(n) = self.out.get_mut(miner) {
            *n -= 1;
            self.out_total -= 1;
            if *n == 0 {
                self.out.remove(miner);
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

    fn probe(miner: u8, slot: u32, due_us: u64) -> PlannedProbe {
        PlannedProbe {
            id: ProbeId {
                period: PeriodId(0),
                task: TaskName::new("chat").unwrap(),
                miner: Hotkey::from_bytes([miner; 32]),
                slot,
            },
            uid: Uid(miner.into()),
            due_us,
            expected_units: 1,
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
        q.done(&Hotkey::from_bytes([1; 32]));
        assert_eq!(taken(&mut q), [(1, 1)]);
        assert_eq!((q.in_flight(), q.waiting()), (2, 3));
    }

    #[test]
    fn when_room_is_scarce_miners_take_turns() {
        let mut q = Queue::new(3, 3);
        for miner in [1, 2, 3] {
            (0..3).for_each(|slot| q.add(probe(miner, slot, u64::from(miner))));
        }
        q.release(5);
        assert_eq!(taken(&mut q), [(1, 0), (2, 0), (3, 0)]);
        q.done(&Hotkey::from_bytes([1; 32]));
        assert_eq!(taken(&mut q), [(1, 1)]);
        q.done(&Hotkey::from_bytes([1; 32]));
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
    fn an_end_that_nobody_waited_for_makes_no_room() {
        let mut q = Queue::new(1, 1);
        q.done(&Hotkey::from_bytes([1; 32]));
        assert_eq!(q.in_flight(), 0);
    }
}
