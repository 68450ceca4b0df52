//! Kill a real validator again and again over a run with real miners, then hold its books against what the miners
//! themselves wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nineteen_chain::{Blocks, LocalSubnet, Rules, Subnet};
use nineteen_domain::ledger::{OursFault, PeriodRow, ProbeClass, Tally};
use nineteen_domain::meet::Neuron;
use nineteen_domain::{Digest, Hotkey, PeriodId, ProbeId, TaskName, Uid};
use nineteen_store::{Options, Store};
use nineteen_wire::keys::create_keyfile;

use crate::{cache, nineteen, repository};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The only task: its model loads in half a second, so that a run has many lives.
const TASK: &str = "embed-minilm-l6";
const MINERS: usize = 3;
/// The shortest that a validator takes.
const PERIOD_S: u64 = 10;

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many kills.
    Kills(u32),
    /// After this time.
    Elapsed(Duration),
}

/// What a run came to. A promise that was broken is an error of [`run`] instead.
#[derive(Debug, Clone, Default)]
pub struct Books {
    /// Times that the validator was killed.
    pub kills: u32,
    /// Periods that were settled, each once.
    pub periods: usize,
    /// Requests that the miners wrote down.
    pub received: usize,
    /// Probes by class in the settled periods.
    pub answered: u64,
    /// Interrupted by a kill.
    pub interrupted: u64,
    /// The rest that left.
    pub others: u64,
}

/// Processes that end with it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

struct Place {
    dir: PathBuf,
    operator: SocketAddr,
    miners: Vec<SocketAddr>,
}

/// Plays a run in this empty folder. The moments of the kills follow from the seed.
///
/// # Errors
/// The promise that was broken, or what kept the run from going on.
pub fn run(dir: &Path, until: Until, seed: u64) -> Result<Books> {
    let place = set(dir)?;
    let mut miners = Vec::new();
    for n in 0..MINERS {
        miners.push(Running(start(&place, &format!("miner-{n}"), "miner")?));
    }
    wait(Duration::from_secs(120), "the miners listen", || {
        place.miners.iter().all(|addr| TcpStream::connect(addr).is_ok())
    })?;
    let (begun, mut kills, mut state) = (Instant::now(), 0, seed);
    while match until {
        Until::Kills(n) => kills < n,
        Until::Elapsed(time) => begun.elapsed() < time,
    } {
        let mut validator = Running(start(&place, "nineteen", "validator")?);
        // From before it listens to some seconds of work; one life in eight is longer than a period.
        let most = if next(&mut state).is_multiple_of(8) { 12_000 } else { 4_000 };
        sleep(Duration::from_millis(200 + next(&mut state) % most));
        if let Some(status) = validator.0.try_wait()? {
            return Err(format!("the validator ended by itself: {status}; {}", last_words(&place)).into());
        }
        validator.0.kill()?;
        validator.0.wait()?;
        kills += 1;
    }
    // A last life, with time to settle what is open and two periods more; then a stop that is asked for.
    let mut validator = Running(start(&place, "nineteen", "validator")?);
    wait(Duration::from_secs(60), "the validator listens", || TcpStream::connect(place.operator).is_ok())?;
    sleep(Duration::from_secs(4 * PERIOD_S));
    let asked = Command::new("kill").args(["-TERM", &validator.0.id().to_string()]).status()?;
    if !asked.success() || !validator.0.wait()?.success() {
        return Err(format!("the validator did not stop as asked; {}", last_words(&place)).into());
    }
    drop(miners);
    let mut books = audit(&place)?;
    books.kills = kills;
    Ok(books)
}

/// A number from the one before: moments that can be repeated, not secrets (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn wait(most: Duration, what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        if begun.elapsed() > most {
            return Err(format!("after {} s it is not so that {what}", most.as_secs()).into());
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn start(place: &Place, config: &str, command: &str) -> Result<Child> {
    let log = File::options().create(true).append(true).open(place.dir.join(format!("{config}.log")))?;
    Ok(Command::new(nineteen())
        .args(["--config", &format!("{config}.toml"), command])
        .current_dir(&place.dir)
        .env("NINETEEN_CACHE", cache())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?)
}

