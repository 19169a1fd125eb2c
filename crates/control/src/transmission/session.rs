//! The daemon's settings as Transmission's session, and its statistics.

use piecework_core::SaturatingFrom;
use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::limits::{self, DEFAULT_IDLE, DEFAULT_RATIO, change_number, change_rate};
use super::memory::Figures;
use super::torrent_add::absolute;
use super::trackers::{tiers_from_text, tiers_to_text};
use piecework_api::{AltLimits, Encryption, Overview, Settings, SettingsChange};
use piecework_core::printable;

/// What the session tells besides its settings.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) peer_port: u16,
    pub(super) block_list_len: u64,
    /// Bytes free in the downloads folder; `None` if nobody asked or it cannot be told.
    pub(super) free: Option<u64>,
    pub(super) session_id: String,
    pub(super) pex: bool,
    pub(super) lpd: bool,
}

/// All that `session_get` tells.
pub(super) fn told(settings: &Settings, facts: &Facts, figures: &Figures) -> Map<String, Value> {
    let mut all = settings_told(settings, figures);
    all.extend(scripts_told(settings));
    let Value::Object(rest) = json!({
        "blocklist_size": facts.block_list_len,
        "download_dir_free_space": facts.free.map_or(json!(-1), Value::from),
        "peer_port": facts.peer_port,
        "session_id": facts.session_id,

        // Where the daemon keeps its own things is no client's business.
        "config_dir": "",
        "rpc_version": RPC_VERSION,
        "rpc_version_minimum": RPC_VERSION_MINIMUM,
        "rpc_version_semver": RPC_VERSION_SEMVER,
        "version": version(),
        "units": units(),

        // What there is not, or not otherwise.
        "anti_brute_force_enabled": false,
        "blocklist_url": "",
        "cache_size_mib": 0,
        "dht_enabled": false,
        "incomplete_dir": settings.downloads.to_string_lossy(),
        "incomplete_dir_enabled": false,
        "lpd_enabled": facts.lpd,
        "peer_port_random_on_start": false,
        "pex_enabled": facts.pex,
        "port_forwarding_enabled": false,
        "preferred_transports": ["tcp"],
        "reqq": 500,
        "tcp_enabled": true,
        "utp_enabled": false,
    }) else {
        return all;
    };
    all.extend(rest);
    all
}

/// What `session_set` asks for.
#[derive(Debug)]
pub(super) struct SettingsRequest {
    /// All that can be set.
    pub(super) change: SettingsChange,
    /// Why the rest cannot.
    pub(super) refused: Vec<Fault>,
}

/// Collects the settings that a request changes.
struct Collector<'a> {
    given: &'a Arguments,
    settings: &'a Settings,
    figures: &'a mut Figures,
    change: Map<String, Value>,
    refused: Vec<Fault>,
}

/// Returns what `session_set` asks for, and remembers the rest in `figures`. Settings that there are not,
/// keys that cannot be set, and those nobody knows, are passed over as Transmission does: a remote sends
/// its whole dialog at once. A key refused takes no other with it.
pub(super) fn requested_changes(
    given: &Arguments,
    settings: &Settings,
    facts: &Facts,
    figures: &mut Figures,
) -> SettingsRequest {
    let refused = refused_programs(given, &told(settings, facts, figures));
    let mut collector = Collector { given, settings, figures, change: Map::new(), refused };
    collector.put("downloads", downloads(given));
    collector.put("default_trackers", default_trackers(given));
    collector.put("encryption", encryption(given, settings.encryption));
    collector.counts_and_flags();
    collector.rates_and_ratio();
    collector.times_and_queues();
    let alt = alt_change(given, &settings.alt, &mut collector.refused);
    if alt != settings.alt {
        collector.change.insert("alt".to_owned(), json!(alt));
    }
    let Collector { change, refused, .. } = collector;
    SettingsRequest { change: SettingsChange(change), refused }
}

