//! Models that come and go while checks are answered.
//!
//! For: a validator whose tasks change while it runs. Not for: serving models ([`Executors`] does) or deciding which are needed.
//! The one idea: a fleet is groups of models, each started and stopped whole; a check goes to the group that has its model, and
//! one that is under way keeps its group's answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use nineteen_domain::check::{Check, Evidence};
use nineteen_domain::id::ModelName;
use nineteen_domain::meet::{BoxFuture, Checker};

use crate::executors::Executors;

struct Group {
    executors: Executors,
    checker: Arc<dyn Checker>,
    models: BTreeSet<ModelName>,
}

/// Executors, in groups. The first stays as long as the fleet.
pub struct Fleet {
    /// A std lock: held for a look-up.
    groups: RwLock<Vec<Group>>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("models", &self.models()).finish()
    }
}

impl Fleet {
    /// With what is served from the start. `checker` answers for these executors, in quarantine where they need one.
    #[must_use]
    pub fn new(executors: Executors, checker: Arc<dyn Checker>, models: BTreeSet<ModelName>) -> Self {
        Self { groups: RwLock::new(vec![Group { executors, checker, models }]) }
    }

    /// Models that are served.
    #[must_use]
    pub fn models(&self) -> BTreeSet<ModelName> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.iter().flat_map(|g| g.models.iter().cloned()).collect()
    }

    /// Takes more models in.
    pub fn join(&self, executors: Executors, checker: Arc<dyn Checker>, models: BTreeSet<ModelName>) {
        self.groups.write().unwrap_or_else(PoisonError::into_inner).push(Group {
            executors,
            checker,
            models,
        });
    }

    /// Lets groups go of which no model is wanted any more, and gives their models. Their passes under way are awaited: use a
    /// blocking thread.
    pub fn let_go(&self, wanted: &BTreeSet<ModelName>) -> BTreeSet<ModelName> {
        let gone: Vec<Group> = {
            let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
            let mut first = true;
            let unwanted = |g: &mut Group| !std::mem::take(&mut first) && g.models.is_disjoint(wanted);
            groups.extract_if(.., unwanted).collect()
        };
        gone.into_iter().flat_map(|g| g.models).collect()
    }

    /// Stops everything; checks under way are told so.
    pub async fn stop(&self) {
        let groups = std::mem::take(&mut *self.groups.write().unwrap_or_else(PoisonError::into_inner));
        for group in groups {
            group.executors.stop().await;
        }
    }

    fn of(&self, model: Option<&String>) -> Option<Arc<dyn Checker>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let has = |g: &&Group| model.is_some_and(|m| g.models.iter().any(|n| n.as_str() == m));
        groups.iter().find(has).or(groups.first()).map(|g| Arc::clone(&g.checker))
    }
}

impl Checker for Fleet {
    fn check(&self, check: Check) -> BoxFuture<'_, Evidence> {
        match self.of(check.model.as_ref()) {
            Some(checker) => Box::pin(async move { checker.check(check).await }),
            None => Box::pin(async { Evidence::Unavailable("the executors have stopped".into()) }),
        }
    }

    fn kinds(&self) -> Vec<(String, Vec<String>)> {
        let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        for (kind, models) in groups.iter().flat_map(|g| g.checker.kinds()) {
            kinds.entry(kind).or_default().extend(models);
        }
        kinds.into_iter().map(|(kind, models)| (kind, models.into_iter().collect())).collect()
    }
}
