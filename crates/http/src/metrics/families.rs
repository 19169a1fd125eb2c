//! All families of metrics: of the daemon, of the tracker, and of any program.

use super::{Family, Kind};

/// Declares families, and a list of them.
macro_rules! families {
    (
        $(#[$about:meta])* $list:ident:
        $($constant:ident = $kind:ident $name:literal $([$label:literal])? $help:literal;)*
    ) => {
        $(
            #[doc = $help]
            pub const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                label: families!(@label $($label)?),
                help: $help,
            };
        )*
        $(#[$about])*
        pub const $list: &[Family] = &[$($constant),*];
    };
    (@label) => { None };
    (@label $label:literal) => { Some($label) };
}

families! {
    /// The families of every program with metrics.
    PROCESS:
    BUILD_INFO = Gauge "piecework_build_info" ["version"]
        "1, with the program's version.";
    CPU_SECONDS = Counter "process_cpu_seconds_total"
        "Processor time used, in user and system mode.";
    RESIDENT_BYTES = Gauge "process_resident_memory_bytes"
        "Memory in use.";
    VIRTUAL_BYTES = Gauge "process_virtual_memory_bytes"
        "Address space taken.";
    OPEN_FDS = Gauge "process_open_fds"
        "Open file descriptors, sockets included.";
    MAX_FDS = Gauge "process_max_fds"
        "Open file descriptors at most.";
    START_SECONDS = Gauge "process_start_time_seconds"
        "When the process started, seconds since 1970.";
}

families! {
    /// The families of the daemon.
    DAEMON:
    TORRENTS = Gauge "piecework_torrents" ["state"]
        "Torrents by what they do.";
    RECEIVED_BYTES = Counter "piecework_payload_received_bytes_total"
        "Payload received from peers, wasted bytes included.";
    SENT_BYTES = Counter "piecework_payload_sent_bytes_total"
        "Payload sent to peers.";
    WASTED_BYTES = Counter "piecework_payload_wasted_bytes_total"
        "Received payload of no use: it came twice, unasked, or wrong.";
    CORRUPT_BYTES = Counter "piecework_payload_corrupt_bytes_total"
        "Received payload of pieces that failed their hash.";
    DOWNLOAD_RATE = Gauge "piecework_download_rate_bytes_per_second"
        "Payload received over the last seconds, of all torrents.";
    UPLOAD_RATE = Gauge "piecework_upload_rate_bytes_per_second"
        "Payload sent over the last seconds, of all torrents.";
    PIECES_VERIFIED = Counter "piecework_pieces_verified_total"
        "Pieces received, verified and written.";
    PIECES_FAILED = Counter "piecework_pieces_failed_total"
        "Pieces received whole that failed their hash.";
    PEERS = Gauge "piecework_peers_connected"
        "Connections to peers.";
    HALF_OPEN = Gauge "piecework_connections_half_open" ["direction"]
        "Connections to peers whose handshake is not done.";
    BANS = Counter "piecework_peer_bans_total"
        "Peers banned for a wrong block.";
    ANNOUNCES = Counter "piecework_announces_total" ["outcome"]
        "Announces to trackers.";
    WAITING_SECONDS = Counter "piecework_waiting_seconds_total" ["cause"]
        "Time that downloads spent on each cause that kept them from being faster, summed over all of them.";
    HASH_WAITING = Gauge "piecework_hash_jobs_waiting"
        "Pieces that wait for a thread that hashes.";
    HASH_THREADS = Gauge "piecework_hash_threads_busy" ["doing"]
        "Threads that hash pieces, and that write them.";
    DISK_WAITING = Gauge "piecework_disk_jobs_waiting"
        "Reads and writes that wait for a thread that waits for disks.";
    JOURNAL_WRITTEN = Counter "piecework_journal_written_total"
        "Records of who gave what that were written into the journal.";
    JOURNAL_DROPPED = Counter "piecework_journal_dropped_total"
        "Records of who gave what that were dropped, the oldest first, because there was no room for more.";
}

families! {
    /// The families of the tracker.
    TRACKER:
    TRACKER_ANNOUNCES = Counter "piecework_tracker_announces_total" ["transport"]
        "Announces, refused ones included.";
    TRACKER_SCRAPES = Counter "piecework_tracker_scrapes_total"
        "Scrapes.";
    TRACKER_REFUSED = Counter "piecework_tracker_requests_refused_total"
        "Requests that were refused.";
    TRACKER_UDP_REJECTED = Counter "piecework_tracker_udp_rejected_total"
        "Datagrams that were no request, or showed no valid connection id.";
    TRACKER_PEERS = Gauge "piecework_tracker_peers"
        "Peers of all torrents.";
    TRACKER_PEER_BYTES = Gauge "piecework_tracker_peer_memory_bytes"
        "Memory that peers and what they hold take.";
    TRACKER_EXPIRED = Counter "piecework_tracker_peers_expired_total"
        "Peers that fell silent and were removed.";
    TRACKER_TORRENTS = Gauge "piecework_tracker_torrents"
        "Torrents with peers, or in the catalogue.";
    TRACKER_CATALOGUED = Gauge "piecework_tracker_torrents_catalogued"
        "Torrents in the catalogue.";
    TRACKER_CONNECTIONS = Gauge "piecework_tracker_http_connections"
        "HTTP connections.";
    TRACKER_HTTP_REJECTED = Counter "piecework_tracker_http_rejected_total"
        "HTTP connections closed at once because there were too many.";
    TRACKER_LOGGED = Gauge "piecework_tracker_requests_logged"
        "Requests that can be asked for.";
    TRACKER_LOG_DROPPED = Counter "piecework_tracker_requests_dropped_total"
        "Requests that are not in the log any more because there was no room (the oldest of the network that has the most), or never were because too many came at a time.";
    TRACKER_HELD_BACK = Counter "piecework_tracker_requests_held_back_total"
        "Requests that were not written into the journal because there were too many at a time.";
    TRACKER_JOURNAL_WRITTEN = Counter "piecework_tracker_journal_written_total"
        "Requests that were written into the journal.";
    OBSERVER_PEERS = Gauge "piecework_tracker_observer_peers"
        "Peers that the observer connects to, now or again later, to see what they hold.";
    OBSERVER_CONNECTIONS = Gauge "piecework_tracker_observer_connections"
        "Connections of the observer to peers.";
    OBSERVER_HALF_OPEN = Gauge "piecework_tracker_observer_connections_half_open"
        "Connections of the observer to peers whose handshake is not done.";
    OBSERVER_DIALS = Counter "piecework_tracker_observer_dials_total"
        "Attempts of the observer to connect to a peer.";
    OBSERVER_FAILED = Counter "piecework_tracker_observer_dials_failed_total"
        "Attempts of the observer that came to no handshake: refused, unanswered or declined.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_used_once() {
        let mut names = BTreeSet::new();
        for family in [PROCESS, DAEMON, TRACKER].into_iter().flatten() {
            let Family { name, kind, label, help } = family;
            assert!(names.insert(name), "{name} twice");
            let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_name(name) && label.is_none_or(is_name), "{name}");
            assert!(name.starts_with("piecework_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}");
        }
    }
}