/// Returns a fault for each program that differs from what was `told`.
fn refused_programs(given: &Arguments, told: &Map<String, Value>) -> Vec<Fault> {
    let differs =
        |key: &str, value: &Value| !told.get(key).is_some_and(|is| means_the_same(value, is));
    let mut refused = Vec::new();
    for (key, _) in given.iter().filter(|(key, value)| differs(key, value)) {
        if PROGRAMS.contains(&key) {
            let detail = format!(
                "`{key}` cannot be changed here: programs are chosen in the configuration file"
            );
            refused.push(Fault::new(Code::InvalidParams, detail));
        } else if LACKING.contains(&key) {
            tracing::info!(key, "a remote sets what cannot be had otherwise here: passed over");
        }
    }
    refused
}

impl Collector<'_> {
    fn put(&mut self, name: &str, value: Result<Option<Value>, Fault>) {
        match value {
            Ok(Some(value)) => drop(self.change.insert(name.to_owned(), value)),
            Ok(None) => {}
            Err(fault) => self.refused.push(fault),
        }
    }

    fn counts_and_flags(&mut self) {
        let (given, settings) = (self.given, self.settings);
        for (key, name) in [
            ("peer_limit_global", "max_connections"),
            ("peer_limit_per_torrent", "max_peers_per_torrent"),
        ] {
            self.put(name, given.count::<u32>(key).map(|count| count.map(Value::from)));
        }
        for (key, name) in [
            ("blocklist_enabled", "block_list"),
            ("sequential_download", "sequential"),
            ("start_added_torrents", "start_added"),
            ("trash_original_torrent_files", "watch_delete"),
        ] {
            self.put(name, given.flag(key).map(|flag| flag.map(Value::from)));
        }
        let suffix = given.flag("rename_partial_files").map(|flag| match flag {
            Some(true) if settings.incomplete_suffix.is_empty() => Some(json!(".part")),
            Some(false) => Some(json!("")),
            _ => None,
        });
        self.put("incomplete_suffix", suffix);
    }

    fn rates_and_ratio(&mut self) {
        let (given, settings) = (self.given, self.settings);
        for (keys, name, now) in [
            (UP, "upload_limit", settings.upload_limit),
            (DOWN, "download_limit", settings.download_limit),
        ] {
            let limit = change_rate(given, keys, now, self.figures);
            self.put(name, limit.map(|change| change.map(|limit| json!(limit))));
        }
        let ratio = change_number(given, RATIO, settings.seed_ratio, DEFAULT_RATIO, self.figures);
        self.put("seed_ratio", ratio.map(|change| change.map(|ratio| json!(ratio))));
    }

    fn times_and_queues(&mut self) {
        let (given, settings) = (self.given, self.settings);
        for (keys, name, now, default) in [
            (IDLE, "seed_idle", settings.seed_idle, DEFAULT_IDLE),
            (STALLED, "stalled_after", settings.stalled_after, DEFAULT_IDLE),
        ] {
            let minutes = now.map(|seconds| seconds.div_ceil(60) as f64);
            let minutes = change_number(given, keys, minutes, default, self.figures);
            // From the float to the integer the cast saturates.
            let seconds = |minutes: f64| u64::saturating_from(minutes * 60.0);
            self.put(name, minutes.map(|change| change.map(|it| json!(it.map(seconds)))));
        }
        for (keys, name, now, default) in [
            (DOWN_QUEUE, "active_downloads", settings.active_downloads, DEFAULT_DOWN_QUEUE),
            (UP_QUEUE, "active_seeds", settings.active_seeds, DEFAULT_UP_QUEUE),
        ] {
            let count = change_number(given, keys, now.map(f64::from), default, self.figures);
            let whole = |count: f64| u32::saturating_from(count);
            self.put(name, count.map(|change| change.map(|it| json!(it.map(whole)))));
        }
    }
}

