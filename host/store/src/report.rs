//! What `nineteen doctor` asks: how much there is, and whether all of it is sound.

use serde::Serialize;

use crate::Store;
use crate::error::Result;
use crate::record::Record;
use crate::segment::{self, Family, Place};
use crate::view::{Key, tag};

/// Records in the view, by kind, and segments on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Planned periods.
    pub plans: u64,
    /// Probes sent.
    pub sent: u64,
    /// Probes finished.
    pub finished: u64,
    /// Judged exchanges.
    pub samples: u64,
    /// Rows of settled periods.
    pub rows: u64,
    /// Settled periods.
    pub settlements: u64,
    /// Attempts to set weights.
    pub weights: u64,
    /// Exchanges whose bytes are kept.
    pub exchanges: u64,
    /// Probes whose evidence is kept.
    pub evidence: u64,
    /// Segments by family.
    pub families: Vec<FamilyReport>,
}

/// The segments of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyReport {
    /// Its folder: `ledger`, `exchanges` or `evidence`.
    pub name: &'static str,
    /// Segments, the growing one included.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What a walk through everything found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Records read from the segments, every checksum right.
    pub records: u64,
    /// Bytes of segments walked.
    pub bytes: u64,
    /// Records that repeat the identity of an earlier one. The store never writes such.
    pub repeated: u64,
    /// Records that the view does not show; the way out is to remove the view.
    pub not_shown: u64,
    /// Damage, one line each; every line says what to do.
    pub problems: Vec<String>,
}

impl VerifyReport {
    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.repeated == 0 && self.not_shown == 0 && self.problems.is_empty()
    }
}

impl Store {
    /// Counts what is there. Walks all keys of the view.
    ///
    /// # Errors
    /// Those of the view and of the operating system.
    pub fn counts(&self) -> Result<Counts> {
        let view = &self.inner.shared.view;
        let count =
            |tag| -> Result<u64> { view.scan(&Key::tag(tag)).try_fold(0, |n, item| item.map(|_| n + 1)) };
        let mut families = Vec::new();
        for family in Family::ALL {
            let dir = self.inner.shared.family_dir(family);
            let seqs = segment::list(&dir)?;
            // A segment that retention takes meanwhile counts as empty.
            let bytes = seqs.iter().filter_map(|s| segment::path_of(&dir, *s).metadata().ok());
            families.push(FamilyReport {
                name: family.folder(),
                segments: seqs.len() as u64,
                bytes: bytes.map(|m| m.len()).sum(),
            });
        }
        Ok(Counts {
            plans: count(tag::PLAN)?,
            sent: count(tag::SENT)?,
            finished: count(tag::FINISHED)?,
            samples: count(tag::JUDGED)?,
            rows: count(tag::ROW)?,
            settlements: count(tag::SETTLED)?,
            weights: count(tag::WEIGHTS)?,
            exchanges: count(tag::EXCHANGE)?,
            evidence: count(tag::EVIDENCE)?,
            families,
        })
    }

    /// Walks every segment up to what is on disk now: every checksum, every record, and whether the view
    /// shows it. Reads everything; for `doctor`, not for the loop. Damage does not end the walk: the
    /// other segments are read too.
    ///
    /// # Errors
    /// Only what keeps it from walking at all; damage is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut report =
            VerifyReport { records: 0, bytes: 0, repeated: 0, not_shown: 0, problems: Vec::new() };
        for (family, end) in self.inner.shared.ends() {
            let dir = self.inner.shared.family_dir(family);
            for seq in segment::list(&dir)?.into_iter().filter(|s| *s <= end.seq) {
                let until = (seq == end.seq).then_some(end.offset);
                let walked = segment::walk(&dir, family, Place { seq, offset: 0 }, until, |records| {
                    for (place, bytes) in records {
                        let record = segment::decode(&dir, *place, bytes)?;
                        self.compare(&record, *place, &mut report)?;
                        report.records += 1;
                        report.bytes += bytes.len() as u64;
                    }
                    Ok(())
                });
                if let Err(e) = walked {
                    report.problems.push(format!("{}: {e}", e.code()));
                }
            }
        }
        Ok(report)
    }

    fn compare(&self, record: &Record, place: Place, report: &mut VerifyReport) -> Result<()> {
        match self.shown(record)? {
            Some(held) if held.place == place => {}
            Some(_) => report.repeated += 1,
            None => report.not_shown += 1,
        }
        Ok(())
    }
}
