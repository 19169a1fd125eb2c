//! `torrent-log --tracker`: requests to the tracker, and who holds which pieces.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use piecework_core::{InfoHash, printable};
use piecework_engine::tracker_client::{Catalogue, CatalogueError, ClientOptions};
use piecework_journal::Reader;
use piecework_proto::announce::TrackerTarget;

use super::super::format::printable_json;
use super::super::pick::{ambiguous, meant_by};
use super::super::remote::Remote;
use super::super::signals::Signals;
use super::super::{CliError, Env};
use super::stream::RowWriter;
use super::tracker_answers::{self, Holder, PieceRanges, Request, RiskGroup};
use super::{JournalArgs, PACE, SHOWN, answer, source};

/// Answer to who holds a piece.
#[derive(Deserialize)]
struct Holders {
    piece: u32,
    count: u64,
    holders: Vec<Holder>,
}

/// Answer to which pieces few hold.
#[derive(Deserialize)]
struct AtRisk {
    k: u32,
    count: u64,
    groups: Vec<RiskGroup>,
    /// Groups that did not fit into the answer.
    more: u64,
}

/// Answer to which pieces a peer lacks.
#[derive(Deserialize)]
struct Missing {
    peer: SocketAddr,
    /// `None` if the peer's holdings are not known. The same holds for `pieces`.
    count: Option<u64>,
    pieces: Option<String>,
}

/// Answer to whether a swarm can complete without some peers.
#[derive(Deserialize)]
struct Without {
    can_complete: bool,
    count: u64,
    pieces: String,
    copies: f64,
}

/// The tracker's log.
#[derive(Deserialize)]
struct Requests {
    requests: Vec<Value>,
}

/// Asks the tracker at `address`.
///
/// # Errors If it does not answer, or does not know the torrent.
pub(super) async fn ask(
    env: &Env,
    remote: &Remote,
    args: &JournalArgs,
    address: &str,
) -> Result<(), CliError> {
    let target = TrackerTarget::parse(address).map_err(CliError::usage_by)?;
    let base = target.catalogue.ok_or_else(|| {
        let shown = printable(address);
        CliError::usage(format_args!("`{shown}` has no catalogue: write IP:PORT or an http:// URL"))
    })?;
    let options = ClientOptions::default();
    let tracker = Catalogue::with_options(&base, options).map_err(CliError::usage_by)?;
    let torrent = match &args.torrent {
        Some(text) => Some(pick(&tracker, text).await?),
        None => None,
    };
    let is_question = args.piece.is_some()
        || args.at_risk.is_some()
        || args.missing.is_some()
        || !args.without.is_empty();
    match torrent {
        Some(torrent) if is_question => question(env, remote, args, &tracker, torrent).await,
        torrent if args.follow => follow(env, remote, args, &tracker, torrent).await,
        torrent => {
            let requests = requests(&tracker, args, torrent).await?;
            let rows = requests.iter().map(parsed).collect::<Result<Vec<Request>, _>>()?;
            answer(env, remote, args, &requests, tracker_answers::requests(&rows))
        }
    }
}

/// Shows the requests in a tracker's own journal.
///
/// # Errors If a journal cannot answer the question.
pub(super) fn show(
    env: &Env,
    remote: &Remote,
    args: &JournalArgs,
    journal: &Reader,
) -> Result<(), CliError> {
    if args.piece.is_some() || args.follow {
        return Err(CliError::usage(
            "a tracker's journal has requests only: ask the tracker itself with --tracker",
        ));
    }
    let torrent = match &args.torrent {
        Some(text) => {
            let known = journal.torrents().map_err(source::fault)?;
            let known: Vec<_> = known.into_iter().map(|row| (row.info_hash, row.name)).collect();
            let meant = meant_by(text, &known, |(info_hash, name)| (*info_hash, name));
            let hashes: BTreeSet<InfoHash> = meant.iter().map(|(hash, _)| *hash).collect();
            match (hashes.len(), hashes.first()) {
                (1, Some(one)) => Some(*one),
                (0, _) => {
                    let text = printable(text);
                    return Err(CliError::failed(format_args!("nobody asked for `{text}`")));
                }
                _ => {
                    return Err(ambiguous(
                        text,
                        meant.iter().map(|(hash, name)| (*hash, &**name, 0)),
                    ));
                }
            }
        }
        None => None,
    };
    if args.csv || remote.json() {
        let mut rows = RowWriter::new(env, remote, tracker_answers::REQUEST_COLUMNS);
        each_meant(journal, args, torrent, |row| {
            rows.row(&row, || tracker_answers::request_row(&row))
        })?;
        return rows.end();
    }
    let mut last = VecDeque::new();
    each_meant(journal, args, torrent, |row| {
        if last.len() == SHOWN {
            last.pop_front();
        }
        last.push_back(row);
        Ok(())
    })?;
    let sheet = tracker_answers::requests(last.make_contiguous()).shortened(SHOWN);
    answer(env, remote, args, &last, sheet)
}

/// Calls `each` with the selected requests of a tracker's journal, oldest first.
fn each_meant(
    journal: &Reader,
    args: &JournalArgs,
    torrent: Option<InfoHash>,
    mut each: impl FnMut(Request) -> Result<(), CliError>,
) -> Result<(), CliError> {
    journal.each_request(|record| {
        let row = Request::from(record);
        if is_meant(args, torrent, &row) { each(row) } else { Ok(()) }
    })
}

fn is_meant(args: &JournalArgs, torrent: Option<InfoHash>, row: &Request) -> bool {
    torrent.is_none_or(|torrent| row.info_hash == Some(torrent))
        && args.peer.is_none_or(|peer| row.peer == peer)
        && (!args.bad || !row.ok)
        && args.is_meant(&row.time)
}

