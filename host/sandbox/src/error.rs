//! What can go wrong, each with a stable code and what to do about it.
//!
//! [`SandboxError`] is about loading: it speaks to the author of a component or to the operator.
//! [`CallError`] is about one call: it names the task, the call and the budget.

use std::fmt;
use std::path::PathBuf;

use nineteen_domain::{Digest, TaskName};

/// A function that a plugin exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `describe`.
    Describe,
    /// `synthesize`.
    Synthesize,
    /// `admit`.
    Admit,
    /// `count`.
    Count,
    /// `score`.
    Score,
    /// `score-batch`.
    ScoreBatch,
}

impl Call {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Describe, Self::Synthesize, Self::Admit, Self::Count, Self::Score, Self::ScoreBatch];

    /// Its name in the WIT.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Synthesize => "synthesize",
            Self::Admit => "admit",
            Self::Count => "count",
            Self::Score => "score",
            Self::ScoreBatch => "score-batch",
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The task.
    pub task: TaskName,
    /// The function that was called.
    pub call: Call,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}: {}", self.task, self.call)
    }
}

/// Why a call of a plugin gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The semantic limit.
    #[error(
        "{at}: ran out of fuel: {budget} units; do less work, or raise budget.fuel in the task's manifest"
    )]
    Fuel {
        /// Where.
        at: Site,
        /// Units of fuel of one call.
        budget: u64,
    },
    /// The safety net.
    #[error("{at}: ran out of wall time: {budget_ms} ms; do less work, or raise budget.wall_ms")]
    WallTime {
        /// Where.
        at: Site,
        /// Milliseconds of one call.
        budget_ms: u64,
    },
    /// Linear memory.
    #[error("{at}: asked for {asked} bytes of memory, of a budget of {budget}; raise budget.memory_bytes")]
    Memory {
        /// Where.
        at: Site,
        /// Bytes over all memories that it would have had.
        asked: u64,
        /// Bytes that it may have.
        budget: u64,
    },
    /// The call stack.
    #[error("{at}: the call stack exceeds {budget} bytes: is there a recursion without end?")]
    Stack {
        /// Where.
        at: Site,
        /// Bytes of stack; the same for every task.
        budget: u64,
    },
    /// Bytes lowered into the guest: arguments, and assets that it reads.
    #[error(
        "{at}: is given {bytes} bytes, of a budget of {budget}; lower the limits on replies, or raise budget.bytes_in"
    )]
    BytesIn {
        /// Where.
        at: Site,
        /// Bytes that were to be given.
        bytes: u64,
        /// Bytes that may be given.
        budget: u64,
    },
    /// Bytes lifted out of the guest.
    #[error("{at}: returns more than {budget} bytes; return less, or raise budget.bytes_out")]
    BytesOut {
        /// Where.
        at: Site,
        /// Bytes that may be returned.
        budget: u64,
    },
    /// `unreachable`, an access out of bounds, a division by zero, an exit.
    #[error("{at}: trapped: {message}")]
    Trap {
        /// Where.
        at: Site,
        /// The trap, and the innermost functions with names.
        message: String,
    },
    /// Rounds of `score`.
    #[error(
        "{at}: still asks for checks in its last round, of {budget}; ask for them together, or raise budget.rounds"
    )]
    Rounds {
        /// Where.
        at: Site,
        /// Rounds of one exchange.
        budget: u32,
    },
    /// Checks of an exchange.
    #[error("{at}: asks for {asked} checks in all, of {budget}; ask for fewer, or raise budget.checks")]
    Checks {
        /// Where.
        at: Site,
        /// Checks so far, with those of this round.
        asked: usize,
        /// Checks of one exchange.
        budget: u32,
    },
    /// What it returned breaks a rule of the WIT.
    #[error("{at}: breaks the contract: {rule}")]
    Contract {
        /// Where.
        at: Site,
        /// The rule, and what was returned.
        rule: String,
    },
    /// A check that the manifest does not grant.
    #[error("{at}: {} is not granted to task {}: add it to grants in the manifest", Asked(kind, model.as_deref()), at.task)]
    NotGranted {
        /// Where.
        at: Site,
        /// Kind of the check.
        kind: String,
        /// Its model.
        model: Option<String>,
    },
    /// The plugin itself says that it cannot.
    #[error("{at}: the plugin declines: {why}")]
    Declined {
        /// Where.
        at: Site,
        /// In the plugin's words.
        why: String,
    },
    /// Our own fault.
    #[error("{at}: the host failed: {why}")]
    Host {
        /// Where.
        at: Site,
        /// What failed.
        why: String,
    },
}

