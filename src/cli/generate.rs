//! `--generate`: completions and man pages, derived from the programs' command lines.

use clap::Command;
use clap_complete::Shell;

use piecework_core::printable;

use super::{CliError, Output, man};

/// What can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A man page.
    Man,
    /// Completions for a shell.
    Completions(Shell),
}

/// Prints the result of `--generate WORDS…`: `man`, `man SUBCOMMAND`, or a shell.
///
/// # Errors If `words` name nothing that can be generated, or if the output cannot be written.
pub(super) fn generate(command: Command, words: &[&str], output: &Output) -> Result<(), CliError> {
    let (kind, of) = match words {
        [word] => (Kind::parse(word)?, None),
        ["man", subcommand] => (Kind::Man, Some(*subcommand)),
        _ => return Err(CliError::usage("--generate takes man, bash, zsh, fish or elvish")),
    };
    let text = match kind {
        Kind::Man => man(command, of)?,
        Kind::Completions(shell) => {
            let (mut command, mut text) = (command, Vec::new());
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut text);
            text
        }
    };
    output.text(String::from_utf8_lossy(&text))?;
    Ok(())
}

impl Kind {
    fn parse(word: &str) -> Result<Self, CliError> {
        Ok(match word {
            "man" => Self::Man,
            "bash" => Self::Completions(Shell::Bash),
            "zsh" => Self::Completions(Shell::Zsh),
            "fish" => Self::Completions(Shell::Fish),
            "elvish" => Self::Completions(Shell::Elvish),
            _ => {
                return Err(CliError::usage(format_args!(
                    "`{}` cannot be generated: write man, bash, zsh, fish or elvish",
                    printable(word)
                )));
            }
        })
    }
}

fn man(mut command: Command, of: Option<&str>) -> Result<Vec<u8>, CliError> {
    command.build();
    let program = command.get_name().to_owned();
    let command = match of {
        None => command,
        // `build` has set its whole name, `torrent-peer-share`.
        Some(name) => command.find_subcommand(name).cloned().ok_or_else(|| {
            CliError::usage(format_args!("there is no subcommand `{}`", printable(name)))
        })?,
    };
    man::page(&program, command).map_err(|error| {
        CliError::failed(format_args!("the page cannot be written: {error}")).because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Env, Exit, Output, peer, show};

    fn generated(program: fn(Env) -> Exit, words: &[&str]) -> (Exit, String) {
        let (out, text) = Output::captured();
        let args = std::iter::once("--generate").chain(words.iter().copied());
        let exit = program(Env::new("p", args, "/".as_ref(), out.clone(), out));
        (exit, text.text())
    }

    #[test]
    fn every_shell_completes_long_options() {
        for shell in ["bash", "zsh", "fish", "elvish"] {
            let (exit, text) = generated(show::main, &[shell]);
            assert_eq!(exit, Exit::Fine);
            assert!(text.contains("torrent-show") && text.contains("json"), "{shell}");
        }
    }

    #[test]
    fn a_page_is_about_its_program_or_subcommand() {
        let (exit, text) = generated(show::main, &["man"]);
        assert_eq!(exit, Exit::Fine);
        assert!(text.contains(".TH torrent-show 1") && text.contains("Example"), "{text}");
        assert!(text.contains(".SH EXAMPLES\n") && !text.contains("EXTRA"), "{text}");
        let (exit, text) = generated(peer::main, &["man", "share"]);
        assert_eq!(exit, Exit::Fine);
        assert!(text.contains(".TH torrent-peer-share 1"), "{text}");
    }

    #[test]
    fn what_cannot_be_generated_is_wrong_usage() {
        for words in [&[][..], &["pdf"], &["man", "nothing"], &["bash", "zsh"]] {
            assert_eq!(generated(peer::main, words).0, Exit::Usage, "{words:?}");
        }
    }
}