async fn question(
    env: &Env,
    remote: &Remote,
    args: &JournalArgs,
    tracker: &Catalogue,
    torrent: InfoHash,
) -> Result<(), CliError> {
    if let Some(piece) = args.piece {
        let path = format!("torrents/{torrent}/pieces/{piece}");
        let (json, Holders { piece, count, holders }) = fetched(tracker, &path, &[]).await?;
        return answer(env, remote, args, &json, tracker_answers::holders(piece, count, &holders));
    }
    if let Some(k) = args.at_risk {
        let (path, k) = (format!("torrents/{torrent}/at-risk"), k.to_string());
        let (json, few) = fetched::<AtRisk>(tracker, &path, &[("k", &k)]).await?;
        let AtRisk { k, count, groups, more } = few;
        return answer(env, remote, args, &json, tracker_answers::at_risk(k, count, &groups, more));
    }
    if let Some(peer) = args.missing {
        let (path, peer) = (format!("torrents/{torrent}/missing"), peer.to_string());
        let (json, missing) = fetched::<Missing>(tracker, &path, &[("peer", &peer)]).await?;
        let Missing { peer, count, pieces } = missing;
        let head = match count {
            None => format!("what {peer} holds is not known"),
            Some(0) => format!("{peer} misses nothing"),
            Some(count) => format!("{peer} misses {}", tracker_answers::pieces(count)),
        };
        let (count, pieces) = (count.unwrap_or(0), pieces.unwrap_or_default());
        return answer(
            env,
            remote,
            args,
            &json,
            tracker_answers::ranges(head, PieceRanges { count, pieces }),
        );
    }
    let path = format!("torrents/{torrent}/without");
    let peers: Vec<String> = args.without.iter().map(ToString::to_string).collect();
    let query: Vec<(&str, &str)> = peers.iter().map(|peer| ("peer", peer.as_str())).collect();
    let (json, without) = fetched::<Without>(tracker, &path, &query).await?;
    let Without { can_complete, count, pieces, copies } = without;
    let whom = peers.join(", ");
    let head = match can_complete {
        true => format!("without {whom} everybody can complete: {copies:.2} copies are left"),
        false => {
            let lost = tracker_answers::pieces(count);
            format!("without {whom} nobody can complete: {lost} would be lost")
        }
    };
    answer(env, remote, args, &json, tracker_answers::ranges(head, PieceRanges { count, pieces }))
}

/// Prints requests as they come.
async fn follow(
    env: &Env,
    remote: &Remote,
    args: &JournalArgs,
    tracker: &Catalogue,
    torrent: Option<InfoHash>,
) -> Result<(), CliError> {
    let mut interrupt = Signals::interrupt()?;
    let following = async {
        // Earlier requests are shown only with `--since`.
        let mut seen: Option<BTreeSet<String>> = args.since.map(|_| BTreeSet::new());
        loop {
            let requests = requests(tracker, args, torrent).await?;
            let now: BTreeSet<String> = requests.iter().map(Value::to_string).collect();
            if let Some(seen) = &seen {
                for request in requests.iter().filter(|one| !seen.contains(&one.to_string())) {
                    let line = match remote.json() {
                        true => printable_json(&request.to_string()),
                        false => tracker_answers::request_line(&parsed(request)?, env.stdout()),
                    };
                    env.stdout().line(line)?;
                }
            }
            seen = Some(now);
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        result = following => result,
        () = interrupt.next() => Ok(()),
    }
}

/// Returns the selected requests, oldest first.
async fn requests(
    tracker: &Catalogue,
    args: &JournalArgs,
    torrent: Option<InfoHash>,
) -> Result<Vec<Value>, CliError> {
    let (_, log) = fetched::<Requests>(tracker, "logs/requests", &[("limit", MOST)]).await?;
    let mut meant = Vec::new();
    for request in log.requests {
        let row: Request = parsed(&request)?;
        if is_meant(args, torrent, &row) {
            meant.push(request);
        }
    }
    Ok(meant)
}

/// Returns the torrent that `text` names.
async fn pick(tracker: &Catalogue, text: &str) -> Result<InfoHash, CliError> {
    // Unlisted torrents are in no list.
    if let Ok(info_hash) = text.parse() {
        return Ok(info_hash);
    }
    let listed = tracker.list(None).await.map_err(fault)?;
    let meant = meant_by(text, &listed, |entry| (entry.info_hash, &entry.name));
    match meant[..] {
        [one] => Ok(one.info_hash),
        [] => Err(CliError::failed(format_args!(
            "the tracker has no torrent `{}` in its catalogue",
            printable(text)
        ))),
        _ => {
            let rows = meant.iter().map(|entry| (entry.info_hash, &*entry.name, entry.size));
            Err(ambiguous(text, rows))
        }
    }
}

async fn fetched<T: DeserializeOwned>(
    tracker: &Catalogue,
    path: &str,
    query: &[(&str, &str)],
) -> Result<(Value, T), CliError> {
    let json: Value = tracker.ask(path, query).await.map_err(fault)?;
    let answer = parsed(&json)?;
    Ok((json, answer))
}

fn parsed<T: DeserializeOwned>(json: &Value) -> Result<T, CliError> {
    T::deserialize(json).map_err(|error| {
        CliError::failed(format_args!(
            "the tracker's answer is not valid: {}; is it of this version?",
            printable(&error.to_string())
        ))
    })
}

fn fault(error: CatalogueError) -> CliError {
    CliError::failed(error)
}

/// The number of requests to ask for.
const MOST: &str = "10000";
