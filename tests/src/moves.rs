//! Miners that move in the middle of a period: another address and capacity, another place, another hotkey.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nineteen_domain::meet::Neuron;
use nineteen_domain::{Hotkey, TaskName, Uid};
use nineteen_store::{Options, Store};
use nineteen_wire::keys::create_keyfile;

use crate::Result;
use crate::books::{Books, audit, bodies};
use crate::stage::{PERIOD_S, Stage, TASK, wait};

/// What came of it. Nothing in here is checked yet but the books.
#[derive(Debug, Clone)]
pub struct Moved {
    /// Of the whole run, from before the moves to after them.
    pub books: Books,
    /// Requests at the first miner's old address once the validator knew of the new one, and at the new one.
    pub old_and_new_address: (usize, usize),
    /// Capacities per period of the first miner's rows, in the order of periods.
    pub capacities: Vec<u64>,
    /// Places of the second miner's rows, in the order of periods.
    pub places: Vec<Uid>,
    /// Requests to the third miner's hotkey once the validator knew that it had left.
    pub after_leaving: usize,
    /// Periods in which whoever left has a row, and those in which whoever took its place has one.
    pub left_and_came: (Vec<u64>, Vec<u64>),
    /// Places in the weights that were set last.
    pub paid: Vec<Uid>,
}

/// The place that the second miner moves to.
pub const NEW_PLACE: Uid = Uid(9);
/// How long the validator may take to see a change: it reads the metagraph every three seconds here.
const SEEN: Duration = Duration::from_secs(6);

/// Plays a run in this empty folder.
///
/// # Errors
/// The promise that was broken, or what kept the run from going on.
pub fn run(dir: &Path) -> Result<Moved> {
    let (mut stage, mut miners) = Stage::set(dir)?;
    let key = |uid: u16, stage: &Stage| -> Result<Hotkey> {
        let subnet = stage.subnet.subnet()?;
        Ok(subnet.neurons.iter().find(|n| n.uid == Uid(uid)).ok_or("a place is empty")?.hotkey)
    };
    let [first, second, third] = [key(1, &stage)?, key(2, &stage)?, key(3, &stage)?];
    let validator = stage.validator()?;
    let asked = |stage: &Stage, log: &str| bodies(stage, log).map_or(0, |b| b.len());
    wait(Duration::from_secs(60), "every miner was asked something", || {
        stage.logs.iter().all(|log| asked(&stage, log) > 0)
    })?;

    // In the middle of a period, all at once.
    let fourth = create_keyfile(dir.join("miner-3.key"))?.hotkey();
    let (new_address, elsewhere) = stage.miner("miner-0-moved", "miner-0", 18_000)?;
    let (of_fourth, newcomer) = stage.miner("miner-3", "miner-3", 12_000)?;
    miners.extend([elsewhere, newcomer]);
    stage.change(|neurons| {
        for n in neurons.iter_mut() {
            if n.hotkey == first {
                n.axon = Some(new_address);
            } else if n.hotkey == second {
                n.uid = NEW_PLACE;
            } else if n.hotkey == third {
                *n = Neuron { hotkey: fourth, axon: Some(of_fourth), ..n.clone() };
            }
        }
    })?;
    sleep(SEEN);
    let (old, left) = (asked(&stage, "miner-0.jsonl"), asked(&stage, "miner-2.jsonl"));
    sleep(Duration::from_secs(4 * PERIOD_S));
    stage.stop(validator)?;
    drop(miners);

    let books = audit(&stage)?;
    let store = Store::open_existing(&dir.join("data"), Options::default())?;
    let task = TaskName::new(TASK)?;
    let rows = |of: &Hotkey| {
        store.rows(of, &task, 0).map(|mut rows| {
            rows.sort_by_key(|r| r.period);
            rows
        })
    };
    let periods = |of: &Hotkey| rows(of).map(|rows| rows.iter().map(|r| r.period.0).collect::<Vec<_>>());
    let set = stage.subnet.weights(&stage.validator)?.ok_or("no weights were set")?;
    Ok(Moved {
        books,
        old_and_new_address: (asked(&stage, "miner-0.jsonl") - old, asked(&stage, "miner-0-moved.jsonl")),
        capacities: rows(&first)?.iter().map(|r| r.capacity).collect(),
        places: rows(&second)?.iter().map(|r| r.uid).collect(),
        after_leaving: asked(&stage, "miner-2.jsonl") - left,
        left_and_came: (periods(&third)?, periods(&fourth)?),
        paid: set.weights.iter().map(|(uid, _)| *uid).collect(),
    })
}
