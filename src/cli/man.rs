//! Man pages: what clap knows of a program, plus further sections.

use std::io;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// A term and its meaning, an entry of a list.
type Definition = (&'static str, &'static str);

/// The sections of a program's man page that clap does not know.
struct ManPage {
    name: &'static str,
    exits: &'static [&'static [Definition]],
    environment: &'static [&'static [Definition]],
    files: &'static [&'static [Definition]],
    see_also: &'static [&'static str],
}

/// Returns the man page of `command`, which is the program `program` or one of its subcommands.
///
/// # Errors If `command` cannot be rendered.
pub(super) fn page(program: &str, command: Command) -> io::Result<Vec<u8>> {
    let known = PROGRAMS.iter().find(|known| known.name == program);
    let has_options = command.get_arguments().any(|argument| !argument.is_hide_set());
    let has_subcommands = command.get_subcommands().any(|subcommand| !subcommand.is_hide_set());
    let has_examples = command.get_after_help().or(command.get_after_long_help()).is_some();
    let own_name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let source = format!("piecework {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).manual("Piecework").source(source);

    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if has_options {
        man.render_options_section(&mut page)?;
    }
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(known) = known {
        list("EXIT STATUS", known.exits).to_writer(&mut page)?;
        list("ENVIRONMENT", known.environment).to_writer(&mut page)?;
        list("FILES", known.files).to_writer(&mut page)?;
    }
    if has_examples {
        let mut text = Vec::new();
        man.render_extra_section(&mut text)?;
        // The library uses this name for the text below the options in --help.
        page.extend(String::from_utf8_lossy(&text).replacen("EXTRA", "EXAMPLES", 1).bytes());
    }
    if let Some(known) = known {
        see_also(&own_name, known).to_writer(&mut page)?;
    }
    Ok(page)
}

fn list(heading: &str, groups: &[&[Definition]]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for (term, meaning) in groups.iter().copied().flatten() {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
    roff
}

fn see_also(own_name: &str, program: &ManPage) -> Roff {
    // A subcommand's page refers to its program's page.
    let parent = (own_name != program.name).then_some(program.name);
    let mut text: Vec<Inline> = Vec::new();
    for name in parent.iter().chain(program.see_also) {
        if !text.is_empty() {
            text.push(roman(", "));
        }
        text.extend([bold(*name), roman("(1)")]);
    }
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text(text);
    roff
}

const EXITS: &[Definition] = &[
    ("0", "Everything that was asked for is done."),
    ("1", "It failed. A message on standard error says why."),
    ("2", "The command line, an environment variable or the configuration is not valid."),
];
const EXITS_OF_TOOLS: &[Definition] = &[("3", "No daemon answers at the given address.")];
const EXIT_INTERRUPTED: &[Definition] = &[("130", "Ctrl-C ended it before it was done.")];
const EXIT_SECOND_SIGNAL: &[Definition] =
    &[("130", "A second SIGINT or SIGTERM ended it before it had shut down.")];

const NO_COLOR: &[Definition] = &[("NO_COLOR", "Any value but an empty one turns colors off.")];
const SHA1: &[Definition] = &[(
    "PIECEWORK_SHA1",
    "How SHA-1 is computed: avx512, sha, avx2 or scalar. Default: the fastest that the processor \
     supports.",
)];
const CONFIG: &[Definition] =
    &[("PIECEWORK_CONFIG", "The configuration file. The option --config takes precedence.")];
const HOST: &[Definition] =
    &[("PIECEWORK_HOST", "The machine that the daemon runs on. Default: 127.0.0.1.")];
const CONTROL: &[Definition] = &[
    ("PIECEWORK_PORT", "The port of the daemon's control. Default: 5000."),
    ("PIECEWORK_PASSWORD", "The password of the daemon's control."),
];
const ENGINE: &[Definition] = &[
    ("PIECEWORK_LISTEN", "IP:PORT to accept peers on. Default: 0.0.0.0:6881."),
    ("PIECEWORK_TRACKER", "IP:PORT or URL of the tracker. Default: 127.0.0.1:8000."),
    ("PIECEWORK_DOWNLOADS", "The folder for downloads."),
    ("PIECEWORK_TORRENTS", "The folder for .torrent files."),
    ("PIECEWORK_UPLOAD_LIMIT", "Bytes per second sent at most, for instance 10MiB, or none."),
    ("PIECEWORK_DOWNLOAD_LIMIT", "Bytes per second received at most, or none."),
    ("PIECEWORK_JOURNAL", "The SQLite file of the journal, or none."),
];
const PATIENCE: &[Definition] = &[(
    "PIECEWORK_NOBODY_TIMEOUT",
    "How long get waits for a first peer, for instance 30s. Default: 12s.",
)];
const TRACKER: &[Definition] = &[
    ("PIECEWORK_TRACKER_LISTEN", "IP:PORT to listen on. Default: 127.0.0.1:8000."),
    ("PIECEWORK_TRACKER_TORRENTS", "The folder of the catalogue's .torrent files."),
    ("PIECEWORK_TRACKER_STATE", "The SQLite file of the tracker's state."),
    ("PIECEWORK_TRACKER_JOURNAL", "The SQLite file of the journal, or none."),
];
const XDG: &[Definition] = &[(
    "XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_STATE_HOME",
    "Base directories in place of ~/.config, ~/.local/share and ~/.local/state.",
)];
const SERVICE: &[Definition] = &[(
    "STATE_DIRECTORY, CONFIGURATION_DIRECTORY",
    "Set by systemd: the folders in place of /var/lib/piecework and /etc/piecework.",
)];
const SUPERVISOR: &[Definition] = &[
    ("RUNTIME_DIRECTORY", "Set by systemd: the folder of the owner's token."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "Set by systemd: where readiness and liveness are reported."),
];

const CONFIG_FILES: &[Definition] = &[
    (
        "config.toml",
        "In the working directory: the configuration, if the file is one of Piecework.",
    ),
    ("~/.config/piecework/config.toml", "The configuration of a user."),
    ("/etc/piecework/config.toml", "The configuration of the machine."),
];
const PATHS_OPTION: &[Definition] =
    &[("--paths", "This option prints which of these files are used on this machine.")];
const PATHS_ONLY: &[Definition] =
    &[("none", "This program reads no configuration and keeps no state of its own.")];
const TOKEN: &[Definition] = &[(
    "/run/piecework/control-PORT.token",
    "The token of the daemon's owner, of a service. Of a user's daemon it is in \
     $XDG_RUNTIME_DIR/piecework.",
)];
const PEER_FILES: &[Definition] = &[
    ("~/.local/share/piecework/torrents", "The .torrent files and the journal."),
    ("~/Downloads", "The downloads."),
];
const DAEMON_FILES: &[Definition] = &[
    ("/var/lib/piecework", "State, .torrent files and downloads of a service."),
    (
        "~/.local/state/piecework/daemon.sqlite",
        "State of a user's daemon. Its journal is next to it.",
    ),
];
const TRACKER_FILES: &[Definition] = &[
    ("/var/lib/piecework-tracker", "State and catalogue of the packaged service."),
    (
        "~/.local/state/piecework/tracker.sqlite",
        "State of a user's tracker. Its journal is next to it.",
    ),
    ("~/.local/share/piecework/tracker", "The .torrent files of a user's catalogue."),
];

const OF_TOOL: &[&[Definition]] = &[EXITS, EXITS_OF_TOOLS];
const OF_LIVE_TOOL: &[&[Definition]] = &[EXITS, EXITS_OF_TOOLS, EXIT_INTERRUPTED];
const TOOL_ENVIRONMENT: &[&[Definition]] = &[HOST, CONTROL, CONFIG, XDG, NO_COLOR];
const TOOL_FILES: &[&[Definition]] = &[CONFIG_FILES, TOKEN, PATHS_OPTION];

const PROGRAMS: &[ManPage] = &[
    ManPage {
        name: "torrent-create",
        exits: &[EXITS],
        environment: &[SHA1, NO_COLOR],
        files: &[PATHS_ONLY],
        see_also: &["torrent-show", "torrent-verify", "torrent-seed", "torrent-peer"],
    },
    ManPage {
        name: "torrent-daemon",
        exits: &[EXITS, EXIT_SECOND_SIGNAL],
        environment: &[CONFIG, CONTROL, ENGINE, SHA1, XDG, SERVICE, SUPERVISOR],
        files: &[CONFIG_FILES, DAEMON_FILES, TOKEN, PATHS_OPTION],
        see_also: &["torrent-status", "torrent-leech", "torrent-seed", "torrent-tracker"],
    },
    ManPage {
        name: "torrent-fetch",
        exits: OF_LIVE_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-leech", "torrent-status"],
    },
    ManPage {
        name: "torrent-leech",
        exits: OF_LIVE_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-fetch", "torrent-status", "torrent-remove"],
    },
    ManPage {
        name: "torrent-log",
        exits: OF_LIVE_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-tracker", "torrent-status"],
    },
    ManPage {
        name: "torrent-peer",
        exits: &[EXITS, EXIT_SECOND_SIGNAL],
        environment: &[CONFIG, ENGINE, PATIENCE, SHA1, XDG, NO_COLOR],
        files: &[CONFIG_FILES, PEER_FILES, PATHS_OPTION],
        see_also: &["torrent-tracker", "torrent-daemon", "torrent-create"],
    },
    ManPage {
        name: "torrent-remove",
        exits: OF_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-status", "torrent-set"],
    },
    ManPage {
        name: "torrent-seed",
        exits: OF_LIVE_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-create", "torrent-status", "torrent-remove"],
    },
    ManPage {
        name: "torrent-set",
        exits: OF_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-status", "torrent-remove"],
    },
    ManPage {
        name: "torrent-show",
        exits: &[EXITS],
        environment: &[NO_COLOR],
        files: &[PATHS_ONLY],
        see_also: &["torrent-create", "torrent-verify"],
    },
    ManPage {
        name: "torrent-sim",
        exits: &[EXITS, EXIT_INTERRUPTED],
        environment: &[SHA1, NO_COLOR],
        files: &[PATHS_ONLY],
        see_also: &["torrent-peer", "torrent-tracker"],
    },
    ManPage {
        name: "torrent-status",
        exits: OF_LIVE_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-set", "torrent-log", "torrent-test"],
    },
    ManPage {
        name: "torrent-test",
        exits: OF_TOOL,
        environment: TOOL_ENVIRONMENT,
        files: TOOL_FILES,
        see_also: &["torrent-daemon", "torrent-status"],
    },
    ManPage {
        name: "torrent-tracker",
        exits: &[EXITS, EXIT_SECOND_SIGNAL],
        environment: &[CONFIG, TRACKER, XDG, SERVICE],
        files: &[CONFIG_FILES, TRACKER_FILES, PATHS_OPTION],
        see_also: &["torrent-peer", "torrent-daemon", "torrent-log"],
    },
    ManPage {
        name: "torrent-verify",
        exits: &[EXITS],
        environment: &[SHA1, NO_COLOR],
        files: &[PATHS_ONLY],
        see_also: &["torrent-show", "torrent-create"],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{self as cli, Env, Exit, Output};
    use super::*;

    type Main = fn(Env) -> Exit;

    const MAINS: [(&str, Main); 15] = [
        ("torrent-create", cli::create::main),
        ("torrent-daemon", cli::daemon::main),
        ("torrent-fetch", cli::fetch::main),
        ("torrent-leech", cli::leech::main),
        ("torrent-log", cli::log::main),
        ("torrent-peer", cli::peer::main),
        ("torrent-remove", cli::remove::main),
        ("torrent-seed", cli::seed::main),
        ("torrent-set", cli::set::main),
        ("torrent-show", cli::show::main),
        ("torrent-sim", cli::sim::main),
        ("torrent-status", cli::status::main),
        ("torrent-test", cli::test::main),
        ("torrent-tracker", cli::tracker::main),
        ("torrent-verify", cli::verify::main),
    ];

    fn page_of(program: Main, words: &[&str]) -> String {
        let (out, text) = Output::captured();
        let args = ["--generate", "man"].iter().chain(words);
        let exit = program(Env::new("p", args, "/".as_ref(), out.clone(), out));
        assert_eq!(exit, Exit::Fine, "{}", text.text());
        text.text()
    }

    fn headings(page: &str) -> Vec<&str> {
        let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
        headings.map(|heading| heading.trim_matches('"')).collect()
    }

    /// Returns the text without roff's escapes.
    fn plain(page: &str) -> String {
        page.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-").replace("\\.", ".")
    }

    #[test]
    fn every_page_has_the_sections_of_a_man_page_in_their_order() {
        let wanted = ["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"];
        for (name, main) in MAINS {
            let page = page_of(main, &[]);
            let headings = headings(&page);
            assert_eq!(headings[..3], ["NAME", "SYNOPSIS", "DESCRIPTION"], "{name}");
            let found: Vec<&str> =
                headings.iter().copied().filter(|heading| wanted.contains(heading)).collect();
            let expected: Vec<&str> = wanted
                .into_iter()
                .filter(|heading| *heading != "EXAMPLES" || found.contains(heading))
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn every_program_has_a_page_and_pages_refer_to_pages_that_exist() {
        let names: BTreeSet<&str> = MAINS.iter().map(|(name, _)| *name).collect();
        let known: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.name).collect();
        assert_eq!(names, known);
        let bins = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/bin")).unwrap();
        assert_eq!(bins.count(), names.len());
        for program in PROGRAMS {
            for other in program.see_also {
                assert!(names.contains(other) && *other != program.name, "{other}");
            }
        }
    }

    #[test]
    fn pages_have_every_variable_that_the_configuration_names() {
        let config = include_str!("../../config.toml");
        let mut section = "";
        let mut seen = 0;
        for line in config.lines() {
            section = line.strip_prefix('[').map_or(section, |rest| rest.trim_end_matches(']'));
            let words = line.split(|c: char| !c.is_ascii_uppercase() && c != '_' && c != '1');
            for variable in words.filter(|word| word.starts_with("PIECEWORK_")) {
                let (_, main) = MAINS
                    .into_iter()
                    .find(|(name, _)| *name == format!("torrent-{section}"))
                    .unwrap_or(MAINS[5]);
                let tool = page_of(cli::status::main, &[]);
                let page = page_of(main, &[]) + &tool;
                assert!(plain(&page).contains(variable), "[{section}] {variable}");
                seen += 1;
            }
        }
        assert!(seen > 12, "{seen}");
    }

    #[test]
    fn a_subcommand_refers_to_its_program() {
        let page = page_of(cli::peer::main, &["share"]);
        let (_, see_also) = page.split_once(".SH \"SEE ALSO\"").unwrap();
        assert!(plain(see_also).contains("torrent-peer(1)"), "{see_also}");
    }
}
