//! Changes of the tasks of a validator that runs: add, upgrade, switch off and on, remove, go back, and take up a signed set.
//!
//! For: the one place through which the live tasks change. Not for: deciding that they should, nor for loading a component
//! ([`crate::registry`]) or keeping snapshots ([`Board`]).
//!
//! The one idea: **a change is made whole beside what runs, and then everything is exchanged at once.** Put on the shelf,
//! verify, compile, describe, play its vectors, load its models, write the generation, then one swap that is also what the
//! next start begins with. Whatever fails on the way is said, and what was live is untouched.

mod events;
mod listing;
mod shelf;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nineteen_domain::meet::{BoxFuture, Clock};
use nineteen_domain::task::TaskSet;
use nineteen_domain::{Digest, MasterSeed, PeriodId, TaskName};
use nineteen_sandbox::Sandbox;
use serde::{Deserialize, Serialize};

pub use events::{Event, Step};
pub use listing::{Entry, Listing, ListingError, Off};
pub use shelf::{By, Generation, Shelf, identity};

use crate::board::Board;
use crate::error::ValidatorError;
use crate::registry::{self, Tasks};
use events::Events;

/// A change that an operator asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
    /// A task that is not there yet.
    Add {
        /// Its folder on the validator's machine: `task.toml`, and its component there or among the configured ones.
        folder: PathBuf,
        /// What part of the whole it takes, above 0 and below 1; all others give in proportion.
        weight: f64,
    },
    /// A later version of a task that is there.
    Upgrade {
        /// Its folder on the validator's machine.
        folder: PathBuf,
    },
    /// Not asked of anybody until it is switched on again; its weight goes to the others in proportion.
    Disable {
        /// Which.
        task: TaskName,
    },
    /// The contrary.
    Enable {
        /// Which.
        task: TaskName,
    },
    /// Gone, with its weight to the others in proportion.
    Remove {
        /// Which.
        task: TaskName,
    },
    /// What ran before the last change; once more, what ran before that.
    Rollback {
        /// Of this task alone; absent, of all.
        task: Option<TaskName>,
    },
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// Number of the generation that runs now.
    pub generation: u64,
    /// What was done, in words.
    pub what: String,
    /// The steps with their durations.
    pub steps: Vec<Step>,
    /// Tasks that run, with their weights.
    pub running: Vec<(TaskName, f64)>,
}

/// What there is, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registered {
    /// What runs.
    pub generation: Generation,
    /// Where signed sets come from, if the validator follows any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<String>,
    /// What can be gone back to, the newest first: number, when, what was done.
    pub before: Vec<(u64, u64, String)>,
}

/// Why a change was not made; what was live is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RegistrarError {
    /// There is no such change.
    #[error("{0}")]
    Listing(#[from] ListingError),
    /// A file, a component, a model.
    #[error("{0}")]
    Refused(#[from] ValidatorError),
    /// The owner decides.
    #[error(
        "this validator follows {0}: tasks are added, upgraded and removed there; here they can be switched off and on, and gone \
         back on"
    )]
    Follows(String),
    /// Nothing to go back to.
    #[error("nothing ran before{}: there is no generation to go back to", .0.as_ref().map(|t| format!(" task '{t}'")).unwrap_or_default())]
    First(Option<TaskName>),
    /// A part of the host failed.
    #[error("the change did not come to its end: {0}")]
    Failed(String),
}

impl RegistrarError {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Listing(_) => "registrar.listing",
            Self::Refused(e) => e.code(),
            Self::Follows(_) => "registrar.follows",
            Self::First(_) => "registrar.first",
            Self::Failed(_) => "registrar.failed",
        }
    }
}

/// What tasks stand on beside their components.
pub trait Ground: Send + Sync {
    /// Makes everything ready that these tasks ask for (models, checks, calibrations), or says why it cannot be.
    fn prepare<'a>(&'a self, tasks: &'a Tasks) -> BoxFuture<'a, Result<(), ValidatorError>>;

    /// These are the tasks that anything still asks for: the rest may go.
    fn let_go(&self, still_asked: &[Arc<Tasks>]);
}

/// What a registrar is made of.
pub struct Setup {
    /// Where snapshots are handed out.
    pub board: Arc<Board>,
    /// What loads.
    pub sandbox: Arc<Sandbox>,
    /// The validator's secret, for sampling requests.
    pub secret: MasterSeed,
    /// What tasks stand on.
    pub ground: Arc<dyn Ground>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where versions and generations are kept.
    pub shelf: Shelf,
    /// Components by name, for folders that have none of their own.
    pub components: PathBuf,
    /// Where signed sets come from, if any are followed.
    pub follows: Option<String>,
}

