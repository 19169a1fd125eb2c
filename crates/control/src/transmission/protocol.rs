//! Requests and answers in both dialects: JSON-RPC 2.0, and what Transmission spoke before it. The
//! methods see neither: they get a [`Method`] and a map in today's spelling, and give one back.

use std::future::Future;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::super::receive;
use super::fault::{Code, Fault};
use super::method::Method;
use super::names;
use piecework_http::{Left, PartWriter};

/// What carries requests out.
pub(super) trait Core: Sync {
    /// What it tells of torrents.
    type Rows: RowSource;

    /// Does what `method` asks with `params`.
    fn call(
        &self,
        method: Method,
        params: Map<String, Value>,
    ) -> impl Future<Output = Result<Found<Self::Rows>, Fault>> + Send;
}

/// Torrents that are told one by one.
pub(super) trait RowSource: Send {
    /// Writes the elements of the list.
    fn write(
        self,
        out: &mut PartWriter,
        spelling: Spelling,
    ) -> impl Future<Output = Result<(), Left>> + Send;
}

/// The arguments of an answer. With `rows` they have a list of torrents as well.
pub(super) struct Found<R> {
    pub(super) map: Map<String, Value>,
    pub(super) rows: Option<R>,
}

/// Carries out what `body` asks for and writes the answer to `out`. `place` is one of those for large
/// bodies, given back as soon as nothing of the body is left.
pub(super) async fn answer<C: Core>(
    body: impl AsRef<[u8]>,
    place: Option<impl Sized>,
    core: &C,
    mut out: PartWriter,
) {
    let is_large = place.is_some();
    let invalid = |detail: String| Reply::<C::Rows>::invalid(Code::InvalidRequest, detail);
    let request = match receive::is_crowded(body.as_ref()) {
        true => Err(invalid(format!("more than the `{}` values taken", receive::MAX_VALUES))),
        false => serde_json::from_slice(body.as_ref())
            .map_err(|error| Reply::invalid(Code::Parse, error.to_string())),
    };
    let reply = match request {
        Ok(Value::Array(batch)) if batch.is_empty() => Some(invalid("the batch is empty".into())),
        Ok(Value::Array(batch)) if batch.len() > MAX_BATCH => {
            let count = batch.len();
            Some(invalid(format!("`{count}` requests at once are more than {MAX_BATCH}")))
        }
        Ok(Value::Array(batch)) => {
            drop(body);
            return answer_batch(batch, is_large, core, out).await;
        }
        Ok(request) => answer_one(request, false, core).await,
        Err(reply) => Some(reply),
    };
    drop((body, place));
    // Who has left need not be told more.
    let _ = match reply {
        Some(reply) => match reply.write(&mut out).await {
            Ok(()) => out.end().await,
            Err(left) => Err(left),
        },
        None => out.respond(StatusCode::NO_CONTENT.into_response()),
    };
}

async fn answer_batch<C: Core>(batch: Vec<Value>, is_large: bool, core: &C, mut out: PartWriter) {
    let mut is_empty = true;
    for request in batch {
        let Some(mut reply) = answer_one(request, true, core).await else { continue };
        if is_large && reply.has_rows() {
            // Whoever reads slowly would keep what is left of it in memory.
            let detail = "a batch of more than 64 KiB may not ask for torrents: ask for them alone";
            reply.outcome = Err(Fault::new(Code::InvalidRequest, detail));
        }
        // All of it is carried out, whether or not anybody hears of it.
        let _ = out.write(if is_empty { "[" } else { "," }).await;
        let _ = reply.write(&mut out).await;
        is_empty = false;
    }
    // As above.
    let _ = match is_empty {
        true => out.respond(StatusCode::NO_CONTENT.into_response()),
        false => match out.write("]").await {
            Ok(()) => out.end().await,
            Err(left) => Err(left),
        },
    };
}

async fn answer_one<C: Core>(request: Value, in_batch: bool, core: &C) -> Option<Reply<C::Rows>> {
    let Value::Object(request) = request else {
        return Some(Reply::invalid(Code::InvalidRequest, "a request must be an object"));
    };
    match request.get("jsonrpc") {
        None if !in_batch => Some(answer_legacy(request, core).await),
        Some(Value::String(version)) if version == "2.0" => answer_modern(request, core).await,
        _ => Some(Reply::invalid(Code::InvalidRequest, "JSON-RPC version is not 2.0")),
    }
}

