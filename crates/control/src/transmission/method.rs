//! What can be asked.

/// A method, by its number in the specification's sections 3 and 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Method {
    TorrentStart,
    TorrentStartNow,
    TorrentStop,
    TorrentVerify,
    TorrentReannounce,
    TorrentSet,
    TorrentGet,
    TorrentAdd,
    TorrentRemove,
    TorrentSetLocation,
    TorrentRenamePath,
    SessionGet,
    SessionSet,
    SessionStats,
    SessionClose,
    BlocklistUpdate,
    PortTest,
    QueueMoveTop,
    QueueMoveUp,
    QueueMoveDown,
    QueueMoveBottom,
    FreeSpace,
    GroupGet,
    GroupSet,
}

impl Method {
    /// The method of this name, in today's spelling.
    pub(super) fn named(name: &str) -> Option<Self> {
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    /// The method of this name in either spelling.
    pub(super) fn named_in_any_style(name: &str) -> Option<Self> {
        Self::named(&name.replace('-', "_"))
    }

    /// It only tells something: nobody misses it if nobody wants the answer.
    pub(super) fn only_tells(self) -> bool {
        use Method::{FreeSpace, GroupGet, PortTest, SessionGet, SessionStats, TorrentGet};
        matches!(self, FreeSpace | GroupGet | PortTest | SessionGet | SessionStats | TorrentGet)
    }
}

const METHODS: &[(&str, Method)] = &[
    ("torrent_get", Method::TorrentGet),
    ("torrent_set", Method::TorrentSet),
    ("torrent_add", Method::TorrentAdd),
    ("torrent_remove", Method::TorrentRemove),
    ("torrent_start", Method::TorrentStart),
    ("torrent_start_now", Method::TorrentStartNow),
    ("torrent_stop", Method::TorrentStop),
    ("torrent_verify", Method::TorrentVerify),
    ("torrent_reannounce", Method::TorrentReannounce),
    ("torrent_set_location", Method::TorrentSetLocation),
    ("torrent_rename_path", Method::TorrentRenamePath),
    ("session_get", Method::SessionGet),
    ("session_set", Method::SessionSet),
    ("session_stats", Method::SessionStats),
    ("session_close", Method::SessionClose),
    ("blocklist_update", Method::BlocklistUpdate),
    ("port_test", Method::PortTest),
    ("queue_move_top", Method::QueueMoveTop),
    ("queue_move_up", Method::QueueMoveUp),
    ("queue_move_down", Method::QueueMoveDown),
    ("queue_move_bottom", Method::QueueMoveBottom),
    ("free_space", Method::FreeSpace),
    ("group_get", Method::GroupGet),
    ("group_set", Method::GroupSet),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_both_names() {
        assert_eq!(Method::named("torrent_get"), Some(Method::TorrentGet));
        assert_eq!(Method::named("torrent-get"), None);
        assert_eq!(Method::named_in_any_style("torrent-get"), Some(Method::TorrentGet));
        assert_eq!(Method::named_in_any_style("torrent_get"), Some(Method::TorrentGet));
        assert_eq!(Method::named_in_any_style(""), None);
        assert_eq!(METHODS.len(), 24);
    }
}
