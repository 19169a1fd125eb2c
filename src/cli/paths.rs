//! `--paths`: the configuration files that a program looks for, and the places of what it keeps.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::config::{ConfigFileState, Sources};
use super::format::shown;
use super::{CliError, Config, Env, token, tracker};

/// Prints the configuration files and places of a program that is called with `args`.
///
/// # Errors
/// If the configuration is not valid, or the output cannot be written.
pub(super) fn tell(env: &Env, args: &[OsString]) -> Result<(), CliError> {
    let named = option(args, "--config");
    let sources = Sources::find(env, named.as_deref().map(Path::new))?;
    let mut text = String::from("configuration, the first of these:\n");
    for (path, found) in &sources.files {
        let state = match found {
            ConfigFileState::Read => "read",
            ConfigFileState::NotThere => "not there",
            ConfigFileState::NotOurs => "another program's",
            ConfigFileState::Unreadable => "may not be read by this user",
            ConfigFileState::NotNeeded => "not needed",
        };
        text.push_str(&format!("  {}  {state}\n", shown(&env.path(path))));
    }
    text.push_str("kept in:\n");
    let rows = rows(env, args, &sources)?;
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    for Row { what, path, from } in rows {
        let line = match path {
            Some(path) => {
                let missing = if path.exists() { "" } else { ", not there yet" };
                format!("  {what:width$}  {}  ({from}{missing})\n", shown(&path))
            }
            None => format!("  {what:width$}  nowhere  ({from})\n"),
        };
        text.push_str(&line);
    }
    env.stdout().text(text)?;
    Ok(())
}

/// A file or folder.
struct Row {
    what: &'static str,
    /// `None` if it is not kept.
    path: Option<PathBuf>,
    /// What names this path.
    from: String,
}

impl Row {
    fn new(env: &Env, what: &'static str, path: Option<PathBuf>, from: String) -> Self {
        Self { what, path: path.map(|path| env.path(path)), from }
    }
}

fn rows(env: &Env, args: &[OsString], sources: &Sources) -> Result<Vec<Row>, CliError> {
    let mut config = sources.config.clone();
    let mut flags = Vec::new();
    for (flag, place) in [
        ("--torrents", &mut config.peer.torrents),
        ("--downloads", &mut config.peer.downloads),
        ("--state", &mut config.daemon.state),
    ] {
        if let Some(path) = option(args, flag) {
            *place = path.into();
            flags.push(flag);
        }
    }
    let from = |section: &str, key: &str, flag: &str, variable: &str| {
        if flags.contains(&flag) {
            flag.to_owned()
        } else {
            origin(env, sources, section, key, variable)
        }
    };
    let (peer, daemon) = (&config.peer, &config.daemon);
    let journal = |file: &Path, folder: &Path| Some(peer.journal(env, file, folder, "")?.path);
    let beside = daemon.state.parent().unwrap_or(Path::new(""));
    let row = |what, path: Option<PathBuf>, from| Row::new(env, what, path, from);
    let mut rows = vec![
        row(
            ".torrent files",
            Some(peer.torrents.clone()),
            from("peer", "torrents", "--torrents", "PIECEWORK_TORRENTS"),
        ),
        row(
            "downloads",
            Some(peer.downloads.clone()),
            from("peer", "downloads", "--downloads", "PIECEWORK_DOWNLOADS"),
        ),
        row(
            "journal of peers",
            journal(&peer.journal, &peer.torrents),
            from("peer", "journal", "", "PIECEWORK_JOURNAL"),
        ),
        row(
            "state of the daemon",
            Some(daemon.state.clone()),
            from("daemon", "state", "--state", ""),
        ),
        row(
            "journal of the daemon",
            journal(&daemon.journal, beside),
            from("daemon", "journal", "", "PIECEWORK_JOURNAL"),
        ),
    ];
    let tokens = token::files(env, &config, daemon.control.port());
    rows.extend(tokens.map(|path| row("token of its owner", Some(path), "looked for".to_owned())));
    rows.extend(tracker_rows(env, &config, sources)?);
    Ok(rows)
}

fn tracker_rows(env: &Env, config: &Config, sources: &Sources) -> Result<[Row; 4], CliError> {
    let tracker = tracker::program(env, &config.tracker)?;
    let row = |what, path, key, variable| {
        Row::new(env, what, path, origin(env, sources, "tracker", key, variable))
    };
    Ok([
        row(
            "tracker's catalogue",
            tracker.torrents.clone(),
            "torrents",
            "PIECEWORK_TRACKER_TORRENTS",
        ),
        row("state of the tracker", tracker.state.clone(), "state", "PIECEWORK_TRACKER_STATE"),
        row(
            "journal of the tracker",
            tracker.journal().map(|journal| journal.path),
            "journal",
            "PIECEWORK_TRACKER_JOURNAL",
        ),
        row("token of its operator", tracker.operator_token(), "operator_token", ""),
    ])
}

