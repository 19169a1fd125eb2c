//! Values that many owners share.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::SharedDefault;

/// A value that takes eight bytes per owner if it equals the default of its type, or a value that
/// an [`Interner`] has seen recently. Changing it does not change the values of other owners.
#[derive(Debug, Clone, Default)]
pub struct Interned<T>(Option<Arc<T>>);

/// Lets equal values share memory: the last few that it has seen.
#[derive(Debug)]
pub struct Interner<T> {
    /// Most recent first.
    seen: Vec<Arc<T>>,
}

impl<T: SharedDefault + Clone> Interned<T> {
    fn settled(value: T) -> Self {
        Self((value != *T::shared_default()).then(|| Arc::new(value)))
    }

    /// Changes the value. If it then equals the default, its memory is freed. `DerefMut` keeps the
    /// memory.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let mut value = self.0.take().map_or_else(T::default, Arc::unwrap_or_clone);
        let outcome = change(&mut value);
        *self = Self::settled(value);
        outcome
    }
}

impl<T: SharedDefault> Interner<T> {
    /// Lets `value` share memory with an equal one that was passed in recently.
    pub fn share(&mut self, value: &mut Interned<T>) {
        let Some(own) = &mut value.0 else { return };
        if **own == *T::shared_default() {
            value.0 = None;
            return;
        }
        match self.seen.iter().position(|seen| seen == own) {
            Some(at) => {
                *own = Arc::clone(&self.seen[at]);
                self.seen[..=at].rotate_right(1);
            }
            None => {
                self.seen.truncate(MOST_SEEN - 1);
                self.seen.insert(0, Arc::clone(own));
            }
        }
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { seen: Vec::new() }
    }
}

impl<T: SharedDefault> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: SharedDefault + Clone> From<T> for Interned<T> {
    fn from(value: T) -> Self {
        Self::settled(value)
    }
}

impl<T: SharedDefault> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or_else(|| T::shared_default())
    }
}

impl<T: SharedDefault + Clone> DerefMut for Interned<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl<T: SharedDefault + Serialize> Serialize for Interned<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(self, serializer)
    }
}

impl<'de, T: SharedDefault + Clone + Deserialize<'de>> Deserialize<'de> for Interned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::settled)
    }
}

/// Each value is compared with all of these when it changes, which is rare. A library has only a
/// few different labels, limits and trackers in its torrents.
const MOST_SEEN: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Chosen {
        label: String,
        limit: Option<u32>,
    }

    crate::shared_default!(Chosen);

    fn labelled(label: &str) -> Interned<Chosen> {
        Chosen { label: label.to_owned(), limit: None }.into()
    }

    #[test]
    fn equal_values_are_in_memory_once_and_the_default_takes_no_room() {
        let mut interner = Interner::default();
        let [mut one, mut two, mut other] = [labelled("a"), labelled("a"), labelled("b")];
        for value in [&mut one, &mut two, &mut other] {
            interner.share(value);
        }
        let address = |value: &Interned<Chosen>| value.0.as_ref().map(Arc::as_ptr);
        assert_eq!(address(&one), address(&two));
        assert_ne!(address(&one), address(&other));
        other.label.clear();
        interner.share(&mut other);
        assert_eq!(address(&other), None);
        assert_eq!(size_of::<Interned<Chosen>>(), 8);
    }

    #[test]
    fn what_nobody_has_had_lately_is_forgotten() {
        let mut interner = Interner::default();
        for number in 0..1_000 {
            interner.share(&mut labelled(&number.to_string()));
            interner.share(&mut labelled("often"));
        }
        assert_eq!(interner.seen.len(), MOST_SEEN);
        let (mut one, mut two) = (labelled("often"), labelled("often"));
        interner.share(&mut one);
        interner.share(&mut two);
        assert!(Arc::ptr_eq(one.0.as_ref().unwrap(), two.0.as_ref().unwrap()));
    }

    proptest! {
        /// Every owner has its own value, whatever memory is shared.
        #[test]
        fn sharing_changes_no_value(
            steps in proptest::collection::vec((0usize..6, 0u32..4, any::<bool>(), any::<bool>()), 1..100),
        ) {
            let mut interner = Interner::default();
            let mut values = vec![Interned::<Chosen>::default(); 6];
            let mut wanted = vec![Chosen::default(); 6];
            for (at, limit, settles, shares) in steps {
                let limit = (limit > 0).then_some(limit);
                if settles {
                    values[at].change(|value| value.limit = limit);
                } else {
                    values[at].limit = limit;
                }
                wanted[at].limit = limit;
                if shares {
                    interner.share(&mut values[at]);
                }
                let all: Vec<Chosen> = values.iter().map(|value| Chosen::clone(value)).collect();
                prop_assert_eq!(&all, &wanted);
            }
        }
    }
}