fn last_words(place: &Place) -> String {
    let text = fs::read_to_string(place.dir.join("nineteen.log")).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_owned()
}

fn set(dir: &Path) -> Result<Place> {
    let held: Vec<TcpListener> =
        (0..=MINERS).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    let ports: Vec<SocketAddr> = held.iter().map(TcpListener::local_addr).collect::<std::io::Result<_>>()?;
    drop(held);
    let (operator, miners) = ports.split_first().ok_or("no port")?;
    let hotkey = create_keyfile(dir.join("validator.key"))?.hotkey();
    let mut neurons =
        vec![Neuron { uid: Uid(0), hotkey, axon: None, stake: 1_000.0, validator_permit: true }];
    for (n, addr) in miners.iter().enumerate() {
        let hotkey = create_keyfile(dir.join(format!("miner-{n}.key")))?.hotkey();
        let uid = Uid(u16::try_from(n + 1)?);
        neurons.push(Neuron { uid, hotkey, axon: Some(*addr), stake: 0.0, validator_permit: false });
        fs::write(
            dir.join(format!("miner-{n}.toml")),
            format!(
                "[identity]\nhotkey_file = \"miner-{n}.key\"\n[subnet]\nfolder = \"subnet\"\n\
                 [miner]\nlisten = \"{addr}\"\naccess_log = \"miner-{n}.jsonl\"\n\
                 [miner.tasks.{TASK}]\noperation = \"embeddings\"\nmodel = \"all-minilm-l6-v2\"\n\
                 capacity_per_hour = {}\n",
                36_000 / (n + 1)
            ),
        )?;
    }
    let rules = Rules { weights_rate_limit: 0, ..Rules::default() };
    // Short blocks, so that the beacon starts windows in most periods.
    let blocks = Blocks::Time { genesis_us: 1_704_067_200_000_000, block_ms: 2_000 };
    LocalSubnet::create(&dir.join("subnet"), &Subnet { netuid: 19, owner: None, blocks, rules, neurons })?;
    fs::write(
        dir.join("taskset.toml"),
        format!(
            "name = \"soak\"\nversion = \"1.0.0\"\npolicy = \"default\"\nshare_multiplier = 6.0\n\
             [[task]]\nfolder = {:?}\nweight = 1.0\n",
            repository().join("tasks").join(TASK)
        ),
    )?;
    fs::write(
        dir.join("nineteen.toml"),
        format!(
            "[paths]\ntaskset = \"taskset.toml\"\ndata = \"data\"\n\
             [identity]\nhotkey_file = \"validator.key\"\n[subnet]\nfolder = \"subnet\"\n\
             [validator]\nperiod_s = {PERIOD_S}\ngrace_s = 5\nlisten = \"{operator}\"\n\
             allow_private_miners = true\njudges = 1\n"
        ),
    )?;
    Ok(Place { dir: dir.to_owned(), operator: *operator, miners: miners.to_vec() })
}

/// The bodies that the miners wrote down, each with how often.
fn received(place: &Place) -> Result<BTreeMap<Digest, u32>> {
    let mut all = BTreeMap::new();
    for n in 0..MINERS {
        let text = fs::read_to_string(place.dir.join(format!("miner-{n}.jsonl")))?;
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let body = line.get("body").and_then(|b| b.as_str()).ok_or("a line without a body")?;
            // Announcements have no body.
            if line.get("bytes").and_then(serde_json::Value::as_u64) != Some(0) {
                *all.entry(body.parse::<Digest>().map_err(|_| "a body that is no digest")?).or_default() += 1;
            }
        }
    }
    Ok(all)
}

