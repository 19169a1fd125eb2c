//! A program's run in a journal.

/// A program's run in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRun {
    /// The number of the run.
    pub id: i64,
    /// The id of the last response before the run.
    pub given: i64,
    /// The id of the last wrong piece before the run.
    pub bad: i64,
}