/// `check kind text.replay` or `check text.replay of model x`.
struct Asked<'a>(&'a str, Option<&'a str>);

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(model) => write!(f, "check {} of model {model}", self.0),
            None => write!(f, "check kind {}", self.0),
        }
    }
}

impl CallError {
    /// Stable code for logs, metrics and catalogues.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Fuel { .. } => "sandbox.fuel",
            Self::WallTime { .. } => "sandbox.wall-time",
            Self::Memory { .. } => "sandbox.memory",
            Self::Stack { .. } => "sandbox.stack",
            Self::BytesIn { .. } => "sandbox.bytes-in",
            Self::BytesOut { .. } => "sandbox.bytes-out",
            Self::Trap { .. } => "sandbox.trap",
            Self::Rounds { .. } => "sandbox.rounds",
            Self::Checks { .. } => "sandbox.checks",
            Self::Contract { .. } => "sandbox.contract",
            Self::NotGranted { .. } => "sandbox.not-granted",
            Self::Declined { .. } => "sandbox.declined",
            Self::Host { .. } => "sandbox.host",
        }
    }

    /// Task and function.
    #[must_use]
    pub const fn at(&self) -> &Site {
        match self {
            Self::Fuel { at, .. }
            | Self::WallTime { at, .. }
            | Self::Memory { at, .. }
            | Self::Stack { at, .. }
            | Self::BytesIn { at, .. }
            | Self::BytesOut { at, .. }
            | Self::Trap { at, .. }
            | Self::Rounds { at, .. }
            | Self::Checks { at, .. }
            | Self::Contract { at, .. }
            | Self::NotGranted { at, .. }
            | Self::Declined { at, .. }
            | Self::Host { at, .. } => at,
        }
    }

    /// Whether the plugin, on these inputs, is to blame. Then the control exchange decides whose fault it
    /// is (invariant 2): the miner's bytes or the plugin. `false` is a fault of ours.
    #[must_use]
    pub const fn is_guest_fault(&self) -> bool {
        !matches!(self, Self::Host { .. })
    }
}

/// Why a sandbox cannot be made, or a component cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The cache folder cannot be used.
    #[error("the folder of compiled components {} cannot be used: {why}", path.display())]
    CacheDir {
        /// The folder or the file in it.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// The engine does not start on this machine.
    #[error("the WebAssembly engine cannot start: {why}")]
    Engine {
        /// What it says.
        why: String,
    },
    /// This component is refused. Nothing that was live is touched.
    #[error("task {task}: component {component}: {}", one_line(&fault.to_string()))]
    Load {
        /// The task whose component it is.
        task: TaskName,
        /// File, or `given bytes`.
        component: String,
        /// Why.
        fault: Box<LoadFault>,
    },
}

/// Somebody else's words on one line, without control characters, cut where nobody reads on.
pub(crate) fn one_line(words: &str) -> String {
    const MOST: usize = 1_000;
    let spaced = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let mut line = spaced.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MOST {
        line.truncate(line.floor_char_boundary(MOST));
        line.push('…');
    }
    line
}

impl SandboxError {
    /// Stable code for logs and catalogues.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::CacheDir { .. } => "sandbox.cache-dir",
            Self::Engine { .. } => "sandbox.engine",
            Self::Load { fault, .. } => fault.code(),
        }
    }

    /// Why the component is refused, where it is that.
    #[must_use]
    pub fn fault(&self) -> Option<&LoadFault> {
        match self {
            Self::Load { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

/// What helps against a version that is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut {
    /// The component is too old: no newer host will serve it either.
    Rebuild,
    /// It is newer than this host.
    RebuildOrUpgrade,
}

impl fmt::Display for WayOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rebuild => "",
            Self::RebuildOrUpgrade => " or upgrade the host",
        })
    }
}

