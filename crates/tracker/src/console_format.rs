//! Formats of tables and times on the console.

use std::time::{Duration, SystemTime};

use piecework_core::Table;
use piecework_registry::PeerView;

use super::swarms::Swarms;

/// Returns the lines of a table in `width` columns.
pub(super) fn text(table: &Table, width: usize) -> String {
    let lines = table.lines(width);
    let rows = lines.rows.into_iter().flatten();
    std::iter::once(lines.head).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Returns when a peer's holdings were last confirmed, in the local time zone, with the date if that was at least
/// half a day ago; `-` if they are not known.
pub(super) fn as_of(swarms: &Swarms, peer: &PeerView) -> String {
    let Some(at) = peer.held_at else { return "-".to_owned() };
    let date_and_time = time_of_day(swarms.time_of(at));
    let is_today = swarms.clock().now().since(at) < Duration::from_secs(12 * 3600);
    let time = date_and_time.split_once(' ').map(|(_, time)| time.to_owned());
    time.filter(|_| is_today).unwrap_or(date_and_time)
}

/// Returns date and time in the local time zone, without the year.
pub(super) fn time_of_day(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default();
    time.to_zoned(jiff::tz::TimeZone::system()).strftime("%m-%d %H:%M:%S").to_string()
}