/// Changes the live tasks. One per validator.
pub struct Registrar {
    setup: Setup,
    events: Arc<Events>,
    /// One change at a time, held until it has come to its end or failed.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// A std mutex: held for a copy.
    now: Arc<Mutex<Generation>>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar").field("shelf", &self.setup.shelf).finish_non_exhaustive()
    }
}

/// Steps as they are taken.
#[derive(Default)]
struct Watch(Vec<Step>);

impl Watch {
    fn took(&mut self, task: Option<&TaskName>, step: &str, since: Instant) {
        self.took_for(task, step, since.elapsed());
    }

    fn took_for(&mut self, task: Option<&TaskName>, step: &str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.push(Step { task: task.map(ToString::to_string), step: step.to_owned(), micros });
    }
}

/// What will be.
struct Next {
    by: By,
    base: Digest,
    content_of: Option<u64>,
    before: Option<u64>,
    tasks: Listing,
    head: TaskSet,
}

impl Registrar {
    /// Of a validator that runs what is on the board: either a generation of the shelf, or the task set of a configuration,
    /// which is put on the shelf as the first one. Reads and writes files: use a blocking thread.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn start(
        setup: Setup,
        runs: Option<Generation>,
        base: Digest,
        taskset: &Path,
    ) -> Result<Self, ValidatorError> {
        let generation = match runs {
            Some(generation) => {
                tracing::info!(generation = generation.number, "{}", generation.what);
                generation
            }
            None => {
                let (head, tasks) = from_file(&setup.shelf, taskset, &setup.components)?;
                let number = setup.shelf.next_number();
                let generation = Generation {
                    number,
                    at_us: setup.clock.now_us(),
                    by: if setup.follows.is_some() { By::Subnet } else { By::Start },
                    what: format!("{} {} as configured", head.name, head.version),
                    base,
                    content_of: number,
                    before: None,
                    tasks,
                };
                setup.shelf.write(&generation, &head)?;
                setup.shelf.make_current(number)?;
                generation
            }
        };
        let events = Arc::new(Events::open(setup.shelf.events_file()));
        Ok(Self { setup, events, changing: Arc::default(), now: Arc::new(Mutex::new(generation)) })
    }

    /// What runs and what ran.
    #[must_use]
    pub fn registered(&self) -> Registered {
        let generation = self.generation();
        let mut before = Vec::new();
        let mut next = generation.before;
        while let Some(number) = next.filter(|_| before.len() < 16) {
            let Ok(g) = self.setup.shelf.generation(number) else { break };
            next = g.before;
            before.push((g.number, g.at_us, g.what));
        }
        Registered { generation, follows: self.setup.follows.clone(), before }
    }

    /// What was done, the newest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.newest()
    }

    fn generation(&self) -> Generation {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a change that an operator asks for; takes as long as a compilation.
    ///
    /// # Errors
    /// [`RegistrarError`]; what was live is as it was.
    pub async fn change(&self, change: Change) -> Result<Changed, RegistrarError> {
        let owners = matches!(change, Change::Add { .. } | Change::Upgrade { .. } | Change::Remove { .. });
        if let Some(source) = self.setup.follows.as_ref().filter(|_| owners) {
            return Err(RegistrarError::Follows(source.clone()));
        }
        let turn = Arc::clone(&self.changing).lock_owned().await;
        let mut watch = Watch::default();
        let mut what = said(&change);
        let made = async {
            let now = self.generation();
            let (tasks, content_of) = self.next_listing(&now, &change, &mut what, &mut watch).await?;
            let head = registry::read_head(&self.setup.shelf.taskset(now.number))?;
            let next =
                Next { by: By::Operator, base: now.base, content_of, before: Some(now.number), tasks, head };
            self.bring(turn, next, &what, &mut watch).await
        };
        let result = made.await;
        self.told(what, watch, result)
    }

    /// Switches a task off because of its plugin, until a later period; the next rest in a row is twice as long.
    ///
    /// # Errors
    /// [`RegistrarError`]; a task that is the only one keeps running, and its exchanges are inconclusive.
    pub async fn suspend(
        &self,
        task: &TaskName,
        why: String,
        until: PeriodId,
        times: u32,
    ) -> Result<Changed, RegistrarError> {
        let what = format!("suspend {task} until period {until}: {why}");
        let off = Off::Host { why, until, times };
        self.by_host(what, |now| Ok(now.tasks.off(task, off)?)).await
    }

    /// Switches a suspended task on again.
    ///
    /// # Errors
    /// [`RegistrarError`]; then it rests on.
    pub async fn resume(&self, task: &TaskName) -> Result<Changed, RegistrarError> {
        self.by_host(format!("try {task} again"), |now| Ok(now.tasks.on(task)?)).await
    }

    async fn by_host(
        &self,
        what: String,
        listing: impl FnOnce(&Generation) -> Result<Listing, RegistrarError>,
    ) -> Result<Changed, RegistrarError> {
        let turn = Arc::clone(&self.changing).lock_owned().await;
        let mut watch = Watch::default();
        let made = async {
            let now = self.generation();
            let tasks = listing(&now)?;
            let head = registry::read_head(&self.setup.shelf.taskset(now.number))?;
            // Going back goes over it: it is no state that anybody chose.
            let content_of = Some(now.content_of);
            let next = Next { by: By::Host, base: now.base, content_of, before: now.before, tasks, head };
            self.bring(turn, next, &what, &mut watch).await
        };
        let result = made.await;
        self.told(what, watch, result)
    }

    /// Compiles what a set that waits will need. Changes nothing that runs.
    ///
    /// # Errors
    /// A set that cannot be read.
    pub async fn warm(&self, taskset: &Path) -> Result<(), ValidatorError> {
        registry::warm(taskset, &self.setup.components, &self.setup.sandbox).await
    }

    /// Takes up a set that came into force: it replaces everything, what was switched off or gone back on here too.
    ///
    /// # Errors
    /// [`RegistrarError`]; what runs runs on.
    pub async fn take_up(&self, taskset: &Path, components: &Path) -> Result<Changed, RegistrarError> {
        let turn = Arc::clone(&self.changing).lock_owned().await;
        let mut watch = Watch::default();
        let mut what = "take up a set that came into force".to_owned();
        let made = async {
            let now = self.generation();
            let (shelf, file, folder) = (self.setup.shelf.clone(), taskset.to_owned(), components.to_owned());
            let since = Instant::now();
            let (base, head, tasks) = blocking(move || {
                let (head, tasks) = from_file(&shelf, &file, &folder)?;
                Ok((identity(&file, &folder)?, head, tasks))
            })
            .await?;
            watch.took(None, "shelf", since);
            what = format!("take up {} {}", head.name, head.version);
            let next = Next { by: By::Subnet, base, content_of: None, before: Some(now.number), tasks, head };
            self.bring(turn, next, &what, &mut watch).await
        };
        let result = made.await;
        self.told(what, watch, result)
    }

    fn told(
        &self,
        what: String,
        watch: Watch,
        result: Result<Changed, RegistrarError>,
    ) -> Result<Changed, RegistrarError> {
        let event = Event {
            at_us: self.setup.clock.now_us(),
            what,
            generation: result.as_ref().ok().map(|c| c.generation),
            refused: result.as_ref().err().map(ToString::to_string),
            steps: watch.0,
        };
        self.events.tell(event);
        result
    }

    /// The listing after a change, and whose contents it has where it goes back.
    async fn next_listing(
        &self,
        now: &Generation,
        change: &Change,
        what: &mut String,
        watch: &mut Watch,
    ) -> Result<(Listing, Option<u64>), RegistrarError> {
        match change {
            Change::Add { folder, weight } => {
                let entry = self.put(folder, *weight, watch).await?;
                *what = format!("add {} {} at {weight}", entry.name, entry.version);
                Ok((now.tasks.add(entry)?, None))
            }
            Change::Upgrade { folder } => {
                let entry = self.put(folder, 0.0, watch).await?;
                *what = format!("upgrade {} to {}", entry.name, entry.version);
                Ok((now.tasks.upgrade(&entry.name, entry.version, entry.folder)?, None))
            }
            Change::Disable { task } => Ok((now.tasks.off(task, Off::Operator)?, None)),
            Change::Enable { task } => Ok((now.tasks.on(task)?, None)),
            Change::Remove { task } => Ok((now.tasks.remove(task)?, None)),
            Change::Rollback { task: None } => {
                let content = self.setup.shelf.generation(now.content_of)?;
                let to = content.before.ok_or(RegistrarError::First(None))?;
                let to = self.setup.shelf.generation(to)?;
                *what = format!("go back to generation {}: {}", to.content_of, to.what);
                Ok((to.tasks, Some(to.content_of)))
            }
            Change::Rollback { task: Some(task) } => {
                let runs = now.tasks.get(task).map(|e| e.folder.clone());
                let mut next = now.before;
                while let Some(number) = next {
                    let g = self.setup.shelf.generation(number)?;
                    if let Some(was) = g.tasks.get(task).filter(|e| Some(&e.folder) != runs.as_ref()) {
                        *what = format!("take {task} back to {}", was.version);
                        return Ok((now.tasks.put_back(was)?, None));
                    }
                    next = g.before;
                }
                Err(RegistrarError::First(Some(task.clone())))
            }
        }
    }

    async fn put(&self, folder: &Path, weight: f64, watch: &mut Watch) -> Result<Entry, RegistrarError> {
        let (shelf, folder, components) =
            (self.setup.shelf.clone(), folder.to_owned(), self.setup.components.clone());
        let since = Instant::now();
        let entry = blocking(move || shelf.put(&folder, &components, weight)).await?;
        watch.took(Some(&entry.name), "shelf", since);
        Ok(entry)
    }

    /// Writes the generation, loads what is new in it, and exchanges everything.
    async fn bring(
        &self,
        turn: tokio::sync::OwnedMutexGuard<()>,
        next: Next,
        what: &str,
        watch: &mut Watch,
    ) -> Result<Changed, RegistrarError> {
        let Setup { board, sandbox, secret, ground, shelf, components, clock, .. } = &self.setup;
        let number = shelf.next_number();
        let generation = Generation {
            number,
            at_us: clock.now_us(),
            by: next.by,
            what: what.to_owned(),
            base: next.base,
            content_of: next.content_of.unwrap_or(number),
            before: next.before,
            tasks: next.tasks,
        };
        let (written, head, on) = (generation.clone(), next.head, shelf.clone());
        blocking(move || on.write(&written, &head)).await?;
        let before = board.now();
        let tasks =
            registry::load_after(&before, &shelf.taskset(number), components, sandbox, secret).await?;
        for task in tasks
            .by_name
            .values()
            .filter(|t| before.plugin(&t.manifest.name).is_none_or(|p| !Arc::ptr_eq(p, &t.plugin)))
        {
            for (step, took) in &task.steps {
                watch.took_for(Some(&task.manifest.name), step, *took);
            }
        }
        let since = Instant::now();
        ground.prepare(&tasks).await?;
        watch.took(None, "models", since);
        let running = generation.tasks.running().iter().map(|(e, w)| (e.name.clone(), *w)).collect();
        // On a thread of its own, which ends even if nobody waits for it any more: the disk and the board say the same.
        let (on, board, now) = (shelf.clone(), Arc::clone(board), Arc::clone(&self.now));
        let since = Instant::now();
        blocking(move || {
            let _turn = turn;
            on.make_current(number)?;
            let _ = board.swap(tasks);
            *now.lock().unwrap_or_else(PoisonError::into_inner) = generation;
            Ok(())
        })
        .await?;
        watch.took(None, "swap", since);
        self.setup.ground.let_go(&self.setup.board.in_use());
        Ok(Changed { generation: number, what: what.to_owned(), steps: watch.0.clone(), running })
    }
}

fn said(change: &Change) -> String {
    match change {
        Change::Add { folder, .. } => format!("add {}", folder.display()),
        Change::Upgrade { folder } => format!("upgrade by {}", folder.display()),
        Change::Disable { task } => format!("disable {task}"),
        Change::Enable { task } => format!("enable {task}"),
        Change::Remove { task } => format!("remove {task}"),
        Change::Rollback { task: Some(task) } => format!("roll {task} back"),
        Change::Rollback { task: None } => "roll back".into(),
    }
}

/// Puts a task set on the shelf.
fn from_file(shelf: &Shelf, taskset: &Path, components: &Path) -> Result<(TaskSet, Listing), ValidatorError> {
    let (head, declared) = registry::read_set(taskset)?;
    let mut entries = Vec::with_capacity(declared.len());
    for d in &declared {
        let folder = d.file.parent().unwrap_or(Path::new("."));
        entries.push(shelf.put(folder, components, d.weight)?);
    }
    Ok((head, Listing::new(entries)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ValidatorError> + Send + 'static,
) -> Result<T, RegistrarError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(e) => Err(RegistrarError::Failed(e.to_string())),
    }
}
