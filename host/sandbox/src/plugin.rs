//! A loaded component, and one call of it.
//!
//! Every call: a place among the calls, a fresh store with all budgets, a fresh instance, the function, the
//! rules of the contract, and an error that says which budget or rule it was. Nothing survives a call.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nineteen_domain::task::{Budget, Description, Manifest};
use nineteen_domain::{
    Admission, Check, Digest, Evidence, Exchange, Outcome, Request, Seed, Synthetic, TaskName,
};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::abi::{Broken, Guest};
use crate::cache::fingerprint;
use crate::contract;
use crate::engine::{STACK_BYTES, SharedMachine, Stopwatch, Time};
use crate::error::{Call, CallError, LoadFault, Site, one_line};
use crate::inputs::{
    put, put_evidence, put_exchange, size, size_of_exchange, size_of_exchanged, size_of_request,
};
use crate::spent::{Meter, Spent, Used};
use crate::stacks::Stacks;
use crate::state::{CallState, Overrun, Shared};

/// A component that was verified, compiled, linked, and has described itself.
///
/// Its functions are synchronous and may take as long as the task's wall time: call them on blocking
/// threads. [`Plugin::judge`] does so itself.
pub struct Plugin {
    pub(crate) manifest: Manifest,
    params: String,
    digest: Digest,
    wit_version: semver::Version,
    description: Description,
    pub(crate) shared: Arc<Shared>,
    guest: Box<dyn Guest>,
    /// For components that import WASI: hashes the inputs from which their randomness comes.
    dice: Option<blake3::Hasher>,
    machine: SharedMachine,
    /// What its calls used.
    meter: Meter,
    /// Stacks that were seen, while somebody looks.
    stacks: OnceLock<Arc<Stacks>>,
    /// What loading it took, step by step.
    steps: Vec<(&'static str, Duration)>,
    /// Whether its batches were caught saying something else than its `score`.
    pub(crate) distrusted: AtomicBool,
}

/// A result and the fuel that it took.
pub(crate) struct Metered<T> {
    pub(crate) result: Result<T, CallError>,
    pub(crate) fuel: u64,
}

/// What [`Plugin::describe`] starts from.
pub(crate) struct Parts {
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    pub(crate) wit_version: semver::Version,
    pub(crate) wasi: bool,
    pub(crate) shared: Shared,
    pub(crate) guest: Box<dyn Guest>,
    pub(crate) machine: SharedMachine,
}

impl Plugin {
    /// Lets the component describe itself for the manifest's parameters, and holds it to the manifest.
    pub(crate) fn describe(parts: Parts) -> Result<Self, LoadFault> {
        let Parts { manifest, digest, wit_version, wasi, shared, guest, machine } = parts;
        let dice = wasi.then(|| {
            let mut dice = blake3::Hasher::new_derive_key("nineteen sandbox 2026 randomness of a call");
            dice.update(digest.as_bytes());
            dice
        });
        let mut plugin = Self {
            params: manifest.params_json(),
            digest,
            wit_version,
            description: nothing_said(),
            shared: Arc::new(shared),
            guest,
            dice,
            machine,
            meter: Meter::default(),
            stacks: OnceLock::new(),
            steps: Vec::new(),
            distrusted: AtomicBool::new(false),
            manifest,
        };
        let said = plugin
            .run(Call::Describe, 0, |_| {}, |store| plugin.guest.describe(store, &plugin.params))
            .result
            .map_err(|e| match e {
                // It is loaded for the first time: what cannot be instantiated does not fit, whatever the host says of it.
                CallError::Host { why, .. } => LoadFault::Link(why),
                other => LoadFault::Describe(other),
            })?
            .map_err(LoadFault::Params)?;
        let description: Description = serde_json::from_str(&said)
            .map_err(|e| LoadFault::Description(format!("describe returns no description: {e}")))?;
        fits(&description, &plugin.manifest)?;
        plugin.description = description;
        Ok(plugin)
    }

    /// The task that it was loaded for.
    #[must_use]
    pub fn task(&self) -> &TaskName {
        &self.shared.task
    }

    /// Digest of the component.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Version of `nineteen:task` in the component's own type.
    #[must_use]
    pub const fn wit_version(&self) -> &semver::Version {
        &self.wit_version
    }

    /// What it says of itself, for this task's parameters.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Engine and settings that it runs under, as a name: the same name, the same machine code. Results do not
    /// depend on it.
    #[must_use]
    pub fn engine_fingerprint(&self) -> String {
        fingerprint(&self.machine.engine)
    }

