//! A few threads that survey files, one torrent after the other.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::runtime::Handle;

/// Jobs that survey files, and the threads that do them.
#[derive(Default)]
pub(super) struct CheckWorkers {
    queue: Mutex<WorkQueue>,
}

#[derive(Default)]
struct WorkQueue {
    jobs: VecDeque<Box<dyn FnOnce() + Send>>,
    workers: usize,
}

impl CheckWorkers {
    /// Does `job` when a thread is free. It may block.
    pub(crate) fn submit(self: &Arc<Self>, runtime: &Handle, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock();
        queue.jobs.push_back(Box::new(job));
        if queue.workers < WORKERS {
            queue.workers += 1;
            // The end of a runtime waits for its threads: they must not keep the session alive.
            let workers = Arc::downgrade(self);
            runtime.spawn_blocking(move || work(&workers));
        }
    }

    /// Gives up the jobs that have not begun.
    pub(crate) fn clear(&self) {
        let jobs = std::mem::take(&mut self.queue.lock().jobs);
        // Not under the lock: a job may hold the last reference to a torrent.
        drop(jobs);
    }

    fn next(&self) -> Option<Box<dyn FnOnce() + Send>> {
        let mut queue = self.queue.lock();
        let job = queue.jobs.pop_front();
        if job.is_none() {
            queue.workers -= 1;
        }
        job
    }
}

fn work(workers: &Weak<CheckWorkers>) {
    while let Some(job) = workers.upgrade().and_then(|workers| workers.next()) {
        job();
    }
}

/// Threads that look at files at a time: enough that one slow disk does not hold up all others.
const WORKERS: usize = 4;