fn downloads(given: &Arguments) -> Result<Option<Value>, Fault> {
    match given.text("download_dir")? {
        None | Some("") => Ok(None),
        Some(folder) => Ok(Some(json!(absolute(folder)?))),
    }
}

fn default_trackers(given: &Arguments) -> Result<Option<Value>, Fault> {
    let Some(text) = given.text("default_trackers")? else { return Ok(None) };
    Ok(Some(json!(tiers_from_text(text)?)))
}

/// The mode of encryption that is asked for. Transmission has no word for [`Encryption::Plain`]; so that
/// a remote that sends its whole dialog does not change it, it stays when its word comes back.
fn encryption(given: &Arguments, now: Encryption) -> Result<Option<Value>, Fault> {
    let wanted = match given.text("encryption")? {
        None => return Ok(None),
        Some(word) if word == encryption_told(now) => return Ok(None),
        Some("required") => Encryption::Require,
        Some("preferred") => Encryption::Prefer,
        Some("allowed") => Encryption::Allow,
        Some(other) => {
            let detail = format!(
                "`encryption` must be `required`, `preferred` or `allowed`, not `{}`",
                printable(other)
            );
            return Err(Fault::new(Code::InvalidParams, detail));
        }
    };
    Ok(Some(json!(wanted)))
}

/// Transmission's word for a mode of encryption.
fn encryption_told(encryption: Encryption) -> &'static str {
    match encryption {
        Encryption::Plain | Encryption::Allow => "allowed",
        Encryption::Prefer => "preferred",
        Encryption::Require => "required",
    }
}

/// One fault for all of `refused`, to whoever asked for more than that.
pub(super) fn partial(refused: Vec<Fault>) -> Result<(), Fault> {
    let Some(code) = refused.first().map(|fault| fault.code) else { return Ok(()) };
    let mut details: Vec<String> = Vec::new();
    for fault in refused {
        let detail = fault.detail.unwrap_or_else(|| fault.code.message().to_owned());
        if !details.contains(&detail) {
            details.push(detail);
        }
    }
    Err(Fault::new(code, format!("{}; everything else was set", details.join("; "))))
}

/// What `session_stats` tells. `added`: torrents that are here and were added since the daemon started.
pub(super) fn stats(overview: &Overview, added: usize) -> Map<String, Value> {
    let piecework_api::Counts { all, paused, failed, .. } = overview.counts;
    let paused = paused + failed;
    let Value::Object(stats) = json!({
        "active_torrent_count": all - paused,
        "download_speed": overview.download_rate,
        "paused_torrent_count": paused,
        "torrent_count": all,
        "upload_speed": overview.upload_rate,
        "cumulative_stats": {
            "uploaded_bytes": overview.uploaded_ever, "downloaded_bytes": overview.downloaded_ever,
            "files_added": overview.added_ever, "seconds_active": overview.seconds_ever,
            "session_count": overview.starts,
        },
        "current_stats": {
            "uploaded_bytes": overview.uploaded, "downloaded_bytes": overview.downloaded,
            "files_added": added, "seconds_active": overview.uptime, "session_count": 1,
        },
    }) else {
        return Map::new();
    };
    stats
}

