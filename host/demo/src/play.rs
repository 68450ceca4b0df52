//! The play: start everybody, watch until enough periods are settled, gather, stop everybody.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nineteen_domain::policy::Policy;
use nineteen_domain::{Hotkey, PeriodId};
use nineteen_gateway::OperatorClient;
use nineteen_store::Store;
use nineteen_validator::gallery;
use nineteen_validator::replay::{Question, Replay, replay};
use nineteen_validator::report::{Scores, ValidatorStatus};

use crate::cast::CAST;
use crate::process::Actor;
use crate::stage::{self, Stage};

/// How long models may take to load.
const PATIENCE: Duration = Duration::from_secs(180);
/// Of each miner and task in the gallery.
const PICTURES: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A validator that ends more often than this by itself does not work.
const MOST_RESTARTS: u32 = 5;

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The `nineteen` binary: validator and miners are its processes.
    pub program: PathBuf,
    /// The cache that `cargo xtask setup` filled.
    pub cache: PathBuf,
    /// The task set that it plays with.
    pub taskset: PathBuf,
    /// An empty folder that is kept, to look into afterwards.
    pub dir: PathBuf,
    /// The policy that it is settled under. Probes are laid out alike under every one, so that what miners did
    /// can be settled under another as well.
    pub policy: Policy,
    /// The policy that is shown beside it.
    pub beside: Policy,
    /// Length of a period in seconds.
    pub period_s: u64,
    /// Periods to play.
    pub periods: u64,
    /// Whether to say nothing while it plays.
    pub quiet: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What everybody earned, with `kind` filled in.
    pub scores: Scores,
    /// The same periods settled under the other policy.
    pub beside: Replay,
    /// Configuration of the validator, for `nineteen explain --config`.
    pub config: PathBuf,
    /// A page with everybody's pictures beside the checker's.
    pub gallery: PathBuf,
    /// Times that the validator was started again because somebody ended it.
    pub restarts: u32,
}

/// Plays. Processes end with it, also when it fails or is dropped.
///
/// # Errors
/// What did not start or ended early, with its last words and its log.
pub async fn play(options: &Options) -> Result<Outcome> {
    let stage = stage::set(options)?;
    let say = Narrator::new(options.quiet);
    let logs = stage.dir.join("logs");
    let mut miners = Vec::with_capacity(CAST.len());
    for (role, place) in CAST.iter().zip(&stage.miners) {
        let config = place.config.display().to_string();
        let mut args = vec!["--config".to_owned(), config];
        match role.character {
            None => args.push("miner".into()),
            Some(c) => args.extend(["demo-miner".into(), "--character".into(), c.to_string()]),
        }
        miners.push(Actor::start(role.kind, &options.program, args, &logs)?);
    }
    say.line(&format!("six miners and a validator load their models (logs in {})", logs.display()));
    wait_for_miners(&stage, &mut miners).await?;
    let args =
        vec!["--config".to_owned(), stage.validator_config.display().to_string(), "validator".to_owned()];
    let mut validator = Actor::start("validator", &options.program, args, &logs)?;
    let played = watch(options, &stage, &say, &mut validator, &mut miners).await;
    let restarts = validator.restarts;
    validator.stop().await;
    for miner in miners {
        miner.stop().await;
    }
    let mut scores = played?;
    for miner in &mut scores.miners {
        let role = CAST.iter().zip(&stage.miners).find(|(_, place)| place.hotkey == miner.hotkey);
        miner.kind = role.map(|(role, _)| role.kind.to_owned());
    }
    let (beside, gallery) = look_back(options, &stage, scores.period)?;
    Ok(Outcome { scores, beside, config: stage.validator_config, gallery, restarts })
}

/// What is read from the store once the validator has closed it: the last period under the other policy, and the pictures.
fn look_back(options: &Options, stage: &Stage, period: PeriodId) -> Result<(Replay, PathBuf)> {
    let store = Store::open_existing(&stage.dir.join("data"), nineteen_store::Options::default())?;
    let mut policy = options.beside.clone();
    policy.planning = stage::planning();
    let question =
        Question { policy: Some(policy), from: Some(period), to: Some(period), ..Question::default() };
    let replayed = replay(&store, &question)?;
    let shots = gallery::shots(&store, &gallery::Wanted { each: PICTURES, ..gallery::Wanted::default() })?;
    store.close()?;
    let named = |hotkey: &Hotkey| {
        let found = CAST.iter().zip(&stage.miners).find(|(_, place)| place.hotkey == *hotkey);
        found.map(|(role, _)| role.kind.to_owned())
    };
    let page = stage.dir.join("gallery.html");
    std::fs::write(&page, gallery::html(&shots, &named)).with_context(|| page.display().to_string())?;
    Ok((replayed, page))
}

