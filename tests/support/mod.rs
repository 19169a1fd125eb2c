//! Runs whole programs in process.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;

use piecework::cli::{Env, Exit, Output};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `program` with `args` in `cwd`.
pub fn run(program: fn(Env) -> Exit, cwd: &Path, args: &[&str]) -> Ran {
    let (stdout, out) = Output::captured();
    let (stderr, err) = Output::captured();
    let exit = program(Env::new("program", args, cwd, stdout, stderr));
    let ran = Ran { exit, stdout: out.text(), stderr: err.text() };
    assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
    ran
}

impl Ran {
    /// The same, which must have ended well.
    #[track_caller]
    pub fn fine(self) -> Self {
        assert_eq!(self.exit, Exit::Fine, "{self:?}");
        self
    }

    /// The one sentence with which it must have failed.
    #[track_caller]
    pub fn failed(self) -> String {
        assert_eq!(self.exit, Exit::Failed, "{self:?}");
        let sentence = self.stderr.strip_prefix("error: ").unwrap_or_else(|| panic!("{self:?}"));
        assert_eq!(sentence.lines().count(), 1, "{self:?}");
        sentence.trim_end().to_owned()
    }
}

/// `len` bytes that look random, the same for the same `seed`.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = piecework::base::Rng::from_seed(seed);
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    out.truncate(len);
    out
}
