//! How a program ends.

use std::fmt;
use std::io;

/// What a program tells its caller when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Fine = 0,
    /// It could not be done.
    Failed = 1,
    /// The command line or a configuration is wrong.
    Usage = 2,
    /// There is no daemon to ask.
    NoDaemon = 3,
    /// Ctrl-C before it was done; for programs that tidy up at the first one, the second.
    Interrupted = 130,
}

/// Why a program ends without having done what was asked: a sentence, and an exit code.
///
/// Text from outside must be in the sentence in its printable form only.
#[derive(Debug)]
pub struct CliError {
    message: String,
    exit: Exit,
}

impl CliError {
    /// It could not be done.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Failed }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::Usage }
    }

    /// There is no daemon to ask.
    pub fn no_daemon(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), exit: Exit::NoDaemon }
    }

    /// Ends with `exit`, and has nothing more to say.
    pub fn silent(exit: Exit) -> Self {
        Self { message: String::new(), exit }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

/// What to do about an address that cannot be listened on: the end of a sentence that has said so.
pub fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another program listens there, choose another port",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::PermissionDenied => ": choose a port from 1024 on",
        _ => "",
    }
}

/// Writing to one's own stdout failed. A reader that left (`torrent-show … | head`) needs no
/// sentence.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::Failed)
        } else {
            Self::failed(format_args!("the output could not be written: {error}"))
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
