//! `GET /metrics`: how the daemon does, for Prometheus. `docs/metrics.md` describes it.

use piecework_api::State;
use piecework_daemon::{Daemon, DaemonFigures};
use piecework_http::metrics::{Exposition, families, process};
use piecework_swarm::Cause;

/// All figures of [`families::DAEMON`] and [`families::PROCESS`], in the text format.
pub(super) fn page(daemon: &Daemon) -> String {
    let DaemonFigures {
        session,
        torrents,
        download_rate,
        upload_rate,
        journal_written,
        journal_dropped,
    } = daemon.figures();
    let mut page = Exposition::default();
    page.each(&families::TORRENTS, State::ALL.map(State::word).into_iter().zip(torrents));
    page.one(&families::RECEIVED_BYTES, session.downloaded);
    page.one(&families::SENT_BYTES, session.uploaded);
    page.one(&families::WASTED_BYTES, session.wasted);
    page.one(&families::CORRUPT_BYTES, session.corrupt);
    page.one(&families::DOWNLOAD_RATE, download_rate);
    page.one(&families::UPLOAD_RATE, upload_rate);
    page.one(&families::PIECES_VERIFIED, session.pieces_verified);
    page.one(&families::PIECES_FAILED, session.pieces_failed);
    page.one(&families::PEERS, session.connections);
    let half_open = [("incoming", session.half_open_in), ("outgoing", session.half_open_out)];
    page.each(&families::HALF_OPEN, half_open);
    page.one(&families::BANS, session.bans);
    let announces =
        [("answered", session.announces_answered), ("failed", session.announces_failed)];
    page.each(&families::ANNOUNCES, announces);
    let causes = Cause::ALL.map(Cause::word).into_iter().zip(session.waited);
    page.each(&families::WAITING_SECONDS, causes);
    page.one(&families::HASH_WAITING, session.pool.hashing_waits);
    let busy = [("hashing", session.pool.hashing), ("writing", session.pool.writing)];
    page.each(&families::HASH_THREADS, busy);
    page.one(&families::DISK_WAITING, session.pool.disk_waits);
    page.one(&families::JOURNAL_WRITTEN, journal_written);
    page.one(&families::JOURNAL_DROPPED, journal_dropped);
    process(&mut page);
    page.finish()
}
