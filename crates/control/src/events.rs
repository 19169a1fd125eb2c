//! `GET /events`: what changes, as server-sent events.

use axum::response::Response;
use tokio::sync::watch;

use piecework_api::Event;
use piecework_core::InfoHash;
use piecework_daemon::Listener;
use piecework_http::{BEAT, Lasting, StreamPlace, Teller, event_stream, heartbeat};

/// An answer that tells what `listener` hears, of one torrent if it is said which, until the daemon
/// ends, `stop` says so, or the client leaves.
pub(super) fn stream(
    listener: Listener,
    only: Option<InfoHash>,
    lasting: Lasting,
    place: StreamPlace,
    stop: watch::Receiver<bool>,
) -> Response {
    // One event waits here while one is being written; more wait, and are merged, with the listener.
    let (teller, response) = event_stream(lasting);
    tokio::spawn(async move {
        tell(listener, only, &teller, stop).await;
        drop(place);
    });
    response
}

async fn tell(
    mut listener: Listener,
    only: Option<InfoHash>,
    teller: &Teller,
    mut stop: watch::Receiver<bool>,
) {
    let mut beat = heartbeat();
    loop {
        let chunk = tokio::select! {
            event = listener.next() => match event {
                None | Some(Event::Bye) => break,
                Some(event) if concerns(&event, only) => encode(&event),
                Some(_) => continue,
            },
            _ = beat.tick() => Ok(BEAT.to_owned()),
            // An error says that it has stopped without a word.
            _ = stop.changed() => break,
            () = teller.left() => return,
        };
        let Ok(chunk) = chunk.inspect_err(|error| {
            tracing::error!(%error, "an event could not be written as JSON");
        }) else {
            break;
        };
        if teller.tell(chunk).await.is_err() {
            return;
        }
    }
    if let Ok(bye) = encode(&Event::Bye) {
        // Who has left need not be told.
        let _ = teller.tell(bye).await;
    }
}

/// Whether those who asked for `only` one torrent hear of this.
fn concerns(event: &Event, only: Option<InfoHash>) -> bool {
    let Some(only) = only else { return true };
    match event {
        Event::Torrent(torrent) => torrent.info_hash == only,
        Event::Removed(info_hash) | Event::Done(info_hash) => *info_hash == only,
        Event::Settings(_) => false,
        // Only those who asked for one torrent are told, and only of that one.
        Event::Pieces(_) | Event::Notices(_) | Event::Ready | Event::Bye => true,
    }
}

/// An event in the form of the HTML standard, section 9.2. JSON has no line breaks of its own.
fn encode(event: &Event) -> serde_json::Result<String> {
    let (name, data) = match event {
        Event::Torrent(torrent) => ("torrent", serde_json::to_string(torrent)?),
        Event::Removed(info_hash) => ("removed", serde_json::to_string(info_hash)?),
        Event::Done(info_hash) => ("done", serde_json::to_string(info_hash)?),
        Event::Pieces(pieces) => ("pieces", serde_json::to_string(pieces)?),
        Event::Settings(settings) => ("settings", serde_json::to_string(settings)?),
        Event::Notices(notices) => ("notices", serde_json::to_string(notices)?),
        // An event without data is not told to a page at all.
        Event::Ready => ("ready", "null".to_owned()),
        Event::Bye => ("bye", "null".to_owned()),
    };
    Ok(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use piecework_api::Settings;

    #[test]
    fn an_event_has_the_name_and_data_that_its_type_says() {
        let hash = InfoHash([7; 20]);
        let events = [
            Event::Removed(hash),
            Event::Done(hash),
            Event::Settings(Box::new(Settings {
                incomplete_suffix: "a\nb".to_owned(),
                ..Settings::default()
            })),
            Event::Notices(vec!["a\nb".to_owned()]),
            Event::Ready,
            Event::Bye,
        ];
        for event in events {
            let tagged = serde_json::to_value(&event).unwrap();
            let text = encode(&event).unwrap();
            let lines: Vec<&str> = text.split('\n').collect();
            let [name, data, "", ""] = lines[..] else { panic!("{text}") };
            assert_eq!(name, format!("event: {}", tagged["event"].as_str().unwrap()));
            let data: serde_json::Value =
                serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data, tagged["data"]);
        }
    }

    #[test]
    fn who_asks_for_one_torrent_hears_of_no_other() {
        let (here, there) = (InfoHash([1; 20]), InfoHash([2; 20]));
        assert!(concerns(&Event::Done(here), Some(here)));
        assert!(!concerns(&Event::Done(there), Some(here)));
        assert!(!concerns(&Event::Settings(Box::default()), Some(here)));
        assert!(concerns(&Event::Bye, Some(here)) && concerns(&Event::Done(there), None));
    }
}
