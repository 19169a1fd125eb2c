//! Waits for a download of the daemon and shows its progress.

use piecework_core::SaturatingFrom;
use std::time::Duration;

use piecework_api::{Added, Event, State, Torrent};
use piecework_core::{cut_end, printable};

use super::format::{Paint, bar_line, count, counted, percent, rate, seconds, size};
use super::remote::{Remote, print_json};
use super::signals::Signals;
use super::{CliError, Env, Exit, Screen};

/// Waits until everything wanted of `added` is there.
///
/// # Errors If it fails or is removed, if the daemon ends, or if Ctrl-C ends the waiting.
pub(super) async fn wait(
    env: &Env,
    remote: &Remote,
    added: &Added,
    mut interrupt: Signals,
) -> Result<(), CliError> {
    let screen = Screen::new(env);
    let result = tokio::select! {
        result = watch(env, remote, added, &screen) => result,
        () = interrupt.next() => {
            screen.close();
            env.stderr().line(format_args!(
                "the daemon continues to download {}; torrent-status shows its progress",
                printable(&added.name)
            ))?;
            return Err(CliError::silent(Exit::Interrupted));
        }
    };
    screen.close();
    result
}

/// The state of a download that is waited for.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It continues.
    Waiting,
    /// Everything wanted is there.
    Done,
    /// It will not continue by itself, with the reason.
    Failed(String),
    /// It is paused until somebody resumes it.
    Paused,
}

async fn watch(env: &Env, remote: &Remote, added: &Added, screen: &Screen) -> Result<(), CliError> {
    let mut events = remote.events().await?;
    let mut tenths = 0;
    let mut seen = false;
    let mut last: Option<(Box<Torrent>, usize)> = None;
    let mut looks = tokio::time::interval(BETWEEN_LOOKS);
    loop {
        let event = tokio::select! {
            event = events.next() => event?,
            _ = looks.tick() => {
                // A line that was painted for another width is painted again, even if nothing
                // changed.
                if let Some((torrent, width)) = &mut last
                    && screen.is_live()
                    && *width != screen.width()
                {
                    *width = screen.width();
                    screen.live(&live_line(torrent, *width, screen.live_paint()));
                }
                continue;
            }
        };
        let Some(event) = event else { break };
        let torrent = match event {
            Event::Torrent(torrent) if torrent.info_hash == added.info_hash => torrent,
            Event::Removed(info_hash) if info_hash == added.info_hash => {
                return Err(removed(added));
            }
            Event::Ready if !seen => return Err(removed(added)),
            Event::Bye => break,
            _ => continue,
        };
        seen = true;
        match verdict(&torrent) {
            Verdict::Waiting => {}
            Verdict::Paused => return Err(paused(&torrent)),
            Verdict::Failed(why) => return Err(failed(&torrent, &why)),
            Verdict::Done if remote.json() => return print_json(env, &torrent),
            Verdict::Done => {
                screen.line(done_line(&torrent, screen.paint()));
                return Ok(());
            }
        }
        if screen.is_live() {
            let width = screen.width();
            screen.live(&live_line(&torrent, width, screen.live_paint()));
            last = Some((torrent, width));
        } else {
            let now = percent(torrent.bytes_wanted_have, torrent.bytes_wanted) / 10;
            if now > tenths && is_moving(&torrent) && !remote.json() {
                tenths = now;
                screen.line(tenth_line(&torrent));
            }
        }
    }
    Err(CliError::failed(format_args!(
        "the daemon has ended; it continues with `{}` when it is started again",
        printable(&added.name)
    )))
}

fn paused(torrent: &Torrent) -> CliError {
    CliError::failed(format_args!(
        "`{}` is paused: `torrent-set {} --resume` starts it",
        printable(&torrent.name),
        &torrent.info_hash.to_string()[..8],
    ))
}

fn failed(torrent: &Torrent, why: &str) -> CliError {
    CliError::failed(format_args!(
        "downloading `{}` failed: {}",
        printable(&torrent.name),
        printable(why)
    ))
}