async fn wait_for_miners(stage: &Stage, miners: &mut [Actor]) -> Result<()> {
    let begun = Instant::now();
    for (place, miner) in stage.miners.iter().zip(miners) {
        while tokio::net::TcpStream::connect(place.addr).await.is_err() {
            still_there(miner)?;
            if begun.elapsed() > PATIENCE {
                bail!(
                    "{} does not listen after {} s; see {}",
                    miner.name,
                    PATIENCE.as_secs(),
                    miner.log().display()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn still_there(actor: &mut Actor) -> Result<()> {
    match actor.ended() {
        None => Ok(()),
        Some(how) => {
            bail!("{} ended ({how}): {}; see {}", actor.name, actor.last_words(), actor.log().display())
        }
    }
}

/// Until enough periods are settled and their weights are taken.
async fn watch(
    options: &Options,
    stage: &Stage,
    say: &Narrator,
    validator: &mut Actor,
    miners: &mut [Actor],
) -> Result<Scores> {
    let client = OperatorClient::new(stage.operator);
    let slack = Duration::from_secs(options.period_s * (options.periods + 2)) + PATIENCE;
    let begun = Instant::now();
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for miner in miners.iter_mut() {
            still_there(miner)?;
        }
        if let Some(how) = validator.ended() {
            // Somebody killed it, perhaps to see what happens: it goes on where it was.
            if validator.restarts >= MOST_RESTARTS || how.contains("exit status") {
                bail!(
                    "the validator ended ({how}): {}; see {}",
                    validator.last_words(),
                    validator.log().display()
                );
            }
            say.line(&format!("the validator ended ({how}): starting it again, it goes on where it was"));
            validator.restart()?;
        }
        if begun.elapsed() > slack {
            bail!(
                "no {} settled periods after {} s; see {}",
                options.periods,
                slack.as_secs(),
                validator.log().display()
            );
        }
        let Ok(status) = client.get::<ValidatorStatus>("/v1/status").await else { continue };
        if told.is_none() {
            let pid = validator
                .pid()
                .map_or_else(String::new, |p| format!(" (process {p}; kill -9 it if you like)"));
            say.line(&format!("the validator runs{pid}"));
            told = Some(());
        }
        say.status(&status, options);
        if u64::try_from(status.weights_taken).unwrap_or(0) >= options.periods {
            let scores = client.get::<Scores>("/v1/scores").await.context("the scores cannot be read")?;
            say.done();
            return Ok(scores);
        }
    }
}

/// Progress: a bar on a terminal, a line now and then elsewhere.
struct Narrator {
    bar: ProgressBar,
    plain: bool,
    quiet: bool,
    last: std::sync::Mutex<String>,
}

impl Narrator {
    fn new(quiet: bool) -> Self {
        let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
        let target = if quiet || plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed_precise} {msg}") {
            bar.set_style(style);
        }
        if !quiet && !plain {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, plain, quiet, last: std::sync::Mutex::default() }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.plain { eprintln!("demo: {text}") } else { self.bar.println(format!("demo: {text}")) }
    }

    fn status(&self, status: &ValidatorStatus, options: &Options) {
        let settled = status.settled.map_or(0, |p| p.0 + 1);
        let Some(s) = &status.schedule else { return };
        let doing = match s.running {
            Some(_) => format!(
                "{} under way, {} to come, {} to judge",
                s.in_flight,
                s.planned + s.waiting,
                s.unjudged
            ),
            None => "miners announce".to_owned(),
        };
        self.bar.set_message(format!("{settled} of {} periods settled: {doing}", options.periods));
        let now = format!("{settled} of {} periods settled", options.periods);
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.plain && *last != now {
            self.line(&now);
            *last = now;
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
