//! What ends a daemon: a signal, a request, or its mount being taken away.

use crate::failure::Failure;
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the control API can wish for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wishes {
    pub(super) end: CancellationToken,
    pub(super) hand_over: CancellationToken,
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With the mount.
    Unmount,
    /// Alone: another daemon follows.
    HandOver,
}

/// SIGTERM, SIGINT and SIGHUP (the terminal went), caught from the moment this is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::from_io(&error, "catch", Path::new("signals")));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Waits for whatever comes first.
    pub(super) async fn wait_for_end(&mut self, mount: &Arc<kvfs::fuse::Mount>, wishes: &Wishes) -> End {
        let waiting = Arc::clone(mount);
        let gone = tokio::task::spawn_blocking(move || waiting.wait());
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: unmounting"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: unmounting"),
            _ = self.hangup.recv() => tracing::info!("SIGHUP: unmounting"),
            () = wishes.end.cancelled() => tracing::info!("asked to unmount"),
            () = wishes.hand_over.cancelled() => {
                tracing::info!("asked to make room for another daemon");
                return End::HandOver;
            }
            result = gone => match result {
                Ok(Ok(())) => tracing::info!("unmounted from outside"),
                Ok(Err(error)) => tracing::error!(%error, "the mount has ended"),
                Err(error) => tracing::error!(%error, "the wait for the mount broke off"),
            },
        }
        End::Unmount
    }
}
