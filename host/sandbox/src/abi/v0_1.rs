//! `nineteen:task@0.1`: bindings generated from `wit/0.1`, and the calls.

use nineteen_domain as domain;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use super::values::{self, EvidenceParts, ExchangeParts, lower_request};
use super::{Broken, Guest};
use crate::state::CallState;
use crate::wasi;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.1",
        world: "nineteen:task/plugin",
        ownership: Borrowing { duplicate_if_necessary: true },
        imports: { default: trappable },
    });
}

use bindings::nineteen::task::types;
use bindings::nineteen::task::{assets, log};

/// A linked component of this version.
pub(super) struct Linked(bindings::PluginPre<CallState>);

pub(super) fn link(engine: &Engine, component: &Component, with_wasi: bool) -> wasmtime::Result<Linked> {
    let mut linker = Linker::new(engine);
    bindings::Plugin::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    if with_wasi {
        wasi::link(&mut linker)?;
    }
    bindings::PluginPre::new(linker.instantiate_pre(component)?).map(Linked)
}

impl types::Host for CallState {}

impl log::Host for CallState {
    fn write(
        &mut self,
        level: log::Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => tracing::Level::DEBUG,
            log::Level::Info => tracing::Level::INFO,
            log::Level::Warn => tracing::Level::WARN,
        };
        self.log(level, &message, &fields);
        Ok(())
    }
}

impl assets::Host for CallState {
    fn read(&mut self, name: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.asset(&name)?.map(Vec::from))
    }
}

impl Linked {
    fn fresh(&self, store: &mut Store<CallState>) -> Result<bindings::Plugin, Broken> {
        self.0.instantiate(store).map_err(Broken::Instantiate)
    }
}

impl Guest for Linked {
    fn describe(&self, store: &mut Store<CallState>, params: &str) -> Result<Result<String, String>, Broken> {
        let guest = self.fresh(store)?;
        guest.nineteen_task_task().call_describe(store, params).map_err(Broken::Call)
    }

    fn synthesize(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        seed: &[u8; 32],
    ) -> Result<Result<domain::Synthetic, String>, Broken> {
        let guest = self.fresh(store)?;
        let made = guest.nineteen_task_task().call_synthesize(store, params, seed).map_err(Broken::Call)?;
        Ok(made.map(values::synthetic))
    }

    fn admit(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        operation: &str,
        content_type: &str,
        body: &[u8],
        seed: &[u8; 32],
    ) -> Result<domain::Admission, Broken> {
        let guest = self.fresh(store)?;
        guest
            .nineteen_task_task()
            .call_admit(store, params, operation, content_type, body, seed)
            .map(values::admission)
            .map_err(Broken::Call)
    }

    fn count(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &domain::Request,
        exchange: &domain::Exchange,
    ) -> Result<Option<u64>, Broken> {
        let guest = self.fresh(store)?;
        let parts = ExchangeParts::of(exchange);
        guest
            .nineteen_task_task()
            .call_count(store, params, lower_request(request), parts.lower(exchange))
            .map_err(Broken::Call)
    }

    fn score(
        &self,
        store: &mut Store<CallState>,
        params: &str,
        request: &domain::Request,
        exchange: &domain::Exchange,
        evidence: &[(domain::Check, domain::Evidence)],
    ) -> Result<domain::Outcome, Broken> {
        let guest = self.fresh(store)?;
        let (parts, blobs) = (ExchangeParts::of(exchange), EvidenceParts::of(evidence));
        guest
            .nineteen_task_task()
            .call_score(store, params, lower_request(request), parts.lower(exchange), &blobs.lower(evidence))
            .map(values::outcome)
            .map_err(Broken::Call)
    }
}