async fn answer_modern<C: Core>(
    mut request: Map<String, Value>,
    core: &C,
) -> Option<Reply<C::Rows>> {
    let id = request.remove("id");
    if matches!(id, Some(Value::Bool(_) | Value::Array(_) | Value::Object(_))) {
        let detail = "id type must be String, Number, or Null";
        return Some(Reply::invalid(Code::InvalidRequest, detail));
    }
    let method = match request.get("method") {
        Some(Value::String(name)) => Method::named(name)
            .ok_or_else(|| Fault::new(Code::MethodNotFound, "method name not recognized")),
        _ => Err(Fault::new(Code::InvalidRequest, "no method name")),
    };
    let params = match request.remove("params") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(params)) => Ok(params),
        Some(_) => Err(Fault::new(Code::InvalidParams, "params must be an object")),
    };
    let (known, outcome) = match (method, params) {
        (Err(fault), _) => (None, Err(fault)),
        (Ok(method), Err(fault)) => (Some(method), Err(fault)),
        (Ok(method), Ok(_)) if id.is_none() && method.only_tells() => return None,
        (Ok(method), Ok(params)) => (Some(method), core.call(method, params).await),
    };
    id.map(|id| Reply { dialect: Dialect::Modern { id }, method: known, outcome })
}

async fn answer_legacy<C: Core>(mut request: Map<String, Value>, core: &C) -> Reply<C::Rows> {
    let tag = request.remove("tag").filter(|tag| tag.is_i64() || tag.is_u64());
    let named = match request.get("method") {
        Some(Value::String(name)) => Method::named_in_any_style(name)
            .ok_or_else(|| Fault::new(Code::MethodNotFound, "method name not recognized")),
        _ => Err(Fault::new(Code::MethodNotFound, "no method name")),
    };
    let (method, outcome) = match named {
        Ok(method) => {
            let params = match request.remove("arguments") {
                Some(Value::Object(params)) => modern_params(params),
                _ => Map::new(),
            };
            (Some(method), core.call(method, params).await)
        }
        Err(fault) => (None, Err(fault)),
    };
    Reply { dialect: Dialect::Legacy { tag }, method, outcome }
}

/// Today's spelling of a request's arguments: keys, and those values that are names.
fn modern_params(params: Map<String, Value>) -> Map<String, Value> {
    let rename = |value: Value| match value {
        Value::String(text) => Value::String(names::modern(&text).to_owned()),
        other => other,
    };
    let today = params.into_iter().map(|(key, value)| {
        let key = names::modern(&key).to_owned();
        let value = match (key.as_str(), value) {
            ("fields" | "ids", Value::Array(list)) => list.into_iter().map(rename).collect(),
            ("ids", value) => rename(value),
            ("encryption", value) if value == "tolerated" => Value::from("allowed"),
            (_, value) => value,
        };
        (key, value)
    });
    today.collect()
}

enum Dialect {
    Modern { id: Value },
    Legacy { tag: Option<Value> },
}

/// An answer, which writes itself in the dialect it was asked in.
struct Reply<R> {
    dialect: Dialect,
    method: Option<Method>,
    outcome: Result<Found<R>, Fault>,
}

impl<R: RowSource> Reply<R> {
    /// The answer to what is no request.
    fn invalid(code: Code, detail: impl Into<String>) -> Self {
        let dialect = Dialect::Modern { id: Value::Null };
        Self { dialect, method: None, outcome: Err(Fault::new(code, detail)) }
    }

    fn has_rows(&self) -> bool {
        self.outcome.as_ref().is_ok_and(|found| found.rows.is_some())
    }

    /// Writes it; its rows, if it has any, one by one.
    async fn write(mut self, out: &mut PartWriter) -> Result<(), Left> {
        let Some(rows) = self.outcome.as_mut().ok().and_then(|found| found.rows.take()) else {
            return out.json(&self).await;
        };
        if let Ok(found) = &mut self.outcome {
            found.map.insert(TORRENTS.to_owned(), Value::Array(Vec::new()));
        }
        let text = match serde_json::to_string(&self) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "an answer could not be written");
                return Err(Left);
            }
        };
        // It is there once: within JSON's strings its marks would be escaped.
        let empty = format!("\"{TORRENTS}\":[");
        let at = text.find(&empty).map_or(text.len(), |at| at + empty.len());
        let (before, behind) = text.split_at(at);
        let spelling = match self.dialect {
            Dialect::Modern { .. } => Spelling::Modern,
            Dialect::Legacy { .. } => Spelling::Legacy(self.method),
        };
        out.write(before).await?;
        rows.write(out, spelling).await?;
        out.write(behind).await
    }
}

