//! The daemon's events as a stream.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::sse::{Message, Parser};
use super::{ApiClient, ApiError, ProtocolError};
use crate::Event;

/// The events of a daemon, beginning with every existing torrent.
#[derive(Debug)]
pub struct Events {
    client: ApiClient,
    response: Response,
    parser: Parser,
    /// The time by which something must arrive.
    deadline: Instant,
    ended: bool,
}

impl Events {
    pub(super) fn new(client: ApiClient, response: Response) -> Self {
        let deadline = Instant::now() + SILENCE;
        Self { client, response, parser: Parser::default(), deadline, ended: false }
    }

    /// Returns the next event. [`Event::Bye`] is the last one, followed by `None`. Cancel-safe.
    ///
    /// # Errors If the connection breaks, or the stream is not valid.
    pub async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        while !self.ended {
            while let Some(message) = self.parser.next() {
                if let Some(event) = decode(&message)? {
                    self.ended = event == Event::Bye;
                    return Ok(Some(event));
                }
            }
            let addr = || self.client.addr().to_owned();
            let chunk = timeout_at(self.deadline, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| ApiError::Timeout { addr: addr() })?;
            let Some(chunk) = chunk.map_err(|error| self.client.fault(error))? else {
                let source: Box<dyn Error + Send + Sync> = "it ended without a word".into();
                return Err(ApiError::Unreachable { addr: addr(), source: source.into() });
            };
            self.deadline = Instant::now() + SILENCE;
            self.parser.push(&chunk).map_err(|error| ApiError::Protocol(error.into()))?;
        }
        Ok(None)
    }
}

/// Decodes the event in a message. Returns `None` for an unknown event of a newer daemon.
pub(super) fn decode(message: &Message) -> Result<Option<Event>, ApiError> {
    fn data<T: DeserializeOwned>(message: &Message) -> Result<T, ApiError> {
        serde_json::from_str(&message.data).map_err(|error| {
            let (name, source) = (message.name.clone(), Arc::new(error));
            ApiError::Protocol(ProtocolError::Event { name, source })
        })
    }
    Ok(Some(match message.name.as_str() {
        "torrent" => Event::Torrent(data(message)?),
        "removed" => Event::Removed(data(message)?),
        "done" => Event::Done(data(message)?),
        "pieces" => Event::Pieces(data(message)?),
        "settings" => Event::Settings(data(message)?),
        "notices" => Event::Notices(data(message)?),
        "ready" => Event::Ready,
        "bye" => Event::Bye,
        _ => return Ok(None),
    }))
}

/// Silence after which the daemon counts as gone: three of its heartbeats.
const SILENCE: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use piecework_core::InfoHash;

    fn decoded(name: &str, data: &str) -> Result<Option<Event>, ApiError> {
        decode(&Message { name: name.to_owned(), data: data.to_owned() })
    }

    #[test]
    fn every_event_is_read_by_the_name_its_type_gives_it() {
        let hash = InfoHash([7; 20]);
        let events = [
            Event::Removed(hash),
            Event::Done(hash),
            Event::Pieces(Box::default()),
            Event::Settings(Box::default()),
            Event::Notices(vec!["a\nb".to_owned()]),
            Event::Ready,
            Event::Bye,
        ];
        for event in events {
            let tagged = serde_json::to_value(&event).unwrap();
            let (name, data) = (tagged["event"].as_str().unwrap(), tagged["data"].to_string());
            assert_eq!(decoded(name, &data).unwrap(), Some(event), "{name}");
        }
    }

    #[test]
    fn strange_events_are_passed_over_and_broken_ones_refused() {
        assert_eq!(decoded("weather", "7").unwrap(), None);
        let error = decoded("done", "\"x\"").unwrap_err();
        assert!(
            matches!(&error, ApiError::Protocol(why) if why.to_string().contains("`done`")),
            "{error}"
        );
        let unknown = serde_json::to_value(Settings::default()).unwrap().to_string();
        let unknown = unknown.replacen('{', "{\"new\":1,", 1);
        assert!(decoded("settings", &unknown).is_err());
    }
}
