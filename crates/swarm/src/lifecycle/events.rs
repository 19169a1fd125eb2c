//! What happens to a torrent.

/// What happened.
///
/// The first group answers an [`Effect`](super::Effect): exactly one for each, whether it was told to stop
/// or not. The second comes from users and drivers at any time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LifecycleEvent {
    /// An [`Effect::Survey`](super::Effect::Survey) is done.
    Surveyed(SurveyEnd),
    /// The slot of [`Effect::AskCheckSlot`](super::Effect::AskCheckSlot) is there.
    CheckSlot,
    /// An [`Effect::StartCheck`](super::Effect::StartCheck) has ended.
    Checked(CheckEnd),
    /// The slot of [`Effect::AskStartSlot`](super::Effect::AskStartSlot) is there.
    StartSlot,
    /// The files of an [`Effect::StartSwarm`](super::Effect::StartSwarm) are prepared; its end follows.
    SwarmStarted,
    /// An [`Effect::StartSwarm`](super::Effect::StartSwarm) has ended: nothing of it reads or writes any
    /// more.
    SwarmEnded(SwarmEnd),
    /// An [`Effect::StartWork`](super::Effect::StartWork) has ended.
    WorkDone {
        /// It was done. Otherwise everything is as it was.
        done: bool,
    },
    /// An [`Effect::FetchMetadata`](super::Effect::FetchMetadata) has ended: the metadata is there, or it
    /// cannot be used. Nothing answers one that was stopped.
    Metadata(Result<(), FaultKind>),
    /// An [`Effect::Leave`](super::Effect::Leave) is done.
    Left,

    /// A user pauses it.
    Pause,
    /// A user, or the queue, has it continue: after a pause, and after a fault.
    Resume,
    /// The time of an [`Effect::ScheduleRetry`](super::Effect::ScheduleRetry) has come.
    RetryDue {
        /// There is room on the disk, if that was the fault.
        room: bool,
    },
    /// A user has everything hashed anew. It continues then.
    Recheck,
    /// Files that are not the torrent's may be replaced from now on.
    Overwrite,
    /// What it would do of its own accord, when that may have changed. Comes before the answer that makes
    /// content known, so that it is right by then.
    Workload(Workload),
    /// A peer has connected, or a tracker knows some. Not needed while the swarm runs.
    Contacted,
    /// A checkpoint was noted: files and pieces are known to be as it says.
    Checkpointed,
    /// Files are to be moved, renamed or deleted. One at a time: the next one after
    /// [`LifecycleEvent::WorkDone`].
    Work(WorkKind),
    /// Something else stops it: another torrent has one of its paths, for instance. What is known of the
    /// content stays known.
    Failed(FaultKind),
    /// It is removed, or the session ends.
    Close,
}

/// What kind of fault stops a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FaultKind {
    /// It may pass by itself, as a disk that is full.
    Passing,
    /// Somebody has to do something about it.
    Lasting,
}

/// What a survey has found.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SurveyEnd {
    /// Everything is as the checkpoint says.
    Known,
    /// Some pieces are to be hashed.
    Incomplete,
    /// The files could not be read.
    Failed(FaultKind),
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CheckEnd {
    /// It was told to stop, and goes on from there.
    Stopped,
    /// It is known which pieces are held.
    Known,
    /// Pieces that stood for others were wrong: those others are to be hashed as well.
    Incomplete,
    /// It is known which pieces are held, and some were lost that only a user may have replaced.
    Damaged(FaultKind),
    /// The files could not be read.
    Failed(FaultKind),
}

/// How a swarm ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SwarmEnd {
    /// It was told to stop.
    Stopped,
    /// It has nothing to do.
    Idle,
    /// Somebody has changed files before they were to be written: nothing was written.
    Changed,
    /// Pieces that were held may be gone: the driver knows which.
    Doubted,
    /// A fault, and the content is known as before.
    Refused(FaultKind),
    /// A fault after which it is not known what is on the disk.
    Failed(FaultKind),
    /// The same, and the checkpoint says more than is held.
    DoubtedAndFailed(FaultKind),
}

/// What is to be done to files. Of two that are asked for at once, the last one here counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WorkKind {
    /// They are moved or renamed: the content stays the same.
    Move,
    /// They are elsewhere: what is there is to be hashed.
    Find,
    /// They are deleted. The torrent is paused.
    Remove,
}

/// What a torrent that is ready has to do of its own accord.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Workload {
    /// Nothing: it holds what it wants and knows nobody to dial.
    None,
    /// Pieces are wanted. It begins when a start slot is free.
    Download,
    /// There is somebody to dial, or pieces to prove. It begins at once.
    Prompt,
}
