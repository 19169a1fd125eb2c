//! `torrent-status --watch`: the tables, kept up to date by the daemon's events.

use std::collections::BTreeMap;
use std::time::Duration;

use console::Term;
use tokio::time::{Instant, MissedTickBehavior, interval};

use piecework_api::{Event, Overview, State, Torrent};
use piecework_core::{InfoHash, cut_end};

use super::super::format::{Paint, printable_json};
use super::super::live_lines::AlternateScreen;
use super::super::pick::pick;
use super::super::remote::Remote;
use super::super::signals::Signals;
use super::super::{CliError, Env};
use super::view;

/// Shows what the daemon does, or one torrent of it, until Ctrl-C.
///
/// # Errors
/// If there is no such torrent, or the daemon ends.
pub(super) async fn watch(
    env: &Env,
    remote: &Remote,
    torrent: Option<&str>,
) -> Result<(), CliError> {
    let mut interrupt = Signals::interrupt()?;
    let only = match torrent {
        Some(text) => Some(pick(&remote.torrents().await?, text)?.info_hash),
        None => None,
    };
    let watching = async {
        match (remote.json(), env.stdout().is_terminal()) {
            (true, _) => json_lines(env, remote, only).await,
            (false, true) => tables(env, remote, only).await,
            (false, false) => lines(env, remote, only).await,
        }
    };
    tokio::select! {
        result = watching => result,
        () = interrupt.next() => Ok(()),
    }
}

/// The tables on the terminal's alternate screen. The last tables are printed when it is left.
struct Painting<'a> {
    env: &'a Env,
    screen: AlternateScreen,
    lines: Vec<String>,
    /// The terminal's size at the last frame.
    size: Option<(u16, u16)>,
}

impl<'a> Painting<'a> {
    fn new(env: &'a Env) -> Self {
        Self { env, screen: AlternateScreen::new(env.stdout()), lines: Vec::new(), size: None }
    }

    /// Paints over the last frame.
    fn paint(&mut self, board: &Board, overview: &Overview) -> Result<(), CliError> {
        self.size = Term::stdout().size_checked();
        let (rows, columns) = self.size.map_or((24, 80), |(rows, columns)| {
            (usize::from(rows).max(2), usize::from(columns).max(20))
        });
        self.lines = board.frame(overview, columns, rows - 1, self.env.stdout().paint());
        Ok(self.screen.paint(&self.lines)?)
    }

    /// Returns whether the terminal's size has changed since the last frame.
    fn is_resized(&self) -> bool {
        Term::stdout().size_checked() != self.size
    }
}

impl Drop for Painting<'_> {
    fn drop(&mut self) {
        // If stdout is closed nothing can be shown.
        let _ = self.screen.leave();
        if !self.lines.is_empty() {
            let _ = self.env.stdout().line(self.lines.join("\n"));
        }
    }
}

/// The torrents, as known from events.
#[derive(Default)]
struct Board {
    torrents: BTreeMap<InfoHash, Torrent>,
    only: Option<InfoHash>,
    ready: bool,
}

impl Board {
    fn hear(&mut self, event: Event) {
        match event {
            Event::Torrent(torrent) if self.only.is_none_or(|only| only == torrent.info_hash) => {
                self.torrents.insert(torrent.info_hash, *torrent);
            }
            Event::Removed(info_hash) => drop(self.torrents.remove(&info_hash)),
            Event::Ready => self.ready = true,
            _ => {}
        }
    }

    /// Returns the torrents in the order of the queue.
    fn in_order(&self) -> Vec<Torrent> {
        let mut all: Vec<Torrent> = self.torrents.values().cloned().collect();
        all.sort_by_key(|torrent| (torrent.queue_position, torrent.id));
        all
    }

    /// Returns a frame of at most `rows` lines, each narrower than `columns`.
    fn frame(&self, overview: &Overview, columns: usize, rows: usize, paint: Paint) -> Vec<String> {
        let torrents = self.in_order();
        let mut overview = overview.clone();
        if self.only.is_none() {
            overview.download_rate = torrents.iter().map(|torrent| torrent.download_rate).sum();
            overview.upload_rate = torrents.iter().map(|torrent| torrent.upload_rate).sum();
            overview.counts.all = u32::try_from(torrents.len()).unwrap_or(u32::MAX);
        }
        let mut parts = vec![view::head(&overview, paint)];
        parts.extend(view::tables(&torrents, columns, paint));
        let text = parts.join("\n\n");
        let fit = |line: &str| cut_end(line, columns.saturating_sub(1)).into_owned();
        let mut lines: Vec<String> = text.lines().map(fit).collect();
        if lines.len() > rows {
            let more = lines.len() - rows.saturating_sub(1);
            lines.truncate(rows.saturating_sub(1));
            lines.push(paint.dim(fit(&format!("… and {more} more lines"))));
        }
        lines
    }
}

