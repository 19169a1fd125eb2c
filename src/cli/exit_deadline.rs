//! A limit on the time that a program takes to end, even if something hangs.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::signal::unix::{SignalKind, signal};

use super::{Env, Exit, Output};

/// Ends the process at a set time, unless this is dropped before.
///
/// A program that cleans up waits for disks, and for threads that wait for disks, and a disk may
/// never answer. Create this before anything else, so that it is dropped last.
pub(super) struct ExitDeadline {
    /// `None` in a program that a test runs in its own process.
    stderr: Option<Output>,
    deadline: Arc<Deadline>,
}

#[derive(Default)]
struct Deadline {
    state: Mutex<DeadlineState>,
    changed: Condvar,
}

#[derive(Default)]
struct DeadlineState {
    /// When the process ends, and how.
    at: Option<(Instant, Exit)>,
    is_watched: bool,
    is_over: bool,
}

impl ExitDeadline {
    /// Creates it for the process of `env`. It does nothing if a test made `env`.
    pub(super) fn new(env: &Env) -> Self {
        let stderr = env.is_process().then(|| env.stderr().clone());
        Self { stderr, deadline: Arc::default() }
    }

    /// Ends the process with `exit` after `time`. An earlier time that was set before stays.
    pub(super) fn set(&self, time: Duration, exit: Exit) {
        let Some(stderr) = self.stderr.clone() else { return };
        let at = Instant::now() + time;
        let mut state = self.deadline.state.lock();
        if state.at.is_none_or(|(before, _)| at < before) {
            state.at = Some((at, exit));
        }
        let is_watched = std::mem::replace(&mut state.is_watched, true);
        drop(state);
        self.deadline.changed.notify_all();
        if !is_watched {
            let deadline = Arc::clone(&self.deadline);
            let watch = move || {
                if let Some(exit) = deadline.wait() {
                    end(stderr, exit);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("end".to_owned()).spawn(watch) {
                tracing::warn!(%error, "there is no time limit on ending");
            }
        }
    }
}

impl Drop for ExitDeadline {
    fn drop(&mut self) {
        self.deadline.state.lock().is_over = true;
        self.deadline.changed.notify_all();
    }
}

impl Deadline {
    /// Waits for the set time. Returns `None` if the program has ended by itself.
    fn wait(&self) -> Option<Exit> {
        let mut state = self.state.lock();
        loop {
            match state.at {
                _ if state.is_over => return None,
                Some((at, exit)) if at <= Instant::now() => return Some(exit),
                Some((at, _)) => drop(self.changed.wait_until(&mut state, at)),
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// Ends the process. A reader of stderr may not take the message, so writing it has a time limit.
fn end(stderr: Output, exit: Exit) -> ! {
    if exit != Exit::Interrupted {
        let (said, heard) = sync_channel::<()>(1);
        let speaker = std::thread::Builder::new().spawn(move || {
            let error = "error: ended before everything was saved: a disk does not answer";
            // If stderr is closed nobody can be told.
            let _ = stderr.line(error);
            let _ = said.send(());
        });
        if speaker.is_ok() {
            let _ = heard.recv_timeout(LAST_WORD);
        }
    }
    std::process::exit(exit as i32)
}

/// Erases the live lines on the terminal before SIGINT or SIGTERM ends the process. For programs
/// that do not handle signals themselves.
pub(super) fn tidy_on_signals(env: &Env) {
    if !env.is_process() || !env.stderr().is_terminal() {
        return;
    }
    let live_stderr = env.live_stderr().clone();
    let listen = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            live_stderr.clear();
            std::process::exit(Exit::Interrupted as i32)
        })
    };
    let listen = move || {
        let result: std::io::Result<()> = listen();
        if let Err(error) = result {
            tracing::debug!(%error, "live lines stay on the terminal after a signal");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("signals".to_owned()).spawn(listen) {
        tracing::debug!(%error, "live lines stay on the terminal after a signal");
    }
}

/// Time from a signal to the end of a program.
pub(super) const TO_END: Duration = Duration::from_millis(9_800);

/// Time from a signal until the cleanup should be done.
pub(super) const TO_TIDY_UP: Duration = Duration::from_millis(9_400);

/// Time from a second signal to the end.
pub(super) const AT_ONCE: Duration = Duration::from_millis(200);

const LAST_WORD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_holds_and_an_end_that_came_before_is_none() {
        let deadline = Deadline::default();
        let now = Instant::now();
        deadline.state.lock().at = Some((now, Exit::Interrupted));
        assert_eq!(deadline.wait(), Some(Exit::Interrupted));

        let last = ExitDeadline { stderr: Some(Output::captured().0), deadline: Arc::default() };
        last.set(Duration::from_secs(3600), Exit::Failed);
        last.set(Duration::from_secs(7200), Exit::Fine);
        let (at, exit) = last.deadline.state.lock().at.unwrap();
        assert!(exit == Exit::Failed && at < Instant::now() + Duration::from_secs(3601));
        last.set(Duration::from_secs(1800), Exit::Interrupted);
        assert_eq!(last.deadline.state.lock().at.unwrap().1, Exit::Interrupted);
        let deadline = Arc::clone(&last.deadline);
        drop(last);
        assert_eq!(deadline.wait(), None);
    }
}