/// What the settings tell.
fn settings_told(settings: &Settings, figures: &Figures) -> Map<String, Value> {
    let minutes = |seconds: Option<u64>, key: &str| {
        seconds.map_or_else(
            || figures.whole(key, u64::saturating_from(DEFAULT_IDLE)),
            |seconds| seconds.div_ceil(60),
        )
    };
    let count = |count: Option<u32>, key: &str, default: f64| {
        count.map_or_else(|| figures.whole(key, u64::saturating_from(default)), u64::from)
    };
    let Value::Object(told) = json!({
        "alt_speed_down": limits::kilobytes(settings.alt.download),
        "alt_speed_enabled": settings.alt.on,
        "alt_speed_time_begin": settings.alt.begin,
        "alt_speed_time_day": settings.alt.days,
        "alt_speed_time_enabled": settings.alt.scheduled,
        "alt_speed_time_end": settings.alt.end,
        "alt_speed_up": limits::kilobytes(settings.alt.upload),
        "blocklist_enabled": settings.block_list,
        "default_trackers": tiers_to_text(&settings.default_trackers),
        "download_dir": settings.downloads.to_string_lossy(),
        "download_queue_enabled": settings.active_downloads.is_some(),
        "download_queue_size": count(settings.active_downloads, DOWN_QUEUE.0, DEFAULT_DOWN_QUEUE),
        "encryption": encryption_told(settings.encryption),
        "idle_seeding_limit": minutes(settings.seed_idle, IDLE.0),
        "idle_seeding_limit_enabled": settings.seed_idle.is_some(),
        "peer_limit_global": settings.max_connections,
        "peer_limit_per_torrent": settings.max_peers_per_torrent,
        "queue_stalled_enabled": settings.stalled_after.is_some(),
        "queue_stalled_minutes": minutes(settings.stalled_after, STALLED.0),
        "rename_partial_files": !settings.incomplete_suffix.is_empty(),
        "seed_queue_enabled": settings.active_seeds.is_some(),
        "seed_queue_size": count(settings.active_seeds, UP_QUEUE.0, DEFAULT_UP_QUEUE),
        "seed_ratio_limit": settings.seed_ratio.unwrap_or_else(|| figures.get(RATIO.0, DEFAULT_RATIO)),
        "seed_ratio_limited": settings.seed_ratio.is_some(),
        "sequential_download": settings.sequential,
        "speed_limit_down": limits::rate(settings.download_limit, figures, DOWN.0),
        "speed_limit_down_enabled": settings.download_limit.is_some(),
        "speed_limit_up": limits::rate(settings.upload_limit, figures, UP.0),
        "speed_limit_up_enabled": settings.upload_limit.is_some(),
        "start_added_torrents": settings.start_added,
        "trash_original_torrent_files": settings.watch_delete,
    }) else {
        return Map::new();
    };
    told
}

/// Programs are told and never set: who may speak to us must not become who may run programs.
fn scripts_told(settings: &Settings) -> Map<String, Value> {
    let mut told = Map::new();
    for (name, program) in [
        ("added", &settings.on_added),
        ("done", &settings.on_done),
        ("done_seeding", &settings.on_seeded),
    ] {
        let filename = json!(program.as_deref().unwrap_or_default());
        told.insert(format!("script_torrent_{name}_enabled"), json!(program.is_some()));
        told.insert(format!("script_torrent_{name}_filename"), filename);
    }
    told
}

/// The second pair of limits as it is to be; what is `refused` of it stays as it is.
fn alt_change(given: &Arguments, now: &AltLimits, refused: &mut Vec<Fault>) -> AltLimits {
    fn or<T>(read: Result<Option<T>, Fault>, now: T, refused: &mut Vec<Fault>) -> T {
        match read {
            Ok(read) => read.unwrap_or(now),
            Err(fault) => {
                refused.push(fault);
                now
            }
        }
    }
    let minutes = |key: &str| match given.count::<u16>(key)? {
        Some(minutes) if minutes >= 24 * 60 => {
            let detail = format!("`{key}` must be minutes after midnight, not `{minutes}`");
            Err(Fault::new(Code::InvalidParams, detail))
        }
        minutes => Ok(minutes),
    };
    let days = || match given.count::<u8>("alt_speed_time_day")? {
        Some(days) if days > 127 => {
            let detail = format!("`alt_speed_time_day` must be 0 to 127, not `{days}`");
            Err(Fault::new(Code::InvalidParams, detail))
        }
        days => Ok(days),
    };
    let rate = |key: &str| Ok(given.rate(key)?.map(limits::holding));
    AltLimits {
        on: or(given.flag("alt_speed_enabled"), now.on, refused),
        upload: or(rate("alt_speed_up"), now.upload, refused),
        download: or(rate("alt_speed_down"), now.download, refused),
        scheduled: or(given.flag("alt_speed_time_enabled"), now.scheduled, refused),
        begin: or(minutes("alt_speed_time_begin"), now.begin, refused),
        end: or(minutes("alt_speed_time_end"), now.end, refused),
        days: or(days(), now.days, refused),
    }
}