/// Holds the books against the miners' logs.
fn audit(place: &Place) -> Result<Books> {
    let store = Store::open_existing(&place.dir.join("data"), Options::default())?;
    let damage = store.verify()?;
    if !damage.problems.is_empty() || damage.not_shown > 0 {
        return Err(format!("the store is damaged: {damage:?}").into());
    }
    let received = received(place)?;
    if let Some((body, n)) = received.iter().find(|(_, n)| **n > 1) {
        return Err(format!("a miner got the request {body} {n} times").into());
    }
    let newest = store.latest_period()?.ok_or("no period was planned")?;
    let settled: BTreeSet<PeriodId> = store.settled_periods()?.into_iter().collect();
    let mut books = Books { periods: settled.len(), received: received.len(), ..Books::default() };
    let mut known: BTreeMap<Digest, (ProbeId, Option<ProbeClass>)> = BTreeMap::new();
    for period in (0..=newest.0).map(PeriodId) {
        // The last two may still be running or in their grace when the validator stops.
        if !settled.contains(&period) && period.0 + 2 <= newest.0 {
            return Err(format!("period {period} of {newest} was never settled").into());
        }
        let mut ends: BTreeMap<ProbeId, ProbeClass> = BTreeMap::new();
        for end in store.finished(period) {
            let end = end?;
            ends.insert(end.probe, end.class);
        }
        for sent in store.sent(period) {
            let (probe, _, request) = sent?;
            let request = request.ok_or("a probe without its request's digest")?;
            let class = ends.get(&probe).copied();
            if class.is_none() && settled.contains(&period) {
                return Err(format!("probe {probe} left, its period is settled, and it has no end").into());
            }
            if class == Some(ProbeClass::Answered) && !received.contains_key(&request) {
                return Err(format!("probe {probe} is booked as answered and no miner got it").into());
            }
            if let Some((other, _)) = known.insert(request, (probe.clone(), class)) {
                return Err(format!("probes {probe} and {other} asked the same").into());
            }
        }
        if settled.contains(&period) {
            rows_agree(&store, period, &ends, &mut books)?;
        }
    }
    for body in received.keys() {
        match known.get(body) {
            None => return Err(format!("a miner got the request {body}, which is in no book").into()),
            Some((probe, Some(ProbeClass::Ours(OursFault::HeldBack)))) => {
                return Err(format!("probe {probe} was held back and left all the same").into());
            }
            Some(_) => {}
        }
    }
    store.close()?;
    Ok(books)
}

/// The settled rows of a period count what its probes' ends say, one by one.
fn rows_agree(
    store: &Store,
    period: PeriodId,
    ends: &BTreeMap<ProbeId, ProbeClass>,
    books: &mut Books,
) -> Result<()> {
    let mut tallies: BTreeMap<(TaskName, Hotkey), Tally> = BTreeMap::new();
    for (probe, class) in ends {
        tallies.entry((probe.task.clone(), probe.miner)).or_default().book(*class, 0, 0);
        match class {
            ProbeClass::Answered => books.answered += 1,
            ProbeClass::Ours(OursFault::Interrupted) => books.interrupted += 1,
            ProbeClass::Ours(OursFault::HeldBack) => {}
            _ => books.others += 1,
        }
    }
    for (task, miner) in store.pairs()? {
        let rows = store.rows(&miner, &task, 0)?;
        let of_period: Vec<&PeriodRow> = rows.iter().filter(|r| r.period == period).collect();
        let counted = tallies.remove(&(task.clone(), miner)).unwrap_or_default();
        let row = match of_period.as_slice() {
            [row] => row.tally,
            [] if counted == Tally::default() => continue,
            other => return Err(format!("{} rows of {task} {miner} in period {period}", other.len()).into()),
        };
        let classes = |t: &Tally| (t.answered, t.rate_limited, t.failed, t.ours);
        if classes(&row) != classes(&counted) {
            return Err(
                format!("period {period}, {miner}: the row says {row:?}, its probes {counted:?}").into()
            );
        }
    }
    match tallies.into_keys().next() {
        None => Ok(()),
        Some((task, miner)) => Err(format!("no row of {task} {miner} in period {period}").into()),
    }
}