/// Returns what sets a place: a variable, the configuration, or the default.
fn origin(env: &Env, sources: &Sources, section: &str, key: &str, variable: &str) -> String {
    if env.var(variable).is_some() {
        variable.to_owned()
    } else if sources.has(section, key) {
        format!("`{key}` in [{section}]")
    } else {
        "default".to_owned()
    }
}

/// Returns the value of an option, `--name VALUE` or `--name=VALUE`. The last one counts.
fn option(args: &[OsString], name: &str) -> Option<String> {
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    let in_place = |arg: &str| Some(arg.strip_prefix(name)?.strip_prefix('=')?.to_owned());
    let mut values = args.iter().enumerate().filter_map(|(at, arg)| match arg == name {
        true => args.get(at + 1).map(|value| value.clone().into_owned()),
        false => in_place(arg),
    });
    values.next_back()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Exit, Output};
    use super::*;

    #[derive(Parser)]
    #[command(name = "some")]
    struct Args {
        /// A required argument.
        _needed: String,
    }

    fn said(dir: &Path, home: &Path, args: &[&str]) -> (Exit, String) {
        let (out, text) = Output::captured();
        let env = Env::new("some", args, dir, out.clone(), out);
        let env = env.with_var("HOME", home.to_str().unwrap());
        let exit = env.run(|_: Args, _| Ok(()));
        (exit, text.text())
    }

    #[test]
    fn line_15_every_program_says_where_it_looks() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let shown = |path: &Path| path.to_str().unwrap().to_owned();
        let (exit, text) = said(dir.path(), &home, &["--paths"]);
        assert_eq!(exit, Exit::Fine, "{text}");
        let line = |text: &str, what: &str| {
            let lines = text.lines().map(str::trim);
            lines.filter(|line| line.contains(what)).collect::<Vec<_>>().join("\n")
        };
        let torrents = shown(&home.join(".local/share/piecework/torrents"));
        let torrents = format!("{torrents}  (default, not there yet)");
        assert!(line(&text, ".torrent files").ends_with(&torrents), "{text}");
        let config = home.join(".config/piecework/config.toml");
        assert!(text.contains(&format!("{}  not there", shown(&config))), "{text}");
        assert!(line(&text, "state of the daemon").contains(".local/state/piecework"), "{text}");

        let here = "[peer]\njournal = \"\"\n[tracker]\nstate = \"s/t.sqlite\"\n";
        std::fs::write(dir.path().join("config.toml"), here).unwrap();
        std::fs::create_dir(dir.path().join("downloads")).unwrap();
        let args = ["x", "--paths", "--state=d.sqlite", "--torrents", "t"];
        let (exit, text) = said(dir.path(), &home, &args);
        assert_eq!(exit, Exit::Fine, "{text}");
        for (what, end) in [
            (
                ".torrent files",
                format!("{}  (--torrents, not there yet)", shown(&dir.path().join("t"))),
            ),
            ("downloads ", format!("{}  (default)", shown(&dir.path().join("downloads")))),
            ("journal of peers", "nowhere  (`journal` in [peer])".to_owned()),
            (
                "journal of the tracker",
                "s/tracker-journal.sqlite  (default, not there yet)".to_owned(),
            ),
            (
                "state of the tracker",
                "s/t.sqlite  (`state` in [tracker], not there yet)".to_owned(),
            ),
        ] {
            assert!(line(&text, what).ends_with(&end), "{what}: {text}");
        }
        assert!(line(&text, "state of the daemon").contains("(--state"), "{text}");

        std::fs::write(dir.path().join("config.toml"), "[peer]\nx = 1\n").unwrap();
        assert_eq!(said(dir.path(), &home, &["--paths"]).0, Exit::Usage);
        // Arguments after `--` are not options.
        std::fs::remove_file(dir.path().join("config.toml")).unwrap();
        assert_eq!(said(dir.path(), &home, &["--", "--paths"]), (Exit::Fine, String::new()));
        let (_, help) = said(dir.path(), &home, &["--help"]);
        assert!(help.contains("--paths"), "{help}");
    }
}
