//! The console's questions about who holds what.

use std::net::SocketAddr;
use std::sync::Arc;

use super::catalogue_torrent::CatalogueTorrent;
use super::console_format::{as_of, text};
use super::format::{percent, runs, unseen};
use super::service::Service;
use piecework_core::figures::{count, counted, seconds};
use piecework_core::{Bitfield, PieceIndex, Table, printable};
use piecework_registry::{HoldingsSource, PeerView, SwarmView};

/// A question about a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwarmQuestion {
    Swarm,
    Holders,
    AtRisk,
    Missing,
    Without,
    Observe,
}

/// The command of each question.
pub(super) const COMMANDS: [(SwarmQuestion, &str); 6] = [
    (SwarmQuestion::Swarm, "swarm"),
    (SwarmQuestion::Holders, "holders"),
    (SwarmQuestion::AtRisk, "at_risk"),
    (SwarmQuestion::Missing, "missing"),
    (SwarmQuestion::Without, "without"),
    (SwarmQuestion::Observe, "observe"),
];

/// Answers a question with its arguments. Tables have `width` columns.
pub(super) fn answer(
    service: &Service,
    question: SwarmQuestion,
    rest: &str,
    width: usize,
) -> String {
    let answered = match question {
        SwarmQuestion::Swarm => each(service, rest, |service, entry| swarm(service, entry, width)),
        SwarmQuestion::Holders => holders(service, rest, width),
        SwarmQuestion::AtRisk => at_risk(service, rest),
        SwarmQuestion::Missing => missing(service, rest),
        SwarmQuestion::Without => without(service, rest),
        SwarmQuestion::Observe => observe(service, rest),
    };
    answered.unwrap_or_else(|error| error)
}

fn swarm(service: &Service, entry: &CatalogueTorrent, width: usize) -> Result<String, String> {
    let swarm = look(service, entry)?;
    let mut out = format!(
        "{}\n  {}, {} complete, {} incomplete; {}",
        printable(&entry.name),
        counted(u64::from(entry.pieces), "piece"),
        count(u64::from(swarm.complete)),
        count(u64::from(swarm.incomplete)),
        copies(swarm.copies.fraction()),
    );
    let rows = swarm.peers.iter().map(|peer| {
        let held = peer.held.count(entry.pieces);
        vec![
            peer.addr.to_string(),
            client(peer),
            held.map_or_else(|| "unknown".to_owned(), |held| count(u64::from(held))),
            held.map_or_else(
                || "-".to_owned(),
                |held| format!("{} %", percent(held, entry.pieces)),
            ),
            peer.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s")),
            match peer.eta {
                Some(eta) if eta.is_zero() => "done".to_owned(),
                Some(eta) => seconds(eta),
                None => "-".to_owned(),
            },
            seconds(peer.silent),
            source(peer),
            as_of(&service.swarms, peer),
        ]
    });
    let head =
        ["peer", "client", "pieces", "held", "gets", "done in", "silent", "known from", "as of"];
    if swarm.peers.is_empty() {
        out.push_str("\n  no peers");
        return Ok(out);
    }
    out.push('\n');
    let table = Table::new(head).right(&[2, 3, 4, 5, 6]).names(&[1]).spare(&[7, 8, 2, 6]);
    out.push_str(&text(&table.rows(rows), width));
    out.push_str(&remarks(&swarm.peers));
    let silent = swarm.silent(service.config.silent_after());
    if !silent.is_empty() {
        let named: Vec<String> =
            silent.iter().take(PEERS_NAMED).map(|peer| peer.addr.to_string()).collect();
        out.push_str(&format!("\ngone silent: {}", named.join(", ")));
        if silent.len() > named.len() {
            out.push_str(&format!(" and {} more", silent.len() - named.len()));
        }
    }
    Ok(out)
}

fn holders(service: &Service, rest: &str, width: usize) -> Result<String, String> {
    let (name, piece) = last_word(rest).ok_or("write: holders NAME PIECE")?;
    let piece: u32 = piece
        .parse()
        .map_err(|_| format!("`{}` is not a piece: write a number from 0", printable(piece)))?;
    each(service, name, |service, entry| {
        let name = printable(&entry.name);
        if piece >= entry.pieces {
            return Err(format!("`{name}` has `{}` pieces, from 0", entry.pieces));
        }
        let holders = service.swarms.holders(entry.info_hash, PieceIndex(piece));
        if holders.is_empty() {
            return Ok(format!("nobody is known to hold piece {piece} of `{name}`"));
        }
        let number = counted(holders.len() as u64, "peer");
        let rows = holders.iter().map(|peer| {
            vec![peer.addr.to_string(), client(peer), source(peer), as_of(&service.swarms, peer)]
        });
        let table = Table::new(["peer", "client", "known from", "as of"]).names(&[1]).rows(rows);
        let table = text(&table, width);
        Ok(format!("piece {piece} of `{name}` is held by {number}\n{table}"))
    })
}