fn removed(added: &Added) -> CliError {
    CliError::failed(format_args!("`{}` was removed from the daemon", printable(&added.name)))
}

fn verdict(torrent: &Torrent) -> Verdict {
    match torrent.state {
        State::Failed => {
            let why = torrent.error.clone();
            Verdict::Failed(why.unwrap_or_else(|| "the daemon does not say why".to_owned()))
        }
        State::Seeding | State::QueuedSeed => Verdict::Done,
        // Its files have been checked, so the reported pieces are there.
        State::Paused | State::Downloading | State::QueuedDownload
            if torrent.bytes_wanted_have >= torrent.bytes_wanted && torrent.pieces_have > 0 =>
        {
            Verdict::Done
        }
        State::Paused if torrent.settings.paused => Verdict::Paused,
        _ => Verdict::Waiting,
    }
}

fn is_moving(torrent: &Torrent) -> bool {
    !matches!(torrent.state, State::Checking | State::QueuedCheck | State::Moving | State::Metadata)
}

/// Returns the live line, not wider than `width`.
fn live_line(torrent: &Torrent, width: usize, paint: Paint) -> String {
    let (done, total) = (torrent.bytes_wanted_have, torrent.bytes_wanted);
    let peers = counted(torrent.peers.into(), "peer");
    let (done, total, tails) = match torrent.state {
        State::Checking => {
            let percent = u64::saturating_from(torrent.check_progress * 100.0);
            (percent, 100, vec![paint.dim("checking what is there"), paint.dim("checking")])
        }
        State::Metadata => {
            let percent = u64::saturating_from(torrent.metadata_progress * 100.0);
            (percent, 100, vec![paint.yellow(waiting_word(State::Metadata))])
        }
        State::Downloading => {
            let eta = torrent.eta.map_or_else(|| "–".to_owned(), short_span);
            let speed = paint.cyan(rate(torrent.download_rate as f64));
            let short = format!("{speed}  ETA {eta}");
            (done, total, vec![format!("{short}  {peers}"), short, speed])
        }
        state => (done, total, vec![paint.yellow(waiting_word(state))]),
    };
    let line = bar_line(&torrent.name, done, total, &tails, width, paint);
    let line = match torrent.error.as_deref().map(printable) {
        Some(trouble) => format!("{line}  {}", paint.red(trouble)),
        None => line,
    };
    cut_end(&line, width.saturating_sub(1)).into_owned()
}

/// Describes `added`, which was there before: its state, how much of what is wanted is there, and
/// its folder.
///
/// # Errors If the daemon does not answer.
pub(super) async fn standing(remote: &Remote, added: &Added) -> Result<String, CliError> {
    let detail = remote.client().detail(added.info_hash).await;
    let torrent = detail.map_err(|error| remote.fault(&error))?.torrent;
    Ok(format!(
        "{}, {}% there, in `{}`",
        waiting_word(torrent.state),
        match torrent.metadata_progress < 1.0 {
            true => 0,
            false => percent(torrent.bytes_wanted_have, torrent.bytes_wanted),
        },
        super::format::shown(&torrent.folder),
    ))
}

/// Returns whether `added` stays paused until somebody resumes it.
///
/// # Errors If the daemon does not answer.
pub(super) async fn is_paused(remote: &Remote, added: &Added) -> Result<bool, CliError> {
    let detail = remote.client().detail(added.info_hash).await;
    Ok(detail.map_err(|error| remote.fault(&error))?.torrent.settings.paused)
}

/// Returns what a torrent without transfer waits for.
pub(super) fn waiting_word(state: State) -> &'static str {
    match state {
        State::Checking => "checking",
        State::Downloading => "downloading",
        State::Seeding => "seeding",
        State::QueuedCheck | State::QueuedDownload | State::QueuedSeed | State::QueuedHash => {
            "queued"
        }
        State::Hashing => "hashing",
        State::Metadata => "fetching metadata",
        State::Moving => "moving",
        State::Paused => "paused",
        State::Failed => "failed",
    }
}

