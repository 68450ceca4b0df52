//! The engine and its settings, the clock that ends calls, and the number of calls at a time.
//!
//! Settings that change results (NaN bits, relaxed SIMD, features) are fixed here for every task, because a
//! verdict must be the same bits on every machine. Those that cost time were measured: pooled instances,
//! reset by page map, are several times cheaper than fresh mappings.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nineteen_domain::task::Budget;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::error::SandboxError;

/// Period of the epoch clock. A call's wall time is checked at this grain: one that overruns is ended within two of them.
pub const TICK: Duration = Duration::from_millis(2);

/// Bytes of stack of a call: far below the 2 MiB that threads have here.
pub(crate) const STACK_BYTES: usize = 512 << 10;

/// Elements of one table. Interpreters have some ten thousand functions.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// Core instances of one component; componentize-py makes about twenty.
const CORE_INSTANCES: u32 = 64;
const MEMORIES: u32 = 4;
const TABLES: u32 = 16;

/// Where instances come from. Of no effect on any result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    /// From a pool whose address space is reserved at start.
    Pooled,
    /// Each from fresh mappings: several times dearer, and nothing is reserved.
    Mapped,
}

fn config(calls: u32, instances: Instances) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls.saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_memories(calls.saturating_mul(MEMORIES))
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(1)
        .total_tables(calls.saturating_mul(TABLES))
        .max_tables_per_component(TABLES)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS)
        .total_stacks(1)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(usize::try_from(Budget::CAP.memory_bytes).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);

    let strategy = match instances {
        Instances::Pooled => InstanceAllocationStrategy::Pooling(pool),
        Instances::Mapped => InstanceAllocationStrategy::OnDemand,
    };
    let mut config = Config::new();
    config
        .allocation_strategy(strategy)
        .concurrency_support(false)
        .wasm_component_model(true)
        // The same bits everywhere.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_threads(false)
        .shared_memory(false)
        // Nothing that a task needs, and nothing that the budgets do not see.
        .gc_support(false)
        .wasm_memory64(false)
        .cranelift_opt_level(OptLevel::Speed)
        // Stacks are named by function, and for nobody but us: a third of every compiled file that is read and authenticated.
        .generate_address_map(false)
        .native_unwind_info(false)
        // Budgets.
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES);
    config
}

/// An engine that only compiles: for the sandbox that runs so many calls, to the bit.
pub(crate) fn compiler(calls: u32) -> wasmtime::Result<Engine> {
    Engine::new(&config(calls.clamp(1, 1024), Instances::Pooled))
}

/// The engine, and the thread that advances its epoch; the thread ends with it.
pub(crate) struct Machine {
    pub(crate) engine: Engine,
    pub(crate) slots: Slots,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Machine {
    /// An engine that runs up to `calls` calls at a time.
    pub(crate) fn start(calls: u32, instances: Instances) -> Result<Self, SandboxError> {
        let calls = calls.clamp(1, 1024);
        let engine = Engine::new(&config(calls, instances))
            .map_err(|e| SandboxError::Engine { why: format!("{e:#}") })?;
        let (stop, stopped) = channel();
        let ticking = engine.clone();
        let thread = std::thread::Builder::new()
            .name("sandbox-epoch".into())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    ticking.increment_epoch();
                }
            })
            .map_err(|e| SandboxError::Engine { why: format!("its clock thread does not start: {e}") })?;
        Ok(Self { engine, slots: Slots::new(calls), ticker: Some((stop, thread)) })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            // It can only have ended: there is nothing in it that panics.
            let _ = thread.join();
        }
    }
}

/// Counts the calls at a time, so that the pool never runs dry. Held only on blocking threads, and for no
/// longer than a call may take: a std mutex and a condition variable are right.
pub(crate) struct Slots {
    places: Mutex<Places>,
    freed: Condvar,
}

struct Places {
    free: u32,
    /// Who waits for one. To wake nobody is a system call too, and would be one for every call.
    waiting: u32,
}

impl Slots {
    fn new(calls: u32) -> Self {
        Self { places: Mutex::new(Places { free: calls, waiting: 0 }), freed: Condvar::new() }
    }

