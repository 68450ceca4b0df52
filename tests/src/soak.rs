//! Kill a real validator again and again over a run with real miners, then hold its books against what the miners
//! themselves wrote down.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::books::{Books, audit};
use crate::stage::{PERIOD_S, Stage};

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After so many kills.
    Kills(u32),
    /// After this time.
    Elapsed(Duration),
}

/// Plays a run in this empty folder. The moments of the kills follow from the seed.
///
/// # Errors
/// The promise that was broken, or what kept the run from going on.
pub fn run(dir: &Path, until: Until, seed: u64) -> Result<Books> {
    let (stage, miners) = Stage::set(dir)?;
    let (begun, mut kills, mut state) = (Instant::now(), 0, seed);
    while match until {
        Until::Kills(n) => kills < n,
        Until::Elapsed(time) => begun.elapsed() < time,
    } {
        let validator = stage.validator()?;
        // From before it listens to some seconds of work; one life in eight is longer than a period.
        let most = if next(&mut state).is_multiple_of(8) { 12_000 } else { 4_000 };
        sleep(Duration::from_millis(200 + next(&mut state) % most));
        stage.kill(validator)?;
        kills += 1;
    }
    // A last life, with time to settle what is open and two periods more; then a stop that is asked for.
    let validator = stage.validator()?;
    stage.listens()?;
    sleep(Duration::from_secs(4 * PERIOD_S));
    stage.stop(validator)?;
    drop(miners);
    let mut books = audit(&stage)?;
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
