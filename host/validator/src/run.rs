//! Drives the schedule: its effects become jobs, the jobs' ends become its events.
//!
//! One task owns the machine; everything slow runs in a [`JoinSet`] that it awaits. Shutdown is a cancelled
//! token: the machine starts nothing more, what is under way may finish, and the loop ends when it is drained.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nineteen_domain::ledger::{OursFault, ProbeClass};
use nineteen_domain::meet::{Chain, Checker, Clock, Metagraph};
use nineteen_domain::policy::{Policy, Scoring};
use nineteen_domain::{Hotkey, MasterSeed, ProbeId, TaskName};
use nineteen_schedule::{
    Announcement, Block, Effect, Event, FinishedProbe, MinerRef, Schedule, ScheduleConfig, Status,
};
use nineteen_store::{Booked, Finished, Record, Store};
use nineteen_wire::client::{Client, Target};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::error::ValidatorError;
use crate::facts;
use crate::judge::Judge;
use crate::registry::Tasks;
use crate::resume;
use crate::sender::Sender;
use crate::settle::Settler;

/// Code of a miner that serves at no address.
const NO_ADDRESS: &str = "validator.no-address";
const SECOND_US: u64 = 1_000_000;
const HOUR_US: u64 = 3_600 * SECOND_US;

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Length of a period, seconds.
    pub period_s: u64,
    /// Seconds after its end in which its probes may still finish and be judged.
    pub grace_s: u64,
    /// Probes under way at once.
    pub max_in_flight: usize,
    /// Of them to one miner in one task.
    pub max_in_flight_per_miner: usize,
    /// Exchanges judged at once.
    pub judges: usize,
    /// Answers that wait for a judgement at most.
    pub max_backlog: usize,
    /// Number of the subnet.
    pub netuid: u16,
    /// Time between blocks, microseconds; above 0.
    pub block_us: u64,
}

/// The rooms that the validator puts together.
pub struct Parts {
    /// Live tasks.
    pub tasks: Tasks,
    /// Where everything is kept.
    pub store: Store,
    /// Signed HTTP to miners.
    pub client: Client,
    /// Metagraph and weights.
    pub chain: Arc<dyn Chain>,
    /// Executors.
    pub checker: Arc<dyn Checker>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The policy, with the set's multiplier applied.
    pub policy: Policy,
    /// The operator's settings.
    pub settings: Settings,
}

/// What the loop shows to [`crate::report::Reports`] while it runs.
#[derive(Debug, Default)]
pub struct Live {
    /// Where the schedule stands. A std mutex: held for a copy.
    status: Mutex<Status>,
}

