//! Exit codes, and the errors that end a program.

use std::error::Error;
use std::fmt;
use std::io;

/// The exit code of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Success.
    Fine = 0,
    /// Failure.
    Failed = 1,
    /// The command line or a configuration is wrong.
    Usage = 2,
    /// No daemon is running.
    NoDaemon = 3,
    /// Ctrl-C ended it. For programs that clean up at the first one, the second.
    Interrupted = 130,
}

/// An error that ends a program: a sentence, and an exit code.
///
/// Text from outside must appear in the sentence in its printable form only.
#[derive(Debug)]
pub struct CliError {
    message: String,
    exit: Exit,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// Failure.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed, cause: None }
    }

    /// Wrong usage.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Usage, cause: None }
    }

    /// No daemon is running.
    pub fn no_daemon(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::NoDaemon, cause: None }
    }

    /// Failure by `error`, whose text is the message.
    pub fn failed_by(error: impl Error + Send + Sync + 'static) -> Self {
        Self::failed(&error).because(error)
    }

    /// Wrong usage by `error`, whose text is the message.
    pub fn usage_by(error: impl Error + Send + Sync + 'static) -> Self {
        Self::usage(&error).because(error)
    }

    /// Keeps `error` as the cause. The message should already contain its text.
    pub fn because(mut self, error: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(error));
        self
    }

    /// Ends with `exit` without a message.
    pub fn silent(exit: Exit) -> Self {
        Self { message: String::new(), exit, cause: None }
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Returns advice for an address that cannot be listened on, as the end of an error message.
pub(super) fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another program listens there, choose another port",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::PermissionDenied => ": choose a port from 1024 on",
        _ => "",
    }
}

/// Writing to stdout failed. If the reader has left (`torrent-show … | head`), no message is
/// needed.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Failed)
        } else {
            Self::failed(format_args!("the output could not be written: {error}")).because(error)
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
