//! The long answers of the native API, written while they are read: what they take of memory does
//! not grow with their length.

use std::fmt::Write;

use axum::extract::{Extension, RawQuery};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde::Serialize;

use super::answer::{Failure, Result, bad};
use super::receive::{Segment, optional, query, value_or};
use super::routes::{Answer, Context, which};
use piecework_api::{Overview, Torrent, TorrentDetail};
use piecework_core::{InfoHash, printable};
use piecework_daemon::{Daemon, DaemonError, FileRows};
use piecework_http::{Lasting, Left, PartWriter, answer_as_written};

/// `GET /status`.
pub(super) async fn status(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Answer {
    let [fields, since, offset, limit] =
        query(raw.as_deref(), ["fields", "since", "offset", "limit"])?;
    let fields = fields.map(|text| chosen(&text, &[Torrent::FIELDS])).transpose()?;
    let since: Option<i64> = optional(since, "since", "seconds since 1970")?;
    let page = Page::read(offset, limit)?;
    let daemon = context.daemon;
    let mut overview = daemon.summary();
    let hashes = match since {
        Some(then) => {
            let removed = daemon.removed_since(then);
            overview.removed = Some(removed.into_iter().map(|(info_hash, _)| info_hash).collect());
            page.of(&daemon.changed_since(then)).to_vec()
        }
        None => daemon.page(page.offset, page.limit),
    };
    Ok(written(lasting, &headers, async move |out| {
        write_status(out, &daemon, &overview, &hashes, fields.as_deref()).await
    })
    .await)
}

/// `GET /torrents/{info_hash}`.
pub(super) async fn detail(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    Segment(text): Segment,
    RawQuery(raw): RawQuery,
) -> Answer {
    let [fields] = query(raw.as_deref(), ["fields"])?;
    let all = &[Torrent::FIELDS, TorrentDetail::FIELDS];
    let fields = fields.map(|text| chosen(&text, all)).transpose()?;
    let daemon = context.daemon;
    let info_hash = which(&daemon, &text)?;
    let asks = |names: &[&str]| {
        fields.as_ref().is_none_or(|fields| fields.iter().any(|field| names.contains(field)))
    };
    let others: Vec<&str> =
        TorrentDetail::FIELDS.iter().copied().filter(|name| *name != FILE_LIST).collect();
    let files = if asks(&[FILE_LIST]) { Some(daemon.files(info_hash).await?) } else { None };
    // What lists show is at hand; the rest is asked of the torrent's task.
    let torrent = match asks(&others) {
        true => TorrentForm::Detail(Box::new(daemon.detail_without_files(info_hash).await?)),
        false => TorrentForm::Torrent(Box::new(daemon.shown(info_hash)?)),
    };
    Ok(written(lasting, &headers, async move |out| {
        write_detail(out, &torrent, files.as_ref(), fields.as_deref()).await
    })
    .await)
}

/// `GET /torrents/{info_hash}/files`.
pub(super) async fn files(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    Segment(text): Segment,
    RawQuery(raw): RawQuery,
) -> Answer {
    let [offset, limit] = query(raw.as_deref(), ["offset", "limit"])?;
    let page = Page::read(offset, limit)?;
    let info_hash = which(&context.daemon, &text)?;
    let files = context.daemon.files(info_hash).await?;
    Ok(written(lasting, &headers, async move |mut out| {
        out.write("[").await?;
        out.elements(files.iter(page.offset).take(page.limit)).await?;
        out.write("]").await?;
        out.end().await
    })
    .await)
}

/// `GET /torrents`.
pub(super) async fn catalogue(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Answer {
    let [name, tracker] = query(raw.as_deref(), ["name", "tracker"])?;
    let mut rows = context.daemon.catalogue(tracker.as_deref(), name.as_deref()).await?;
    Ok(written(lasting, &headers, async move |mut out| {
        out.write(r#"{"tracker":"#).await?;
        out.json(&rows.tracker()).await?;
        out.write(r#","torrents":["#).await?;
        let mut is_first = true;
        loop {
            let row = match rows.next().await {
                Ok(row) => row,
                Err(error) => return cut_short(out, error),
            };
            let Some(row) = row else { break };
            if !std::mem::take(&mut is_first) {
                out.write(",").await?;
            }
            out.json(&row).await?;
        }
        out.write("]}").await?;
        out.end().await
    })
    .await)
}

/// `GET /torrents/{info_hash}/pieces`.
pub(super) async fn pieces(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    Segment(text): Segment,
) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    let mut map = context.daemon.pieces(info_hash).await?;
    let availability = std::mem::take(&mut map.availability);
    Ok(written(lasting, &headers, async move |out| {
        write_around(out, &map, "availability", availability).await
    })
    .await)
}

/// `GET /torrents/{info_hash}/givers`.
pub(super) async fn givers(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    headers: HeaderMap,
    Segment(text): Segment,
) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    let mut givers = context.daemon.givers(info_hash).await?;
    let by_piece = std::mem::take(&mut givers.by_piece);
    Ok(written(lasting, &headers, async move |out| {
        write_around(out, &givers, "by_piece", by_piece).await
    })
    .await)
}

/// `GET /torrents/{info_hash}/torrent`.
pub(super) async fn torrent(
    context: Context,
    Extension(lasting): Extension<Lasting>,
    Segment(text): Segment,
) -> Answer {
    let info_hash = which(&context.daemon, &text)?;
    let mut parts = context.daemon.torrent_parts(info_hash).await?;
    // Hashes do not become shorter by compressing.
    let plain = HeaderMap::new();
    Ok(answer_as_written(lasting, &plain, "application/x-bittorrent", |mut out| async move {
        let written: std::result::Result<(), Left> = async {
            loop {
                match parts.next().await {
                    Ok(Some(part)) => out.write(part).await?,
                    Ok(None) => return out.end().await,
                    Err(error) => return cut_short(out, error),
                }
            }
        }
        .await;
        // Who has left, or does not read, gets no more.
        let _ = written;
    })
    .await)
}

/// Answers with the error if nothing was told yet; else the answer is not whole, which its client sees.
fn cut_short(out: PartWriter, error: DaemonError) -> std::result::Result<(), Left> {
    tracing::warn!(%error, "an answer breaks off");
    out.respond(Failure::from(error).into_response())
}

/// What is known of a torrent.
enum TorrentForm {
    Torrent(Box<Torrent>),
    Detail(Box<TorrentDetail>),
}

impl TorrentForm {
    fn write_field(&self, name: &str, out: &mut Vec<u8>) -> serde_json::Result<bool> {
        match self {
            Self::Torrent(torrent) => torrent.write_field(name, out),
            Self::Detail(detail) => {
                Ok(detail.torrent.write_field(name, out)? || detail.write_field(name, out)?)
            }
        }
    }
}

/// Part of a list.
#[derive(Debug, Clone, Copy)]
struct Page {
    offset: usize,
    limit: usize,
}

impl Page {
    fn read(offset: Option<String>, limit: Option<String>) -> Result<Self> {
        Ok(Self {
            offset: value_or(offset, "offset", "a number", 0)?,
            limit: value_or(limit, "limit", "a number", usize::MAX)?,
        })
    }

    fn of<'a, T>(&self, all: &'a [T]) -> &'a [T] {
        let behind = all.get(self.offset..).unwrap_or(&[]);
        &behind[..behind.len().min(self.limit)]
    }
}