async fn tables(env: &Env, remote: &Remote, only: Option<InfoHash>) -> Result<(), CliError> {
    let fault = |error| remote.fault(&error);
    let mut overview = remote.client().overview().await.map_err(fault)?;
    let mut asked = Instant::now();
    let mut events = remote.events().await?;
    let mut board = Board { only, ..Board::default() };
    let mut tick = interval(REPAINT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = true;
    let mut painting = Painting::new(env);
    loop {
        tokio::select! {
            event = events.next() => match event? {
                Some(Event::Bye) | None => return Err(ended()),
                Some(Event::Notices(notices)) => {
                    overview.notices = notices;
                    changed = true;
                }
                Some(event) => {
                    board.hear(event);
                    changed = true;
                }
            },
            _ = tick.tick() => {
                if asked.elapsed() >= ASK_AGAIN {
                    // Events do not contain the uptime.
                    overview = remote.client().overview().await.map_err(fault)?;
                    asked = Instant::now();
                    changed = true;
                }
                changed |= painting.is_resized();
                if board.ready && std::mem::take(&mut changed) {
                    painting.paint(&board, &overview)?;
                }
            }
        }
    }
}

/// Prints a line for each change of a torrent's state, and for each tenth.
async fn lines(env: &Env, remote: &Remote, only: Option<InfoHash>) -> Result<(), CliError> {
    let mut events = remote.events().await?;
    let mut told: BTreeMap<InfoHash, (State, u64)> = BTreeMap::new();
    while let Some(event) = events.next().await? {
        match event {
            Event::Torrent(torrent) if only.is_none_or(|only| only == torrent.info_hash) => {
                let have = torrent.bytes_wanted_have;
                let tenths = super::super::format::percent(have, torrent.bytes_wanted) / 10;
                let now = (torrent.state, tenths);
                if told.insert(torrent.info_hash, now) != Some(now) {
                    env.stdout().line(view::line(&torrent))?;
                }
            }
            Event::Removed(info_hash) if told.remove(&info_hash).is_some() => {
                env.stdout().line(format_args!("{info_hash}: removed"))?;
            }
            Event::Bye => break,
            _ => {}
        }
    }
    Err(ended())
}

/// Prints every event of the API, one on each line.
async fn json_lines(env: &Env, remote: &Remote, only: Option<InfoHash>) -> Result<(), CliError> {
    let mut events = remote.events().await?;
    while let Some(event) = events.next().await? {
        let of = match &event {
            Event::Torrent(torrent) => Some(torrent.info_hash),
            Event::Removed(info_hash) | Event::Done(info_hash) => Some(*info_hash),
            _ => None,
        };
        if only.is_none() || of.is_none() || of == only {
            let text = serde_json::to_string(&event).map_err(std::io::Error::from)?;
            env.stdout().line(printable_json(&text))?;
        }
    }
    Err(ended())
}

fn ended() -> CliError {
    CliError::failed("the daemon has ended")
}

/// Time between two frames.
const REPAINT: Duration = Duration::from_millis(250);

/// Time between two requests for what events do not contain.
const ASK_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use piecework_core::columns as columns_of;

    use super::super::tests::a_torrent;
    use super::*;

    fn heard(count: u8) -> Board {
        let mut board = Board::default();
        for number in 0..count {
            let mut torrent = a_torrent(State::Downloading);
            torrent.info_hash = InfoHash([number; 20]);
            torrent.queue_position = u32::from(count - number);
            board.hear(Event::Torrent(Box::new(torrent)));
        }
        board
    }

    fn an_overview() -> Overview {
        serde_json::from_value(serde_json::json!({
            "version": "1", "uptime": 5, "listen": ["0.0.0.0:6881"], "download_rate": 0,
            "upload_rate": 0, "downloaded": 0, "uploaded": 0, "downloaded_ever": 0,
            "uploaded_ever": 0, "seconds_ever": 0, "starts": 1, "added_ever": 0,
            "notices": ["the state was rebuilt\u{1b}"], "torrents": [],
            "counts": {"all": 0, "downloading": 0, "seeding": 0, "checking": 0, "queued": 0,
                       "paused": 0, "failed": 0, "active": 0}
        }))
        .unwrap()
    }

    #[test]
    fn a_frame_is_neither_wider_nor_higher_than_its_terminal() {
        let overview = an_overview();
        for (columns, rows) in [(20, 2), (80, 10), (120, 300)] {
            let frame = heard(100).frame(&overview, columns, rows, Paint::new(true));
            assert!(frame.len() <= rows);
            assert!(frame.iter().all(|line| columns_of(line) < columns), "{frame:?}");
        }
        let frame = heard(1).frame(&overview, 80, 24, Paint::new(false)).join("\n");
        assert!(frame.contains("notice: the state was rebuilt\\x1b"), "{frame}");
        assert!(frame.contains("1 torrent  down 10.0 MiB/s"), "{frame}");
    }

    #[test]
    fn torrents_are_in_the_order_of_the_queue_and_go_when_they_are_taken_out() {
        let mut board = heard(3);
        let order = |board: &Board| -> Vec<u8> {
            board.in_order().iter().map(|torrent| torrent.info_hash.0[0]).collect()
        };
        assert_eq!(order(&board), [2, 1, 0]);
        board.hear(Event::Removed(InfoHash([1; 20])));
        assert_eq!(order(&board), [2, 0]);
        board.only = Some(InfoHash([2; 20]));
        board.hear(Event::Torrent(Box::new(a_torrent(State::Seeding))));
        assert_eq!(order(&board), [2, 0], "others are not watched");
    }
}
