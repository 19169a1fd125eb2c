//! Why a request failed: a sentence, and the error behind it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A sentence for the user, and the error that it reports, if there is one.
#[derive(Clone)]
pub struct Reason {
    sentence: Sentence,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

#[derive(Clone)]
enum Sentence {
    Own(String),
    /// The sentence of the cause.
    OfCause,
}

impl Reason {
    /// Returns a reason whose sentence is that of `cause`.
    pub fn of(cause: impl Error + Send + Sync + 'static) -> Self {
        Self { sentence: Sentence::OfCause, cause: Some(Arc::new(cause)) }
    }

    /// Returns a reason that reports `cause` in its own sentence.
    pub fn with_cause(
        sentence: impl Into<String>,
        cause: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { sentence: Sentence::Own(sentence.into()), cause: Some(Arc::new(cause)) }
    }

    /// Returns the error behind it, if that is a `T`.
    pub fn cause<T: Error + 'static>(&self) -> Option<&T> {
        self.cause.as_ref()?.downcast_ref()
    }
}

impl From<String> for Reason {
    fn from(sentence: String) -> Self {
        Self { sentence: Sentence::Own(sentence), cause: None }
    }
}

impl From<&str> for Reason {
    fn from(sentence: &str) -> Self {
        sentence.to_owned().into()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.sentence, &self.cause) {
            (Sentence::Own(sentence), _) => f.write_str(sentence),
            (Sentence::OfCause, Some(cause)) => cause.fmt(f),
            (Sentence::OfCause, None) => Ok(()),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("Reason");
        if let Sentence::Own(sentence) = &self.sentence {
            debug.field(sentence);
        }
        if let Some(cause) = &self.cause {
            debug.field(cause);
        }
        debug.finish()
    }
}

impl Error for Reason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause: &(dyn Error + 'static) = self.cause.as_deref()?;
        match self.sentence {
            Sentence::Own(_) => Some(cause),
            // The sentence is that of the cause, so the chain continues after it.
            Sentence::OfCause => cause.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_reason_keeps_its_cause_and_tells_of_it_once() {
        let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
        let own = Reason::with_cause("it is not written", refused());
        assert_eq!(own.to_string(), "it is not written");
        assert_eq!(own.source().unwrap().to_string(), refused().to_string());
        let of = Reason::of(refused());
        assert_eq!(of.to_string(), refused().to_string());
        assert!(of.source().is_none());
        for reason in [own, of] {
            let cause: &io::Error = reason.cause().unwrap();
            assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
            assert!(reason.cause::<fmt::Error>().is_none());
        }
        assert!(Reason::from("why").source().is_none());
    }
}
