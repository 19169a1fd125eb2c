//! The context of all routes: the tracker's parts, limits on concurrent work, and the forms of answers.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts as RequestParts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::parts::{AnswerPart, AnswerParts};
use super::refusal::CatalogueRefusal;
use super::service::Service;
use piecework_core::InfoHash;
use piecework_http::{Lasting, SiteRule, answer_in_parts};
use piecework_proto::announce::catalogue::CatalogueFault;
use piecework_registry::Refusal;

/// A refused request: its status and a sentence.
#[derive(Debug)]
pub(super) struct HttpFault {
    pub status: StatusCode,
    pub error: String,
}

pub(super) type Result<T> = std::result::Result<T, HttpFault>;

/// The shared state of the routes.
#[derive(Clone)]
pub(super) struct RouteContext {
    pub service: Arc<Service>,
    /// Permits for receiving bodies of up to 16 MiB.
    pub bodies: Arc<Semaphore>,
    /// Permits for receiving bodies of the operator, of up to 100 MiB.
    pub huge_bodies: Arc<Semaphore>,
    /// Permits for making long answers.
    pub reports: Arc<Semaphore>,
    pub sites: Arc<SiteRule>,
    /// Becomes `true` when the tracker shuts down.
    pub stop: watch::Receiver<bool>,
}

impl RouteContext {
    pub(super) fn new(service: Arc<Service>, stop: watch::Receiver<bool>) -> Self {
        Self {
            sites: Arc::new(SiteRule::new(&service.config.host_names)),
            service,
            bodies: Arc::new(Semaphore::new(MAX_BODIES)),
            huge_bodies: Arc::new(Semaphore::new(1)),
            reports: Arc::new(Semaphore::new(MAX_REPORTS)),
            stop,
        }
    }
}

/// Returns a fault with this status and sentence.
pub(super) fn fault(status: StatusCode, error: impl Into<String>) -> HttpFault {
    HttpFault { status, error: error.into() }
}

/// Makes an answer that may take long on a blocking thread.
pub(super) async fn report(
    context: &RouteContext,
    make: impl FnOnce(&Service) -> Response + Send + 'static,
) -> Result<Response> {
    blocking_report(context, make).await
}

/// Makes any value that may take long on a blocking thread.
pub(super) async fn blocking_report<T: Send + 'static>(
    context: &RouteContext,
    make: impl FnOnce(&Service) -> T + Send + 'static,
) -> Result<T> {
    let _place = place(&context.reports).await?;
    let service = Arc::clone(&context.service);
    blocking(move || make(&service)).await
}

pub(super) async fn place(places: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>> {
    // The semaphore is never closed.
    places
        .acquire()
        .await
        .map_err(|_| fault(StatusCode::SERVICE_UNAVAILABLE, "this tracker is shutting down"))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request could not be handled");
        fault(StatusCode::INTERNAL_SERVER_ERROR, "the tracker failed to handle this request")
    })
}

pub(super) fn parse_hash(text: &str) -> Result<InfoHash> {
    text.parse()
        .map_err(|error| fault(StatusCode::BAD_REQUEST, format!("{error}, as an info-hash is")))
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

/// The variable part of a path, decoded.
pub(super) struct PathSegment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathSegment {
    type Rejection = HttpFault;

    async fn from_request_parts(parts: &mut RequestParts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(_) => Err(fault(StatusCode::BAD_REQUEST, "the address is not UTF-8")),
        }
    }
}

impl IntoResponse for HttpFault {
    fn into_response(self) -> Response {
        json(self.status, &CatalogueFault { error: self.error })
    }
}

impl From<CatalogueRefusal> for HttpFault {
    fn from(refusal: CatalogueRefusal) -> Self {
        let status = match &refusal {
            CatalogueRefusal::BadTorrent(_) | CatalogueRefusal::BadReport => {
                StatusCode::BAD_REQUEST
            }
            CatalogueRefusal::Unknown(_) => StatusCode::NOT_FOUND,
            CatalogueRefusal::WrongToken => StatusCode::FORBIDDEN,
            CatalogueRefusal::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
            CatalogueRefusal::NotKept(_)
            | CatalogueRefusal::NotChanged(_)
            | CatalogueRefusal::NotRemoved(_)
            | CatalogueRefusal::NotRead(_)
            | CatalogueRefusal::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            CatalogueRefusal::Holdings(refusal) => match refusal {
                Refusal::BadBitfield(_) => StatusCode::BAD_REQUEST,
                Refusal::WrongKey => StatusCode::FORBIDDEN,
                // Not 404, which means that the torrent is not known. The peer may announce and try again.
                Refusal::UnknownPeer(_) => StatusCode::CONFLICT,
                Refusal::TooManyKeys => StatusCode::TOO_MANY_REQUESTS,
                Refusal::NotCatalogued => StatusCode::NOT_FOUND,
                Refusal::TooManyAtAddress(_) | Refusal::TooManyTorrents(_) | Refusal::Full => {
                    StatusCode::SERVICE_UNAVAILABLE
                }
            },
        };
        fault(status, refusal.to_string())
    }
}

/// Returns an answer with JSON in parts; `None` if there is no answer.
pub(super) async fn answer_parts(
    context: &RouteContext,
    lasting: Lasting,
    parts: impl AnswerParts,
) -> Result<Option<Response>> {
    let (mut parts, Some(first)) = next(context, parts).await? else { return Ok(None) };
    if first.is_last {
        return Ok(Some(([(CONTENT_TYPE, JSON)], first.text).into_response()));
    }
    let (teller, response) = match answer_in_parts(lasting, JSON) {
        Ok(answer) => answer,
        Err(refusal) => return Ok(Some(refusal.into_response())),
    };
    let context = context.clone();
    tokio::spawn(async move {
        let mut part = first;
        // A client that has left or does not read gets no more. The missing end shows that the answer is
        // incomplete.
        while teller.tell(part.text).await.is_ok() && !part.is_last {
            match next(&context, parts).await {
                Ok((rest, Some(made))) => (parts, part) = (rest, made),
                Ok((_, None)) | Err(_) => return,
            }
        }
    });
    Ok(Some(response))
}

async fn next<P: AnswerParts>(
    context: &RouteContext,
    mut parts: P,
) -> Result<(P, Option<AnswerPart>)> {
    blocking_report(context, move |_| {
        let part = parts.next();
        (parts, part)
    })
    .await
}

const JSON: &str = "application/json";

/// The maximum number of bodies received at a time: 256 MiB.
const MAX_BODIES: usize = 16;

/// The maximum number of long answers made at a time.
const MAX_REPORTS: usize = 4;
