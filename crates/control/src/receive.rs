//! What is asked: bodies, queries and the variable part of addresses, read within bounds.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Path};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::form_urlencoded;

use super::answer::{Failure, Result, bad, fault};
use piecework_core::printable;
use piecework_daemon::Caller;

/// The variable part of an address, decoded.
pub(super) struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(_) => Err(bad("the address is not UTF-8")),
        }
    }
}

/// Two variable parts of an address, decoded.
pub(super) struct Segments(pub [String; 2]);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((first, second))) => Ok(Self([first, second])),
            Err(_) => Err(bad("the address is not UTF-8")),
        }
    }
}

/// Places for bodies that may have a `.torrent` in them, over all ways in.
#[derive(Debug)]
pub(super) struct Bodies {
    large: Arc<Semaphore>,
    huge: Arc<Semaphore>,
}

/// A place for a body, and how many bytes it may have.
#[derive(Debug)]
pub(super) struct BodyPlace {
    pub(super) limit: usize,
    /// `None` if the control is closing, which never happens while a request is under way.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(super) fn new() -> Arc<Self> {
        let places = |number| Arc::new(Semaphore::new(number));
        Arc::new(Self { large: places(MAX_BODIES), huge: places(1) })
    }

    /// Waits for a place for a body of `caller` that says it has `len` bytes.
    pub(super) async fn place(&self, len: Option<u64>, caller: Caller) -> BodyPlace {
        let limit = most_bytes(len, caller);
        let places = if limit == HUGE_BODY { &self.huge } else { &self.large };
        BodyPlace { limit, _permit: Arc::clone(places).acquire_owned().await.ok() }
    }
}

/// Bytes that a body of `caller` may have that says it has `len`.
pub(super) fn most_bytes(len: Option<u64>, caller: Caller) -> usize {
    let is_huge = len.is_some_and(|len| len > LARGE_BODY as u64);
    if is_huge && caller.is_owner() { HUGE_BODY } else { LARGE_BODY }
}

/// A body of at most `limit` bytes that comes within `time`, as JSON. None at all is `{}`.
pub(super) async fn json<T: DeserializeOwned>(
    body: Body,
    limit: usize,
    time: Duration,
) -> Result<T> {
    let bytes = bytes(body, limit, time).await?;
    parse(&bytes)
}

/// The body of a request that has nothing to say.
pub(super) async fn nothing(body: Body, time: Duration) -> Result<()> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    json::<Nothing>(body, SMALL_BODY, time).await.map(|_| ())
}

/// The values of `keys` in a query, each there once at most; there may be no others.
pub(super) fn query<const N: usize>(
    query: Option<&str>,
    keys: [&str; N],
) -> Result<[Option<String>; N]> {
    let mut values = [const { None }; N];
    for (key, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
        let shown = || printable(&key).chars().take(MAX_SHOWN).collect::<String>();
        let Some(place) = keys.iter().position(|known| *known == key) else {
            let known = keys.map(|key| format!("`{key}`")).join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            let error = format!("there is no `{}` in the query here; there is: {known}", shown());
            return Err(bad(error));
        };
        if values[place].replace(value.into_owned()).is_some() {
            return Err(bad(format!("`{}` is twice in the query", shown())));
        }
    }
    Ok(values)
}

/// A value of a query as `what`; `usual` if it is not there.
pub(super) fn value_or<T: std::str::FromStr>(
    value: Option<String>,
    key: &str,
    what: &str,
    usual: T,
) -> Result<T> {
    value.map_or(Ok(usual), |value| value_or_refuse(&value, key, what))
}

fn value_or_refuse<T: std::str::FromStr>(value: &str, key: &str, what: &str) -> Result<T> {
    value.parse().map_err(|_| {
        let shown: String = printable(value).chars().take(MAX_SHOWN).collect();
        bad(format!("`{key}` is `{shown}`, not {what}"))
    })
}

/// A value of a query as `what`, if it is there.
pub(super) fn optional<T: std::str::FromStr>(
    value: Option<String>,
    key: &str,
    what: &str,
) -> Result<Option<T>> {
    value.map(|value| value_or_refuse(&value, key, what)).transpose()
}

/// A body of at most `limit` bytes that comes within `time`.
pub(super) async fn bytes(body: Body, limit: usize, time: Duration) -> Result<Bytes> {
    let received = tokio::time::timeout(time, axum::body::to_bytes(body, limit)).await;
    let received = received
        .map_err(|_| fault(StatusCode::REQUEST_TIMEOUT, "the body took too long to come"))?;
    received.map_err(|error| {
        // What is not the connection's fault is the limit's.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(error) = cause {
            if error.is::<hyper::Error>() {
                return bad("the request's body is incomplete");
            }
            cause = error.source();
        }
        let error = format!("the body is longer than `{limit}` bytes, which is the limit");
        fault(StatusCode::PAYLOAD_TOO_LARGE, error)
    })
}

/// Takes a body that nobody wants, at most `limit` bytes of it within `time`, and keeps nothing.
pub(super) async fn discard(mut body: Body, limit: usize, time: Duration) {
    let all = async {
        let mut left = limit;
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            let len = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(len) else { return };
            left = rest;
        }
    };
    // Whether it came to its end makes no difference.
    let _ = tokio::time::timeout(time, all).await;
}