impl Live {
    /// Where the schedule stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type Job = Result<Vec<Event>, ValidatorError>;

/// A validator that is ready to run.
pub struct Validator {
    board: Arc<Board>,
    /// What the schedule knows: it plans with these, whatever is on the board by then.
    tasks: Arc<Tasks>,
    policy: Policy,
    period_us: u64,
    live: Arc<Live>,
    sender: Arc<Sender>,
    bench: Arc<Judge>,
    settler: Arc<Settler>,
    store: Store,
    client: Client,
    chain: Arc<dyn Chain>,
    clock: Arc<dyn Clock>,
    schedule: Schedule,
    period_s: u64,
    block_us: u64,
    addresses: BTreeMap<Hotkey, Option<SocketAddr>>,
    jobs: JoinSet<Job>,
}

impl Validator {
    /// Reads what the store knows of unfinished periods and sets the schedule up to go on with it.
    ///
    /// # Errors
    /// [`ValidatorError`] when the store cannot be read or the settings make no schedule.
    pub fn new(parts: Parts) -> Result<Self, ValidatorError> {
        let Parts { tasks, store, client, chain, checker, clock, policy, settings } = parts;
        let secret: MasterSeed = store.master_seed()?;
        let board = Arc::new(Board::new(tasks));
        let tasks = board.now();
        let period_us = settings.period_s.saturating_mul(SECOND_US);
        let config = ScheduleConfig {
            period_us,
            // A fifth of the period, but no more than the announcement's own patience needs.
            announce_lead_us: (period_us / 5).clamp(SECOND_US, 30 * SECOND_US),
            settle_grace_us: settings.grace_s.saturating_mul(SECOND_US),
            policy: policy.clone(),
            tasks: facts::specs(&tasks, period_us, &policy),
            max_in_flight: settings.max_in_flight,
            max_in_flight_per_miner: settings.max_in_flight_per_miner,
            max_checks: settings.judges,
            max_backlog: settings.max_backlog,
            netuid: settings.netuid,
            block_us: settings.block_us,
        };
        let sustained_at = match &policy.scoring {
            Scoring::Default(rules) => rules.sustained_at,
            Scoring::Sn19(_) => 1.0,
        };
        let schedule = Schedule::new(config, secret.clone(), resume::read(&store, sustained_at)?)
            .map_err(|e| ValidatorError::Part { part: "schedule", why: e.to_string() })?;
        let (at, books) = (Arc::clone(&clock), store.clone());
        let bench = Arc::new(Judge::new(Arc::clone(&board), checker, books, at, &policy, period_us));
        let sender = Arc::new(Sender {
            tasks: Arc::clone(&board),
            client: client.clone(),
            store: store.clone(),
            secret,
            clock: Arc::clone(&clock),
            controls: Arc::clone(&bench.controls),
        });
        let settler = Arc::new(Settler {
            store: store.clone(),
            chain: Arc::clone(&chain),
            clock: Arc::clone(&clock),
            policy: policy.clone(),
            tasks: Arc::clone(&board),
            period_us,
            hotkey: client.hotkey(),
        });
        Ok(Self {
            board,
            tasks,
            policy,
            period_us,
            live: Arc::default(),
            sender,
            bench,
            settler,
            store,
            client,
            chain,
            clock,
            schedule,
            period_s: settings.period_s,
            block_us: settings.block_us,
            addresses: BTreeMap::new(),
            jobs: JoinSet::new(),
        })
    }

    /// What reports read while the loop runs.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// What judges its exchanges; for others that go through the same pipeline.
    #[must_use]
    pub fn judge(&self) -> Arc<Judge> {
        Arc::clone(&self.bench)
    }

    /// What watches over the plugins, and switches off through the registrar what fails by itself. Once a validator.
    #[must_use]
    pub fn health(&self, registrar: Arc<crate::registrar::Registrar>) -> Option<crate::Health> {
        let watched = self.bench.watched()?;
        Some(crate::Health::new(
            watched,
            Arc::clone(&self.board),
            Arc::clone(&self.bench.controls),
            registrar,
        ))
    }

    /// The live tasks; what is swapped in there is planned with from the next period on.
    #[must_use]
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Runs until `stop`, then until nothing is under way. A second wish to stop is the caller's: drop this
    /// future; what was acknowledged is on disk.
    ///
    /// # Errors
    /// The first error after which nothing can be kept any more; the chain being away is not one.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ValidatorError> {
        self.refresh_metagraph().await;
        let every = Duration::from_secs((self.period_s / 4).clamp(3, 300));
        let mut refresh = tokio::time::interval(every);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        refresh.reset();
        // Four times a block: windows of several validators begin within a quarter of one.
        let mut blocks = tokio::time::interval(Duration::from_micros((self.block_us / 4).max(100_000)));
        blocks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = self.board.changes();
        let mut asked_to_stop = false;
        loop {
            let wake = self.until_wake();
            let event = tokio::select! {
                Some(done) = self.jobs.join_next() => {
                    let events = done.map_err(|e| ValidatorError::Part { part: "job", why: e.to_string() })??;
                    if self.feed(events) { return self.finish().await; }
                    continue;
                }
                () = tokio::time::sleep(wake) => Event::Tick,
                _ = blocks.tick() => match self.chain.head().await {
                    Ok(head) => Event::Block(Block { number: head.number, hash: head.hash }),
                    // The metagraph says so too, and louder.
                    Err(e) => {
                        tracing::debug!(error = %e, "no block can be read");
                        continue;
                    }
                },
                Ok(()) = changes.changed() => {
                    self.tasks = self.board.now();
                    Event::Tasks(facts::specs(&self.tasks, self.period_us, &self.policy))
                }
                _ = refresh.tick() => {
                    self.refresh_metagraph().await;
                    continue;
                }
                () = stop.cancelled(), if !asked_to_stop => {
                    asked_to_stop = true;
                    Event::Shutdown
                }
            };
            if self.feed(vec![event]) {
                return self.finish().await;
            }
        }
    }

