//! Requests and answers in both dialects: JSON-RPC 2.0, and what Transmission spoke before it. The
//! methods see neither: they get a [`Method`] and a map in today's spelling, and give one back.

use std::future::Future;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Map, Value};

use super::super::receive;
use super::fault::{Code, Fault};
use super::method::Method;
use super::names;

/// What carries requests out.
pub(super) trait Core: Sync {
    /// Does what `method` asks with `params`.
    fn call(
        &self,
        method: Method,
        params: Map<String, Value>,
    ) -> impl Future<Output = Result<Map<String, Value>, Fault>> + Send;
}

/// Carries out what `body` asks for; the JSON of the answer, or `None` if nobody waits for one.
pub(super) async fn answer(body: &[u8], core: &impl Core) -> Option<Vec<u8>> {
    if receive::is_crowded(body) {
        let detail = format!("more than the `{}` values taken", receive::MAX_VALUES);
        return Some(json(&Reply::invalid(Code::InvalidRequest, detail)));
    }
    let request = match serde_json::from_slice(body) {
        Ok(request) => request,
        Err(error) => return Some(json(&Reply::invalid(Code::Parse, error.to_string()))),
    };
    let Value::Array(batch) = request else {
        return answer_one(request, false, core).await.map(|reply| json(&reply));
    };
    if batch.is_empty() {
        return Some(json(&Reply::invalid(Code::InvalidRequest, "the batch is empty")));
    }
    if batch.len() > MAX_BATCH {
        let detail = format!("`{}` requests at once are more than {MAX_BATCH}", batch.len());
        return Some(json(&Reply::invalid(Code::InvalidRequest, detail)));
    }
    let mut replies = Vec::new();
    for request in batch {
        replies.extend(answer_one(request, true, core).await);
    }
    (!replies.is_empty()).then(|| json(&replies))
}

async fn answer_one(request: Value, in_batch: bool, core: &impl Core) -> Option<Reply> {
    let Value::Object(request) = request else {
        return Some(Reply::invalid(Code::InvalidRequest, "a request must be an object"));
    };
    match request.get("jsonrpc") {
        None if !in_batch => Some(answer_legacy(request, core).await),
        Some(Value::String(version)) if version == "2.0" => answer_modern(request, core).await,
        _ => Some(Reply::invalid(Code::InvalidRequest, "JSON-RPC version is not 2.0")),
    }
}

async fn answer_modern(mut request: Map<String, Value>, core: &impl Core) -> Option<Reply> {
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

async fn answer_legacy(mut request: Map<String, Value>, core: &impl Core) -> Reply {
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
struct Reply {
    dialect: Dialect,
    method: Option<Method>,
    outcome: Result<Map<String, Value>, Fault>,
}

impl Reply {
    /// The answer to what is no request.
    fn invalid(code: Code, detail: impl Into<String>) -> Self {
        let dialect = Dialect::Modern { id: Value::Null };
        Self { dialect, method: None, outcome: Err(Fault::new(code, detail)) }
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.dialect {
            Dialect::Modern { id } => {
                map.serialize_entry("jsonrpc", "2.0")?;
                match &self.outcome {
                    Ok(result) => map.serialize_entry("result", result)?,
                    Err(fault) => map.serialize_entry("error", &error_object(fault))?,
                }
                map.serialize_entry("id", id)?;
            }
            Dialect::Legacy { tag } => {
                let (arguments, result) = match &self.outcome {
                    Ok(result) => (result, "success"),
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
    /// The list of torrents.
    Torrents,
    /// The first row of that list as a table: names of fields.
    Head,
    /// The mode of encryption.
    Encryption,
}

impl Serialize for LegacyMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.map.len()))?;
        for (key, value) in self.map {
            let place = match key.as_str() {
                "torrents" => Place::Torrents,
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
                for (index, value) in list.iter().enumerate() {
                    let place = match self.place {
                        Place::Torrents if index == 0 && value.is_array() => Place::Head,
                        Place::Head => Place::Head,
                        _ => Place::Plain,
                    };
                    match value {
                        // Which files are wanted, the only list of yes and no there is, was one of
                        // 1 and 0.
                        Value::Bool(yes) => sequence.serialize_element(&u8::from(*yes))?,
                        value => sequence.serialize_element(&LegacyValue {
                            value,
                            method: self.method,
                            place,
                        })?,
                    }
                }
                sequence.end()
            }
            Value::String(name) if self.place == Place::Head => {
                serializer.serialize_str(names::legacy(name, self.method))
            }
            Value::String(mode) if self.place == Place::Encryption && mode == "allowed" => {
                serializer.serialize_str("tolerated")
            }
            value => value.serialize(serializer),
        }
    }
}

fn json(reply: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(reply).unwrap_or_else(|error| {
        // Maps with text keys cannot fail to be written; should that change, say so.
        tracing::error!(%error, "an answer could not be written");
        br#"{"jsonrpc":"2.0","error":{"code":-32603,"message":"Internal error"},"id":null}"#
            .to_vec()
    })
}

/// Requests in one batch: clients send a handful, and each may ask for everything.
const MAX_BATCH: usize = 100;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;

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
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let body = serde_json::to_vec(body).unwrap();
            let text = runtime.block_on(answer(&body, self))?;
            Some(serde_json::from_slice(&text).unwrap())
        }

        fn asked(&self) -> Vec<(Method, Value)> {
            std::mem::take(&mut self.asked.lock().unwrap())
        }
    }

    impl Core for Echo {
        async fn call(
            &self,
            method: Method,
            params: Map<String, Value>,
        ) -> Result<Map<String, Value>, Fault> {
            self.asked.lock().unwrap().push((method, Value::Object(params)));
            self.result.clone().map(|result| result.as_object().unwrap().clone())
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
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for bad in ["", "{", "[".repeat(100_000).as_str(), "{\"method\": \"\u{0}\"}"] {
            let text = runtime.block_on(answer(bad.as_bytes(), &echo)).unwrap();
            let answer: Value = serde_json::from_slice(&text).unwrap();
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
