//! A program's run in a journal.

/// A program's run in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnRun {
    /// Its number.
    pub id: i64,
    /// The last response that was there before.
    pub given: i64,
    /// The last wrong piece that was there before.
    pub bad: i64,
}
