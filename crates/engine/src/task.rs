//! The tasks of torrents that are awake.
//!
//! A task is busy with what [`Lifecycle::occupation`](piecework_swarm::lifecycle::Lifecycle::occupation)
//! says: the torrent's swarm, a check, or work on files.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use piecework_swarm::lifecycle::{LifecycleEvent, Occupation, SwarmEnd};

use super::announce_scheduler::AnnounceScheduler;
use super::entry::{Call, Driver, Entry};
use super::holdings::HoldingsReports;
use super::lifecycle::LifecycleDriver;
use super::owners::PathOwners;
use super::prepare::Preparation;
use super::record::Record;
use super::reporter::Reporter;
use super::run::Run;
use super::start_slots;
use super::torrent::Torrent;

/// Starts the tasks of a session's torrents.
pub(super) struct TorrentTasks {
    pub lifecycle: Arc<LifecycleDriver>,
    pub paths: Arc<PathOwners>,
    pub reports: Arc<HoldingsReports>,
}

impl Driver for TorrentTasks {
    fn hear_asleep(
        &self,
        entry: &Arc<Entry>,
        record: &mut Record,
        call: Call,
    ) -> Result<bool, Call> {
        self.lifecycle.hear_asleep(entry, record, call)
    }

    fn wake(&self, entry: Arc<Entry>, record: Box<Record>, calls: mpsc::Receiver<Call>) {
        let (lifecycle, paths) = (Arc::clone(&self.lifecycle), Arc::clone(&self.paths));
        let means = Arc::clone(entry.means());
        let torrent = Torrent::new(lifecycle, paths, entry, record, calls);
        means.runtime.spawn(torrent.run());
    }

    fn report(&self, reporter: &Arc<Reporter>) {
        let reports = Arc::downgrade(&self.reports);
        let run = HoldingsReports::run(reports, Arc::clone(reporter));
        self.reports.means.runtime.spawn(run);
    }
}

impl Torrent {
    async fn run(mut self) {
        self.hold_slots();
        loop {
            let occupation = self.record().life.occupation();
            let is_at_files = matches!(occupation, Some(Occupation::Check | Occupation::Work(_)));
            if self.wants_changed && !is_at_files {
                self.wants_changed = false;
                self.make_wanted_empty_files().await;
                continue;
            }
            match occupation {
                Some(Occupation::Swarm) => self.swarm().await,
                Some(Occupation::Check) => self.check().await,
                Some(Occupation::Work(_)) => self.work().await,
                None if !self.leaving.is_empty() => return self.leave().await,
                None => match self.calls.try_recv() {
                    Ok(call) => self.order(call),
                    Err(_) if self.fall_asleep() => return,
                    Err(_) => {}
                },
            }
        }
    }

    /// Prepares the files and takes part in the swarm until that ends.
    async fn swarm(&mut self) {
        let ended = LifecycleEvent::SwarmEnded;
        let prepared = start_slots::begin(self.start_slot.clone(), self.prepare()).await;
        match prepared {
            Ok(Preparation::Files(files)) => self.note_prepared(files),
            Ok(Preparation::Changed) => return self.pass(ended(SwarmEnd::Changed)),
            Ok(Preparation::Refused(error)) => {
                return self.pass_fault(error, |kind| ended(SwarmEnd::Refused(kind)));
            }
            Err(error) => {
                return self.pass_fault(error.into(), |kind| ended(SwarmEnd::Failed(kind)));
            }
        }
        let (end, error) = Run::new(self).pump_until_end().await;
        // The workload has to be known before the swarm has ended, or another one would begin for
        // the old workload.
        self.pass(LifecycleEvent::SwarmStarted);
        self.pass_workload();
        if let Some(error) = error {
            self.record_mut().set_fault(Some(error));
        }
        self.pass(ended(end));
        self.show();
    }

    /// Tells the trackers, flushes, and answers.
    async fn leave(mut self) {
        let (record, leaving) = (self.take_record(), std::mem::take(&mut self.leaving));
        let (lifecycle, entry) = (Arc::clone(&self.lifecycle), Arc::clone(&self.entry));
        // No call is heard any more.
        drop(self);
        leave(&lifecycle.scheduler, &entry).await;
        if let Some(mut record) = record {
            lifecycle.pass(&entry, &mut record, LifecycleEvent::Left);
        }
        entry.end();
        for reply in leaving {
            // The caller may be gone.
            let _ = reply.send(());
        }
    }
}

/// Tells the trackers of a torrent that it leaves, and flushes its data.
pub(super) async fn leave(scheduler: &AnnounceScheduler, entry: &Arc<Entry>) {
    let store = entry.store();
    let synced = tokio::task::spawn_blocking(move || {
        let synced = store.sync();
        store.close_files();
        synced
    });
    let ((), synced) = tokio::join!(scheduler.leave(entry), synced);
    if let Ok(Err(error)) = synced {
        warn!(%error, "data could not be flushed to disk");
    }
}