/// The fields that `text` names, which are among `known`.
fn chosen(text: &str, known: &[&[&'static str]]) -> Result<Vec<&'static str>> {
    let mut fields: Vec<&'static str> = Vec::new();
    for name in text.split(',') {
        let Some(field) = known.iter().copied().flatten().find(|known| **known == name) else {
            let shown: String = printable(name).chars().take(48).collect();
            let known: Vec<&str> = known.iter().copied().flatten().copied().collect();
            let known = known.join(", ");
            return Err(bad(format!("there is no field `{shown}`; there are: {known}")));
        };
        if !fields.contains(field) {
            fields.push(field);
        }
    }
    Ok(fields)
}

async fn written<F>(
    lasting: Lasting,
    headers: &HeaderMap,
    write: impl FnOnce(PartWriter) -> F,
) -> axum::response::Response
where
    F: Future<Output = std::result::Result<(), Left>> + Send + 'static,
{
    answer_as_written(lasting, headers, "application/json", |out| {
        let written = write(out);
        // Who has left, or does not read, gets no more.
        async {
            let _ = written.await;
        }
    })
    .await
}

async fn write_status(
    mut out: PartWriter,
    daemon: &Daemon,
    overview: &Overview,
    hashes: &[InfoHash],
    fields: Option<&[&'static str]>,
) -> std::result::Result<(), Left> {
    let mut head = Vec::new();
    note(serde_json::to_writer(&mut head, overview))?;
    // Its list of torrents comes last, and is empty.
    head.truncate(head.len().saturating_sub("]}".len()));
    out.write(head).await?;
    let (mut is_first, mut row) = (true, Vec::new());
    for info_hash in hashes {
        // One that went meanwhile is left out.
        let Some(torrent) = daemon.torrent(*info_hash) else { continue };
        if !std::mem::take(&mut is_first) {
            out.write(",").await?;
        }
        match fields {
            None => out.json(&torrent).await?,
            Some(fields) => {
                row.clear();
                for (index, field) in fields.iter().enumerate() {
                    begin_field(&mut row, index, field);
                    note(torrent.write_field(field, &mut row))?;
                }
                row.push(b'}');
                out.write(&row).await?;
            }
        }
    }
    out.write("]}").await?;
    out.end().await
}

/// Writes `value`, in which the list `field` is empty, with `list` in its place.
async fn write_around<T: Serialize>(
    mut out: PartWriter,
    value: &impl Serialize,
    field: &str,
    list: Vec<T>,
) -> std::result::Result<(), Left> {
    let mut text = Vec::new();
    note(serde_json::to_writer(&mut text, value))?;
    // In a string there is a backslash before each of these quotes.
    let begin = format!("\"{field}\":[");
    let at = text.windows(begin.len()).position(|part| part == begin.as_bytes());
    let Some(at) = at.map(|at| at + begin.len()) else {
        tracing::error!("an answer has no list `{field}`");
        return Err(Left);
    };
    out.write(&text[..at]).await?;
    out.elements(list).await?;
    out.write(&text[at..]).await?;
    out.end().await
}

async fn write_detail(
    mut out: PartWriter,
    torrent: &TorrentForm,
    files: Option<&FileRows>,
    fields: Option<&[&'static str]>,
) -> std::result::Result<(), Left> {
    let all: Vec<&'static str>;
    let fields = match fields {
        Some(fields) => fields,
        None => {
            all = [Torrent::FIELDS, TorrentDetail::FIELDS].concat();
            &all
        }
    };
    let mut row = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        begin_field(&mut row, index, field);
        match files.filter(|_| *field == FILE_LIST) {
            Some(files) => {
                row.push(b'[');
                out.write(&row).await?;
                row.clear();
                out.elements(files.iter(0)).await?;
                row.push(b']');
            }
            None => drop(note(torrent.write_field(field, &mut row))?),
        }
    }
    row.push(b'}');
    out.write(&row).await?;
    out.end().await
}

/// Writes the name of an object's field.
fn begin_field(row: &mut Vec<u8>, index: usize, field: &str) {
    let mut text = String::with_capacity(field.len() + 4);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}\"{field}\":", if index == 0 { '{' } else { ',' });
    row.extend_from_slice(text.as_bytes());
}

/// Says that something could not be written as JSON, which ends the answer.
fn note<T>(written: serde_json::Result<T>) -> std::result::Result<T, Left> {
    written.map_err(|error| {
        tracing::error!(%error, "an answer could not be written as JSON");
        Left
    })
}

const FILE_LIST: &str = "file_list";

#[cfg(test)]
mod tests {
    use super::super::transmission::samples;
    use super::*;

    #[test]
    fn single_fields_are_those_of_the_whole() {
        let detail = samples::detail();
        let whole = serde_json::to_value(&detail).unwrap();
        let names: Vec<&str> = [Torrent::FIELDS, TorrentDetail::FIELDS].concat();
        let keys: Vec<&String> = whole.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), names.len());
        for name in names {
            let mut text = Vec::new();
            assert!(
                TorrentForm::Detail(Box::new(detail.clone())).write_field(name, &mut text).unwrap()
            );
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(Some(&value), whole.get(name), "{name}");
        }
    }

    #[test]
    fn fields_and_pages_that_make_no_sense_are_refused() {
        let refusal = chosen("name,nome", &[Torrent::FIELDS]).unwrap_err();
        assert!(refusal.error.contains("`nome`") && refusal.error.contains("queue_position"));
        assert_eq!(chosen("id,name,id", &[Torrent::FIELDS]).unwrap(), ["id", "name"]);
        assert!(chosen("", &[Torrent::FIELDS]).is_err());
        let page = |offset: &str, limit: &str| {
            Page::read(Some(offset.to_owned()), Some(limit.to_owned()))
                .map(|page| page.of(&[1, 2, 3]).to_vec())
        };
        assert_eq!(page("1", "1").unwrap(), [2]);
        assert_eq!(page("2", "9").unwrap(), [3]);
        assert!(page("7", "9").unwrap().is_empty() && page("0", "0").unwrap().is_empty());
        assert!(page("-1", "1").is_err() && page("1", "x").is_err());
    }
}
