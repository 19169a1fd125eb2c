//! The word every request must bring: whoever cannot read our answers, as a page of another site
//! cannot, does not know it.

use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

/// The current word and the former one, which serves those who asked just before the change.
pub(super) struct SessionIds {
    current: String,
    former: Option<String>,
    changed: Instant,
}

impl SessionIds {
    pub(super) fn new(now: Instant) -> Self {
        Self { current: random_word(), former: None, changed: now }
    }

    /// The current word, a new one if its hour is over.
    pub(super) fn current(&mut self, now: Instant) -> &str {
        let age = now.saturating_duration_since(self.changed);
        if age >= LIFETIME {
            let last = std::mem::replace(&mut self.current, random_word());
            // Whoever was away for two hours comes with a word that nobody was told lately.
            self.former = (age < 2 * LIFETIME).then_some(last);
            self.changed = now;
        }
        &self.current
    }

    /// Whether `given` is the current word or the former.
    pub(super) fn accepts(&mut self, given: &[u8], now: Instant) -> bool {
        let current = self.current(now).as_bytes().ct_eq(given);
        let former = self.former.as_ref().map(|former| former.as_bytes().ct_eq(given));
        (current | former.unwrap_or_else(|| 0.into())).into()
    }
}

/// Letters and digits that nobody can guess.
fn random_word() -> String {
    let mut word = String::with_capacity(LENGTH);
    while word.len() < LENGTH {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).expect("the system has random numbers");
        // 248 is four times 62: a byte above would make the first letters likelier.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        let letters = letters.map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        word.extend(letters.take(LENGTH - word.len()));
    }
    word
}

/// As many characters as Transmission's: 286 bits.
const LENGTH: usize = 48;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How long a word is told, and then accepted: as Transmission has it.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_48_letters_and_digits_and_never_the_same() {
        let (one, other) = (random_word(), random_word());
        assert_eq!(one.len(), 48);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_ne!(one, other);
    }

    #[test]
    fn the_former_word_is_good_for_one_more_hour() {
        let start = Instant::now();
        let mut ids = SessionIds::new(start);
        let first = ids.current(start).to_owned();
        assert!(ids.accepts(first.as_bytes(), start));
        assert!(!ids.accepts(&first.as_bytes()[..47], start));
        assert!(!ids.accepts(b"", start));

        let second = ids.current(start + LIFETIME).to_owned();
        assert_ne!(second, first);
        assert!(ids.accepts(first.as_bytes(), start + LIFETIME));
        assert!(ids.accepts(second.as_bytes(), start + LIFETIME));
        assert!(!ids.accepts(first.as_bytes(), start + 2 * LIFETIME));
        assert!(ids.accepts(second.as_bytes(), start + 2 * LIFETIME));
        assert!(!ids.accepts(second.as_bytes(), start + 5 * LIFETIME));
    }
}
