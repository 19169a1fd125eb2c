//! What `torrent_set` asks for, as a change of the daemon's.

use std::collections::BTreeMap;

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::limits::{IDLE, RATIO, change_rate};
use super::memory::TorrentMemory;
use super::trackers;
use piecework_api::{FileInfo, TorrentChange, TorrentDetail};
use piecework_core::Priority;

/// The change of a torrent that the request asks for. What is to be remembered of it is put into
/// `memory`, which is to be kept if the daemon takes the change.
pub(super) fn change(
    given: &Arguments,
    detail: &TorrentDetail,
    memory: &mut TorrentMemory,
) -> Result<TorrentChange, Fault> {
    let settings = &detail.torrent.settings;
    let figures = &mut memory.figures;
    let up = ("upload_limit", "upload_limited");
    let down = ("download_limit", "download_limited");
    Ok(TorrentChange {
        // For the daemon no limit is 0.
        upload_limit: change_rate(given, up, settings.upload_limit, figures)?
            .map(Option::unwrap_or_default),
        download_limit: change_rate(given, down, settings.download_limit, figures)?
            .map(Option::unwrap_or_default),
        session_limits: given.flag("honors_session_limits")?,
        max_peers: given.count("peer_limit")?,
        bandwidth: bandwidth(given)?,
        sequential: given.flag("sequential_download")?,
        files: files(given, &detail.file_list, &mut memory.priorities)?,
        only_files: None,
        labels: labels(given)?,
        seed_ratio: RATIO.change(given, settings.seed_ratio, figures)?,
        seed_time: None,
        seed_idle: IDLE.change(given, settings.seed_idle, figures)?,
        trackers: trackers::change(given, &detail.trackers)?,
        queue_position: given.count("queue_position")?,
        group: given.text("group")?.map(str::to_owned),
    })
}

/// `bandwidth_priority`: -1, 0 or 1.
pub(super) fn bandwidth(given: &Arguments) -> Result<Option<Priority>, Fault> {
    match given.whole("bandwidth_priority")? {
        None => Ok(None),
        Some(-1) => Ok(Some(Priority::Low)),
        Some(0) => Ok(Some(Priority::Normal)),
        Some(1) => Ok(Some(Priority::High)),
        Some(other) => {
            let detail = format!("`bandwidth_priority` must be -1, 0 or 1, not `{other}`");
            Err(Fault::new(Code::InvalidParams, detail))
        }
    }
}

/// `labels`, trimmed.
pub(super) fn labels(given: &Arguments) -> Result<Option<Vec<String>>, Fault> {
    let Some(labels) = given.texts("labels")? else { return Ok(None) };
    let checked = labels.into_iter().map(|label| match label.trim() {
        "" => Err(Fault::new(Code::InvalidParams, "labels cannot be empty")),
        label if label.contains(',') => {
            Err(Fault::new(Code::InvalidParams, "labels cannot contain comma (,) character"))
        }
        label => Ok(label.to_owned()),
    });
    checked.collect::<Result<_, _>>().map(Some)
}

/// Whether a file is wanted, and how much: two things to Transmission, one to the daemon.
#[derive(Clone, Copy, PartialEq)]
struct Wish {
    wanted: bool,
    priority: Priority,
}

/// The files that are wanted otherwise from now on. An empty list means every file.
fn files(
    given: &Arguments,
    files: &[FileInfo],
    kept: &mut BTreeMap<u32, Priority>,
) -> Result<Vec<(u32, Priority)>, Fault> {
    let mut wishes: Vec<Wish> = files
        .iter()
        .map(|file| {
            let wanted = file.priority.is_wanted();
            let kept = kept.get(&file.index).copied().unwrap_or_default();
            Wish { wanted, priority: if wanted { file.priority } else { kept } }
        })
        .collect();
    for (key, wish) in FILE_KEYS {
        let Some(indices) = given.indices(key)? else { continue };
        if indices.is_empty() {
            wishes.iter_mut().for_each(wish);
        }
        for index in indices {
            wish(wishes.get_mut(index as usize).ok_or(Code::FileIndex)?);
        }
    }
    let mut changes = Vec::new();
    for (file, wish) in files.iter().zip(wishes) {
        if wish.wanted {
            kept.remove(&file.index);
        } else {
            kept.insert(file.index, wish.priority);
        }
        let priority = if wish.wanted { wish.priority } else { Priority::Skip };
        if priority != file.priority {
            changes.push((file.index, priority));
        }
    }
    Ok(changes)
}

