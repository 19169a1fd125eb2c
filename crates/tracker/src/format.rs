//! Formats of times, pieces and events.

use piecework_core::SaturatingFrom;
use std::fmt::Write;
use std::time::SystemTime;

use serde::Serialize;

use piecework_core::{Moment, PieceIndex};
use piecework_registry::{Holdings, PeerView};

use super::swarms::Swarms;

/// Returns the held pieces as ranges, such as `0-41,57`; `none` if there are none. Pieces beyond `limit` ranges are
/// only counted.
pub(super) fn ranges(held: &Holdings, pieces: u32, limit: usize) -> String {
    let run = |out: &mut String, first: u32, last: u32| {
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = if first == last {
            write!(out, "{comma}{first}")
        } else {
            write!(out, "{comma}{first}-{last}")
        };
    };
    let mut out = String::new();
    match held {
        Holdings::Unknown => return "unknown".to_owned(),
        Holdings::Everything if pieces > 0 => run(&mut out, 0, pieces - 1),
        Holdings::Everything => {}
        Holdings::Pieces(held) => {
            let (mut runs, mut open) = (0, None::<(u32, u32)>);
            let mut left_out = 0;
            for piece in held.iter() {
                match &mut open {
                    Some((_, last)) if *last + 1 == piece.0 => *last = piece.0,
                    _ if runs == limit => left_out += 1,
                    _ => {
                        if let Some((first, last)) = open {
                            run(&mut out, first, last);
                        }
                        runs += 1;
                        open = Some((piece.0, piece.0));
                    }
                }
            }
            if let Some((first, last)) = open {
                run(&mut out, first, last);
            }
            if left_out > 0 {
                let _ = write!(out, ",… {left_out} more");
            }
        }
    }
    if out.is_empty() { "none".to_owned() } else { out }
}

/// Returns a share in per cent, rounded down, so that 100 means all; 100 if `pieces` is 0.
pub(super) fn percent(held: u32, pieces: u32) -> u32 {
    if pieces == 0 { 100 } else { u32::saturating_from(u64::from(held) * 100 / u64::from(pieces)) }
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

/// Returns why the tracker cannot see what a peer holds, as a sentence without its subject; `None` if it can see it
/// or the reason is not known.
pub(super) fn unseen(peer: &PeerView) -> Option<&'static str> {
    peer.closes_at_handshake.then_some(CLOSES)
}

/// Returns the time of day of a moment, in the form of RFC 3339.
pub(super) fn as_of(swarms: &Swarms, moment: Option<Moment>) -> Option<String> {
    Some(rfc3339(swarms.time_of(moment?)))
}

/// Appends an event in the form of the HTML standard, section 9.2. The JSON contains no line breaks.
pub(super) fn event(name: &str, data: &impl Serialize, out: &mut String) {
    match serde_json::to_string(data) {
        // Writing to a String cannot fail.
        Ok(data) => _ = write!(out, "event: {name}\ndata: {data}\n\n"),
        Err(error) => tracing::error!(%error, "an event could not be written as JSON"),
    }
}

/// Returns ordered pieces as ranges, such as `0-41,57`; empty if there are none.
pub(super) fn runs(pieces: impl Iterator<Item = PieceIndex>) -> String {
    let mut out = String::new();
    let mut open: Option<(u32, u32)> = None;
    let close = |run: Option<(u32, u32)>, out: &mut String| {
        let Some((first, last)) = run else { return };
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = match first == last {
            true => write!(out, "{comma}{first}"),
            false => write!(out, "{comma}{first}-{last}"),
        };
    };
    for PieceIndex(piece) in pieces {
        match &mut open {
            Some((_, last)) if *last + 1 == piece => *last = piece,
            _ => {
                close(open, &mut out);
                open = Some((piece, piece));
            }
        }
    }
    close(open, &mut out);
    out
}

/// The reason for a peer that accepts the observer's connections and closes them during the handshake.
const CLOSES: &str = "closes the connection at our handshake, plain and encrypted";

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_core::Bitfield;

    #[test]
    fn pieces_held_are_shown_as_ranges() {
        let of = |pieces: &[u32], limit| {
            let mut held = Bitfield::empty(100);
            for piece in pieces {
                held.insert(PieceIndex(*piece));
            }
            ranges(&Holdings::Pieces(held), 100, limit)
        };
        assert_eq!(of(&[], 9), "none");
        assert_eq!(of(&[0], 9), "0");
        assert_eq!(of(&(0..42).chain([57]).collect::<Vec<_>>(), 9), "0-41,57");
        assert_eq!(of(&[1, 2, 5, 7, 8, 9, 99], 9), "1-2,5,7-9,99");
        assert_eq!(of(&[1, 2, 5, 7, 8, 9, 99], 2), "1-2,5,… 4 more");
        assert_eq!(ranges(&Holdings::Everything, 1, 9), "0");
        assert_eq!(ranges(&Holdings::Everything, 100, 9), "0-99");
        assert_eq!(ranges(&Holdings::Everything, 0, 9), "none");
        assert_eq!(ranges(&Holdings::Unknown, 5, 9), "unknown");
    }

    #[test]
    fn pieces_are_told_as_ranges() {
        let of = |pieces: &[u32]| runs(pieces.iter().map(|piece| PieceIndex(*piece)));
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[0]), "0");
        assert_eq!(of(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