fn at_risk(service: &Service, rest: &str) -> Result<String, String> {
    // A name may itself end with a number.
    let (name, k) = match last_word(rest) {
        Some((name, last)) if service.catalogue.meant(rest).is_empty() => match last.parse() {
            Ok(k) => (name, k),
            Err(_) => (rest, 1),
        },
        _ => (rest, 1),
    };
    if name.is_empty() {
        return Err("write: at_risk NAME, or at_risk NAME K".to_owned());
    }
    each(service, name, |service, entry| {
        let found = look(service, entry)?.at_risk(k);
        let name = printable(&entry.name);
        let few = match k {
            0 => "by nobody".to_owned(),
            1 => "by one peer, or by none".to_owned(),
            k => format!("by {k} peers or fewer"),
        };
        if found.pieces.count() == 0 {
            return Ok(format!("no piece of `{name}` is held {few}"));
        }
        let number = counted(u64::from(found.pieces.count()), "piece");
        let mut out = format!("{number} of `{name}` held {few}");
        for group in found.groups.iter().take(GROUPS_SHOWN) {
            let who = match group.holders.len() {
                0 => "nobody".to_owned(),
                _ => group.holders.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", "),
            };
            out.push_str(&format!("\n  {who}: {}", shown(&group.pieces)));
        }
        let more = found.groups.len().saturating_sub(GROUPS_SHOWN) + found.more;
        if more > 0 {
            out.push_str(&format!("\n  and {}", counted(more as u64, "more group")));
        }
        Ok(out)
    })
}

fn missing(service: &Service, rest: &str) -> Result<String, String> {
    let (name, peer) = last_word(rest).ok_or("write: missing NAME IP:PORT")?;
    let peer = addr_of(peer)?;
    each(service, name, |service, entry| {
        let swarm = look(service, entry)?;
        present(&swarm, entry, peer)?;
        let name = printable(&entry.name);
        Ok(match swarm.missing(peer) {
            None => format!("what `{peer}` holds of `{name}` is not known"),
            Some(missing) if missing.count() == 0 => format!("`{peer}` holds all of `{name}`"),
            Some(missing) => format!(
                "`{peer}` misses {} of `{name}`: {}",
                counted(u64::from(missing.count()), "piece"),
                shown(&missing)
            ),
        })
    })
}

fn without(service: &Service, rest: &str) -> Result<String, String> {
    let (mut name, mut peers) = (rest, Vec::new());
    while let Some((front, last)) = last_word(name)
        && let Ok(peer) = last.parse::<SocketAddr>()
    {
        name = front;
        peers.push(peer);
    }
    if peers.is_empty() {
        return Err("write: without NAME IP:PORT, or without NAME IP:PORT IP:PORT".to_owned());
    }
    each(service, name, |service, entry| {
        let swarm = look(service, entry)?;
        peers.iter().try_for_each(|peer| present(&swarm, entry, *peer))?;
        let found = swarm.without(&peers);
        let name = printable(&entry.name);
        let left = copies(found.copies.fraction());
        Ok(match found.lost.count() {
            0 => format!("yes: the others could complete `{name}`; {left}"),
            lost => format!(
                "no: nobody else is known to hold {} of `{name}`: {}; {left}",
                counted(u64::from(lost), "piece"),
                shown(&found.lost)
            ),
        })
    })
}

fn observe(service: &Service, rest: &str) -> Result<String, String> {
    let (name, on) = match last_word(rest) {
        Some((name, "on")) => (name, true),
        Some((name, "off")) => (name, false),
        _ => return Err("write: observe NAME on, or observe NAME off".to_owned()),
    };
    each(service, name, |service, entry| {
        let name = printable(&entry.name);
        service
            .registration
            .set_observe_of(entry, on)
            .map_err(|error| format!("`{name}` could not be changed: {error}"))?;
        Ok(match (on, service.config.observe) {
            (true, true) => format!("peers of `{name}` are connected to, to see what they hold"),
            (true, false) => format!("`{name}` may be observed, but this tracker observes nothing"),
            (false, _) => format!("peers of `{name}` are not connected to"),
        })
    })
}

