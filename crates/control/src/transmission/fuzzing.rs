//! Requests for `fuzz/`: answered by a core that reads all arguments and does nothing.

use axum::body::to_bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::arguments::Arguments;
use super::fault::Fault;
use super::fields::Field;
use super::ids::Selection;
use super::memory::{Memory, TorrentMemory};
use super::method::Method;
use super::protocol::{Core, Found, RowSource, Spelling, answer};
use super::{groups, samples, session, torrent_add, torrent_set};
use piecework_api::Settings;
use piecework_core::InfoHash;
use piecework_http::{Lasting, Left, PartWriter, part_writer};

pub(crate) fn rpc(body: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (status, answered) = runtime.block_on(async {
        let (out, answered) =
            part_writer(Lasting::default(), &HeaderMap::new(), "application/json");
        let (response, ()) = tokio::join!(answered, answer(body, None::<()>, &Reading, out));
        let status = response.status();
        (status, to_bytes(response.into_body(), usize::MAX).await.expect("its own answer"))
    });
    match status {
        StatusCode::NO_CONTENT => assert!(answered.is_empty()),
        StatusCode::OK => {
            serde_json::from_slice::<Value>(&answered).expect("an answer is JSON");
        }
        other => panic!("answered with {other}"),
    }
}

/// Reads the arguments of every request as all methods would, and echoes them.
struct Reading;

struct EchoedRows(Vec<Value>);

impl Core for Reading {
    type Rows = EchoedRows;

    async fn call(
        &self,
        method: Method,
        params: Map<String, Value>,
    ) -> Result<Found<EchoedRows>, Fault> {
        let given = Arguments::new(params.clone());
        let (detail, settings) = (samples::detail(), Settings::default());
        let (mut memory, mut groups) = (TorrentMemory::default(), Memory::default());
        // All are read, whatever the method.
        let set = torrent_set::change(&given, &detail, &mut memory).map(drop);
        let added = torrent_add::new_torrent(&given, &settings).map(drop);
        let grouped = groups::set(&given, &mut groups.groups).map(drop);
        let facts = session::Facts::default();
        session::requested_changes(&given, &settings, &facts, &mut groups.session);
        groups::get(&given, &groups.groups);
        let meant = Selection::read(&given).pick(Vec::new(), || vec![(1, InfoHash([1; 20]))]);
        let named = given.raw("ids").and_then(Value::as_array).map_or(1, Vec::len);
        assert!(meant.is_none_or(|meant| meant.len() <= named));
        for name in given.list("fields")?.unwrap_or_default().iter().filter_map(Value::as_str) {
            // Not every name is one of a field.
            let _ = Field::named(name);
        }
        match method {
            Method::TorrentGet => {
                Ok(Found { map: Map::new(), rows: Some(EchoedRows(vec![Value::Object(params)])) })
            }
            Method::TorrentSet => set.map(|()| Found { map: params, rows: None }),
            Method::TorrentAdd => added.map(|()| Found { map: params, rows: None }),
            Method::GroupSet => grouped.map(|()| Found { map: params, rows: None }),
            _ => Ok(Found { map: params, rows: None }),
        }
    }
}

impl RowSource for EchoedRows {
    async fn write(self, out: &mut PartWriter, spelling: Spelling) -> Result<(), Left> {
        for (index, row) in self.0.iter().enumerate() {
            out.write(if index > 0 { "," } else { "" }).await?;
            out.json(&spelling.of(row)).await?;
        }
        Ok(())
    }
}