/// How names are spelled in an answer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spelling {
    /// Today's.
    Modern,
    /// The former one, in the answer to this method.
    Legacy(Option<Method>),
}

impl Spelling {
    /// What a name is called.
    pub(super) fn name(self, modern: &str) -> &str {
        match self {
            Self::Modern => modern,
            Self::Legacy(method) => names::legacy(modern, method),
        }
    }

    /// A value, in which the names of keys are so spelled.
    pub(super) fn of(self, value: &Value) -> impl Serialize {
        match self {
            Self::Modern => Spelled::Modern(value),
            Self::Legacy(method) => {
                Spelled::Legacy(LegacyValue { value, method, place: Place::Plain })
            }
        }
    }

    /// Writes an element of a list.
    pub(super) fn element<S: Serializer>(
        self,
        value: &Value,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match (self, value) {
            (Self::Legacy(_), Value::Bool(yes)) => serializer.serialize_u8(u8::from(*yes)),
            _ => self.of(value).serialize(serializer),
        }
    }
}

enum Spelled<'a> {
    Modern(&'a Value),
    Legacy(LegacyValue<'a>),
}

impl Serialize for Spelled<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Modern(value) => value.serialize(serializer),
            Self::Legacy(value) => value.serialize(serializer),
        }
    }
}

impl<R> Serialize for Reply<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.dialect {
            Dialect::Modern { id } => {
                map.serialize_entry("jsonrpc", "2.0")?;
                match &self.outcome {
                    Ok(found) => map.serialize_entry("result", &found.map)?,
                    Err(fault) => map.serialize_entry("error", &error_object(fault))?,
                }
                map.serialize_entry("id", id)?;
            }
            Dialect::Legacy { tag } => {
                let (arguments, result) = match &self.outcome {
                    Ok(found) => (&found.map, "success"),
                    Err(fault) => (&fault.result, fault.legacy_result()),
                };
                let arguments = LegacyMap { map: arguments, method: self.method };
                map.serialize_entry("arguments", &arguments)?;
                map.serialize_entry("result", result)?;
                if let Some(tag) = tag {
                    map.serialize_entry("tag", tag)?;
                }
            }
        }
        map.end()
    }
}

fn error_object(fault: &Fault) -> Value {
    let mut data = Map::new();
    if let Some(detail) = &fault.detail {
        data.insert("error_string".to_owned(), Value::from(detail.as_str()));
    }
    if !fault.result.is_empty() {
        data.insert("result".to_owned(), Value::Object(fault.result.clone()));
    }
    let mut error = Map::new();
    error.insert("code".to_owned(), Value::from(fault.code as i64));
    error.insert("message".to_owned(), Value::from(fault.code.message()));
    if !data.is_empty() {
        error.insert("data".to_owned(), Value::Object(data));
    }
    Value::Object(error)
}

/// A map that is written in the former spelling.
struct LegacyMap<'a> {
    map: &'a Map<String, Value>,
    method: Option<Method>,
}

/// What lies in such a map.
struct LegacyValue<'a> {
    value: &'a Value,
    method: Option<Method>,
    place: Place,
}

/// Where a value lies, as far as its spelling depends on it.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Anywhere: its words are somebody's own.
    Plain,
    /// The mode of encryption.
    Encryption,
}

impl Serialize for LegacyMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.map.len()))?;
        for (key, value) in self.map {
            let place = match key.as_str() {
                "encryption" => Place::Encryption,
                _ => Place::Plain,
            };
            let value = LegacyValue { value, method: self.method, place };
            map.serialize_entry(names::legacy(key, self.method), &value)?;
        }
        map.end()
    }
}

impl Serialize for LegacyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Value::Object(map) => LegacyMap { map, method: self.method }.serialize(serializer),
            Value::Array(list) => {
                let mut sequence = serializer.serialize_seq(Some(list.len()))?;
                for value in list {
                    match value {
                        // Which files are wanted, the only list of yes and no there is, was one of
                        // 1 and 0.
                        Value::Bool(yes) => sequence.serialize_element(&u8::from(*yes))?,
                        value => sequence.serialize_element(&LegacyValue {
                            value,
                            method: self.method,
                            place: Place::Plain,
                        })?,
                    }
                }
                sequence.end()
            }
            Value::String(mode) if self.place == Place::Encryption && mode == "allowed" => {
                serializer.serialize_str("tolerated")
            }
            value => value.serialize(serializer),
        }
    }
}

/// The key of the list of torrents, in both spellings.
const TORRENTS: &str = "torrents";

