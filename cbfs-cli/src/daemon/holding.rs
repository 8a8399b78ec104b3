//! Whether the mount survives this daemon.

use crate::control::api::HeldView;
use crate::holder::{Link, Restarts};
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toa::Agent;

/// Between looks at the local disk's health.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Holding {
    link: Link,
    restarts: Restarts,
    /// Why the holder was given nothing to keep.
    not_left: Option<&'static str>,
    let_go: AtomicBool,
}

impl Holding {
    pub(super) fn new(link: Link, restarts: Restarts, not_left: Option<&'static str>) -> Self {
        if let Some(reason) = not_left {
            tracing::warn!(reason, "the mount ends with this daemon");
        }
        Self { link, restarts, not_left, let_go: AtomicBool::new(false) }
    }

    /// After a failed flush what was acknowledged may not be there for the next daemon, but the kernel and open files
    /// believe in it: nobody may go on with the mount. Ends with that, or when it is dropped.
    pub(super) async fn watch(self: Arc<Self>, agent: Arc<Agent>) {
        while !agent.has_failed_flush() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        self.let_go.store(true, Ordering::Release);
        self.link.let_go();
        tracing::warn!("the mount ends with this daemon: a flush to the local disk has failed");
    }

    /// Why the mount ends with this daemon, if it does.
    pub(super) fn unheld(&self) -> Option<&'static str> {
        let failed = || self.let_go.load(Ordering::Acquire).then_some("a flush to the local disk has failed");
        self.not_left.or_else(failed).or_else(|| self.link.holder().is_none().then_some("its holder is gone"))
    }

    /// For the status.
    pub(super) fn view(&self) -> HeldView {
        let unheld = self.unheld();
        let at = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).ok()?).ok();
        HeldView {
            holder: self.link.holder().filter(|_| unheld.is_none()),
            unheld: unheld.map(ToOwned::to_owned),
            restarts: self.restarts.count,
            restarted: self.restarts.last.and_then(at),
            restart_reason: self.restarts.reason.clone(),
        }
    }
}