/// Returns the answers for all files with a name, one below the other.
fn each(
    service: &Service,
    name: &str,
    ask: impl Fn(&Service, &CatalogueTorrent) -> Result<String, String>,
) -> Result<String, String> {
    let entries: Vec<Arc<CatalogueTorrent>> = service.catalogue.meant(name);
    if entries.is_empty() {
        return Err(format!("no file named `{}` is known to this tracker", printable(name)));
    }
    let answers: Result<Vec<String>, String> =
        entries.iter().map(|entry| ask(service, entry)).collect();
    Ok(answers?.join("\n\n"))
}

fn look(service: &Service, entry: &CatalogueTorrent) -> Result<SwarmView, String> {
    let swarm = service.swarms.swarm(entry.info_hash);
    swarm.ok_or_else(|| format!("`{}` was just removed", printable(&entry.name)))
}

fn present(swarm: &SwarmView, entry: &CatalogueTorrent, peer: SocketAddr) -> Result<(), String> {
    match swarm.peer(peer) {
        Some(_) => Ok(()),
        None => Err(format!("no peer at `{peer}` is known for `{}`", printable(&entry.name))),
    }
}

/// Returns the text before the last word, and the last word.
fn last_word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let (front, last) = text.rsplit_once(|c: char| c.is_whitespace() || c == '>')?;
    Some((front.trim(), last))
}

fn addr_of(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{}` is not a peer's address, IP:PORT", printable(text)))
}

fn client(peer: &PeerView) -> String {
    peer.peer_id.map_or_else(|| "-".to_owned(), |id| id.client_name())
}

fn source(peer: &PeerView) -> String {
    match peer.source {
        Some(source) if !peer.sure => format!("{}, may hold more", source.word()),
        source => source.map_or("-", HoldingsSource::word).to_owned(),
    }
}

/// Returns the lines below a table of peers: their other addresses, and why the tracker cannot see what they hold.
pub(super) fn remarks(peers: &[PeerView]) -> String {
    let also =
        peers.iter().filter_map(|peer| Some((peer.addr, format!("is also at {}", peer.also?))));
    let unseen = peers.iter().filter_map(|peer| Some((peer.addr, unseen(peer)?.to_owned())));
    let mut lines: Vec<String> =
        also.chain(unseen).map(|(addr, what)| format!("\n{addr} {what}")).collect();
    let more = lines.len().saturating_sub(PEERS_NAMED);
    if more > 0 {
        lines.truncate(PEERS_NAMED);
        lines.push(format!("\nand {}", counted(more as u64, "more line")));
    }
    lines.concat()
}

fn copies(number: f64) -> String {
    // Rounded down, so that 1.00 means that every piece is there.
    format!("{:.2} distributed copies", (number * 100.0).floor() / 100.0)
}

/// Returns pieces as ranges, as many as fit on a few lines.
fn shown(pieces: &Bitfield) -> String {
    let text = runs(pieces.iter());
    match text.match_indices(',').nth(RUNS_SHOWN) {
        None => text,
        Some((at, _)) => {
            let more = text[at..].matches(',').count();
            format!("{},… {more} more", &text[..at])
        }
    }
}

/// The maximum number of piece ranges in an answer. The JSON has all.
const RUNS_SHOWN: usize = 40;

/// The maximum number of groups of pieces at risk in an answer.
const GROUPS_SHOWN: usize = 20;

/// The maximum number of peers named below a table.
const PEERS_NAMED: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_spaces_and_numbers_at_their_end() {
        assert_eq!(last_word("My File 2 17"), Some(("My File 2", "17")));
        assert_eq!(last_word(" a>3 "), Some(("a", "3")));
        assert_eq!(last_word("a"), None);
    }

    #[test]
    fn many_runs_are_cut() {
        let mut pieces = Bitfield::empty(200);
        (0..200).step_by(2).for_each(|piece| _ = pieces.insert(PieceIndex(piece)));
        let text = shown(&pieces);
        assert!(text.starts_with("0,2,4,") && text.ends_with(",80,… 59 more"), "{text}");
    }
}