    /// Digests of the data that was shipped with the task, by name.
    #[must_use]
    pub fn asset_digests(&self) -> BTreeMap<String, Digest> {
        self.shared.assets.digests()
    }

    /// From now on, looks at where calls are at every tick of the clock. Calls become slower; for authors.
    pub fn watch_stacks(&self) -> Arc<Stacks> {
        Arc::clone(self.stacks.get_or_init(Arc::default))
    }

    /// What its calls used of their budgets since it was loaded, by function.
    #[must_use]
    pub fn spent(&self) -> BTreeMap<String, Spent> {
        self.meter.read()
    }

    /// What loading it took, in order: `verify` (reading, digest, size, imports, version), then `cache` or `compile`, then
    /// `describe` (linking, and its own description against the manifest).
    #[must_use]
    pub fn load_steps(&self) -> &[(&'static str, Duration)] {
        &self.steps
    }

    pub(crate) fn took(&mut self, steps: Vec<(&'static str, Duration)>) {
        self.steps = steps;
    }

    /// The manifest that it was loaded with.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A synthetic request, decided by the seed.
    ///
    /// # Errors
    /// A budget, a rule of the contract, or the plugin declines.
    pub fn synthesize(&self, seed: &Seed) -> Result<Synthetic, CallError> {
        let seed = seed.as_bytes();
        let made = self
            .run(
                Call::Synthesize,
                32,
                |dice| put(dice, seed),
                |store| self.guest.synthesize(store, &self.params, seed),
            )
            .result?
            .map_err(|why| CallError::Declined { at: self.at(Call::Synthesize), why: one_line(&why) })?;
        self.obey(Call::Synthesize, contract::synthetic(&made, &self.manifest.path))?;
        Ok(made)
    }

    /// What becomes of a client's body. `seed` is the host's, for what the protocol needs.
    ///
    /// # Errors
    /// A budget or a rule of the contract. A refusal of the client is no error.
    pub fn admit(
        &self,
        operation: &str,
        content_type: &str,
        body: &[u8],
        seed: &Seed,
    ) -> Result<Admission, CallError> {
        let seed = seed.as_bytes();
        let bytes_in = size(&[operation.len(), content_type.len(), body.len(), seed.len()]);
        let admission = self
            .run(
                Call::Admit,
                bytes_in,
                |dice| {
                    [operation.as_bytes(), content_type.as_bytes(), body, seed]
                        .iter()
                        .for_each(|b| put(dice, b))
                },
                |store| self.guest.admit(store, &self.params, operation, content_type, body, seed),
            )
            .result?;
        self.obey(Call::Admit, contract::admission(&admission, &self.manifest.path))?;
        Ok(admission)
    }

    /// Units of work that the bytes claim; `None` when they are no reply of this task.
    ///
    /// # Errors
    /// A budget, or a trap.
    pub fn count(&self, request: &Request, exchange: &Exchange) -> Result<Option<u64>, CallError> {
        self.run(
            Call::Count,
            size_of_request(request).saturating_add(size_of_exchange(exchange)),
            |dice| put_exchange(dice, request, exchange),
            |store| self.guest.count(store, &self.params, request, exchange),
        )
        .result
    }

    /// One round: judges the exchange, or asks for checks.
    ///
    /// # Errors
    /// A budget, a trap, or a rule of the contract.
    pub fn score(
        &self,
        request: &Request,
        exchange: &Exchange,
        evidence: &[(Check, Evidence)],
    ) -> Result<Outcome, CallError> {
        self.score_metered(request, exchange, evidence).result
    }

    pub(crate) fn score_metered(
        &self,
        request: &Request,
        exchange: &Exchange,
        evidence: &[(Check, Evidence)],
    ) -> Metered<Outcome> {
        self.score_with(request, exchange, evidence, |store| {
            self.guest.score(store, &self.params, request, exchange, evidence)
        })
    }

    /// A call of `score` with these arguments, whose outcome keeps the rules.
    pub(crate) fn score_with(
        &self,
        request: &Request,
        exchange: &Exchange,
        evidence: &[(Check, Evidence)],
        body: impl FnOnce(&mut Store<CallState>) -> Result<Outcome, Broken>,
    ) -> Metered<Outcome> {
        let bytes_in = size_of_exchanged(request, exchange, evidence);
        let inputs = |dice: &mut blake3::Hasher| {
            put_exchange(dice, request, exchange);
            put_evidence(dice, evidence);
        };
        let Metered { result, fuel } = self.run(Call::Score, bytes_in, inputs, body);
        let result = result.and_then(|outcome| {
            self.obey(Call::Score, contract::outcome(&outcome, exchange))?;
            Ok(outcome)
        });
        Metered { result, fuel }
    }

    /// Whether executors that answer these kinds, each of these models, can give what the manifest grants.
    ///
    /// # Errors
    /// [`LoadFault::UnknownKind`] and [`LoadFault::UnknownModel`], the first of them.
    pub fn hold_checks(&self, served: &[(String, Vec<String>)]) -> Result<(), LoadFault> {
        for (kind, models) in &self.manifest.grants {
            let Some((_, known)) = served.iter().find(|(k, _)| k == kind) else {
                let known: Vec<_> = served.iter().map(|(k, _)| k.as_str()).collect();
                return Err(LoadFault::UnknownKind { kind: kind.clone(), known: known.join(", ") });
            };
            if let Some(model) = models.iter().find(|m| !known.iter().any(|k| k == m.as_str())) {
                return Err(LoadFault::UnknownModel { kind: kind.clone(), model: model.to_string() });
            }
        }
        Ok(())
    }

    pub(crate) fn at(&self, call: Call) -> Site {
        Site { task: self.shared.task.clone(), call }
    }

    fn obey(&self, call: Call, rule: Result<(), String>) -> Result<(), CallError> {
        rule.map_err(|rule| CallError::Contract { at: self.at(call), rule })
    }

    pub(crate) fn guest(&self) -> &dyn Guest {
        &*self.guest
    }

    pub(crate) fn params(&self) -> &str {
        &self.params
    }

    pub(crate) const fn params_len(&self) -> u64 {
        self.params.len() as u64
    }

    /// One call with all budgets on. `bytes_in` counts the arguments beside the parameters.
    fn run<T>(
        &self,
        call: Call,
        bytes_in: u64,
        inputs: impl FnOnce(&mut blake3::Hasher),
        body: impl FnOnce(&mut Store<CallState>) -> Result<T, Broken>,
    ) -> Metered<T> {
        self.run_with(&self.shared, call, bytes_in, inputs, body)
    }

    /// The same within another budget.
    pub(crate) fn run_within<T>(
        &self,
        budget: Budget,
        call: Call,
        bytes_in: u64,
        inputs: impl FnOnce(&mut blake3::Hasher),
        body: impl FnOnce(&mut Store<CallState>) -> Result<T, Broken>,
    ) -> Metered<T> {
        let Shared { task, assets, .. } = &*self.shared;
        let shared = Arc::new(Shared { task: task.clone(), budget, assets: assets.clone() });
        self.run_with(&shared, call, bytes_in, inputs, body)
    }

    fn run_with<T>(
        &self,
        shared: &Arc<Shared>,
        call: Call,
        bytes_in: u64,
        inputs: impl FnOnce(&mut blake3::Hasher),
        body: impl FnOnce(&mut Store<CallState>) -> Result<T, Broken>,
    ) -> Metered<T> {
        let budget = &shared.budget;
        let bytes_in = bytes_in.saturating_add(self.params.len() as u64);
        if bytes_in > budget.bytes_in {
            let result =
                Err(CallError::BytesIn { at: self.at(call), bytes: bytes_in, budget: budget.bytes_in });
            return Metered { result, fuel: 0 };
        }
        let dice = self.dice.as_ref().map(|dice| {
            let mut dice = dice.clone();
            put(&mut dice, call.name().as_bytes());
            put(&mut dice, self.params.as_bytes());
            inputs(&mut dice);
            dice.finalize_xof()
        });

        let _slot = self.machine.slots.take();
        let begun = Instant::now();
        let mut store =
            Store::new(&self.machine.engine, CallState::new(shared.clone(), call, bytes_in, dice));
        store.limiter(|state| state);
        let mut watch = Stopwatch::start(begun, budget.wall_ms);
        let stacks = self.stacks.get().map(Arc::clone);
        let watched = stacks.is_some();
        store.epoch_deadline_callback(move |store| match watch.read() {
            Time::Left(ticks) => {
                if let Some(stacks) = &stacks {
                    stacks.see(call, &WasmBacktrace::force_capture(store));
                }
                Ok(UpdateDeadline::Continue(if watched { 1 } else { ticks }))
            }
            Time::Over => Err(Trap::Interrupt.into()),
            Time::Starved => Err(Overrun::Starved.into()),
        });
        store.set_epoch_deadline(1);
        // A host function or a result that brings out more than this is refused before it is allocated.
        store.set_hostcall_fuel(usize::try_from(budget.bytes_out).unwrap_or(usize::MAX));
        if let Err(e) = store.set_fuel(budget.fuel) {
            return Metered { result: Err(self.host(call, &e)), fuel: 0 };
        }
        let result = body(&mut store).map_err(|broken| self.explain(call, budget, broken));
        let fuel = budget.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
        let (memory, bytes_in) = store.data().used();
        let used = Used { ok: result.is_ok(), fuel, took: begun.elapsed(), memory, bytes_in };
        self.meter.count(call, &used);
        Metered { result, fuel }
    }

    fn host(&self, call: Call, error: &wasmtime::Error) -> CallError {
        CallError::Host { at: self.at(call), why: format!("{error:#}") }
    }

    /// Which budget or rule it was.
    fn explain(&self, call: Call, budget: &Budget, broken: Broken) -> CallError {
        let at = self.at(call);
        let (error, instantiating) = match broken {
            Broken::Instantiate(error) => (error, true),
            Broken::Call(error) => (error, false),
        };
        match error.downcast_ref::<Overrun>() {
            Some(Overrun::Memory { asked }) => {
                return CallError::Memory { at, asked: *asked, budget: budget.memory_bytes };
            }
            Some(Overrun::BytesIn { bytes }) => {
                return CallError::BytesIn { at, bytes: *bytes, budget: budget.bytes_in };
            }
            Some(Overrun::Starved) => return self.host(call, &error),
            None => {}
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => return CallError::Fuel { at, budget: budget.fuel },
            Some(Trap::Interrupt) => return CallError::WallTime { at, budget_ms: budget.wall_ms },
            Some(Trap::StackOverflow) => return CallError::Stack { at, budget: STACK_BYTES as u64 },
            Some(trap) => {
                return CallError::Trap { at, message: format!("{trap}{}", whereabouts(&error)) };
            }
            None => {}
        }
        if let Some(exit) = error.downcast_ref::<I32Exit>() {
            return CallError::Trap { at, message: format!("it called exit({})", exit.0) };
        }
        if is_hostcall_limit(&error) {
            return CallError::BytesOut { at, budget: budget.bytes_out };
        }
        if instantiating || error.is::<PoolConcurrencyLimitError>() {
            return self.host(call, &error);
        }
        // What remains are values that the canonical ABI refuses: lists that lie outside of memory, text
        // that is not UTF-8, discriminants that do not exist.
        CallError::Contract { at, rule: one_line(&format!("{}{}", error.root_cause(), whereabouts(&error))) }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin")
            .field("task", &self.shared.task)
            .field("digest", &self.digest)
            .field("wit", &self.wit_version)
            .finish_non_exhaustive()
    }
}

/// wasmtime names this limit in words only; `hostile.rs` holds the words.
fn is_hostcall_limit(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted")
}

/// Innermost functions with names, for the author.
fn whereabouts(error: &wasmtime::Error) -> String {
    let names: Vec<_> = error
        .downcast_ref::<WasmBacktrace>()
        .map(|trace| trace.frames().iter().filter_map(|f| f.func_name()).take(4).collect())
        .unwrap_or_default();
    // The names are the author's, or whoever's.
    if names.is_empty() {
        String::new()
    } else {
        format!(" {}", one_line(&format!("(in {})", names.join(" < "))))
    }
}

/// Placeholder while a plugin has not been asked; never seen outside of [`Plugin::describe`].
fn nothing_said() -> Description {
    Description {
        name: String::new(),
        version: semver::Version::new(0, 0, 0),
        modality: String::new(),
        unit: String::new(),
        operations: Vec::new(),
        streaming: false,
        checks: BTreeMap::new(),
        params_schema: serde_json::Value::Null,
        reply_extras: Vec::new(),
    }
}

/// Whether what a plugin says of itself fits what the manifest says of the task.
fn fits(said: &Description, manifest: &Manifest) -> Result<(), LoadFault> {
    if said.unit != manifest.unit {
        return Err(LoadFault::Description(format!(
            "it counts {:?}, and the manifest's unit is {:?}",
            said.unit, manifest.unit
        )));
    }
    if !said.operations.contains(&manifest.operation) {
        return Err(LoadFault::Description(format!(
            "it serves {:?}, and the manifest's operation is {:?}",
            said.operations, manifest.operation
        )));
    }
    for (kind, models) in &said.checks {
        let asked: Vec<_> =
            if models.is_empty() { vec![None] } else { models.iter().map(|m| Some(m.as_str())).collect() };
        if let Some(model) = asked.into_iter().find(|model| !manifest.grants(kind, *model)) {
            return Err(LoadFault::NotGranted { kind: kind.clone(), model: model.map(str::to_owned) });
        }
    }
    Ok(())
}
