//! The table: a name, the bytes, and what must happen.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

mod binaries;
mod calls;
mod values;

use bytes::Bytes;
use nineteen_domain::task::{Budget, Manifest};
use nineteen_sandbox::{Call, CallError, Plugin};

use crate::common::{Guest, exchange, manifest, request, seed};

/// What must happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// It does not load, with this code.
    Refused(&'static str),
    /// It loads, and its call or its rounds fail with this code.
    Fail(&'static str),
    /// It is only odd: it scores, to the same bits every time and everywhere.
    Score,
}

/// A component that means no good.
pub struct Case {
    pub name: &'static str,
    pub bytes: Bytes,
    pub manifest: Manifest,
    /// The call that brings it out.
    pub call: Call,
    pub must: Must,
}

impl Case {
    fn of(name: &'static str, bytes: Bytes, must: Must) -> Self {
        Self { name, bytes, manifest: small(), call: Call::Count, must }
    }

    fn guest(name: &'static str, guest: &Guest, must: Must) -> Self {
        Self::of(name, guest.build(), must)
    }

    /// It is `score` that is bad.
    fn score(name: &'static str, score: &str, must: Must) -> Self {
        Self::guest(name, &Guest::scoring(score), must)
    }

    fn at(self, call: Call) -> Self {
        Self { call, ..self }
    }

    fn within(self, change: impl FnOnce(&mut Budget)) -> Self {
        let mut case = self;
        change(&mut case.manifest.budget);
        case
    }
}

/// Budgets that a test has time for; fuel runs out before time does.
pub fn small() -> Manifest {
    let budget = Budget { fuel: 5_000_000, wall_ms: 20_000, ..Budget::default() };
    Manifest { budget, ..manifest() }
}

/// Calls one function; `score` is the rounds' business.
pub fn provoke(plugin: &Plugin, call: Call) -> Result<(), CallError> {
    match call {
        Call::Synthesize => plugin.synthesize(&seed(1)).map(drop),
        Call::Admit => plugin.admit("echo", "text/plain", b"hello", &seed(1)).map(drop),
        _ => plugin.count(&request(), &exchange()).map(drop),
    }
}

pub fn all() -> Vec<Case> {
    [calls::cases(), values::cases(), binaries::cases()].into_iter().flatten().collect()
}
