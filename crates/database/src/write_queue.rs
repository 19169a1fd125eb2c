//! A queue in front of a database, and the thread that writes its content.

use std::fmt::Display;
use std::io;
use std::ops::{Deref, DerefMut};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

/// What waits to be written. All methods run under the lock of the queue, so they must be quick.
pub trait Backlog {
    /// What is written in one transaction.
    type Batch;

    /// What is left when the thread ends.
    type Rest;

    /// Returns when the thread has to write.
    fn due(&self) -> Due;

    /// Takes what is to be written next.
    fn take(&mut self) -> Self::Batch;

    /// Returns whether a batch has left something that must be written before the thread ends.
    fn has_more(&self) -> bool {
        false
    }

    /// Called when the thread has ended, perhaps by a panic: nothing will be written any more. The
    /// returned value is dropped without the lock.
    fn abandon(&mut self) -> Self::Rest;
}

/// When the thread has to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// At this time at the latest.
    At(Instant),
    /// Not before somebody calls [`WriteQueue::wake`].
    Never,
}

/// A queue that many threads fill and one empties, see [`WriteQueue::run`].
#[derive(Debug)]
pub struct WriteQueue<B> {
    slot: Mutex<Slot<B>>,
    /// Wakes the thread.
    wake: Condvar,
    /// Wakes those who wait for a batch to be written.
    written: Condvar,
}

/// A locked queue. Dereferences to the backlog.
pub struct QueueGuard<'a, B>(MutexGuard<'a, Slot<B>>);

#[derive(Debug)]
struct Slot<B> {
    backlog: B,
    /// The thread is to end once everything is written.
    is_closed: bool,
    has_ended: bool,
    /// The thread waits to be woken.
    is_idle: bool,
}

/// Marks the thread as ended when dropped, so that nobody waits for it any longer.
#[must_use = "dropping it tells those who wait that the thread has ended"]
pub struct Ending<'a, B: Backlog>(&'a WriteQueue<B>);

impl<B: Backlog> WriteQueue<B> {
    /// Creates a queue that holds `backlog`.
    pub fn new(backlog: B) -> Self {
        let slot = Slot { backlog, is_closed: false, has_ended: false, is_idle: false };
        Self { slot: Mutex::new(slot), wake: Condvar::new(), written: Condvar::new() }
    }

    /// Locks the queue.
    pub fn lock(&self) -> QueueGuard<'_, B> {
        QueueGuard(self.slot.lock())
    }

    /// Makes the thread check whether something is due.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Makes the thread end once everything is written. Returns whether it was closed already.
    pub fn close(&self) -> bool {
        let was_closed = std::mem::replace(&mut self.slot.lock().is_closed, true);
        self.wake();
        was_closed
    }

    /// Waits until a batch was written, successfully or not. Returns `false` if none was by
    /// `deadline`.
    pub fn wait_written(&self, guard: &mut QueueGuard<'_, B>, deadline: Instant) -> bool {
        !self.written.wait_until(&mut guard.0, deadline).timed_out()
    }

    /// Waits until something is due, and takes it. Returns whether it is the last batch.
    pub fn next(&self) -> (B::Batch, bool) {
        let mut slot = self.slot.lock();
        loop {
            match slot.backlog.due() {
                _ if slot.is_closed => break,
                Due::Now => break,
                Due::At(time) if time <= Instant::now() => break,
                Due::At(time) => {
                    // The reason why it ends is looked up above.
                    let _ = self.wake.wait_until(&mut slot, time);
                }
                Due::Never => {
                    slot.is_idle = true;
                    self.wake.wait(&mut slot);
                    slot.is_idle = false;
                }
            }
        }
        let batch = slot.backlog.take();
        let is_last = slot.is_closed && !slot.backlog.has_more();
        (batch, is_last)
    }

    /// Returns a guard that marks the thread as ended when dropped.
    pub fn ending(&self) -> Ending<'_, B> {
        Ending(self)
    }

    /// The body of the thread. Passes one batch after the other to `write`, with whether it is the
    /// last, until the queue is closed. Calls `rest` before each batch, when nobody waits for the
    /// thread.
    pub fn run<W>(
        &self,
        writer: &mut W,
        mut write: impl FnMut(&mut W, B::Batch, bool),
        mut rest: impl FnMut(&mut W),
    ) -> Ending<'_, B> {
        let ending = self.ending();
        loop {
            rest(writer);
            let (batch, is_last) = self.next();
            write(writer, batch, is_last);
            self.written.notify_all();
            if is_last {
                return ending;
            }
        }
    }
}

impl<B> QueueGuard<'_, B> {
    /// Returns whether the thread is to end once everything is written.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed
    }

    /// Makes the thread end once everything is written, like [`WriteQueue::close`].
    pub fn set_closed(&mut self) {
        self.0.is_closed = true;
    }

    /// Returns whether nothing will be written any more.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended
    }

    /// Returns whether the thread waits for [`WriteQueue::wake`].
    pub fn is_idle(&self) -> bool {
        self.0.is_idle
    }
}

impl<B> Deref for QueueGuard<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0.backlog
    }
}

impl<B> DerefMut for QueueGuard<'_, B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0.backlog
    }
}

impl<B: Backlog> Drop for Ending<'_, B> {
    fn drop(&mut self) {
        let mut slot = self.0.slot.lock();
        slot.is_closed = true;
        slot.has_ended = true;
        let abandoned = slot.backlog.abandon();
        drop(slot);
        drop(abandoned);
        self.0.written.notify_all();
    }
}