/// Whether a client that sends `given` wants it as it `is`, however it writes numbers and flags.
fn means_the_same(given: &Value, is: &Value) -> bool {
    match (given.as_f64(), is.as_f64(), is.as_bool()) {
        (Some(given), Some(is), _) => given == is,
        (Some(given), None, Some(is)) => given == f64::from(u8::from(is)),
        _ => given == is,
    }
}

/// The daemon's own name and version stand where Transmission's revision stands: clients hold the
/// number in front against what they need.
fn version() -> String {
    format!("4.1.1 (Piecework {})", env!("CARGO_PKG_VERSION"))
}

fn units() -> Value {
    json!({
        "memory_bytes": 1024, "memory_units": ["B", "KiB", "MiB", "GiB", "TiB"],
        "size_bytes": 1000, "size_units": ["B", "kB", "MB", "GB", "TB"],
        "speed_bytes": 1000, "speed_units": ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"],
    })
}

/// What cannot be had otherwise than it is.
const LACKING: &[&str] = &[
    "anti_brute_force_enabled",
    "blocklist_url",
    "cache_size_mib",
    "dht_enabled",
    "incomplete_dir",
    "incomplete_dir_enabled",
    "lpd_enabled",
    "peer_port",
    "peer_port_random_on_start",
    "pex_enabled",
    "port_forwarding_enabled",
    "preferred_transports",
    "reqq",
    "utp_enabled",
];

/// What is run at events, and whether it is: who may speak to us must not become who may run programs.
const PROGRAMS: &[&str] = &[
    "script_torrent_added_enabled",
    "script_torrent_added_filename",
    "script_torrent_done_enabled",
    "script_torrent_done_filename",
    "script_torrent_done_seeding_enabled",
    "script_torrent_done_seeding_filename",
];

/// Version of the RPC in whole numbers, as Transmission 4.1 has it.
const RPC_VERSION: u32 = 18;

/// The oldest version whose clients are understood.
const RPC_VERSION_MINIMUM: u32 = 14;

/// Version of the RPC.
pub(super) const RPC_VERSION_SEMVER: &str = "6.0.1";

const UP: (&str, &str) = ("speed_limit_up", "speed_limit_up_enabled");
const DOWN: (&str, &str) = ("speed_limit_down", "speed_limit_down_enabled");
const RATIO: (&str, &str) = ("seed_ratio_limit", "seed_ratio_limited");
const IDLE: (&str, &str) = ("idle_seeding_limit", "idle_seeding_limit_enabled");
const STALLED: (&str, &str) = ("queue_stalled_minutes", "queue_stalled_enabled");
const DOWN_QUEUE: (&str, &str) = ("download_queue_size", "download_queue_enabled");
const UP_QUEUE: (&str, &str) = ("seed_queue_size", "seed_queue_enabled");

/// Downloads at a time that Transmission begins with.
const DEFAULT_DOWN_QUEUE: f64 = 5.0;

