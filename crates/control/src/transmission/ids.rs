//! Which torrents a request means.

use serde_json::Value;

use super::arguments::Arguments;
use piecework_core::InfoHash;

/// Which torrents a request means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Selection {
    /// It names none, so it means all.
    All,
    /// Those it names; what names none of ours is passed over.
    Named(Vec<Name>),
}

/// A torrent, or several, by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Name {
    Id(u64),
    Hash(InfoHash),
    /// Those that changed in the last minute.
    RecentlyActive,
}

impl Selection {
    /// Reads `ids`: a number, a hash, `recently_active`, or a list of them. An empty list means no
    /// torrent: who asks for the removal of none must not lose all.
    pub(super) fn read(given: &Arguments) -> Self {
        match given.raw("ids") {
            None => Self::All,
            Some(Value::Array(list)) => Self::Named(list.iter().filter_map(name).collect()),
            Some(one) => Self::Named(name(one).into_iter().collect()),
        }
    }

    /// The request is for what changed lately, and wants to know what is gone as well.
    pub(super) fn is_recently_active(&self) -> bool {
        matches!(self, Self::Named(names) if names[..] == [Name::RecentlyActive])
    }

    /// Something depends on what changed lately.
    pub(super) fn needs_recent(&self) -> bool {
        matches!(self, Self::Named(names) if names.contains(&Name::RecentlyActive))
    }

    /// Those that are meant, which need not be there, in no order; `None` if all are. `recent` are
    /// those that changed lately, `numbers` all torrents with their numbers, looked at only if some
    /// are named by number.
    pub(super) fn pick(
        &self,
        recent: Vec<InfoHash>,
        numbers: impl FnOnce() -> Vec<(u64, InfoHash)>,
    ) -> Option<Vec<InfoHash>> {
        let Self::Named(names) = self else { return None };
        let mut ids: Vec<u64> = Vec::new();
        // Once, however often it is said: else a short list would become a very long one.
        let mut hashes = if self.needs_recent() { recent } else { Vec::new() };
        for name in names {
            match name {
                Name::Id(id) => ids.push(*id),
                Name::Hash(hash) => hashes.push(*hash),
                Name::RecentlyActive => {}
            }
        }
        if !ids.is_empty() {
            ids.sort_unstable();
            let mut all = numbers();
            all.retain(|(id, _)| ids.binary_search(id).is_ok());
            hashes.extend(all.into_iter().map(|(_, hash)| hash));
        }
        Some(hashes)
    }
}

fn name(value: &Value) -> Option<Name> {
    match value {
        Value::String(text) if matches!(text.as_str(), "recently_active" | "recently-active") => {
            Some(Name::RecentlyActive)
        }
        Value::String(text) => text.parse().ok().map(Name::Hash),
        value => value.as_u64().map(Name::Id),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn picked(ids: Value, recent: &[InfoHash]) -> Vec<u64> {
        let all: Vec<_> = (1..=3).map(|id| (id, InfoHash([id as u8; 20]))).collect();
        let given = Arguments::new(json!({"ids": ids}).as_object().unwrap().clone());
        let picked = Selection::read(&given).pick(recent.to_vec(), || all.clone());
        let is_meant = |hash| picked.as_ref().is_none_or(|picked| picked.contains(hash));
        all.iter().filter(|(_, hash)| is_meant(hash)).map(|(id, _)| *id).collect()
    }

    #[test]
    fn torrents_are_named_by_number_hash_or_activity() {
        let hash = "02".repeat(20);
        assert_eq!(picked(json!(null), &[]), [1, 2, 3]);
        assert_eq!(picked(json!(3), &[]), [3]);
        assert_eq!(picked(json!(hash), &[]), [2]);
        assert_eq!(picked(json!([3, 1, 1, hash]), &[]), [1, 2, 3]);
        assert_eq!(picked(json!("recently_active"), &[InfoHash([1; 20])]), [1]);
        assert_eq!(picked(json!(["recently-active", 2]), &[InfoHash([1; 20])]), [1, 2]);
    }

    #[test]
    fn what_is_recent_counts_once_however_often_it_is_asked_for() {
        let asked = json!(["recently_active", "recently-active", "recently_active", 2]);
        assert_eq!(picked(asked.clone(), &[InfoHash([1; 20])]), [1, 2]);
        let given = Arguments::new(json!({"ids": asked}).as_object().unwrap().clone());
        let recent = vec![InfoHash([9; 20]); 5];
        let picked = Selection::read(&given).pick(recent, || vec![(2, InfoHash([2; 20]))]);
        assert_eq!(picked.unwrap().len(), 6);
    }

    #[test]
    fn what_names_no_torrent_means_none() {
        for none in [json!([]), json!("x"), json!([9, "x", {}]), json!({}), json!(-1), json!(true)]
        {
            assert_eq!(picked(none.clone(), &[]), [0; 0], "{none}");
        }
    }

    #[test]
    fn only_the_word_alone_asks_for_what_is_gone() {
        let read = |ids: Value| {
            Selection::read(&Arguments::new(json!({"ids": ids}).as_object().unwrap().clone()))
        };
        assert!(read(json!("recently_active")).is_recently_active());
        assert!(!read(json!([1, "recently_active"])).is_recently_active());
        assert!(read(json!([1, "recently_active"])).needs_recent());
        assert!(!read(json!([1])).needs_recent());
    }
}