/// A key for files, and what it does with one.
type FileKey = (&'static str, fn(&mut Wish));

/// What the keys for files do, in the order in which they do it.
const FILE_KEYS: [FileKey; 5] = [
    ("files_unwanted", |wish| wish.wanted = false),
    ("files_wanted", |wish| wish.wanted = true),
    ("priority_high", |wish| wish.priority = Priority::High),
    ("priority_low", |wish| wish.priority = Priority::Low),
    ("priority_normal", |wish| wish.priority = Priority::Normal),
];

/// How much each file of a torrent yet to be added is wanted; files nobody names are normal, and
/// an empty list names none. A priority given to a file that is not wanted is lost.
pub(super) fn new_files(given: &Arguments) -> Result<Vec<Priority>, Fault> {
    let mut wishes: Vec<Wish> = Vec::new();
    for (key, wish) in FILE_KEYS {
        for index in given.indices(key)?.unwrap_or_default() {
            let index = index as usize;
            if index >= MAX_FILES {
                return Err(Code::FileIndex.into());
            }
            if wishes.len() <= index {
                wishes.resize(index + 1, Wish { wanted: true, priority: Priority::Normal });
            }
            wish(&mut wishes[index]);
        }
    }
    let priority = |wish: &Wish| if wish.wanted { wish.priority } else { Priority::Skip };
    Ok(wishes.iter().map(priority).collect())
}

/// More files no torrent that can be added has.
const MAX_FILES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::samples;
    use super::*;
    use piecework_api::SeedLimit;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    fn changed(value: Value) -> Result<TorrentChange, Fault> {
        change(&arguments(value), &samples::detail(), &mut TorrentMemory::default())
    }

    #[test]
    fn nothing_asked_is_nothing_changed() {
        assert_eq!(changed(json!({"ids": [1]})).unwrap(), TorrentChange::default());
    }

    #[test]
    fn every_key_reaches_the_daemon() {
        let change = changed(json!({
            "bandwidth_priority": 1, "download_limit": 20, "download_limited": true,
            "upload_limit": 10, "upload_limited": true, "honors_session_limits": false,
            "peer_limit": 7, "sequential_download": true, "sequential_download_from_piece": 0,
            "labels": [" a ", "b"], "seed_ratio_limit": 1.5, "seed_ratio_mode": 1,
            "seed_idle_limit": 2, "seed_idle_mode": 1, "queue_position": 3, "group": "slow",
            "files_unwanted": [0], "priority_high": [1], "tracker_list": "http://x.org/announce",
        }));
        let expected = TorrentChange {
            upload_limit: Some(10_000),
            download_limit: Some(20_000),
            session_limits: Some(false),
            max_peers: Some(7),
            bandwidth: Some(Priority::High),
            sequential: Some(true),
            files: vec![(0, Priority::Skip), (1, Priority::High)],
            only_files: None,
            labels: Some(vec!["a".to_owned(), "b".to_owned()]),
            seed_ratio: Some(SeedLimit::At(1.5)),
            seed_time: None,
            seed_idle: Some(SeedLimit::At(120)),
            trackers: Some(vec![vec!["http://x.org/announce".to_owned()]]),
            queue_position: Some(3),
            group: Some("slow".to_owned()),
        };
        assert_eq!(change.unwrap(), expected);
    }

    #[test]
    fn line_17_what_there_is_not_is_passed_over_and_numbers_may_have_fractions() {
        let change = changed(json!({
            "sequential_download_from_piece": 5, "no_such_key": {}, "upload_limit": 9.765625,
            "upload_limited": "true", "peer_limit": 7.5, "seed_idle_limit": 1.5, "seed_idle_mode": 1.0,
        }));
        let expected = TorrentChange {
            upload_limit: Some(9_766),
            max_peers: Some(7),
            seed_idle: Some(SeedLimit::At(90)),
            ..TorrentChange::default()
        };
        assert_eq!(change.unwrap(), expected);
    }

    #[test]
    fn switching_a_limit_off_is_no_limit_to_the_daemon() {
        let mut detail = samples::detail();
        detail.torrent.settings.upload_limit = Some(5_000);
        let given = arguments(json!({"upload_limited": false, "download_limited": false}));
        let change = change(&given, &detail, &mut TorrentMemory::default()).unwrap();
        assert_eq!((change.upload_limit, change.download_limit), (Some(0), None));
    }

    #[test]
    fn a_file_keeps_its_priority_while_it_is_not_wanted() {
        let mut detail = samples::detail();
        let mut memory = TorrentMemory::default();
        let mut set = |detail: &mut TorrentDetail, value| {
            let change = change(&arguments(value), detail, &mut memory).unwrap();
            for (index, priority) in change.files {
                detail.file_list[index as usize].priority = priority;
            }
            detail.file_list.iter().map(|file| file.priority).collect::<Vec<_>>()
        };
        use Priority::{High, Low, Normal, Skip};
        assert_eq!(set(&mut detail, json!({"priority_high": [0]})), [High, Normal]);
        assert_eq!(set(&mut detail, json!({"files_unwanted": []})), [Skip, Skip]);
        assert_eq!(set(&mut detail, json!({"priority_low": [1]})), [Skip, Skip]);
        assert_eq!(set(&mut detail, json!({"files_wanted": []})), [High, Low]);
        assert_eq!(
            set(&mut detail, json!({"files_wanted": [0], "files_unwanted": [0]})),
            [High, Low]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let code = |value| changed(value).unwrap_err().code;
        assert_eq!(code(json!({"files_wanted": [2]})), Code::FileIndex);
        assert_eq!(code(json!({"labels": [" "]})), Code::InvalidParams);
        assert_eq!(code(json!({"labels": ["a,b"]})), Code::InvalidParams);
        assert_eq!(code(json!({"bandwidth_priority": 2})), Code::InvalidParams);
        assert_eq!(code(json!({"tracker_remove": [5]})), Code::SetAnnounceList);
        assert_eq!(code(json!({"upload_limit": -1})), Code::InvalidParams);
    }

    #[test]
    fn files_of_a_new_torrent_are_normal_unless_named() {
        let files = |value| new_files(&arguments(value));
        use Priority::{High, Normal, Skip};
        assert_eq!(files(json!({})).unwrap(), []);
        assert_eq!(files(json!({"files_unwanted": []})).unwrap(), []);
        assert_eq!(
            files(json!({"files_unwanted": [2], "priority_high": [0, 2]})).unwrap(),
            [High, Normal, Skip]
        );
        assert!(files(json!({"files_unwanted": [4_000_000_000_u32]})).is_err());
    }
}
