//! The machine itself. API as it will stay:
//!
//! ```ignore
//! let mut schedule = Schedule::new(config, seed /* MasterSeed */, resume /* Resume::default() at first */)?;
//! let effects = schedule.step(now_us, Event::Metagraph(miners));
//! schedule.next_wake_us(); // Option<u64>: send Event::Tick then
//! schedule.status(); schedule.plan(period);
//! ```
