//! Completion for the Tab key at a console: commands, and names for those that take one.

use piecework_core::printable;

/// Returns a few names that begin with a text.
type Names = dyn Fn(&str) -> Vec<String> + Send + Sync;

/// The commands of a console, and the source of names.
pub struct Completion {
    commands: &'static [&'static str],
    naming: &'static [&'static str],
    names: Box<Names>,
}

impl Completion {
    /// Creates it from `commands` without a name, `naming` commands that take a name, and a
    /// function that returns names that begin with a text, ignoring case.
    pub fn new(
        commands: &'static [&'static str],
        naming: &'static [&'static str],
        names: impl Fn(&str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self { commands, naming, names: Box::new(names) }
    }

    /// Returns candidates for the end of `line`, and the byte position where that end begins.
    pub fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let command = line.trim_start_matches(['>', ' ']);
        let start = line.len() - command.len();
        for naming in self.naming {
            let Some((head, rest)) = command.split_at_checked(naming.len()) else { continue };
            if !head.eq_ignore_ascii_case(naming) || !rest.starts_with(['>', ' ']) {
                continue;
            }
            let name = rest.trim_start_matches(['>', ' ', '"', '\'']);
            let names = (self.names)(name).into_iter();
            // Names with control characters are not completed. The user can give the info-hash
            // instead.
            let names = names.filter(|name| printable(name) == name.as_str()).take(MOST);
            return (line.len() - name.len(), names.collect());
        }
        let all = self.commands.iter().map(|command| (*command).to_owned());
        let all = all.chain(self.naming.iter().map(|command| format!("{command} ")));
        let begins = |known: &String| {
            known.get(..command.len()).is_some_and(|head| head.eq_ignore_ascii_case(command))
        };
        (start, all.filter(begins).collect())
    }
}

/// Returns whether `name` begins with `text`, ignoring case.
pub(super) fn begins(name: &str, text: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    text.chars().flat_map(char::to_lowercase).all(|letter| letters.next() == Some(letter))
}

/// Maximum number of candidates.
const MOST: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn completion() -> Completion {
        let names = ["linux.iso", "Linux 2.iso", "Änderung", "a\x1b[2Jb"];
        let of = move |text: &str| {
            names.into_iter().filter(|name| begins(name, text)).map(str::to_owned).collect()
        };
        Completion::new(&["request logs", "peers"], &["file_logs", "remove"], of)
    }

    #[test]
    fn line_16_tab_puts_in_commands_and_names() {
        let completion = completion();
        let at = |line: &str| completion.candidates(line);
        assert_eq!(at("r"), (0, vec!["request logs".to_owned(), "remove ".to_owned()]));
        assert_eq!(at("> PE"), (2, vec!["peers".to_owned()]));
        assert_eq!(at("x"), (0, vec![]));
        let both = vec!["linux.iso".to_owned(), "Linux 2.iso".to_owned()];
        assert_eq!(at("remove lin"), (7, both.clone()));
        assert_eq!(at("file_logs>\"LIN"), (11, both));
        assert_eq!(at("remove linux 2"), (7, vec!["Linux 2.iso".to_owned()]));
        assert_eq!(at("remove ä"), (7, vec!["Änderung".to_owned()]));
        assert_eq!(at("remove a"), (7, vec![]), "what a terminal would obey");
        assert_eq!(
            at("remove "),
            (7, ["linux.iso", "Linux 2.iso", "Änderung"].map(str::to_owned).to_vec())
        );
        assert_eq!(at("remov"), (0, vec!["remove ".to_owned()]));
        assert_eq!(at("é"), (0, vec![]));
    }
}
