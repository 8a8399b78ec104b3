//! Writing data segments back early: an fsync behind much writing finds little left to do, and the disk is busy while
//! the processors are.

use super::Engine;
use crate::error::{FsError, FsResult};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// So many unflushed bytes in data segments start a flush.
const EARLY_FLUSH_BYTES: u64 = 16 << 20;

#[derive(Debug, Default)]
struct Signals {
    wanted: bool,
    stop: bool,
}

#[derive(Debug, Default)]
struct Bell {
    signals: Mutex<Signals>,
    rung: Condvar,
}

/// The thread, and how it is told.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    bell: Arc<Bell>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Engine {
    /// Starts the thread; it lives as long as the engine.
    pub(super) fn start_writeback(engine: &Arc<Engine>) -> FsResult<()> {
        let (weak, bell) = (Arc::downgrade(engine), Arc::clone(&engine.writeback.bell));
        let thread = std::thread::Builder::new()
            .name("cbfs-writeback".into())
            .spawn(move || write_back(&weak, &bell))
            .map_err(|error| FsError::os("the writeback thread", &error))?;
        *engine.writeback.thread.lock() = Some(thread);
        Ok(())
    }

    /// Bytes were written to data segments: if there are many by now, they are flushed in the background.
    pub(super) fn note_written(&self) {
        if self.data.unflushed_bytes() >= EARLY_FLUSH_BYTES {
            self.writeback.bell.signals.lock().wanted = true;
            self.writeback.bell.rung.notify_one();
        }
    }
}

impl Writeback {
    pub(super) fn stop(&self) {
        self.bell.signals.lock().stop = true;
        self.bell.rung.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the writeback thread had ended by a panic");
        }
    }
}

fn write_back(engine: &Weak<Engine>, bell: &Bell) {
    loop {
        {
            let mut signals = bell.signals.lock();
            while !signals.stop && !signals.wanted {
                bell.rung.wait(&mut signals);
            }
            if signals.stop {
                return;
            }
            signals.wanted = false;
        }
        let Some(engine) = engine.upgrade() else { return };
        // A failure is final and has been noted: whoever writes or flushes next meets it.
        let _ = engine.flush_data();
    }
}
