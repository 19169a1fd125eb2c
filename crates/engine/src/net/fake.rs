//! A stream for tests, with a test at its other end.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Stream;

/// Cheap to clone: one clone for the code under test, one for the test.
#[derive(Clone, Default)]
pub(super) struct FakeStream {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Sent by the other side, and not read yet.
    incoming: Vec<u8>,
    /// What was written, and how much more may be.
    written: Vec<u8>,
    room: usize,
}

impl FakeStream {
    /// Sends `bytes` to the code under test.
    pub(super) fn send(&self, bytes: &[u8]) {
        self.state.lock().incoming.extend_from_slice(bytes);
        self.changed.notify_waiters();
    }

    /// Lets `bytes` more be written.
    pub(super) fn take(&self, bytes: usize) {
        self.state.lock().room += bytes;
        self.changed.notify_waiters();
    }

    /// Returns all that was written.
    pub(super) fn written(&self) -> Vec<u8> {
        self.state.lock().written.clone()
    }

    /// Returns how much was sent and not read.
    pub(super) fn unread(&self) -> usize {
        self.state.lock().incoming.len()
    }

    /// Waits until `done` holds for what was written.
    pub(super) async fn until_written(&self, done: impl Fn(&[u8]) -> bool) {
        self.until(|state| done(&state.written)).await;
    }

    async fn until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if done(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl Stream for FakeStream {
    async fn readable(&self) -> io::Result<()> {
        self.until(|state| !state.incoming.is_empty()).await;
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        self.until(|state| state.room > 0).await;
        Ok(())
    }

    fn try_read(&self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut read = 0;
        for slice in into {
            let part = slice.len().min(state.incoming.len() - read);
            slice[..part].copy_from_slice(&state.incoming[read..read + part]);
            read += part;
        }
        state.incoming.drain(..read);
        Ok(read)
    }

    fn try_write(&self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if state.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        for slice in from {
            let part = slice.len().min(state.room);
            state.written.extend_from_slice(&slice[..part]);
            state.room -= part;
            written += part;
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(written)
    }
}
