//! A value that equals its default for most of its owners.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that is allocated only if it differs from the default of its type. Ten thousand torrents
/// with default settings take eight bytes each instead of some hundreds.
#[derive(Debug, Clone, Default)]
pub struct BoxedDefault<T>(Option<Box<T>>);

/// A type with one shared default value. [`shared_default!`](crate::shared_default) implements it.
pub trait SharedDefault: Default + PartialEq + 'static {
    /// Returns the shared default.
    fn shared_default() -> &'static Self;
}

/// Implements [`SharedDefault`] for a type.
#[macro_export]
macro_rules! shared_default {
    ($of:ty) => {
        impl $crate::SharedDefault for $of {
            fn shared_default() -> &'static Self {
                static DEFAULT: std::sync::OnceLock<$of> = std::sync::OnceLock::new();
                DEFAULT.get_or_init(Self::default)
            }
        }
    };
}

impl<T: SharedDefault> BoxedDefault<T> {
    /// Allocates only if the value differs from the default.
    fn settled(value: T) -> Self {
        Self((value != *T::shared_default()).then(|| Box::new(value)))
    }

    /// Changes the value. If it then equals the default, its memory is freed. `DerefMut` keeps the
    /// memory.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.take().map_or_else(T::default, |value| *value);
        let outcome = change(&mut value);
        *self = Self::settled(value);
        outcome
    }
}

impl<T: SharedDefault> PartialEq for BoxedDefault<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: SharedDefault> From<T> for BoxedDefault<T> {
    fn from(value: T) -> Self {
        Self::settled(value)
    }
}

impl<T: SharedDefault> Deref for BoxedDefault<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::shared_default())
    }
}

impl<T: SharedDefault> DerefMut for BoxedDefault<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: SharedDefault + Serialize> Serialize for BoxedDefault<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<'de, T: SharedDefault + Deserialize<'de>> Deserialize<'de> for BoxedDefault<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Chosen {
        paused: bool,
        label: String,
    }

    shared_default!(Chosen);

    #[test]
    fn the_default_takes_no_room_wherever_it_comes_from() {
        let text = serde_json::to_string(&Chosen::default()).unwrap();
        let read: BoxedDefault<Chosen> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, BoxedDefault::default());
        assert_eq!(BoxedDefault::from(Chosen::default()), read);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert!(read.0.is_none());
        assert_eq!(size_of::<BoxedDefault<Chosen>>(), 8);
    }

    #[test]
    fn what_is_changed_back_takes_no_room_again() {
        let mut chosen = BoxedDefault::from(Chosen::default());
        assert!(!chosen.change(|chosen| std::mem::replace(&mut chosen.paused, true)));
        assert!(chosen.paused);
        assert!(chosen.change(|chosen| std::mem::take(&mut chosen.paused)));
        assert!(chosen.0.is_none());
    }

    #[test]
    fn what_was_changed_is_kept() {
        let mut chosen = BoxedDefault::from(Chosen::default());
        chosen.paused = true;
        assert!(chosen.paused);
        let text = serde_json::to_string(&chosen).unwrap();
        let read: BoxedDefault<Chosen> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, chosen);
        assert!(read.paused);
    }
}