/// Formats seconds in the two largest units: `2h 5m`, `3m 20s`.
pub(super) fn short_span(span: u64) -> String {
    let unit = match span {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    seconds(Duration::from_secs(span / unit * unit))
}

/// Returns the line for a tenth of a download, printed where there is no bar.
fn tenth_line(torrent: &Torrent) -> String {
    format!(
        "{} {}%: {} of {} pieces, {}, {}",
        printable(&torrent.name),
        percent(torrent.bytes_wanted_have, torrent.bytes_wanted) / 10 * 10,
        count(torrent.pieces_have.into()),
        count(torrent.pieces.into()),
        rate(torrent.download_rate as f64),
        counted(torrent.peers.into(), "peer"),
    )
}

fn done_line(torrent: &Torrent, paint: Paint) -> String {
    let name = paint.bold(printable(&torrent.name));
    let place = torrent.folder.join(&torrent.name);
    let part = match torrent.bytes_wanted < torrent.bytes {
        true => format!(" wanted of {}", size(torrent.bytes)),
        false => String::new(),
    };
    format!(
        "{} {name}: {}{part}, verified, in `{}`",
        paint.green("complete"),
        size(torrent.bytes_wanted),
        super::format::shown(&place),
    )
}

/// Time between two checks of the terminal's width.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::super::status::tests::a_torrent;
    use super::*;

    #[test]
    fn a_download_is_done_when_everything_wanted_is_there_and_looked_at() {
        let mut torrent = a_torrent(State::Downloading);
        assert_eq!(verdict(&torrent), Verdict::Waiting);
        torrent.bytes_wanted_have = torrent.bytes_wanted;
        assert_eq!(verdict(&torrent), Verdict::Done);
        for state in [State::Checking, State::QueuedCheck, State::Moving] {
            torrent.state = state;
            assert_eq!(verdict(&torrent), Verdict::Waiting, "{state:?}");
        }
        torrent.bytes_wanted_have = 0;
        (torrent.state, torrent.settings.paused) = (State::Paused, true);
        assert_eq!(verdict(&torrent), Verdict::Paused, "nobody waits for what nobody started");
        torrent.state = State::Failed;
        torrent.error = Some("the disk is full".to_owned());
        assert_eq!(verdict(&torrent), Verdict::Failed("the disk is full".to_owned()));
    }

    #[test]
    fn the_live_line_fits_its_terminal_and_obeys_no_name() {
        for state in [State::Downloading, State::Checking, State::Paused, State::QueuedDownload] {
            for width in [20, 60, 80, 120, 200] {
                for paint in [Paint::new(false), Paint::new(true)] {
                    let mut torrent = a_torrent(state);
                    torrent.name = "文\u{202e}".repeat(40);
                    torrent.error = Some("the tracker does not answer".to_owned());
                    let line = live_line(&torrent, width, paint);
                    assert!(piecework_core::columns(&line) < width, "{width}: {line}");
                    assert!(!line.contains('\u{202e}'));
                }
            }
        }
    }

    #[test]
    fn who_chose_some_files_is_not_told_that_all_are_there() {
        let mut torrent = a_torrent(State::Seeding);
        torrent.bytes = 4096;
        torrent.bytes_wanted = 1024;
        let line = done_line(&torrent, Paint::new(false));
        assert!(line.contains(": 1.0 KiB wanted of 4.0 KiB, verified, in "), "{line}");
        torrent.bytes_wanted = torrent.bytes;
        let line = done_line(&torrent, Paint::new(false));
        assert!(line.contains(": 4.0 KiB, verified, in "), "{line}");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [0, 59, 61, 3_661, 90_061].map(short_span);
        assert_eq!(spans, ["0s", "59s", "1m 1s", "1h 1m", "1day 1h"]);
    }
}
