//! Evidence about every (miner, task) while the validator runs.
//!
//! A stream is kept with the newest sample, so a restart goes on from what is on disk. One exchange of a stream is
//! taken at a time, from reading to the sample being on disk: what a crash loses is judged again and then counts once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nineteen_domain::ledger::{QualitySample, Stream, Suspicion};
use nineteen_domain::policy::{HonestyRules, Policy, Scoring};
use nineteen_domain::{Hotkey, TaskName};
use nineteen_mechanism::honesty;
use nineteen_store::{Record, Store};

use crate::error::ValidatorError;

/// Samples of one (miner, task) that are looked through for its stream after a start.
const MOST_SAMPLES: usize = 10_000;

/// `None` inside as long as the store was not asked.
type Slot = Arc<tokio::sync::Mutex<Option<Stream>>>;

pub(crate) struct Streams {
    store: Store,
    /// `None` under a policy that does not weigh evidence.
    rules: Option<HonestyRules>,
    /// A std mutex: held for a look-up.
    held: Mutex<BTreeMap<(TaskName, Hotkey), (String, Slot)>>,
}

impl Streams {
    pub(crate) fn new(store: Store, policy: &Policy) -> Self {
        let rules = match &policy.scoring {
            Scoring::Default(rules) => Some(rules.honesty),
            Scoring::Sn19(_) => None,
        };
        Self { store, rules, held: Mutex::default() }
    }

    /// Books a sample, with what its exchange says by suspect, in this score epoch of its task. Returns it when it is on disk.
    pub(crate) async fn book(
        &self,
        mut sample: QualitySample,
        suspicions: Vec<(String, f64)>,
        epoch: &str,
    ) -> Result<QualitySample, ValidatorError> {
        let Some(rules) = self.rules.filter(|_| !suspicions.is_empty()) else {
            self.store.append(Record::Sample(sample.clone())).await?;
            return Ok(sample);
        };
        let slot = self.slot(&sample, epoch);
        let mut held = slot.lock().await;
        let mut stream = match held.as_ref() {
            Some(stream) => stream.clone(),
            None => self.read(&sample, epoch).await?,
        };
        let before = stream.accused_us;
        honesty::observe(&mut stream, &rules, &suspicions, sample.at_us);
        if before.is_none() && stream.accused_us.is_some() {
            tracing::warn!(
                miner = %sample.probe.miner,
                task = %sample.probe.task,
                of = stream.accused_of.as_deref().unwrap_or(""),
                evidence = honesty::evidence(&stream),
                exchanges = stream.exchanges,
                "a miner is accused"
            );
        }
        sample.suspicion = Some(Box::new(Suspicion {
            exchange: suspicions,
            stream: stream.clone(),
            epoch: Some(epoch.to_owned()),
        }));
        self.store.append(Record::Sample(sample.clone())).await?;
        *held = Some(stream);
        Ok(sample)
    }

    /// Of the epoch that was asked for last; an answer to an earlier one that is judged late begins from the disk.
    fn slot(&self, sample: &QualitySample, epoch: &str) -> Slot {
        let key = (sample.probe.task.clone(), sample.probe.miner);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, slot) = held.entry(key).or_default();
        if of != epoch {
            *slot = Slot::default();
            epoch.clone_into(of);
        }
        Arc::clone(slot)
    }

    async fn read(&self, sample: &QualitySample, epoch: &str) -> Result<Stream, ValidatorError> {
        let (store, probe) = (self.store.clone(), sample.probe.clone());
        let read = move || store.samples(&probe.miner, &probe.task, 0, MOST_SAMPLES);
        let mut samples = tokio::task::spawn_blocking(read)
            .await
            .map_err(|e| ValidatorError::Part { part: "reader of the store", why: e.to_string() })??;
        // Samples of before there were epochs are of whatever epoch runs.
        samples
            .retain(|s| s.suspicion.as_ref().is_some_and(|s| s.epoch.as_deref().is_none_or(|e| e == epoch)));
        Ok(newest(&samples).cloned().unwrap_or_default())
    }
}

/// The stream as the last of these samples left it, in the epoch of the newest of them. Not the newest by the clock, which may
/// have gone back.
pub(crate) fn newest(samples: &[QualitySample]) -> Option<&Stream> {
    let weighed = || samples.iter().filter_map(|s| s.suspicion.as_ref());
    let epoch = weighed().next()?.epoch.as_ref();
    weighed().filter(|s| s.epoch.as_ref() == epoch).map(|s| &s.stream).max_by_key(|s| s.exchanges)
}
