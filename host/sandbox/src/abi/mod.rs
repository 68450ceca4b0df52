//! The one trait that the rest of this crate calls plugins through, and the ladder of WIT versions behind it.
//!
//! A new WIT version is a new module here, a new rung in [`ladder`], and nothing anywhere else.

mod v0_1;
mod v0_2;
mod values;

use nineteen_domain::{Admission, Check, Evidence, Exchange, Outcome, Request, Synthetic};
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use crate::batch::Scoring;
use crate::error::{LoadFault, WayOut};
use crate::inspect::{Outline, split};
use crate::plugin::Metered;
use crate::state::CallState;
use crate::wasi;

/// Where a call broke.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Before the guest's function was called.
    Instantiate(wasmtime::Error),
    /// In the call, or while its result was read.
    Call(wasmtime::Error),
}

/// A plugin, in domain types. Every function runs on a fresh instance in the given store, which is used
/// once. Rules that types cannot say are checked by the caller.
pub(crate) trait Guest: Send + Sync {
    /// JSON of a description, or what is wrong with the parameters.
    fn describe(&self, store: &mut Store<CallState>, params: &str) -> Result<Result<String, String>, Broken>;

    /// A request decided by the seed, or why there is none.
    fn synthesize(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        seed: &[u8; 32],
    ) -> Result<Result<Synthetic, String>, Broken>;

    /// What becomes of a client's body.
    fn admit(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        operation: &str,
        content_type: &str,
        body: &[u8],
        seed: &[u8; 32],
    ) -> Result<Admission, Broken>;

    /// Units claimed.
    fn count(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &Request,
        exchange: &Exchange,
    ) -> Result<Option<u64>, Broken>;

    /// One round.
    fn score(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &Request,
        exchange: &Exchange,
        evidence: &[(Check, Evidence)],
    ) -> Result<Outcome, Broken>;

    /// One round of several exchanges. This default is for versions that know no batches: each alone.
    fn score_batch(&self, desk: &dyn Desk, params: &str, batch: &[Scoring]) -> Scored {
        let alone = |one: &Scoring| {
            let mut call = |store: &mut Store<CallState>| {
                self.score(store, params, &one.request, &one.exchange, &one.evidence)
            };
            desk.alone(one, &mut call)
        };
        Scored::Alone(batch.iter().map(alone).collect())
    }
}

/// Where [`Guest::score_batch`] gets stores: each with all budgets, for one call.
pub(crate) trait Desk {
    /// A store for one exchange.
    fn alone(&self, one: &Scoring, call: &mut InStore<'_, Outcome>) -> Metered<Outcome>;

    /// A store for all of them together.
    fn together(&self, batch: &[Scoring], call: &mut InStore<'_, Vec<Outcome>>) -> Metered<Vec<Outcome>>;
}

/// A call in a store.
pub(crate) type InStore<'a, T> = dyn FnMut(&mut Store<CallState>) -> Result<T, Broken> + 'a;

/// How a batch was scored.
pub(crate) enum Scored {
    /// Each exchange in a call of its own; one entry for each.
    Alone(Vec<Metered<Outcome>>),
    /// All in one call, as the guest gave it: nothing is believed yet, not even the number.
    Together(Metered<Vec<Outcome>>),
}

const PACKAGE: &str = "nineteen:task";

/// Versions that this host serves, as an author reads them.
const SERVES: &str = "0.1 to 0.2";
/// The newest of them, which is also that of the newest sdk that fits.
const NEWEST: &str = "0.2";

/// A version of the WIT that this host serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    /// `nineteen:task@0.1.x`.
    V0_1,
    /// `nineteen:task@0.2.x`.
    V0_2,
}

/// A component's place on the ladder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) rung: Rung,
    /// The version in the component's own type.
    pub(crate) version: semver::Version,
    /// Whether it imports WASI.
    pub(crate) wasi: bool,
}