/// Requests in one batch: clients send a handful, and each may ask for everything.
const MAX_BATCH: usize = 100;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::http::HeaderMap;
    use serde_json::json;

    use super::*;
    use piecework_http::{Lasting, part_writer};

    /// Remembers what it is asked and answers with what it is told.
    struct Echo {
        asked: Mutex<Vec<(Method, Value)>>,
        result: Result<Value, Fault>,
    }

    impl Echo {
        fn with(result: Value) -> Self {
            Self { asked: Mutex::default(), result: Ok(result) }
        }

        fn ask(&self, body: &Value) -> Option<Value> {
            self.ask_raw(&serde_json::to_vec(body).unwrap())
        }

        fn ask_raw(&self, body: &[u8]) -> Option<Value> {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (out, answered) =
                    part_writer(Lasting::default(), &HeaderMap::new(), "application/json");
                let (response, ()) = tokio::join!(answered, answer(body, None::<()>, self, out));
                let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                (!bytes.is_empty()).then(|| serde_json::from_slice(&bytes).unwrap())
            })
        }

        fn asked(&self) -> Vec<(Method, Value)> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }
    }

    /// Torrents that are told as they are; a table's head is a list of names.
    struct Told(Vec<Value>);

    impl RowSource for Told {
        async fn write(self, out: &mut PartWriter, spelling: Spelling) -> Result<(), Left> {
            let head = self.0.first().and_then(Value::as_array);
            let head: Option<Vec<&str>> = head.map(|names| {
                names.iter().map(|name| spelling.name(name.as_str().unwrap())).collect()
            });
            if let Some(head) = &head {
                out.json(head).await?;
                out.write(if self.0.len() > 1 { "," } else { "" }).await?;
            }
            let rows = self.0.iter().skip(usize::from(head.is_some()));
            for (index, row) in rows.enumerate() {
                out.write(if index > 0 { "," } else { "" }).await?;
                out.json(&spelling.of(row)).await?;
            }
            Ok(())
        }
    }

    impl Core for Echo {
        type Rows = Told;

        async fn call(
            &self,
            method: Method,
            params: Map<String, Value>,
        ) -> Result<Found<Told>, Fault> {
            self.asked.lock().unwrap().push((method, Value::Object(params)));
            let mut map = self.result.clone()?.as_object().unwrap().clone();
            let rows = map.remove(TORRENTS);
            let rows = rows.map(|rows| Told(rows.as_array().unwrap().clone()));
            Ok(Found { map, rows })
        }
    }

    #[test]
    fn the_former_dialect_is_translated_both_ways() {
        let echo = Echo::with(json!({
            "torrents": [{"rate_download": 5, "labels": ["rate_download"], "wanted": [true, false],
                          "file_stats": [{"wanted": true}], "download_dir": "/d"}],
        }));
        let answer = echo.ask(&json!({
            "method": "torrent-get", "tag": 7,
            "arguments": {"fields": ["rateDownload", "downloadDir"], "ids": "recently-active"},
        }));
        assert_eq!(
            echo.asked(),
            [(
                Method::TorrentGet,
                json!({"fields": ["rate_download", "download_dir"], "ids": "recently_active"})
            )]
        );
        assert_eq!(
            answer.unwrap(),
            json!({
                "result": "success", "tag": 7,
                "arguments": {"torrents": [{
                    "rateDownload": 5, "labels": ["rate_download"], "wanted": [1, 0],
                    "fileStats": [{"wanted": true}], "downloadDir": "/d",
                }]},
            })
        );
    }

    #[test]
    fn the_head_of_a_table_is_spelled_as_it_was_asked() {
        let table = json!({"torrents": [["hash_string", "name"], ["ab", "hash_string"]]});
        let echo = Echo::with(table.clone());
        let legacy = echo.ask(&json!({"method": "torrent-get", "arguments": {}})).unwrap();
        assert_eq!(
            legacy["arguments"],
            json!({"torrents": [["hashString", "name"], ["ab", "hash_string"]]})
        );
        let modern = json!({"jsonrpc": "2.0", "method": "torrent_get", "id": "x"});
        let modern = echo.ask(&modern).unwrap();
        assert_eq!(modern, json!({"jsonrpc": "2.0", "result": table, "id": "x"}));
    }

    #[test]
    fn the_mode_of_encryption_has_two_words() {
        let echo = Echo::with(json!({"encryption": "allowed", "version": "allowed"}));
        let legacy = echo.ask(&json!({"method": "session-get"})).unwrap();
        assert_eq!(legacy["arguments"], json!({"encryption": "tolerated", "version": "allowed"}));
        echo.asked();
        echo.ask(&json!({"method": "session-set", "arguments": {"encryption": "tolerated"}}));
        assert_eq!(echo.asked()[0].1, json!({"encryption": "allowed"}));
    }

    #[test]
    fn faults_are_told_as_each_dialect_tells_them() {
        let fault = Fault::new(Code::PathNotAbsolute, "`x` is not an absolute path")
            .with_result(json!({"size_bytes": -1}).as_object().unwrap().clone());
        let echo = Echo { asked: Mutex::default(), result: Err(fault) };
        assert_eq!(
            echo.ask(&json!({"method": "free-space", "tag": 1})).unwrap(),
            json!({"result": "`x` is not an absolute path", "arguments": {"size-bytes": -1}, "tag": 1})
        );
        assert_eq!(
            echo.ask(&json!({"jsonrpc": "2.0", "method": "free_space", "id": 1})).unwrap(),
            json!({"jsonrpc": "2.0", "id": 1, "error": {
                "code": 3, "message": "path is not absolute",
                "data": {"error_string": "`x` is not an absolute path", "result": {"size_bytes": -1}},
            }})
        );
    }

    #[test]
    fn what_is_no_request_is_refused_in_the_words_clients_know() {
        let echo = Echo::with(json!({}));
        let legacy = |body: Value| echo.ask(&body).unwrap()["result"].clone();
        assert_eq!(legacy(json!({})), "no method name");
        assert_eq!(legacy(json!({"method": 3})), "no method name");
        assert_eq!(legacy(json!({"method": "torrent-fly"})), "method name not recognized");
        let code = |body: Value| echo.ask(&body).unwrap()["error"]["code"].clone();
        assert_eq!(code(json!(3)), -32600);
        assert_eq!(code(json!([])), -32600);
        assert_eq!(code(json!({"jsonrpc": "1.0", "method": "session_get", "id": 1})), -32600);
        assert_eq!(code(json!({"jsonrpc": "2.0", "id": 1})), -32600);
        assert_eq!(code(json!({"jsonrpc": "2.0", "method": "session_get", "id": []})), -32600);
        assert_eq!(code(json!({"jsonrpc": "2.0", "method": "session-get", "id": 1})), -32601);
        let by_position =
            json!({"jsonrpc": "2.0", "method": "session_get", "params": [1], "id": 1});
        assert_eq!(code(by_position), -32602);
        assert_eq!(code(json!(vec![1; MAX_BATCH + 1])), -32600);
        assert!(echo.asked().is_empty());
        for bad in ["", "{", "[".repeat(100_000).as_str(), "{\"method\": \"\u{0}\"}"] {
            let answer = echo.ask_raw(bad.as_bytes()).unwrap();
            assert_eq!(answer["error"]["code"], -32700, "{bad:.20}");
        }
    }

    #[test]
    fn notifications_are_carried_out_and_not_answered() {
        let echo = Echo::with(json!({}));
        assert_eq!(echo.ask(&json!({"jsonrpc": "2.0", "method": "torrent_stop"})), None);
        assert_eq!(echo.asked().len(), 1);
        assert_eq!(echo.ask(&json!({"jsonrpc": "2.0", "method": "torrent_get"})), None);
        assert_eq!(echo.ask(&json!({"jsonrpc": "2.0", "method": "no_such"})), None);
        assert!(echo.asked().is_empty());
        let null = json!({"jsonrpc": "2.0", "method": "session_get", "id": null});
        assert_eq!(echo.ask(&null).unwrap(), json!({"jsonrpc": "2.0", "result": {}, "id": null}));
    }

    #[test]
    fn a_batch_is_answered_in_order_without_its_notifications() {
        let echo = Echo::with(json!({}));
        let answers = echo.ask(&json!([
            {"jsonrpc": "2.0", "method": "torrent_stop", "id": 1},
            {"jsonrpc": "2.0", "method": "torrent_start"},
            {"method": "torrent-get"},
            5,
            {"jsonrpc": "2.0", "method": "session_get", "id": 2},
        ]));
        let answers = answers.unwrap();
        let ids: Vec<_> = answers.as_array().unwrap().iter().map(|one| &one["id"]).collect();
        assert_eq!(ids, [&json!(1), &Value::Null, &Value::Null, &json!(2)]);
        assert_eq!(echo.asked().len(), 3);
        assert_eq!(echo.ask(&json!([{"jsonrpc": "2.0", "method": "torrent_stop"}])), None);
    }
}
