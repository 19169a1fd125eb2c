//! The daemon's settings, in the form for people.

use serde_json::{Map, Value};

use piecework_api::{Settings, SettingsChange};
use piecework_core::printable;

use super::super::format::{parse_duration, parse_rate, rate, seconds};
use super::super::remote::{Remote, absolute};
use super::super::{CliError, Env};

/// Shows all settings.
///
/// # Errors If the daemon does not answer.
pub(super) async fn show(env: &Env, remote: &Remote) -> Result<(), CliError> {
    let settings = remote.client().settings().await.map_err(|error| remote.fault(&error))?;
    remote.answer(env, &settings, || text(&settings))
}

/// Changes settings, each given as `KEY=VALUE`, and shows them.
///
/// # Errors If a key is unknown or a value is not valid. Then nothing is changed.
pub(super) async fn change(env: &Env, remote: &Remote, changes: &[String]) -> Result<(), CliError> {
    let fault = |error| remote.fault(&error);
    let before = remote.client().settings().await.map_err(fault)?;
    let change = parse(env, &before, changes)?;
    let after = remote.client().change_settings(&change).await.map_err(fault)?;
    let keys: Vec<&str> =
        changes.iter().filter_map(|change| Some(change.split_once('=')?.0.trim())).collect();
    remote.answer(env, &after, || {
        let lines = text(&after);
        let rows = lines.lines().filter_map(|line| line.split_once(" = "));
        let changed = rows.filter(|(key, _)| keys.contains(&key.trim()));
        let changed = changed.map(|(key, value)| format!("{} = {value}", key.trim()));
        changed.collect::<Vec<_>>().join("\n")
    })
}

/// Parses changes of `settings`, given as `KEY=VALUE`.
fn parse(env: &Env, settings: &Settings, changes: &[String]) -> Result<SettingsChange, CliError> {
    let mut whole = object(settings)?;
    let mut change = Map::new();
    for text in changes {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            CliError::usage(format_args!("`{}` is not KEY=VALUE", printable(text)))
        })?;
        let (key, value) = (key.trim(), value.trim());
        let value = value_of(env, key, value).map_err(CliError::usage)?;
        let unknown = || {
            CliError::usage(format_args!(
                "there is no setting `{}`: torrent-set --daemon shows all",
                printable(key)
            ))
        };
        let (outer, inner) = match key.split_once('.') {
            None => (key, None),
            Some((outer, inner)) => (outer, Some(inner)),
        };
        let place = whole.get_mut(outer).ok_or_else(unknown)?;
        match inner {
            None if place.is_object() => return Err(unknown()),
            None => *place = value,
            Some(inner) => {
                let place = place.as_object_mut().and_then(|place| place.get_mut(inner));
                *place.ok_or_else(unknown)? = value;
            }
        }
        change.insert(outer.to_owned(), place_of(&whole, outer));
    }
    let change = SettingsChange(change);
    // Report errors before the daemon is asked.
    change
        .apply(settings)
        .map_err(|error| CliError::usage(printable(&error.to_string())).because(error))?;
    Ok(change)
}

fn place_of(whole: &Map<String, Value>, key: &str) -> Value {
    whole.get(key).cloned().unwrap_or(Value::Null)
}

/// Parses `text` as the value of `key`.
fn value_of(env: &Env, key: &str, text: &str) -> Result<Value, String> {
    let number_or_none = |number: Option<u64>| number.map_or(Value::Null, Value::from);
    Ok(match key {
        "upload_limit" | "download_limit" => number_or_none(parse_rate(text)?.0),
        "alt.upload" | "alt.download" => Value::from(parse_rate(text)?.0.unwrap_or(0)),
        "alt.begin" | "alt.end" => Value::from(minutes(text)?),
        _ if text == "none" => Value::Null,
        "stalled_after" | "seed_time" | "seed_idle" => Value::from(parse_duration(text)?.as_secs()),
        "downloads" | "watch_folder" => {
            let path = absolute(env, text.as_ref());
            Value::from(path.to_str().ok_or("the folder's name is not UTF-8")?)
        }
        "incomplete_suffix" | "on_added" | "on_done" | "on_seeded" | "choke" | "encryption" => {
            Value::from(text)
        }
        _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    })
}

/// Parses `09:30` as minutes after midnight.
fn minutes(text: &str) -> Result<u16, String> {
    let time = text.split_once(':').and_then(|(hour, minute)| {
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    });
    time.ok_or_else(|| {
        format!("`{}` is not a time of day: write for instance 09:30", printable(text))
    })
}