/// Whether `json` could be so many values that they fill the memory: each that is read takes some
/// thirty times the three bytes it is written with. Base64, of which large bodies are made, has none
/// of these characters.
pub(super) fn is_crowded(json: &[u8]) -> bool {
    json.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_VALUES
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if is_crowded(bytes) {
        return Err(bad(format!(
            "the body has more than `{MAX_VALUES}` values, which is the limit"
        )));
    }
    let bytes = if bytes.trim_ascii().is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes).map_err(|error| {
        // It may repeat what was sent.
        let error = error.to_string();
        let shown: String = printable(&error).chars().take(MAX_REASON).collect();
        bad(format!("the body is not valid JSON for this request: {shown}"))
    })
}

/// Bytes of a body without a `.torrent`: a list of 1,000 peers, or the priorities of 5,000 files.
pub(super) const SMALL_BODY: usize = 64 * 1024;

/// Bytes of a body with a `.torrent`: base64 of 11 MiB, which 1 TiB in pieces of 2 MiB needs, and room.
pub(super) const LARGE_BODY: usize = 16 * 1024 * 1024;

/// Bytes of an owner's body: base64 of the 100 MiB that a `.torrent` may have, and room.
pub(super) const HUGE_BODY: usize = 140 * 1024 * 1024;

/// Values in a body: the priorities of as many files as a `.torrent` can name, and room.
pub(super) const MAX_VALUES: usize = 510_000;

/// Large bodies received at a time, over all ways in: 128 MiB. Besides them there is one huge one.
const MAX_BODIES: usize = 8;

/// Characters of a key or value that a sentence shows.
const MAX_SHOWN: usize = 80;

/// Characters of a reason: the names of all fields of the largest request are 500.
const MAX_REASON: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_api::{LeechRequest, RemoveRequest};

    #[test]
    fn an_unknown_field_is_refused_by_its_name() {
        let refusal = parse::<LeechRequest>(br#"{"sauce": 1}"#).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(refusal.error.contains("`sauce`"), "{}", refusal.error);
        let long = format!(r#"{{"{}\u001b": 1}}"#, "x".repeat(50_000));
        let refusal = parse::<LeechRequest>(long.as_bytes()).unwrap_err();
        assert!(refusal.error.len() < 2 * MAX_REASON && !refusal.error.contains('\u{1b}'));
    }

    #[test]
    fn no_body_is_an_empty_request() {
        assert_eq!(parse::<RemoveRequest>(b" \n").unwrap(), RemoveRequest::default());
        assert!(parse::<RemoveRequest>(b"[").is_err());
        let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
        assert!(parse::<serde_json::Value>(&deep).is_err());
    }

    #[test]
    fn a_body_of_countless_values_is_not_read() {
        let many = |count: usize| format!("[{}0]", "0,".repeat(count)).into_bytes();
        assert!(parse::<Vec<u8>>(&many(MAX_VALUES - 1)).is_ok());
        assert!(parse::<Vec<u8>>(&many(MAX_VALUES)).unwrap_err().error.contains("values"));
        let nested = format!("[{}]", "[[]]".repeat(MAX_VALUES / 2));
        assert!(is_crowded(nested.as_bytes()));
        let metainfo = format!(r#"{{"metainfo": "{}"}}"#, "A".repeat(HUGE_BODY));
        assert!(!is_crowded(metainfo.as_bytes()));
    }

    #[tokio::test]
    async fn a_huge_body_is_the_owners_and_takes_no_large_ones_place() {
        let bodies = Bodies::new();
        let huge = Some(LARGE_BODY as u64 + 1);
        assert_eq!(bodies.place(huge, Caller::Guest).await.limit, LARGE_BODY);
        let first = bodies.place(huge, Caller::Owner).await;
        assert_eq!(first.limit, HUGE_BODY);
        let second = tokio::time::timeout(Duration::ZERO, bodies.place(huge, Caller::Owner));
        assert!(second.await.is_err(), "one at a time");
        assert_eq!(bodies.place(None, Caller::Owner).await.limit, LARGE_BODY);
        drop(first);
        assert_eq!(bodies.place(huge, Caller::Owner).await.limit, HUGE_BODY);
    }

    #[tokio::test]
    async fn what_is_discarded_is_taken_to_its_end_or_limit() {
        discard(Body::from(vec![0; 1_000]), 10, Duration::from_secs(60)).await;
        discard(Body::from(vec![0; 1_000]), 1_000, Duration::from_secs(60)).await;
    }

    #[test]
    fn queries_have_known_keys_once_each() {
        let read = |text| query(Some(text), ["name", "tracker"]);
        assert_eq!(read("tracker=a%20b").unwrap(), [None, Some("a b".to_owned())]);
        assert_eq!(query(None, ["name"]).unwrap(), [None]);
        assert!(read("nome=x").unwrap_err().error.contains("`nome`"));
        assert!(read("name=x&name=y").unwrap_err().error.contains("twice"));
        assert!(query(Some("x"), []).is_err());
    }

    #[test]
    fn values_of_a_query_are_what_they_should_be() {
        assert_eq!(value_or(Some("7".to_owned()), "limit", "a number", 1_usize).unwrap(), 7);
        assert_eq!(value_or(None, "limit", "a number", 1_usize).unwrap(), 1);
        let refusal = value_or(Some("x".to_owned()), "limit", "a number", 1_usize).unwrap_err();
        assert_eq!(refusal.error, "`limit` is `x`, not a number");
    }
}