    /// What is being written is written.
    async fn finish(mut self) -> Result<(), ValidatorError> {
        while let Some(done) = self.jobs.join_next().await {
            done.map_err(|e| ValidatorError::Part { part: "job", why: e.to_string() })??;
        }
        Ok(self.store.close()?)
    }

    /// Steps the machine; says whether it is drained.
    fn feed(&mut self, events: Vec<Event>) -> bool {
        let mut drained = false;
        for event in events {
            let effects = self.schedule.step(self.clock.now_us(), event);
            drained |= self.perform(effects);
        }
        *self.live.status.lock().unwrap_or_else(PoisonError::into_inner) = self.schedule.status();
        drained
    }

    /// How long until the machine wants to be woken; at most an hour, against clock jumps.
    fn until_wake(&self) -> Duration {
        let now = self.clock.now_us();
        let wait = self.schedule.next_wake_us().map_or(HOUR_US, |at| at.saturating_sub(now).min(HOUR_US));
        Duration::from_micros(wait)
    }

    /// The chain being away changes nothing: the last metagraph goes on.
    async fn refresh_metagraph(&mut self) {
        match self.chain.metagraph().await {
            Ok(metagraph) => {
                let miners = self.learn(&metagraph);
                let _drained = self.feed(vec![Event::Metagraph(miners)]);
            }
            Err(e) => tracing::error!(error = %e, "the metagraph cannot be read; going on with the last one"),
        }
    }

    /// Miners are neurons other than ourselves that serve somewhere.
    fn learn(&mut self, metagraph: &Metagraph) -> Vec<MinerRef> {
        let own = self.client.hotkey();
        let serving = || metagraph.neurons.iter().filter(|n| n.hotkey != own && n.axon.is_some());
        self.addresses = serving().map(|n| (n.hotkey, n.axon)).collect();
        serving().map(|n| MinerRef { uid: n.uid, hotkey: n.hotkey }).collect()
    }

    /// Starts what the machine asked for; says whether it is drained.
    fn perform(&mut self, effects: Vec<Effect>) -> bool {
        let mut drained = false;
        for effect in effects {
            match effect {
                Effect::Announce { period, miners, .. } => {
                    for miner in miners {
                        let addr = self.addresses.get(&miner.hotkey).copied().flatten();
                        let (client, period_s) = (self.client.clone(), self.period_s);
                        self.jobs.spawn(async move {
                            let result = announce(&client, miner, addr, period_s).await;
                            Ok(vec![Event::Announced { period, miner: miner.hotkey, result }])
                        });
                    }
                }
                Effect::StorePlan(plan) => {
                    let (store, period) = (self.store.clone(), plan.period);
                    self.board.plan(period, Arc::clone(&self.tasks));
                    tracing::info!(%period, probes = plan.len(), miners = plan.entries.len(), "period planned");
                    self.jobs.spawn(async move {
                        let plan = serde_json::to_value(&plan)
                            .map_err(|e| ValidatorError::Part { part: "planner", why: e.to_string() })?;
                        store.append(Record::PlanStored { period, plan }).await?;
                        Ok(vec![Event::PlanStored { period }])
                    });
                }
                Effect::Dispatch(probe) => {
                    let (sender, addr) =
                        (Arc::clone(&self.sender), self.addresses.get(&probe.id.miner).copied().flatten());
                    self.jobs
                        .spawn(async move { Ok(vec![Event::Finished(sender.send(probe, addr).await?)]) });
                }
                Effect::Judge(probe) => {
                    let bench = Arc::clone(&self.bench);
                    self.jobs.spawn(async move {
                        bench.judge(probe.clone()).await?;
                        Ok(vec![Event::Judged { probe }])
                    });
                }
                Effect::StoreWindow(window) => {
                    let store = self.store.clone();
                    tracing::info!(period = %window.period, task = %window.task, block = window.block, "the beacon starts a window");
                    self.jobs.spawn(async move {
                        let kept = serde_json::to_value(&window)
                            .map_err(|e| ValidatorError::Part { part: "planner", why: e.to_string() })?;
                        let record = Record::WindowStarted {
                            period: window.period,
                            task: window.task.clone(),
                            index: window.index,
                            window: kept,
                        };
                        store.append(record).await?;
                        Ok(vec![Event::WindowStored { window }])
                    });
                }
                Effect::Interrupted(probe) => {
                    self.book_interrupted(probe);
                }
                Effect::HeldBack(probe) => {
                    tracing::debug!(%probe, "held back: its miner has its fill under way");
                    self.book_held_back(probe);
                }
                Effect::Unchecked(probe) => {
                    tracing::debug!(%probe, "let go unchecked: more answers wait than can be judged");
                }
                // Nobody asks for users yet.
                Effect::DispatchOrganic(id) => tracing::debug!(id, "no such request"),
                Effect::Settle(outcome) => {
                    let (settler, period) = (Arc::clone(&self.settler), outcome.period);
                    let board = Arc::clone(&self.board);
                    self.jobs.spawn(async move {
                        let standing = settle_until_done(settler, outcome).await?;
                        board.settled(period);
                        Ok(vec![Event::Settled { period }, Event::Standing(standing)])
                    });
                }
                Effect::Drained => drained = true,
            }
        }
        drained
    }

