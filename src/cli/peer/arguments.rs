//! Arguments that `share` and `get` have in common.

use std::ffi::OsStr;
use std::net::SocketAddr;

use piecework_core::printable;

use super::super::CliError;

/// Returns the text of a positional argument.
pub(super) fn positional<'a>(text: &'a OsStr, what: &str) -> Result<&'a str, CliError> {
    text.to_str().ok_or_else(|| {
        let shown = text.to_string_lossy();
        CliError::usage(format_args!("{what} `{}` is not UTF-8", printable(&shown)))
    })
}

/// Parses LISTEN, given by position or by its flag.
pub(super) fn listen_arg<T: AsRef<OsStr>>(
    in_place: Option<T>,
    flag: Option<&str>,
) -> Result<Option<SocketAddr>, CliError> {
    let text = match (&in_place, flag) {
        (Some(_), Some(_)) => return Err(CliError::usage("LISTEN is given twice")),
        (Some(text), None) => positional(text.as_ref(), "LISTEN")?,
        (None, Some(text)) => text,
        (None, None) => return Ok(None),
    };
    text.parse().map(Some).map_err(|_| {
        CliError::usage(format_args!(
            "LISTEN `{}` is not an address: write IP:PORT, for instance 0.0.0.0:6881",
            printable(text)
        ))
    })
}