    /// Waits for a place.
    pub(crate) fn take(&self) -> Slot<'_> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        while places.free == 0 {
            places.waiting += 1;
            places = self.freed.wait(places).unwrap_or_else(PoisonError::into_inner);
            places.waiting -= 1;
        }
        places.free -= 1;
        Slot(self)
    }
}

/// A place among the calls; given back on drop.
pub(crate) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.free += 1;
        if places.waiting > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// How much longer than its wall time a call may take on a machine that has no processor for it.
const PATIENCE: u32 = 10;

/// The time of one call. A busy machine must not look like a slow plugin (invariant 2), so wall time counts
/// while the call's own thread runs; only past [`PATIENCE`] times that does the clock on the wall end it,
/// and then it is the host's fault.
pub(crate) struct Stopwatch {
    began: Instant,
    /// The thread's own clock when the call began; known from the first tick on.
    cpu: Option<Duration>,
    budget: Duration,
}

/// What a [`Stopwatch`] says when an epoch deadline comes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Go on for so many ticks.
    Left(u64),
    /// The call has had its time.
    Over,
    /// The machine did not give it its time.
    Starved,
}

impl Stopwatch {
    /// Starts on the thread that will run the call, which looks at it at the first tick.
    pub(crate) const fn start(began: Instant, wall_ms: u64) -> Self {
        Self { began, cpu: None, budget: Duration::from_millis(wall_ms) }
    }

    /// To be called at the first tick after the start. Most calls are over before that, and so never ask for the thread's
    /// clock, which is a system call. Until then the call has run for a tick at most, as far as the clock that ticks is on time; where it
    /// is late the machine is busy, and what is too much is given to the call.
    pub(crate) fn read(&mut self) -> Time {
        let (now, waited) = (thread_time(), self.began.elapsed());
        let cpu = *self.cpu.get_or_insert(now.saturating_sub(waited.min(TICK)));
        self.judge(now.saturating_sub(cpu), waited)
    }

    fn judge(&self, ran: Duration, waited: Duration) -> Time {
        match self.budget.checked_sub(ran) {
            None | Some(Duration::ZERO) => Time::Over,
            Some(_) if waited >= self.budget.saturating_mul(PATIENCE) => Time::Starved,
            Some(left) => Time::Left(ticks(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))),
        }
    }
}

/// Time that this thread has run.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Epoch ticks after which a call of this wall time has certainly had it.
pub(crate) fn ticks(wall_ms: u64) -> u64 {
    let tick_ms = u64::try_from(TICK.as_millis()).unwrap_or(1).max(1);
    // The first tick may come at once.
    wall_ms.div_ceil(tick_ms).saturating_add(1)
}

/// Shared by all plugins of a sandbox; the last of them stops the clock.
pub(crate) type SharedMachine = Arc<Machine>;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn whoever_waits_for_a_place_gets_one() {
        let slots = Slots::new(2);
        let (at_once, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _slot = slots.take();
                        most.fetch_max(at_once.fetch_add(1, Relaxed) + 1, Relaxed);
                        std::thread::yield_now();
                        at_once.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
        let places = slots.places.into_inner().unwrap();
        assert_eq!((places.free, places.waiting), (2, 0));
    }

    #[test]
    fn until_the_first_tick_a_call_has_run_for_a_tick_at_most() {
        let began = Instant::now().checked_sub(Duration::from_millis(300)).unwrap();
        let mut watch = Stopwatch::start(began, 50);
        // It waited for longer than it may run; its thread has not run for so long.
        assert!(matches!(watch.read(), Time::Left(_)));
        while thread_time() < watch.cpu.unwrap() + Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert_eq!(watch.read(), Time::Over);
    }

    #[test]
    fn a_busy_machine_does_not_look_like_a_slow_plugin() {
        let watch = Stopwatch::start(Instant::now(), 100);
        let ms = Duration::from_millis;
        assert_eq!(watch.judge(ms(40), ms(400)), Time::Left(ticks(60)));
        assert_eq!(watch.judge(ms(100), ms(400)), Time::Over);
        assert_eq!(watch.judge(ms(40), ms(1000)), Time::Starved);
        assert_eq!(watch.judge(ms(120), ms(5000)), Time::Over, "it had its time, however late");
    }
}