    /// Writes down that a probe never left.
    fn book_held_back(&mut self, probe: ProbeId) {
        let (store, at_us) = (self.store.clone(), self.clock.now_us());
        self.jobs.spawn(async move {
            store.append(Record::ProbeFinished(ours(probe, OursFault::HeldBack, at_us))).await?;
            Ok(Vec::new())
        });
    }

    /// Writes down that a probe ended by our doing, unless it has an end: its sender may be writing one down at this
    /// very moment, and the books decide which of the two came first.
    fn book_interrupted(&mut self, probe: ProbeId) {
        let (store, at_us) = (self.store.clone(), self.clock.now_us());
        self.jobs.spawn(async move {
            let end = ours(probe.clone(), OursFault::Interrupted, at_us);
            let end = match store.append(Record::ProbeFinished(end.clone())).await? {
                Booked::New => {
                    tracing::warn!(%probe, "interrupted by us: counts for nobody");
                    end
                }
                Booked::AlreadyBooked => store.finished_probe(&probe)?.unwrap_or(end),
            };
            let (class, units, took_us) = (end.class, end.units, end.took_us);
            Ok(vec![Event::Finished(FinishedProbe { probe, class, units, took_us })])
        });
    }
}

/// The end of a probe by our doing.
const fn ours(probe: ProbeId, fault: OursFault, at_us: u64) -> Finished {
    let class = ProbeClass::Ours(fault);
    Finished { probe, class, units: 0, expected: 0, took_us: 0, exchange: None, at_us }
}

/// The chain being away delays a settlement and does not lose it.
async fn settle_until_done(
    settler: Arc<Settler>,
    outcome: nineteen_schedule::PeriodOutcome,
) -> Result<Vec<(TaskName, Hotkey, f64)>, ValidatorError> {
    let mut wait = Duration::from_secs(1);
    loop {
        match Arc::clone(&settler).settle(outcome.clone()).await {
            Err(ValidatorError::Chain(e)) => {
                tracing::error!(period = %outcome.period, error = %e, "cannot settle yet; trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(60));
            }
            done => return done,
        }
    }
}

/// Asks one miner. Whatever it answers costs it alone (invariant 3).
async fn announce(client: &Client, miner: MinerRef, addr: Option<SocketAddr>, period_s: u64) -> Announcement {
    let Some(addr) = addr else { return Err(NO_ADDRESS.into()) };
    let target = Target { addr, hotkey: miner.hotkey };
    match client.capacity(&target, period_s).await {
        Ok(said) => {
            let known = said
                .capacities
                .into_iter()
                .filter_map(|(task, said)| Some((TaskName::new(task).ok()?, said)));
            Ok(known.map(|(task, said)| (task, said.map_err(|fault| fault.code().to_owned()))).collect())
        }
        Err(fault) => {
            tracing::warn!(uid = %miner.uid, code = fault.code(), %fault, "no announcement");
            Err(fault.code().to_owned())
        }
    }
}
