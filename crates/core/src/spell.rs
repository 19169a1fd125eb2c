//! Trouble that comes again and again, told once.

use std::time::Duration;

use super::Moment;

/// A fault that may come many times a second for as long as its cause lasts, such as a process that
/// is out of file descriptors: people are told when a spell of it begins, not each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spell {
    last: Option<Moment>,
}

impl Spell {
    /// It has happened. Says whether to tell anybody: the last time was [`Spell::QUIET`] ago or
    /// longer, or there was none.
    pub fn happened(&mut self, now: Moment) -> bool {
        let last = self.last.replace(now);
        last.is_none_or(|last| now.since(last) >= Self::QUIET)
    }

    /// Without trouble for so long, a spell is over. Shorter pauses are part of it: one descriptor
    /// that is given back and taken again ends nothing.
    pub const QUIET: Duration = Duration::from_secs(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spell_is_told_once_however_long_it_lasts() {
        let mut spell = Spell::default();
        let mut now = Moment::START;
        assert!(spell.happened(now));
        for _ in 0..10_000 {
            now = now + Duration::from_millis(100);
            assert!(!spell.happened(now));
        }
        now = now + (Spell::QUIET - Duration::from_millis(1));
        assert!(!spell.happened(now));
        now = now + Spell::QUIET;
        assert!(spell.happened(now));
        assert!(!spell.happened(now));
    }
}
