//! Events of a torrent's life.

/// An event, which the driver passes to [`Lifecycle::handle`](super::Lifecycle::handle).
///
/// The first group answers an [`Effect`](super::Effect): exactly one answer for each, whether it was told
/// to stop or not. The second group comes from users and drivers at any time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LifecycleEvent {
    /// An [`Effect::Survey`](super::Effect::Survey) is done.
    Surveyed(SurveyEnd),
    /// The slot of [`Effect::AskCheckSlot`](super::Effect::AskCheckSlot) was granted.
    CheckSlot,
    /// An [`Effect::StartCheck`](super::Effect::StartCheck) has ended.
    Checked(CheckEnd),
    /// The slot of [`Effect::AskStartSlot`](super::Effect::AskStartSlot) was granted.
    StartSlot,
    /// The files of an [`Effect::StartSwarm`](super::Effect::StartSwarm) are prepared. Its end follows
    /// later.
    SwarmStarted,
    /// An [`Effect::StartSwarm`](super::Effect::StartSwarm) has ended: it does not read or write any more.
    SwarmEnded(SwarmEnd),
    /// An [`Effect::StartWork`](super::Effect::StartWork) has ended.
    WorkDone {
        /// Whether it was done. Otherwise everything is as it was.
        done: bool,
    },
    /// An [`Effect::FetchMetadata`](super::Effect::FetchMetadata) has ended: the metadata is there, or it
    /// cannot be used. A fetch that was stopped gets no answer.
    Metadata(Result<(), FaultKind>),
    /// An [`Effect::Leave`](super::Effect::Leave) is done.
    Left,

    /// A user pauses it.
    Pause,
    /// A user, or the queue, has it continue: after a pause, and after a fault.
    Resume,
    /// The time of an [`Effect::ScheduleRetry`](super::Effect::ScheduleRetry) has come.
    RetryDue {
        /// There is room on the disk, if a full disk was the fault.
        room: bool,
    },
    /// A user wants everything to be hashed again. The torrent continues then.
    Recheck,
    /// Files that do not belong to the torrent may be replaced from now on.
    Overwrite,
    /// What the torrent has to do by itself, when that may have changed. Passed before the answer that
    /// makes content known, so that it is right by then.
    Workload(Workload),
    /// A peer has connected, or a tracker knows peers. Not needed while the swarm runs.
    Contacted,
    /// A checkpoint was recorded: files and pieces are known to be as it says.
    Checkpointed,
    /// Files must be moved, renamed or deleted. One job at a time: the next one after
    /// [`LifecycleEvent::WorkDone`].
    Work(WorkKind),
    /// Another fault stops it, for example because another torrent has one of its paths. What is known of
    /// the content stays known.
    Failed(FaultKind),
    /// It is removed, or the session ends.
    Close,
}

/// The kind of a fault that stops a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// It may pass by itself, for example a full disk.
    Passing,
    /// A user must do something about it.
    Lasting,
}

/// The result of a survey.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SurveyEnd {
    /// Everything is as the checkpoint says.
    Known,
    /// Some pieces must be hashed.
    Incomplete,
    /// The files could not be read.
    Failed(FaultKind),
}

/// The result of a check.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckEnd {
    /// It was told to stop, and will continue from there.
    Stopped,
    /// It is known which pieces are held.
    Known,
    /// Sampled pieces were wrong, so the pieces that they represent must be hashed as well.
    Incomplete,
    /// It is known which pieces are held, and some were lost that perhaps a user has replaced.
    Damaged(FaultKind),
    /// The files could not be read.
    Failed(FaultKind),
}

/// The result of a swarm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SwarmEnd {
    /// It was told to stop.
    Stopped,
    /// It has nothing to do.
    Idle,
    /// Files were changed before they were to be written. Nothing was written.
    Changed,
    /// Pieces that were held may be gone. The driver knows which.
    Doubted,
    /// A fault. The content is known as before.
    Refused(FaultKind),
    /// A fault after which it is not known what is on the disk.
    Failed(FaultKind),
    /// The same, and the checkpoint says more than is held.
    DoubtedAndFailed(FaultKind),
}

/// A job on files. Of two that are wanted at once, the last one here counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WorkKind {
    /// Move or rename files. The content stays the same.
    Move,
    /// The files are elsewhere. What is there must be hashed.
    Find,
    /// Delete files. The torrent is paused.
    Remove,
}

/// What a ready torrent has to do by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Workload {
    /// Nothing: it holds what it wants and knows nobody to dial.
    None,
    /// Pieces are wanted. It begins when a start slot is free.
    Download,
    /// There are peers to dial, or pieces to prove. It begins at once.
    Prompt,
}