/// Why a component is refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(String),
    /// It is larger than the host takes.
    #[error("has more than {cap} bytes, the most that this host loads; strip it, or raise the host's limit")]
    TooBig {
        /// Bytes that the host takes.
        cap: u64,
    },
    /// It is not the component that was meant.
    #[error("is {found}, but {expected} is expected: build it again or correct the digest")]
    Digest {
        /// What was expected.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// It is WebAssembly, but not a component.
    #[error(
        "is a core module, not a component: wrap it with `wasm-tools component new`, or build with the sdk"
    )]
    CoreModule,
    /// It is not WebAssembly at all.
    #[error("is not WebAssembly (it does not begin with \\0asm)")]
    NotWasm,
    /// It begins well and then breaks.
    #[error("is damaged or cut short: {0}")]
    Malformed(String),
    /// It has no task in it.
    #[error("exports no nineteen:task/task: build it for world nineteen:task/plugin")]
    NoTask,
    /// Its WIT is of a version that no rung of the ladder serves.
    #[error(
        "was built against nineteen:task {found}; this host serves {serves}: rebuild with sdk {newest}{way_out}"
    )]
    Version {
        /// `major.minor` of the component.
        found: String,
        /// `major.minor` that the host serves, or a range of them.
        serves: &'static str,
        /// The newest that it serves.
        newest: &'static str,
        /// What else would help.
        way_out: WayOut,
    },
    /// It wants something that no plugin gets.
    #[error("imports {import}: {why}")]
    Import {
        /// The import's name.
        import: String,
        /// Why not.
        why: &'static str,
    },
    /// An allowed import has a shape that the host does not know.
    #[error("does not fit this host: {0}; build it from the WIT of its version, unchanged")]
    Link(String),
    /// The manifest asks for another host.
    #[error("needs host {requires}, and this is {host}: upgrade the host or widen `host` in the manifest")]
    HostVersion {
        /// The manifest's requirement.
        requires: semver::VersionReq,
        /// This host.
        host: semver::Version,
    },
    /// The manifest asks for more than any task may spend.
    #[error("budget.{field} is {asked}, and the most a task may ask for is {cap}")]
    Budget {
        /// Field of the budget.
        field: &'static str,
        /// What the manifest says.
        asked: u64,
        /// The cap.
        cap: u64,
    },
    /// It does not compile.
    #[error("does not compile: {0}")]
    Compile(String),
    /// It takes too long to compile. The work goes on and its result is cached for the next try.
    #[error("was not compiled within {seconds} s; try again later (the work goes on), or raise the limit")]
    CompileTimeout {
        /// Seconds allowed.
        seconds: u64,
    },
    /// `describe` fails.
    #[error("{0}")]
    Describe(#[from] CallError),
    /// `describe` refuses the parameters of the manifest.
    #[error("refuses its parameters: {0}")]
    Params(String),
    /// What it says of itself does not fit the manifest.
    #[error("does not fit the manifest: {0}")]
    Description(String),
    /// It wants a check that the manifest does not grant.
    #[error("wants {}, which is not granted to the task: add it to grants in the manifest", Asked(kind, model.as_deref()))]
    NotGranted {
        /// Kind of the check.
        kind: String,
        /// Its model.
        model: Option<String>,
    },
    /// The manifest grants a kind of check that no executor here answers.
    #[error(
        "check kind {kind} is not known here (known: {known}): upgrade the host, or remove it from grants in the manifest"
    )]
    UnknownKind {
        /// The kind.
        kind: String,
        /// Those that are answered.
        known: String,
    },
    /// It grants a model that does not answer this kind here.
    #[error(
        "model {model} does not answer {kind} here: put it into the folder of models, or remove it from grants in the manifest"
    )]
    UnknownModel {
        /// The kind.
        kind: String,
        /// The model.
        model: String,
    },
    /// Our own fault.
    #[error("the host failed: {0}")]
    Host(String),
}

impl LoadFault {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "sandbox.read",
            Self::TooBig { .. } => "sandbox.too-big",
            Self::Digest { .. } => "sandbox.digest",
            Self::CoreModule => "sandbox.core-module",
            Self::NotWasm => "sandbox.not-wasm",
            Self::Malformed(_) => "sandbox.malformed",
            Self::NoTask => "sandbox.no-task",
            Self::Version { .. } => "sandbox.version",
            Self::Import { .. } => "sandbox.import",
            Self::Link(_) => "sandbox.link",
            Self::HostVersion { .. } => "sandbox.host-version",
            Self::Budget { .. } => "sandbox.budget",
            Self::Compile(_) => "sandbox.compile",
            Self::CompileTimeout { .. } => "sandbox.compile-timeout",
            Self::Describe(why) => why.code(),
            Self::Params(_) => "sandbox.params",
            Self::Description(_) => "sandbox.description",
            Self::NotGranted { .. } => "sandbox.not-granted",
            Self::UnknownKind { .. } => "sandbox.unknown-kind",
            Self::UnknownModel { .. } => "sandbox.unknown-model",
            Self::Host(_) => "sandbox.host",
        }
    }
}