/// Returns all settings, one `key = value` on each line.
fn text(settings: &Settings) -> String {
    let Ok(whole) = object(settings) else { return String::new() };
    let mut rows = Vec::new();
    for (key, value) in &whole {
        match value.as_object() {
            Some(inner) => rows.extend(
                inner.iter().map(|(below, value)| (format!("{key}.{below}"), value.clone())),
            ),
            None => rows.push((key.clone(), value.clone())),
        }
    }
    let widest = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let lines = rows.iter().map(|(key, value)| format!("{key:<widest$} = {}", shown(key, value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns a value in the form for people.
fn shown(key: &str, value: &Value) -> String {
    match (key, value, value.as_u64()) {
        (_, Value::Null, _) => "none".to_owned(),
        ("alt.upload" | "alt.download", _, Some(0)) => "none".to_owned(),
        ("upload_limit" | "download_limit" | "alt.upload" | "alt.download", _, Some(bytes)) => {
            rate(bytes as f64)
        }
        ("stalled_after" | "seed_time" | "seed_idle", _, Some(span)) => {
            seconds(std::time::Duration::from_secs(span))
        }
        ("alt.begin" | "alt.end", _, Some(time)) => format!("{:02}:{:02}", time / 60, time % 60),
        (_, Value::String(text), _) => printable(text).into_owned(),
        (_, value, _) => printable(&value.to_string()).into_owned(),
    }
}

fn object(settings: &Settings) -> Result<Map<String, Value>, CliError> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(object)) => Ok(object),
        other => Err(CliError::failed(format_args!("the settings cannot be read: {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Output;
    use super::*;

    fn changed(changes: &[&str]) -> Result<Settings, String> {
        let (out, _) = Output::captured();
        let env = Env::new("t", Vec::<String>::new(), "/w".as_ref(), out.clone(), out);
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        let settings = Settings { seed_ratio: Some(1.0), ..Settings::default() };
        let change = parse(&env, &settings, &changes).map_err(|error| error.to_string())?;
        change.apply(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_written_as_people_write_them() {
        let settings = changed(&[
            "upload_limit=1MiB",
            "seed_ratio=none",
            "seed_time=2h",
            "downloads=in",
            "active_seeds=3",
            "alt.begin=22:30",
            "alt.on=true",
            "choke=closed",
            "incomplete_suffix=",
            "default_trackers=[[\"http://t/announce\"]]",
        ])
        .unwrap();
        assert_eq!(settings.upload_limit, Some(1 << 20));
        assert_eq!((settings.seed_ratio, settings.seed_time), (None, Some(7200)));
        assert_eq!(settings.downloads, std::path::Path::new("/w/in"));
        assert_eq!(settings.active_seeds, Some(3));
        assert_eq!((settings.alt.begin, settings.alt.on), (22 * 60 + 30, true));
        assert_eq!(settings.alt.end, Settings::default().alt.end);
        assert_eq!(settings.choke, piecework_api::Choke::Closed);
        assert_eq!(settings.incomplete_suffix, "");
        assert_eq!(settings.default_trackers, [["http://t/announce"]]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (text, named) in [
            ("upload\x1b=1", "`upload\\x1b`"),
            ("alt=1", "`alt`"),
            ("alt.never=1", "`alt.never`"),
            ("upload_limit=fast", "`fast`"),
            ("seed_ratio=much", "much"),
            ("start_added=none", "null"),
            ("alt.begin=25:00", "`25:00`"),
            ("pause", "`pause`"),
        ] {
            let error = changed(&[text]).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn every_setting_is_shown_as_it_may_be_written() {
        let mut settings = Settings { watch_folder: Some("/in\x1b".into()), ..Settings::default() };
        settings.alt.upload = 0;
        let text = text(&settings);
        assert!(text.contains("upload_limit") && !text.contains('\x1b'), "{text}");
        let line = |key: &str| {
            let line = text.lines().find(|line| line.split(" = ").next().unwrap().trim() == key);
            line.unwrap_or_else(|| panic!("{key}: {text}")).split(" = ").nth(1).unwrap()
        };
        assert_eq!(line("upload_limit"), "none");
        assert_eq!(line("alt.begin"), "09:00");
        assert_eq!(line("alt.upload"), "none");
        assert_eq!(line("stalled_after"), "30m");
        assert_eq!(line("watch_folder"), "/in\\x1b");
    }
}
