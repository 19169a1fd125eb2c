//! What is kept of a torrent beside its `.torrent`, as text in the state.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::unfinished::Unfinished;
use piecework_api::{SeedRequest, TorrentSettings};
use piecework_core::{Interned, Interner, shared_default};
use piecework_storage::INCOMPLETE_SUFFIX;

/// What is kept of a torrent as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    pub settings: Interned<TorrentSettings>,
    /// Grows along the queue.
    pub rank: i64,
    pub started_at: Option<i64>,
    /// It stopped at a seeding limit.
    pub limit_reached: bool,
    /// Somebody started it all the same: its limits no longer hold.
    pub limits_waived: bool,
    /// It was made of what was here, or its data vouched for: it is served and never written to.
    pub seed: bool,
    /// Found again after the state was lost: it goes on by itself only if it is whole.
    pub rebuilt: bool,
    #[serde(flatten)]
    pub rare: Interned<KeptRare>,
}

/// The part of it that is the same for many torrents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeptRare {
    /// The tracker it was registered with.
    pub tracker: Option<Box<str>>,
    /// Registering it did not work yet.
    pub pending: Option<Box<Pending>>,
    /// Its files are being renamed or moved, or were when the process died.
    pub unfinished: Option<Box<Unfinished>>,
    /// Files that have the names of its files and are not its own are replaced, until it is whole.
    pub overwrite: bool,
    /// Such files stand in its way.
    pub hindered: bool,
    /// What the names of its unfinished files end with, since it was added: with another ending
    /// they would not be found. Those that were kept without one have whatever holds.
    #[serde(default)]
    pub suffix: Option<Cow<'static, str>>,
    /// Addresses of trackers that the owner named for it. `None` in what was kept before this was
    /// noted.
    #[serde(default)]
    pub named: Option<Vec<Box<str>>>,
    /// Its `.torrent` came from a tracker in a private network or on this machine.
    pub nearby: bool,
    /// Symbolic links led to some of its files when it was shared: they lie elsewhere, and are not
    /// removed with it.
    #[serde(default)]
    pub through_links: bool,
    /// Its files are to be hashed first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_hash: Option<Box<ToHash>>,
}

/// Has torrents that were told the same share memory for it, such as all that are registered with one
/// tracker.
#[derive(Debug, Default)]
pub(super) struct KeptInterner {
    settings: Interner<TorrentSettings>,
    rare: Interner<KeptRare>,
}

/// What is to be hashed, as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ToHash {
    /// The name of the file or folder.
    pub name: String,
    /// What was asked for, without the `.torrent` that may have come with it.
    pub request: SeedRequest,
    /// The owner at this machine asked, who may name any folder.
    pub local: bool,
}

/// How a torrent is to be registered as soon as its tracker is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Pending {
    /// The tracker, as people name it.
    pub tracker: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub unlisted: bool,
}

impl Kept {
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    pub fn to_text(&self) -> String {
        // Nothing in it can fail: strings, numbers and lists.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl KeptInterner {
    pub fn share(&mut self, kept: &mut Kept) {
        self.settings.share(&mut kept.settings);
        self.rare.share(&mut kept.rare);
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            settings: Interned::default(),
            rank: 0,
            started_at: None,
            limit_reached: false,
            limits_waived: false,
            seed: false,
            rebuilt: false,
            rare: KeptRare { suffix: None, ..KeptRare::default() }.into(),
        }
    }
}

impl Default for KeptRare {
    /// What most torrents have.
    fn default() -> Self {
        let suffix = Some(Cow::Borrowed(INCOMPLETE_SUFFIX));
        Self {
            tracker: None,
            pending: None,
            unfinished: None,
            overwrite: false,
            hindered: false,
            suffix,
            named: Some(Vec::new()),
            nearby: false,
            through_links: false,
            to_hash: None,
        }
    }
}

shared_default!(KeptRare);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let kept = Kept { rank: -3, seed: true, limit_reached: true, ..Kept::default() };
        assert_eq!(Kept::from_text(&kept.to_text()).unwrap(), kept);
        // What was kept before trackers were noted by who named them says nothing of it.
        let mut earlier = Kept::default();
        earlier.rare.named = None;
        assert_eq!(Kept::from_text("{}").unwrap(), earlier);
        for suffix in [None, Some(""), Some(INCOMPLETE_SUFFIX), Some(".x")] {
            let mut kept = kept.clone();
            kept.rare.suffix = suffix.map(Into::into);
            kept.rare.tracker = Some("a".into());
            assert_eq!(Kept::from_text(&kept.to_text()).unwrap(), kept);
        }
    }

    #[test]
    fn the_text_of_an_earlier_version_is_read() {
        let text = r#"{"settings":{"paused":true},"rank":7,"started_at":1,"tracker":"t",
            "pending":{"tracker":"t","unlisted":true},"rebuilt":false,
            "unfinished":{"move":{"folder":"/f"}},"suffix":".part"}"#;
        let kept = Kept::from_text(text).unwrap();
        assert!(kept.settings.paused);
        assert_eq!((kept.rank, kept.started_at), (7, Some(1)));
        let pending = Pending { tracker: "t".into(), unlisted: true, ..Pending::default() };
        let unfinished = Unfinished::Move { folder: "/f".into() };
        let wanted = KeptRare {
            tracker: Some("t".into()),
            pending: Some(Box::new(pending)),
            unfinished: Some(Box::new(unfinished)),
            overwrite: false,
            hindered: false,
            suffix: Some(".part".into()),
            named: None,
            nearby: false,
            through_links: false,
            to_hash: None,
        };
        assert_eq!(*kept.rare, wanted);
    }
}
