//! Wasmtime as one would use it without this host: the same engine, linked once, a fresh store with fuel, an epoch deadline and
//! a limit of memory. What is missing is what [`nineteen_sandbox::Plugin`] adds: places among the calls, sizes of arguments,
//! the mapping between the domain and the WIT, the rules of the contract, what is spent.

use nineteen_domain::task::{Budget, Manifest};
use nineteen_domain::{Exchange, Request};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod v0_1 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "nineteen:task/plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod v0_2 {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2",
        world: "nineteen:task/plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
        with: { "nineteen:task/types@0.2.0": super::v0_1::nineteen::task::types },
    });
}

use v0_1::nineteen::task::types;

/// The data of a store.
pub(crate) struct State(StoreLimits);

impl types::Host for State {}

/// `log` and `assets` of a version, which lead nowhere.
macro_rules! nowhere {
    ($version:ident) => {
        impl $version::nineteen::task::log::Host for State {
            fn write(
                &mut self,
                _: $version::nineteen::task::log::Level,
                _: String,
                _: Vec<(String, String)>,
            ) -> wasmtime::Result<()> {
                Ok(())
            }
        }
        impl $version::nineteen::task::assets::Host for State {
            fn read(&mut self, _: String) -> wasmtime::Result<Option<Vec<u8>>> {
                Ok(None)
            }
        }
    };
}
nowhere!(v0_1);
nowhere!(v0_2);

enum Linked {
    V01(v0_1::PluginPre<State>),
    V02(v0_2::PluginPre<State>),
}

/// A linked component.
pub(crate) struct Bare {
    engine: Engine,
    linked: Linked,
    params: String,
    budget: Budget,
}

/// An instance that lives.
pub(crate) enum Instance {
    V01(v0_1::Plugin),
    V02(v0_2::Plugin),
}

impl Bare {
    /// Links a component for the task of this manifest, of whichever version it is.
    pub(crate) fn new(engine: &Engine, component: &Component, manifest: &Manifest) -> wasmtime::Result<Self> {
        let linked = Self::link_0_1(engine, component).or_else(|_| Self::link_0_2(engine, component))?;
        Ok(Self { engine: engine.clone(), linked, params: manifest.params_json(), budget: manifest.budget })
    }

    fn link_0_1(engine: &Engine, component: &Component) -> wasmtime::Result<Linked> {
        let mut linker = Linker::new(engine);
        v0_1::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        Ok(Linked::V01(v0_1::PluginPre::new(linker.instantiate_pre(component)?)?))
    }

    fn link_0_2(engine: &Engine, component: &Component) -> wasmtime::Result<Linked> {
        let mut linker = Linker::new(engine);
        v0_2::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
        Ok(Linked::V02(v0_2::PluginPre::new(linker.instantiate_pre(component)?)?))
    }

    /// A store with all budgets, and an instance in it.
    pub(crate) fn instance(&self) -> wasmtime::Result<(Store<State>, Instance)> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(usize::try_from(self.budget.memory_bytes)?)
            .trap_on_grow_failure(true)
            .build();
        let mut store = Store::new(&self.engine, State(limits));
        store.limiter(|state| &mut state.0);
        store.set_epoch_deadline(u64::MAX / 2);
        store.set_fuel(self.budget.fuel)?;
        let instance = match &self.linked {
            Linked::V01(pre) => Instance::V01(pre.instantiate(&mut store)?),
            Linked::V02(pre) => Instance::V02(pre.instantiate(&mut store)?),
        };
        Ok((store, instance))
    }

    /// A fresh instance and one call of `score`: quality and units.
    pub(crate) fn score(
        &self,
        request: &Request,
        exchange: &Exchange,
    ) -> wasmtime::Result<Option<(f64, u64)>> {
        let (mut store, instance) = self.instance()?;
        self.score_in(&mut store, &instance, request, exchange)
    }

    /// One call of `score` in an instance that lives, with fuel as for a fresh one.
    pub(crate) fn score_in(
        &self,
        store: &mut Store<State>,
        instance: &Instance,
        request: &Request,
        exchange: &Exchange,
    ) -> wasmtime::Result<Option<(f64, u64)>> {
        store.set_fuel(self.budget.fuel)?;
        let headers: Vec<(&str, &str)> = exchange.headers.iter().map(|(k, v)| (&**k, &**v)).collect();
        let chunks: Vec<types::Chunk<'_>> =
            exchange.chunks.iter().map(|c| types::Chunk { at_us: c.at_us, data: &c.data }).collect();
        let asked = types::RequestParam {
            path: &request.path,
            content_type: &request.content_type,
            body: &request.body,
            streamed: request.streamed,
        };
        let came = types::Exchange {
            status: exchange.status,
            headers: &headers,
            chunks: &chunks,
            ended_us: exchange.ended_us,
            ending: types::Ending::Complete,
        };
        let said = match instance {
            Instance::V01(it) => it.nineteen_task_task().call_score(store, &self.params, asked, came, &[])?,
            Instance::V02(it) => it.nineteen_task_task().call_score(store, &self.params, asked, came, &[])?,
        };
        Ok(match said {
            types::Outcome::Scored(verdict) => Some((verdict.quality, verdict.units)),
            _ => None,
        })
    }
}
