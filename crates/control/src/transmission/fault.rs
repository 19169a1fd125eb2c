//! Why a request comes to nothing, with the numbers and sentences that clients know.

use serde_json::{Map, Value};

use piecework_daemon::DaemonError;

/// Why a request comes to nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) code: Code,
    /// The particulars, a sentence.
    pub(super) detail: Option<String>,
    /// What the method has to say all the same.
    pub(super) result: Map<String, Value>,
}

/// Kinds of faults: JSON-RPC 2.0's below zero, Transmission's above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Parse = -32700,
    InvalidRequest = -32600,
    MethodNotFound = -32601,
    InvalidParams = -32602,
    Internal = -32603,
    SetAnnounceList = 1,
    InvalidTrackerList = 2,
    PathNotAbsolute = 3,
    UnrecognizedInfo = 4,
    System = 5,
    FileIndex = 6,
    Http = 8,
    CorruptTorrent = 9,
}

impl Fault {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: Some(detail.into()), result: Map::new() }
    }

    /// With what the method has to say all the same.
    pub(super) fn with_result(self, result: Map<String, Value>) -> Self {
        Self { result, ..self }
    }

    /// What older clients find under `result`, where success is `success`.
    pub(super) fn legacy_result(&self) -> &str {
        match (&self.detail, self.code) {
            // Some clients compare this one with their own copy.
            (_, Code::CorruptTorrent) | (None, _) => self.code.message(),
            (Some(detail), _) => detail,
        }
    }
}

impl Code {
    /// The sentence Transmission says for it.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Parse => "Parse error",
            Self::InvalidRequest => "Invalid Request",
            Self::MethodNotFound => "Method not found",
            Self::InvalidParams => "Invalid params",
            Self::Internal => "Internal error",
            Self::SetAnnounceList => "error setting announce list",
            Self::InvalidTrackerList => "Invalid tracker list",
            Self::PathNotAbsolute => "path is not absolute",
            Self::UnrecognizedInfo => "unrecognized info",
            Self::System => "system error",
            Self::FileIndex => "file index out of range",
            Self::Http => "HTTP error from backend service",
            Self::CorruptTorrent => "invalid or corrupt torrent file",
        }
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self { code, detail: None, result: Map::new() }
    }
}

impl From<DaemonError> for Fault {
    fn from(error: DaemonError) -> Self {
        let code = match &error {
            DaemonError::Invalid(_) | DaemonError::Unknown(_) => Code::InvalidParams,
            DaemonError::OwnerOnly(_)
            | DaemonError::Forbidden(_)
            | DaemonError::Conflict(_)
            | DaemonError::Occupied(_)
            | DaemonError::NotFound(_)
            | DaemonError::Storage(_) => Code::System,
            DaemonError::Upstream(_) => Code::Http,
            DaemonError::Ending
            | DaemonError::Database(_)
            | DaemonError::Journal(_)
            | DaemonError::TorrentFile(_) => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}
