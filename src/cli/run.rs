//! The start of a program: parses the command line, runs the body, prints errors.

use clap::Parser;

use super::command_line::command;
use super::generate::generate;
use super::{CliError, Env, Exit, paths};

impl Env {
    /// Parses the command line as `A`, runs `body`, and prints errors.
    pub fn run<A: Parser>(
        mut self,
        body: impl FnOnce(A, &mut Self) -> Result<(), CliError>,
    ) -> Exit {
        if let Some(words) = self.generates() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            return self.ended(generate(command::<A>(), &words, &self.stdout));
        }
        if self.asks_for_paths() {
            let result = paths::tell(&self, &self.args);
            return self.ended(result);
        }
        let args = command::<A>()
            .try_get_matches_from(&self.args)
            .and_then(|matches| A::from_arg_matches(&matches));
        let args = match args {
            Ok(args) => args,
            Err(error) => return self.explain(&error),
        };
        let result = body(args, &mut self);
        self.ended(result)
    }

    fn ended(&self, result: Result<(), CliError>) -> Exit {
        match result {
            Ok(()) => Exit::Fine,
            Err(error) => {
                self.complain(&error);
                error.exit()
            }
        }
    }

    /// Returns the words of `--generate`, which must be the first argument.
    fn generates(&self) -> Option<Vec<String>> {
        let rest = self
            .args
            .get(1..)
            .filter(|rest| rest.first().is_some_and(|arg| arg == "--generate"))?;
        Some(rest[1..].iter().map(|word| word.to_string_lossy().into_owned()).collect())
    }

    fn asks_for_paths(&self) -> bool {
        let mut flags = self.args.iter().skip(1).take_while(|arg| *arg != "--");
        flags.any(|arg| arg == "--paths")
    }

    /// Prints clap's message. Help and version are not errors.
    fn explain(&self, error: &clap::Error) -> Exit {
        let output = if error.use_stderr() { &self.stderr } else { &self.stdout };
        let text = error.render();
        let written = if output.paint().is_on() {
            output.text(format_args!("{}", text.ansi()))
        } else {
            output.text(format_args!("{text}"))
        };
        match (error.use_stderr(), written) {
            (true, _) => Exit::Usage,
            (false, Ok(())) => Exit::Fine,
            (false, Err(_)) => Exit::Failed,
        }
    }
}
