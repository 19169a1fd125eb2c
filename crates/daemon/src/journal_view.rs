//! The rows of a journal as the API shows them.

use piecework_api::{
    BadPiece, GiverInfo, LogEntry, NewPieces, SentPieces, Series, StoryEntry, TakerInfo, Timeline,
};
use piecework_core::{BLOCK_LEN, Sha1Hash};
use piecework_journal::{
    ArrivalSeries, Arrivals, GiverRow, NewResponses, PieceEvent, PieceEventKind, PieceRecord,
    ResponseRow, TakerRow, Uploads, Verdict, WrongPiece, rfc3339,
};

pub fn giver(row: GiverRow) -> GiverInfo {
    GiverInfo {
        id: row.id,
        peer: row.peer,
        client: row.client,
        pieces: row.pieces,
        blocks: row.blocks,
        bytes: row.bytes,
        failed: row.failed,
        banned: row.banned,
        unused_blocks: row.unused_blocks,
        unused_bytes: row.unused_bytes,
        first_at: seconds(row.first_at),
        last_at: seconds(row.last_at),
    }
}

pub fn taker(row: TakerRow) -> TakerInfo {
    TakerInfo {
        id: row.id,
        peer: row.peer,
        client: row.client,
        blocks: row.blocks,
        bytes: row.bytes,
        last_at: seconds(row.last_at),
    }
}

pub fn sent_pieces(uploads: Uploads) -> SentPieces {
    SentPieces {
        takers: uploads.takers.into_iter().map(taker).collect(),
        pieces: uploads.pieces,
        last: uploads.last,
    }
}

pub fn story_entry(event: PieceEvent) -> StoryEntry {
    let (kind, verdict) = match &event.kind {
        PieceEventKind::Given => ("given", Some("verified")),
        PieceEventKind::Failed => ("failed", Some("failed")),
        PieceEventKind::Unused => ("unused", Some("unused")),
        PieceEventKind::Banned(_) => ("banned", Some("banned")),
        PieceEventKind::Sent => ("sent", None),
    };
    StoryEntry {
        time: rfc3339(event.time),
        kind: kind.to_owned(),
        peer: event.peer,
        client: event.client,
        blocks: event.blocks,
        block_count: event.block_count,
        bytes: event.bytes,
        requested_at: event.requested_at.map(rfc3339),
        received_at: event.received_at.map(rfc3339),
        verdict: verdict.map(str::to_owned),
        evidence: match event.kind {
            PieceEventKind::Banned(wrong) => Some(bad_piece(*wrong)),
            _ => None,
        },
    }
}

pub fn bad_piece(wrong: WrongPiece) -> BadPiece {
    BadPiece {
        time: rfc3339(wrong.time),
        piece: wrong.piece.0,
        block: wrong.block,
        peer: wrong.peer,
        client: wrong.client,
        givers: wrong.givers,
        expected: wrong.expected.to_string(),
        got: wrong.got.to_string(),
        block_sent: wrong.block_sent.map(|digest| Sha1Hash(digest.0).to_string()),
        block_right: wrong.block_right.map(|digest| Sha1Hash(digest.0).to_string()),
    }
}

pub fn log_entry(row: ResponseRow) -> LogEntry {
    let (verdict, block) = shown_verdict(row.verdict);
    LogEntry {
        id: row.id,
        time: rfc3339(row.time),
        piece: row.piece.0,
        peer: row.peer,
        client: row.client,
        blocks: row.blocks,
        bytes: row.bytes,
        took_ms: row.took_ms,
        verdict: verdict.to_owned(),
        block,
        info_hash: row.info_hash,
        torrent: row.torrent,
    }
}

/// Returns the row for a response of a daemon without a journal.
pub fn unnumbered_log_entry(record: PieceRecord) -> LogEntry {
    let (verdict, block) = shown_verdict(record.verdict);
    LogEntry {
        id: 0,
        time: record.time.to_string(),
        piece: record.piece.0,
        peer: record.giver.addr,
        client: record.giver.client.clone(),
        blocks: record.blocks,
        bytes: record.bytes.into(),
        took_ms: u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
        verdict: verdict.to_owned(),
        block,
        info_hash: record.torrent.info_hash,
        torrent: record.torrent.name.clone(),
    }
}

pub fn new_pieces(new: NewResponses) -> NewPieces {
    NewPieces {
        givers: new.givers.into_iter().map(giver).collect(),
        pieces: new.pieces,
        bad: new.wrong.into_iter().map(bad_piece).collect(),
    }
}

pub fn timeline(arrivals: Arrivals) -> Timeline {
    let series = |series: ArrivalSeries| Series {
        giver: series.giver.unwrap_or(Series::OTHERS),
        pieces: series.pieces,
        bytes: series.bytes,
    };
    Timeline {
        from: seconds(arrivals.from),
        to: seconds(arrivals.to),
        seconds: arrivals.bucket_secs,
        others: arrivals.unnamed,
        series: arrivals.series.into_iter().map(series).collect(),
    }
}

/// Returns the word for a verdict, and the number of the wrong block.
fn shown_verdict(verdict: Verdict) -> (&'static str, Option<u32>) {
    match verdict {
        Verdict::Verified => ("verified", None),
        Verdict::Failed => ("failed", None),
        Verdict::Banned { block } => ("banned", block.map(|begin| begin / BLOCK_LEN)),
    }
}

/// Returns whole seconds since 1970.
fn seconds(ms: i64) -> i64 {
    ms / 1_000
}
