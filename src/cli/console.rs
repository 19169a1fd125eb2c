//! The commands of a peer's console.

use piecework_core::{Page, printable};

/// A command typed at a running peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsoleCommand {
    /// Every response, piece by piece.
    RequestLogs(Page),
    /// The state of the torrents.
    Status,
    /// Connected peers.
    Peers,
    /// The files, and how much of each is here.
    Files,
    /// The list of commands.
    Help,
    /// Leave.
    Quit,
    /// An empty line.
    Nothing,
}

impl ConsoleCommand {
    /// Parses a line. A leading `>`, case and repeated spaces are ignored.
    ///
    /// # Errors Returns a sentence if the line is not a command.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim().trim_start_matches('>');
        let words: Vec<String> = line.split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            [] => Ok(Self::Nothing),
            ["request", "logs", ref rest @ ..] | ["request", "all", "logs", ref rest @ ..]
                if Page::parse(rest).is_some() =>
            {
                Ok(Self::RequestLogs(Page::parse(rest).unwrap_or_default()))
            }
            ["status"] => Ok(Self::Status),
            ["peers"] => Ok(Self::Peers),
            ["files"] => Ok(Self::Files),
            ["help" | "?"] => Ok(Self::Help),
            ["quit" | "exit" | "q"] => Ok(Self::Quit),
            _ => {
                let shown: String = line.trim().chars().take(60).collect();
                Err(format!("there is no command `{}`; `help` lists them", printable(&shown)))
            }
        }
    }

    /// The names of the commands.
    pub(super) const NAMES: [&'static str; 6] =
        ["files", "help", "peers", "quit", "request logs", "status"];

    /// The answer to `help`.
    pub(super) const HELP: &'static str = "\
request logs  every piece that peers gave: when, which, who, how much, how long, right or wrong
request logs N [PAGE]  the last N of them, or the N before these (PAGE 2), and so on
status        torrents, speed, trackers
peers         connected peers
files         files, and how much of each is there
help          this
quit          leave the network and end";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_and_without_a_leading_mark() {
        assert_eq!(
            ConsoleCommand::parse("request logs"),
            Ok(ConsoleCommand::RequestLogs(Page::default()))
        );
        assert_eq!(
            ConsoleCommand::parse(">request  LOGS "),
            Ok(ConsoleCommand::RequestLogs(Page::default()))
        );
        let page = Page::parse(&["20"]).unwrap();
        assert_eq!(ConsoleCommand::parse("request logs 20"), Ok(ConsoleCommand::RequestLogs(page)));
        assert_eq!(ConsoleCommand::parse("> status"), Ok(ConsoleCommand::Status));
        assert_eq!(ConsoleCommand::parse(" Peers"), Ok(ConsoleCommand::Peers));
        assert_eq!(ConsoleCommand::parse("files"), Ok(ConsoleCommand::Files));
        assert_eq!(ConsoleCommand::parse("?"), Ok(ConsoleCommand::Help));
        assert_eq!(ConsoleCommand::parse("quit"), Ok(ConsoleCommand::Quit));
        assert_eq!(ConsoleCommand::parse(""), Ok(ConsoleCommand::Nothing));
        assert_eq!(ConsoleCommand::parse(">"), Ok(ConsoleCommand::Nothing));
    }

    #[test]
    fn other_lines_are_refused_safely() {
        let error = ConsoleCommand::parse("re\x1bquest").unwrap_err();
        assert_eq!(error, "there is no command `re\\x1bquest`; `help` lists them");
        assert!(ConsoleCommand::parse(&"x".repeat(10_000)).unwrap_err().len() < 120);
        assert!(ConsoleCommand::parse("request logs now").is_err());
    }
}
