//! The command lines of all programs: what they have in common.

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Command, CommandFactory};

/// Returns the command line of a program, with `--paths`.
pub(super) fn command<A: CommandFactory>() -> Command {
    // This option is handled before the command line is parsed, whatever else is given.
    let paths = Arg::new("paths")
        .long("paths")
        .action(ArgAction::SetTrue)
        .global(true)
        .help("Print the configuration file and the folders in use, and exit");
    with_full_stops(A::command().arg(paths))
}

/// Ends help texts of several sentences with the full stop that clap removes from doc comments.
fn with_full_stops(command: Command) -> Command {
    let about = command.get_about().and_then(ended);
    let command = match about {
        Some(about) => command.about(about),
        None => command,
    };
    command
        .mut_args(|arg| match arg.get_help().and_then(ended) {
            Some(help) => arg.help(help),
            None => arg,
        })
        .mut_subcommands(with_full_stops)
}

/// Returns `text` with a full stop, if it has several sentences and no end.
fn ended(text: &StyledStr) -> Option<String> {
    let text = text.to_string();
    let is_open = text.contains(". ") && !text.ends_with(['.', ']']);
    is_open.then(|| format!("{text}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does something. Then it ends.
    #[derive(clap::Parser)]
    struct SomeArgs {
        /// One sentence, also of F.torrent.
        #[arg(long)]
        one: bool,
        /// Two sentences. This is the second.
        #[arg(long)]
        two: bool,
        /// Two sentences. The second has a default [default: 1].
        #[arg(long)]
        three: bool,
    }

    #[test]
    fn several_sentences_end_with_a_full_stop() {
        let help = command::<SomeArgs>().render_help().to_string();
        for line in [
            "Does something. Then it ends.\n",
            "One sentence, also of F.torrent\n",
            "Two sentences. This is the second.\n",
            "Two sentences. The second has a default [default: 1]\n",
        ] {
            assert!(help.contains(line), "{line}: {help}");
        }
    }
}
