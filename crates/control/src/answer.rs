//! Answers of the native API: JSON, and errors with their HTTP status.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::guard;
use piecework_api as api;
use piecework_daemon::DaemonError;

/// Why a request gets nothing: a status, and a sentence.
#[derive(Debug)]
pub(super) struct Failure {
    pub status: StatusCode,
    pub error: String,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// A request gets nothing.
pub(super) fn fault(status: StatusCode, error: impl Into<String>) -> Failure {
    Failure { status, error: error.into() }
}

/// The request makes no sense.
pub(super) fn bad(error: impl Into<String>) -> Failure {
    fault(StatusCode::BAD_REQUEST, error)
}

/// The answer to a request that took too long.
pub(super) fn timed_out() -> Response {
    guard::finish(
        fault(StatusCode::REQUEST_TIMEOUT, "the request took too long").into_response(),
        true,
    )
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json(self.status, &api::Fault { error: self.error })
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let status = match &error {
            DaemonError::Unknown(_) | DaemonError::NotFound(_) => StatusCode::NOT_FOUND,
            DaemonError::Invalid(_) => StatusCode::BAD_REQUEST,
            DaemonError::OwnerOnly(_) => StatusCode::UNAUTHORIZED,
            DaemonError::Forbidden(_) => StatusCode::FORBIDDEN,
            DaemonError::Conflict(_) | DaemonError::Occupied(_) => StatusCode::CONFLICT,
            DaemonError::Upstream(_) => StatusCode::BAD_GATEWAY,
            error if error.is_full() => StatusCode::INSUFFICIENT_STORAGE,
            DaemonError::Storage(_)
            | DaemonError::Database(_)
            | DaemonError::Journal(_)
            | DaemonError::TorrentFile(_) => StatusCode::INTERNAL_SERVER_ERROR,
            DaemonError::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        fault(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use piecework_core::{InfoHash, Unwritable};
    use piecework_daemon::Reason;
    use piecework_daemon::state::StateError;

    #[test]
    fn each_error_of_the_daemon_has_its_status() {
        let why = || Reason::from("why");
        let full = Reason::with_cause("why", io::Error::from(io::ErrorKind::StorageFull));
        let unwritable = |why| StateError::Unwritable { path: "state.sqlite".into(), why };
        let cases = [
            (DaemonError::Unknown(InfoHash([7; 20])), 404),
            (DaemonError::NotFound(why()), 404),
            (DaemonError::Invalid(why()), 400),
            (DaemonError::OwnerOnly("why".to_owned()), 401),
            (DaemonError::Forbidden(why()), 403),
            (DaemonError::Conflict(why()), 409),
            (DaemonError::Occupied(why()), 409),
            (DaemonError::Upstream(why()), 502),
            (DaemonError::TorrentFile(why()), 500),
            (DaemonError::TorrentFile(full), 507),
            (DaemonError::Database(unwritable(Unwritable::Full)), 507),
            (DaemonError::Database(unwritable(Unwritable::ReadOnly)), 500),
            (DaemonError::Ending, 503),
        ];
        for (error, status) in cases {
            let sentence = error.to_string();
            let fault = Failure::from(error);
            assert_eq!((fault.status.as_u16(), fault.error), (status, sentence));
        }
    }
}