/// Seeding torrents at a time that Transmission begins with.
const DEFAULT_UP_QUEUE: f64 = 10.0;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn arguments(value: Value) -> Arguments {
        Arguments::new(value.as_object().unwrap().clone())
    }

    /// What the settings become by a `session_set`.
    fn set(settings: &Settings, figures: &mut Figures, value: Value) -> Result<Settings, Fault> {
        let wishes = requested_changes(&arguments(value), settings, &Facts::default(), figures);
        partial(wishes.refused)?;
        Ok(wishes.change.apply(settings).unwrap())
    }

    #[test]
    fn what_is_set_is_told() {
        let mut figures = Figures::default();
        let wishes = json!({
            "alt_speed_down": 11, "alt_speed_enabled": true, "alt_speed_time_begin": 60,
            "alt_speed_time_day": 3, "alt_speed_time_enabled": true, "alt_speed_time_end": 70,
            "alt_speed_up": 12, "blocklist_enabled": false, "default_trackers": "http://a.org/a\n\nudp://b.org:1",
            "download_dir": "/d", "download_queue_enabled": true, "download_queue_size": 4,
            "encryption": "preferred", "idle_seeding_limit": 9, "idle_seeding_limit_enabled": true, "peer_limit_global": 99,
            "peer_limit_per_torrent": 33, "queue_stalled_enabled": true, "queue_stalled_minutes": 8,
            "rename_partial_files": false, "seed_queue_enabled": true, "seed_queue_size": 3,
            "seed_ratio_limit": 1.25, "seed_ratio_limited": true, "sequential_download": true,
            "speed_limit_down": 20, "speed_limit_down_enabled": true, "speed_limit_up": 30,
            "speed_limit_up_enabled": true, "start_added_torrents": false,
            "trash_original_torrent_files": true,
        });
        let settings = set(&Settings::default(), &mut figures, wishes.clone()).unwrap();
        assert_eq!(settings.downloads, PathBuf::from("/d"));
        assert_eq!((settings.upload_limit, settings.seed_idle), (Some(30_000), Some(540)));
        let told = told(&settings, &Facts::default(), &figures);
        for (key, value) in wishes.as_object().unwrap() {
            assert_eq!(&told[key], value, "{key}");
        }
        // All that is told can be set again, and changes nothing.
        let again = set(&settings, &mut figures, Value::Object(told)).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn the_mode_of_encryption_has_three_words_and_plain_is_kept_by_its_own() {
        let mut figures = Figures::default();
        use Encryption::{Allow, Plain, Prefer, Require};
        for (now, word, then) in [
            (Allow, "required", Require),
            (Require, "preferred", Prefer),
            (Prefer, "allowed", Allow),
            (Allow, "allowed", Allow),
            (Plain, "allowed", Plain),
            (Plain, "preferred", Prefer),
        ] {
            let settings = Settings { encryption: now, ..Settings::default() };
            let after = set(&settings, &mut figures, json!({ "encryption": word })).unwrap();
            assert_eq!(after, Settings { encryption: then, ..settings });
            assert_eq!(told(&after, &Facts::default(), &figures)["encryption"], word);
        }
    }

    #[test]
    fn switches_and_figures_may_come_one_by_one() {
        let mut figures = Figures::default();
        let mut settings = Settings::default();
        for (wish, shown, on, limit) in [
            (json!({"speed_limit_up": 30}), 30, false, None),
            (json!({"speed_limit_up_enabled": true}), 30, true, Some(30_000)),
            (json!({"speed_limit_up": 40}), 40, true, Some(40_000)),
            (json!({"speed_limit_up_enabled": false}), 40, false, None),
            (json!({"speed_limit_up_enabled": true, "speed_limit_up": 0}), 0, true, Some(1)),
        ] {
            settings = set(&settings, &mut figures, wish.clone()).unwrap();
            assert_eq!(settings.upload_limit, limit, "{wish}");
            let told = told(&settings, &Facts::default(), &figures);
            assert_eq!(told["speed_limit_up"], shown, "{wish}");
            assert_eq!(told["speed_limit_up_enabled"], on, "{wish}");
        }
    }

    #[test]
    fn programs_and_what_makes_no_sense_cannot_be_set() {
        let settings = Settings { on_done: Some("/bin/x".to_owned()), ..Settings::default() };
        let mut figures = Figures::default();
        let mut set = |value| set(&settings, &mut figures, value);
        for refused in [
            json!({"script_torrent_done_filename": "/bin/sh"}),
            json!({"script_torrent_done_enabled": false}),
            json!({"script_torrent_added_enabled": true}),
            json!({"script_torrent_done_seeding_filename": "/bin/sh"}),
            json!({"speed_limit_up": "much"}),
            json!({"alt_speed_time_begin": 1440}),
            json!({"alt_speed_time_day": 128}),
            json!({"encryption": "sometimes"}),
            json!({"encryption": 2}),
        ] {
            assert_eq!(set(refused.clone()).unwrap_err().code, Code::InvalidParams, "{refused}");
        }
        assert_eq!(set(json!({"download_dir": "d"})).unwrap_err().code, Code::PathNotAbsolute);
        for harmless in [
            json!({"dht_enabled": 0, "cache_size_mib": 0.0, "encryption": "allowed"}),
            json!({"script_torrent_done_enabled": true, "script_torrent_done_filename": "/bin/x"}),
            json!({"version": "x", "no_such_key": 1, "units": null}),
        ] {
            assert_eq!(set(harmless.clone()).unwrap(), settings, "{harmless}");
        }
    }

    #[test]
    fn line_17_settings_that_there_are_not_are_passed_over_and_the_rest_is_set() {
        let mut figures = Figures::default();
        let dialog = json!({
            "dht_enabled": true, "peer_port": 1, "pex_enabled": true,
            "utp_enabled": "yes", "cache_size_mib": 4, "incomplete_dir": "/x",
            "incomplete_dir_enabled": true, "blocklist_url": "http://a.org", "reqq": 2000,
            "preferred_transports": ["utp", "tcp"], "no_such_key": [1],
            "speed_limit_down": 976.5625, "speed_limit_down_enabled": true,
            "idle_seeding_limit": 1.5, "idle_seeding_limit_enabled": true,
            "seed_queue_size": 2.0, "seed_queue_enabled": true, "peer_limit_global": 240.5,
        });
        let after = set(&Settings::default(), &mut figures, dialog).unwrap();
        let wanted = Settings {
            download_limit: Some(976_563),
            seed_idle: Some(90),
            active_seeds: Some(2),
            max_connections: 240,
            ..Settings::default()
        };
        assert_eq!(after, wanted);
    }

    #[test]
    fn line_17_a_key_that_is_refused_takes_no_other_with_it() {
        let mut figures = Figures::default();
        let given = arguments(json!({
            "script_torrent_done_filename": "/bin/sh", "download_dir": "relative",
            "alt_speed_up": 12, "alt_speed_time_begin": 5_000, "speed_limit_up": "much",
            "start_added_torrents": false,
        }));
        let settings = Settings::default();
        let wishes = requested_changes(&given, &settings, &Facts::default(), &mut figures);
        let after = wishes.change.apply(&settings).unwrap();
        let alt = AltLimits { upload: 12_000, ..AltLimits::default() };
        assert_eq!(after, Settings { alt, start_added: false, ..Settings::default() });
        let told = partial(wishes.refused).unwrap_err().detail.unwrap();
        for key in ["script_torrent_done_filename", "relative", "alt_speed_time_begin", "much"] {
            assert!(told.contains(key), "{key}: {told}");
        }
        assert!(told.ends_with("; everything else was set"), "{told}");
    }

    #[test]
    fn statistics_count_what_runs() {
        let overview = Overview {
            uptime: 100,
            uploaded_ever: 7,
            starts: 3,
            counts: piecework_api::Counts {
                all: 4,
                seeding: 1,
                queued: 1,
                paused: 1,
                failed: 1,
                ..Default::default()
            },
            ..super::super::samples::overview()
        };
        let stats = stats(&overview, 1);
        assert_eq!(stats["active_torrent_count"], 2);
        assert_eq!(stats["paused_torrent_count"], 2);
        assert_eq!(stats["torrent_count"], 4);
        assert_eq!(stats["current_stats"]["files_added"], 1);
        assert_eq!(stats["cumulative_stats"]["uploaded_bytes"], 7);
        assert_eq!(stats["cumulative_stats"]["session_count"], 3);
    }
}
