//! Verification of buckets: sound ones, and every kind of damage.

mod counting;
mod damage;
mod golden;
mod made;
mod resume;
mod summary;

use crate::node::Bucket;
use bytes::Bytes;
use toa::verify::{Depth, Finding, Progress, Severity, VerifyError, VerifyOptions, VerifyReport, Watch, verify};

/// What a verification told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) findings: Vec<Finding>,
    last: Progress,
}

impl Watch for Told {
    fn progress(&mut self, progress: &Progress) {
        assert!(progress.objects_done <= progress.objects_total, "{progress:?}");
        assert!(progress.phase != self.last.phase || progress.bytes_done >= self.last.bytes_done, "{progress:?}");
        self.last = *progress;
    }

    fn finding(&mut self, finding: &Finding) {
        self.findings.push(finding.clone());
    }
}

impl Told {
    pub(crate) fn damage(&self) -> Vec<&Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Damage).collect()
    }
}

pub(crate) fn deep() -> VerifyOptions {
    VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() }
}

impl Bucket {
    pub(crate) fn try_verify(&self, options: &VerifyOptions) -> (Result<VerifyReport, VerifyError>, Told) {
        let mut told = Told::default();
        let (store, runtime) = (self.store.clone(), self.runtime.handle().clone());
        let report = verify(store, &self.name, runtime, options, &mut told);
        (report, told)
    }

    pub(crate) fn verify(&self, options: &VerifyOptions) -> (VerifyReport, Told) {
        let (report, told) = self.try_verify(options);
        let report = report.unwrap();
        let damage = told.damage().len() as u64;
        assert!(damage <= report.damage && (damage > 0) == (report.damage > 0), "{report:?} {told:?}");
        (report, told)
    }

    /// Every byte of every live snapshot.
    pub(crate) fn check_sound(&self) {
        let (report, told) = self.verify(&deep());
        assert!(report.is_sound() && report.snapshots > 0, "{report:?} {:#?}", told.damage());
        assert_eq!(report.packs_read, report.packs);
    }

    pub(crate) fn objects(&self, part: &str) -> Vec<String> {
        let all = self.runtime.block_on(self.store.list("")).unwrap();
        all.into_iter().map(|object| object.name).filter(|name| name.contains(part)).collect()
    }

    pub(crate) fn get(&self, object: &str) -> Bytes {
        self.runtime.block_on(self.store.get(object)).unwrap()
    }

    pub(crate) fn put(&self, object: &str, bytes: impl Into<Bytes>) {
        self.runtime.block_on(self.store.put(object, bytes.into())).unwrap();
    }

    pub(crate) fn delete(&self, object: &str) {
        self.runtime.block_on(self.store.delete(object)).unwrap();
    }
}