/// Why the last attempt to write failed, and when to try again. The pauses double from the first to the
/// longest.
#[derive(Debug)]
pub struct Retry<E> {
    failure: Option<Failure<E>>,
    first: Duration,
    longest: Duration,
}

#[derive(Debug)]
struct Failure<E> {
    error: E,
    pause: Duration,
    at: Instant,
}

impl<E: Display> Retry<E> {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { failure: None, first, longest }
    }

    /// Records that an attempt failed at `now`. Returns whether the error differs from the last
    /// one: it is logged once, not every few seconds.
    pub fn fail(&mut self, error: E, now: Instant) -> bool {
        let before = self.failure.take();
        let pause = before.as_ref().map_or(self.first, |it| (it.pause * 2).min(self.longest));
        let is_new = before.is_none_or(|it| it.error.to_string() != error.to_string());
        self.failure = Some(Failure { error, pause, at: now + pause });
        is_new
    }

    /// Records that an attempt succeeded. Returns whether the one before had failed.
    pub fn succeed(&mut self) -> bool {
        self.failure.take().is_some()
    }

    /// Returns why the last attempt failed; `None` if it succeeded.
    pub fn error(&self) -> Option<&E> {
        self.failure.as_ref().map(|failure| &failure.error)
    }

    /// Returns when to try again, if the last attempt failed.
    pub fn at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.at)
    }
}

/// The thread that writes a database.
#[derive(Debug)]
pub struct WriterThread {
    thread: Mutex<Option<JoinHandle<()>>>,
    writes: &'static str,
}

impl WriterThread {
    /// Starts a thread with a `name` of at most 15 bytes. `writes` completes a sentence in the log:
    /// "the journal", "the state".
    ///
    /// # Errors
    /// If the system cannot start another thread.
    pub fn spawn(
        name: &str,
        writes: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        Ok(Self { thread: Mutex::new(Some(thread)), writes })
    }

    /// Waits until the thread has ended.
    pub fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes {} has panicked", self.writes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// Numbers, three of which are written at a time.
    #[derive(Default)]
    struct Numbers {
        waiting: Vec<u32>,
        at: Option<Instant>,
        abandoned: usize,
    }

    impl Backlog for Numbers {
        type Batch = Vec<u32>;
        type Rest = Vec<u32>;

        fn due(&self) -> Due {
            match self.at {
                _ if self.waiting.len() >= 3 => Due::Now,
                Some(time) => Due::At(time),
                None => Due::Never,
            }
        }

        fn take(&mut self) -> Vec<u32> {
            self.at = None;
            let count = self.waiting.len().min(3);
            self.waiting.drain(..count).collect()
        }

        fn has_more(&self) -> bool {
            !self.waiting.is_empty()
        }

        fn abandon(&mut self) -> Vec<u32> {
            self.abandoned = self.waiting.len();
            std::mem::take(&mut self.waiting)
        }
    }

    fn start(queue: &Arc<WriteQueue<Numbers>>) -> (WriterThread, mpsc::Receiver<(Vec<u32>, bool)>) {
        let (sender, written) = mpsc::channel();
        let queue = Arc::clone(queue);
        let thread = WriterThread::spawn("numbers", "numbers", move || {
            let mut sender = sender;
            let write = |sender: &mut mpsc::Sender<_>, batch, is_last| {
                sender.send((batch, is_last)).unwrap();
            };
            let _ending = queue.run(&mut sender, write, |_| {});
        });
        (thread.unwrap(), written)
    }

    #[test]
    fn all_that_waits_is_written_before_the_thread_ends() {
        let queue = Arc::new(WriteQueue::new(Numbers::default()));
        let (thread, written) = start(&queue);
        queue.lock().waiting.extend([1, 2, 3]);
        queue.wake();
        assert_eq!(written.recv().unwrap(), (vec![1, 2, 3], false));
        queue.lock().at = Some(Instant::now());
        queue.wake();
        assert_eq!(written.recv().unwrap(), (vec![], false));
        queue.lock().waiting.extend(4..11);
        assert!(!queue.close() && queue.close());
        thread.join();
        let batches: Vec<_> = written.iter().collect();
        assert_eq!(batches, [(vec![4, 5, 6], false), (vec![7, 8, 9], false), (vec![10], true)]);
        assert!(queue.lock().has_ended() && queue.lock().is_closed());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_panicked() {
        let queue = Arc::new(WriteQueue::new(Numbers::default()));
        let (thread, written) = start(&queue);
        // The thread panics at its next batch.
        drop(written);
        let mut guard = queue.lock();
        guard.waiting.extend([1, 2, 3, 4]);
        queue.wake();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !guard.has_ended() {
            assert!(queue.wait_written(&mut guard, deadline), "the thread never ended");
        }
        assert_eq!(guard.abandoned, 1);
        drop(guard);
        thread.join();
    }

    #[test]
    fn pauses_grow_and_an_error_is_new_once() {
        let start = Instant::now();
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_secs(3));
        let pauses = ["full", "full", "read-only", "read-only"]
            .map(|error| (retry.fail(error, start), retry.at().unwrap() - start));
        let expected = [(true, 1), (false, 2), (true, 3), (false, 3)];
        assert_eq!(pauses, expected.map(|(is_new, pause)| (is_new, Duration::from_secs(pause))));
        assert_eq!(retry.error(), Some(&"read-only"));
        assert!(retry.succeed() && !retry.succeed());
        assert_eq!((retry.error(), retry.at()), (None, None));
        assert!(retry.fail("full", start));
        assert_eq!(retry.at(), Some(start + Duration::from_secs(1)));
    }
}
