//! A gate at which jobs wait, as if a disk hung.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// The point where jobs wait.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn pass(&self) {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
    }

    /// Lets all waiting and future jobs pass.
    pub(crate) fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }
}

/// After a failed test nobody may keep waiting: a pool joins its threads.
impl Drop for Gate {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.open();
        }
    }
}