/// Reads the version from the component's own exports, and its imports against what that version allows.
pub(crate) fn ladder(outline: &Outline) -> Result<Fit, LoadFault> {
    let versions = outline.exports.iter().filter_map(|name| match split(name) {
        Some((PACKAGE, "task", version)) => Some(version),
        _ => None,
    });
    let (mut fit, mut refused) = (None, None);
    for version in versions {
        let rung = match (version.major, version.minor) {
            (0, 1) => Rung::V0_1,
            (0, 2) => Rung::V0_2,
            _ => {
                refused = refused.max(Some(version));
                continue;
            }
        };
        fit = fit.max(Some((rung, version)));
    }
    let Some((rung, version)) = fit else {
        return Err(refused.map_or(LoadFault::NoTask, |found| {
            let way_out =
                if (found.major, found.minor) < (0, 1) { WayOut::Rebuild } else { WayOut::RebuildOrUpgrade };
            let found = format!("{}.{}", found.major, found.minor);
            LoadFault::Version { found, serves: SERVES, newest: NEWEST, way_out }
        }));
    };
    let mut imports_wasi = false;
    for import in &outline.imports {
        let refuse = |why| Err(LoadFault::Import { import: import.clone(), why });
        match split(import) {
            Some((PACKAGE, "types" | "log" | "assets", v)) => {
                if (v.major, v.minor) != (version.major, version.minor) {
                    return refuse("its version is not that of the exported task: build both from one WIT");
                }
            }
            Some(("wasi:sockets" | "wasi:http", ..)) => {
                return refuse("a plugin reaches no network: it asks for checks, and the host runs them");
            }
            Some((package, _, v)) if wasi::PACKAGES.contains(&package) => {
                if (v.major, v.minor) != (0, 2) {
                    return refuse("of WASI, only version 0.2 is here");
                }
                imports_wasi = true;
            }
            _ => {
                return refuse(
                    "a plugin gets nineteen:task/log, nineteen:task/assets, and of WASI 0.2 a closed cli, clocks, filesystem, io and random",
                );
            }
        }
    }
    Ok(Fit { rung, version, wasi: imports_wasi })
}

/// Links a component, once; calls then only instantiate.
pub(crate) fn link(engine: &Engine, component: &Component, fit: &Fit) -> Result<Box<dyn Guest>, LoadFault> {
    let linked: wasmtime::Result<Box<dyn Guest>> = match fit.rung {
        Rung::V0_1 => v0_1::link(engine, component, fit.wasi).map(|guest| Box::new(guest) as _),
        Rung::V0_2 => v0_2::link(engine, component, fit.wasi).map(|guest| Box::new(guest) as _),
    };
    linked.map_err(|e| LoadFault::Link(format!("{e:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(imports: &[&str], exports: &[&str]) -> Outline {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Outline { imports: owned(imports), exports: owned(exports) }
    }

    #[test]
    fn a_patch_version_of_a_served_minor_is_served() {
        let fit = ladder(&outline(&["nineteen:task/types@0.1.0"], &["nineteen:task/task@0.1.7"])).unwrap();
        assert_eq!(fit, Fit { rung: Rung::V0_1, version: semver::Version::new(0, 1, 7), wasi: false });
    }

    #[test]
    fn a_newer_version_is_refused_in_words_that_say_what_to_do() {
        let refused = ladder(&outline(&[], &["nineteen:task/task@0.3.0"])).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "was built against nineteen:task 0.3; this host serves 0.1 to 0.2: rebuild with sdk 0.2 or upgrade the host"
        );
    }

    #[test]
    fn of_two_versions_the_served_one_is_taken() {
        let both = outline(&[], &["nineteen:task/task@0.3.0", "nineteen:task/task@0.1.0"]);
        assert_eq!(ladder(&both).unwrap().rung, Rung::V0_1);
    }

    #[test]
    fn of_two_served_versions_the_newer_is_taken() {
        for names in [
            ["nineteen:task/task@0.2.0", "nineteen:task/task@0.1.0"],
            ["nineteen:task/task@0.1.0", "nineteen:task/task@0.2.0"],
        ] {
            assert_eq!(ladder(&outline(&[], &names)).unwrap().rung, Rung::V0_2);
        }
    }

    #[test]
    fn who_is_too_old_is_not_told_to_upgrade_the_host() {
        let refused = ladder(&outline(&[], &["nineteen:task/task@0.0.9"])).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "was built against nineteen:task 0.0; this host serves 0.1 to 0.2: rebuild with sdk 0.2"
        );
    }

    #[test]
    fn a_component_without_a_task_is_refused() {
        assert!(matches!(ladder(&outline(&[], &["wasi:cli/run@0.2.6"])), Err(LoadFault::NoTask)));
    }

    #[test]
    fn what_no_plugin_gets_is_refused_by_name() {
        for import in [
            "wasi:sockets/tcp@0.2.6",
            "wasi:http/outgoing-handler@0.2.6",
            "wasi:clocks/monotonic-clock@0.3.0",
            "nineteen:task/secrets@0.1.0",
            "nineteen:task/log@0.2.0",
            "plain-function",
        ] {
            match ladder(&outline(&[import], &["nineteen:task/task@0.1.0"])) {
                Err(LoadFault::Import { import: named, .. }) => assert_eq!(named, import),
                other => panic!("{import}: {other:?}"),
            }
        }
    }
}
