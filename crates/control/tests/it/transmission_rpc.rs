//! Transmission's RPC over a running daemon, as HTTP carries it.

use std::net::SocketAddr;

use piecework_api::State;
use piecework_control::{Control, ControlConfig};
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_core::{InfoHash, Secret, base64};
use piecework_daemon::Daemon;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use piecework_testkit::daemon::{Home, control_config, until, within};

/// A daemon, served, and a client that knows the session id.
struct Served {
    home: Home,
    daemon: Daemon,
    control: Control,
    addr: SocketAddr,
    session_id: String,
}

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Served {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        let home = Home::new();
        let daemon = home.start().await;
        let mut config = control_config();
        change(&mut config);
        let control = Control::start(config, daemon.clone()).await.unwrap();
        let addr = control.addrs()[0];
        let mut served = Self { home, daemon, control, addr, session_id: String::new() };
        let refused = served.http("POST", &[], b"{}").await;
        served.session_id = refused.header("x-transmission-session-id").unwrap_or_default();
        served
    }

    async fn http(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.http_at("/transmission/rpc", method, headers, body).await
    }

    async fn http_at(
        &self,
        path: &str,
        method: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        http(self.addr, method, path, headers, body).await
    }

    async fn post(&self, request: &Value) -> Answer {
        let body = serde_json::to_vec(request).unwrap();
        let id = [("X-Transmission-Session-Id", self.session_id.as_str())];
        self.http("POST", &id, &body).await
    }

    /// The former dialect: result and arguments.
    async fn legacy(&self, method: &str, arguments: Value) -> (String, Value) {
        let request = json!({"method": method, "arguments": arguments, "tag": 5});
        let answer = self.post(&request).await;
        assert_eq!(answer.status, 200);
        let mut answer = answer.json();
        assert_eq!(answer["tag"], 5);
        (answer["result"].as_str().unwrap().to_owned(), answer["arguments"].take())
    }

    async fn legacy_ok(&self, method: &str, arguments: Value) -> Value {
        let (result, answer) = self.legacy(method, arguments.clone()).await;
        assert_eq!(result, "success", "{method} {arguments}");
        answer
    }

    /// Today's dialect: the result, or the error.
    async fn modern(&self, method: &str, params: Value) -> Result<Value, Value> {
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": "x"});
        let mut answer = self.post(&request).await.json();
        assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!("x"), &json!("2.0")));
        if answer.get("error").is_some() {
            Err(answer["error"].take())
        } else {
            Ok(answer["result"].take())
        }
    }

    async fn modern_ok(&self, method: &str, params: Value) -> Value {
        self.modern(method, params.clone()).await.unwrap_or_else(|error| {
            panic!("{method} {params}: {error}");
        })
    }

    /// Adds a paused torrent of two files, 40,000 and 30,000 bytes, of which nothing is there.
    async fn add(&self, name: &str) -> InfoHash {
        let metainfo = two_files(name);
        let arguments =
            json!({"metainfo": base64::encode(metainfo.bytes().unwrap().as_ref()), "paused": true});
        self.legacy_ok("torrent-add", arguments).await;
        let hash = metainfo.info_hash();
        until(&self.daemon, hash, |torrent| torrent.state == State::Paused).await;
        hash
    }

    /// One field of the first torrent.
    async fn field(&self, name: &str) -> Value {
        let result = self.modern_ok("torrent_get", json!({"fields": [name]})).await;
        result["torrents"][0][name].clone()
    }
}

/// Asks `addr` and reads the whole answer.
async fn http(
    addr: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request.push_str(&format!("Host: {addr}\r\n"));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut received = Vec::new();
    within(stream.read_to_end(&mut received)).await.unwrap();
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: received.split_off(end + 4) }
}

impl Answer {
    fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A torrent of two files of 40,000 and 30,000 bytes.
fn two_files(name: &str) -> Metainfo {
    let files = [("one.mkv", 40_000), ("two.txt", 30_000)];
    let files = files.map(|(name, len)| (vec![name.to_owned()], len));
    let builder = MetainfoBuilder::folder(name, files.to_vec()).piece_len(16_384);
    let builder = builder.trackers(vec![vec!["http://127.0.0.1:1/announce".to_owned()]]);
    builder.build(vec![7; 5 * 20]).unwrap()
}

#[tokio::test]
async fn the_session_id_is_asked_for_before_anything_else() {
    let served = Served::start().await;
    assert_eq!(served.session_id.len(), 48);
    let wrong = [("X-Transmission-Session-Id", "x")];
    for (method, headers) in [("POST", &[][..]), ("POST", &wrong), ("GET", &[]), ("PUT", &wrong)] {
        let answer = served.http(method, headers, b"{\"method\":\"session-close\"}").await;
        assert_eq!(answer.status, 409, "{method}");
        assert_eq!(answer.header("x-transmission-session-id").unwrap(), served.session_id);
        assert_eq!(answer.header("x-transmission-rpc-version").unwrap(), "6.0.1");
        assert!(String::from_utf8_lossy(&answer.body).contains(&served.session_id));
    }
    let right = [("X-Transmission-Session-Id", served.session_id.as_str())];
    let answer = served.http("GET", &right, b"").await;
    assert_eq!((answer.status, answer.header("allow").unwrap()), (405, "POST".to_owned()));
    // Content types do not matter, nor does the slash at the end.
    let form = [right[0], ("Content-Type", "application/x-www-form-urlencoded")];
    for path in ["/transmission/rpc", "/transmission/rpc/", "/transmission//rpc/"] {
        let answer = served.http_at(path, "POST", &form, b"{\"method\":\"session-get\"}").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type").unwrap(), "application/json; charset=UTF-8");
        assert_eq!(answer.json()["result"], "success");
        assert_eq!(answer.json()["arguments"]["session-id"], served.session_id);
    }
}

#[tokio::test]
async fn hosts_origins_and_passwords_are_the_guards() {
    let served = Served::start_with(|config| {
        config.password = Some(Secret::from("geheim"));
    })
    .await;
    let basic =
        |password: &str| format!("Basic {}", base64::encode(format!("me:{password}").as_bytes()));
    assert_eq!(served.session_id, "", "no session id without the password");
    assert_eq!(served.http("POST", &[("Authorization", &basic("x"))], b"{}").await.status, 401);
    let right = basic("geheim");
    let right = [("Authorization", right.as_str())];
    assert_eq!(served.http("POST", &right, b"{}").await.status, 409);
    let host = [right[0], ("Host", "evil.example")];
    assert_eq!(served.http("POST", &host, b"{}").await.status, 421);
    let origin = [right[0], ("Origin", "http://evil.example")];
    assert_eq!(served.http("POST", &origin, b"{}").await.status, 403);
}

#[tokio::test]
async fn a_request_may_be_large_but_not_endless() {
    let served = Served::start().await;
    let id = [("X-Transmission-Session-Id", served.session_id.as_str())];
    let large = vec![b' '; 15 << 20];
    let answer = served.http("POST", &id, &large).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (200, &json!(-32700)));
    // A large request without the id hears what it lacks.
    assert_eq!(served.http("POST", &[], &large).await.status, 409);
    let length = format!("{}", (140 << 20) + 1);
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    let head = format!(
        "POST /transmission/rpc HTTP/1.1\r\nHost: localhost\r\nX-Transmission-Session-Id: {}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n",
        served.session_id
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    within(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn notifications_and_batches_are_answered_as_json_rpc_has_it() {
    let served = Served::start().await;
    served.add("a").await;
    let stop = json!({"jsonrpc": "2.0", "method": "torrent_stop"});
    let answer = served.post(&stop).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let get =
        json!({"jsonrpc": "2.0", "method": "torrent_get", "params": {"fields": ["id"]}, "id": 9});
    let answer = served.post(&json!([stop, get, 3])).await.json();
    assert_eq!(answer[0], json!({"jsonrpc": "2.0", "id": 9, "result": {"torrents": [{"id": 1}]}}));
    assert_eq!(answer[1]["error"]["code"], -32600);
    assert_eq!(answer.as_array().unwrap().len(), 2);
}

/// Every field of section 3.3 of the specification.
const TORRENT_FIELDS: &str = "activity_date added_date availability bandwidth_priority \
    bytes_completed comment corrupt_ever creator date_created desired_available done_date \
    download_dir downloaded_ever download_limit download_limited edit_date error error_string eta \
    eta_idle file_count files file_stats group hash_string have_unchecked have_valid \
    honors_session_limits id is_finished is_private is_stalled labels left_until_done magnet_link \
    manual_announce_time max_connected_peers metadata_percent_complete name peer_limit peers \
    peers_connected peers_from peers_getting_from_us peers_sending_to_us percent_complete \
    percent_done pieces piece_count piece_size priorities primary_mime_type queue_position \
    rate_download rate_upload recheck_progress seconds_downloading seconds_seeding seed_idle_limit \
    seed_idle_mode seed_ratio_limit seed_ratio_mode sequential_download \
    sequential_download_from_piece size_when_done start_date status torrent_file total_size \
    trackers tracker_list tracker_stats uploaded_ever upload_limit upload_limited upload_ratio \
    wanted webseeds webseeds_ex webseeds_sending_to_us";

/// The same as they were called before.
const LEGACY_FIELDS: &str = "activityDate addedDate availability bandwidthPriority bytesCompleted \
    comment corruptEver creator dateCreated desiredAvailable doneDate downloadDir downloadedEver \
    downloadLimit downloadLimited editDate error errorString eta etaIdle file-count files \
    fileStats group hashString haveUnchecked haveValid honorsSessionLimits id isFinished isPrivate \
    isStalled labels leftUntilDone magnetLink manualAnnounceTime maxConnectedPeers \
    metadataPercentComplete name peer-limit peers peersConnected peersFrom peersGettingFromUs \
    peersSendingToUs percentComplete percentDone pieces pieceCount pieceSize priorities \
    primary-mime-type queuePosition rateDownload rateUpload recheckProgress secondsDownloading \
    secondsSeeding seedIdleLimit seedIdleMode seedRatioLimit seedRatioMode sequential_download \
    sequential_download_from_piece sizeWhenDone startDate status torrentFile totalSize trackers \
    trackerList trackerStats uploadedEver uploadLimit uploadLimited uploadRatio wanted webseeds \
    webseeds_ex webseedsSendingToUs";

/// Every key of section 4.1 of the specification.
const SESSION_KEYS: &str = "alt_speed_down alt_speed_enabled alt_speed_time_begin \
    alt_speed_time_day alt_speed_time_enabled alt_speed_time_end alt_speed_up \
    anti_brute_force_enabled blocklist_enabled blocklist_size blocklist_url cache_size_mib \
    config_dir default_trackers dht_enabled download_dir download_dir_free_space \
    download_queue_enabled download_queue_size encryption idle_seeding_limit \
    idle_seeding_limit_enabled incomplete_dir incomplete_dir_enabled lpd_enabled peer_limit_global \
    peer_limit_per_torrent peer_port_random_on_start peer_port pex_enabled port_forwarding_enabled \
    preferred_transports queue_stalled_enabled queue_stalled_minutes rename_partial_files reqq \
    rpc_version_minimum rpc_version_semver rpc_version script_torrent_added_enabled \
    script_torrent_added_filename script_torrent_done_enabled script_torrent_done_filename \
    script_torrent_done_seeding_enabled script_torrent_done_seeding_filename seed_queue_enabled \
    seed_queue_size seed_ratio_limit seed_ratio_limited sequential_download session_id \
    speed_limit_down speed_limit_down_enabled speed_limit_up speed_limit_up_enabled \
    start_added_torrents tcp_enabled trash_original_torrent_files units utp_enabled version";

#[tokio::test]
async fn every_field_of_the_specification_is_answered_in_both_dialects() {
    let served = Served::start().await;
    served.add("a").await;
    let modern: Vec<&str> = TORRENT_FIELDS.split_whitespace().collect();
    let legacy: Vec<&str> = LEGACY_FIELDS.split_whitespace().collect();
    assert_eq!(modern.len(), legacy.len());
    let new = served.modern_ok("torrent_get", json!({"fields": modern})).await;
    let old = served.legacy_ok("torrent-get", json!({"fields": legacy})).await;
    for (modern, legacy) in modern.iter().zip(&legacy) {
        let (new, old) = (&new["torrents"][0][modern], &old["torrents"][0][legacy]);
        assert!(!new.is_null(), "{modern}");
        assert!(!old.is_null(), "{legacy}");
        // Whole numbers stay whole.
        assert_eq!((new.is_u64(), new.is_f64()), (old.is_u64(), old.is_f64()), "{modern}");
        if !new.is_array() && !new.is_object() {
            assert_eq!(new, old, "{modern}");
        }
    }
    assert_eq!(new["torrents"][0]["wanted"], json!([true, true]));
    assert_eq!(old["torrents"][0]["wanted"], json!([1, 1]));
    let tracker = &old["torrents"][0]["trackerStats"][0];
    assert_eq!(tracker["announce"], "http://127.0.0.1:1/announce");
    assert!(tracker["lastAnnouncePeerCount"].is_u64());

    let table = json!({"fields": modern, "format": "table"});
    let table = served.modern_ok("torrent_get", table).await;
    assert_eq!(table["torrents"][0], json!(modern));
    assert_eq!(table["torrents"][1].as_array().unwrap().len(), modern.len());
    let table = json!({"fields": ["hashString", "wanted"], "format": "table"});
    let table = served.legacy_ok("torrent-get", table).await;
    assert_eq!(table["torrents"][0], json!(["hashString", "wanted"]));
    assert_eq!(table["torrents"][1][1], json!([1, 1]));

    let error = served.modern("torrent_get", json!({"fields": ["no_such"]})).await.unwrap_err();
    assert_eq!(error["data"]["error_string"], "no fields specified");
}

#[tokio::test]
async fn every_key_of_the_session_is_answered_in_both_dialects() {
    let served = Served::start().await;
    let session = served.modern_ok("session_get", json!({})).await;
    let keys: Vec<&str> = SESSION_KEYS.split_whitespace().collect();
    let mut told: Vec<&String> = session.as_object().unwrap().keys().collect();
    told.sort();
    let mut wanted = keys.clone();
    wanted.sort_unstable();
    assert_eq!(told, wanted);
    assert_eq!(session["rpc_version"], 18);
    assert_eq!(session["rpc_version_minimum"], 14);
    assert_eq!(session["rpc_version_semver"], "6.0.1");
    assert_eq!(session["peer_port"], served.daemon.peer_port());
    assert!(session["download_dir_free_space"].as_u64().unwrap() > 0);

    let old = served.legacy_ok("session-get", json!({})).await;
    assert_eq!(old.as_object().unwrap().len(), keys.len());
    for key in [
        "seedRatioLimit",
        "seedRatioLimited",
        "download-dir",
        "cache-size-mb",
        "speed-limit-up",
        "utp-enabled",
    ] {
        assert!(!old[key].is_null(), "{key}");
    }
    assert_eq!(
        (&old["encryption"], &session["encryption"]),
        (&json!("tolerated"), &json!("allowed"))
    );
    assert_eq!(old["units"]["speed-bytes"], 1000);
    let two = served.legacy_ok("session-get", json!({"fields": ["version", "download-dir"]})).await;
    assert_eq!(two.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn torrents_are_added_told_apart_and_removed() {
    let served = Served::start().await;
    let hash = served.add("a").await.to_string();
    let bytes = two_files("other").bytes().unwrap().as_ref().to_vec();
    let add = json!({"metainfo": base64::encode(&bytes), "paused": true});
    let added = served.modern_ok("torrent_add", add.clone()).await;
    assert_eq!(added["torrent_added"]["id"], 2);
    let second = added["torrent_added"]["hash_string"].clone();
    let again = served.legacy_ok("torrent-add", add).await;
    assert_eq!(again["torrent-duplicate"]["hashString"], second);
    assert_eq!(again["torrent-duplicate"]["id"], 2);

    let ids = |ids: Value| {
        let served = &served;
        async move {
            let answer =
                served.modern_ok("torrent_get", json!({"fields": ["id"], "ids": ids})).await;
            answer["torrents"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| t["id"].as_u64().unwrap())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(json!(null)).await, [1, 2]);
    assert_eq!(ids(json!(hash)).await, [1]);
    assert_eq!(ids(json!([2, hash])).await, [1, 2]);
    assert_eq!(ids(json!([])).await, [0; 0]);

    let request = json!({"ids": [2], "delete-local-data": false});
    served.legacy_ok("torrent-remove", request).await;
    assert_eq!(ids(json!(null)).await, [1]);
    let recent = json!({"fields": ["id"], "ids": "recently-active"});
    let recent = served.legacy_ok("torrent-get", recent).await;
    assert_eq!(recent["removed"], json!([2]));
    assert_eq!(recent["torrents"], json!([{"id": 1}]));
    // Nobody loses all by naming none.
    served.legacy_ok("torrent-remove", json!({"ids": []})).await;
    assert_eq!(ids(json!(null)).await, [1]);
}

#[tokio::test]
async fn what_cannot_be_added_is_told_in_the_words_clients_know() {
    let served = Served::start().await;
    let result = |arguments: Value| {
        let served = &served;
        async move { served.legacy("torrent-add", arguments).await.0 }
    };
    let broken = json!({"metainfo": base64::encode(b"d4:infode")});
    assert_eq!(result(broken).await, "invalid or corrupt torrent file");
    assert_eq!(result(json!({})).await, "no filename or metainfo specified");
    assert!(result(json!({"filename": "magnet:?xt=urn:btih:aa"})).await.contains("magnet"));
    let bytes = two_files("other").bytes().unwrap().as_ref().to_vec();
    let outside = json!({"metainfo": base64::encode(&bytes), "download-dir": "/etc"});
    assert!(result(outside).await.contains("/etc"));
    assert!(served.daemon.torrents().is_empty());
    let missing = served.home.path("none.torrent");
    assert_ne!(result(json!({"filename": missing})).await, "success");
    let file = served.home.file("some.torrent", &bytes);
    assert_eq!(result(json!({"filename": file, "paused": true})).await, "success");
}

#[tokio::test]
async fn what_is_set_for_a_torrent_is_told_and_holds() {
    let served = Served::start().await;
    let hash = served.add("a").await;
    served
        .legacy_ok(
            "torrent-set",
            json!({
                "ids": [1], "bandwidthPriority": 1, "downloadLimit": 20, "downloadLimited": true,
                "uploadLimit": 10, "uploadLimited": true, "honorsSessionLimits": false,
                "peer-limit": 7, "sequential_download": true, "labels": ["x", "y"],
                "seedRatioLimit": 1.5, "seedRatioMode": 1, "seedIdleLimit": 2, "seedIdleMode": 1,
                "group": "slow", "files-unwanted": [0], "priority-high": [1],
                "trackerList": "http://127.0.0.1:1/announce\n\nhttp://127.0.0.1:2/announce",
            }),
        )
        .await;
    for (field, value) in [
        ("bandwidth_priority", json!(1)),
        ("download_limit", json!(20)),
        ("download_limited", json!(true)),
        ("upload_limit", json!(10)),
        ("upload_limited", json!(true)),
        ("honors_session_limits", json!(false)),
        ("peer_limit", json!(7)),
        ("sequential_download", json!(true)),
        ("labels", json!(["x", "y"])),
        ("seed_ratio_limit", json!(1.5)),
        ("seed_ratio_mode", json!(1)),
        ("seed_idle_limit", json!(2)),
        ("seed_idle_mode", json!(1)),
        ("group", json!("slow")),
        ("wanted", json!([false, true])),
        ("priorities", json!([0, 1])),
        ("tracker_list", json!("http://127.0.0.1:1/announce\n\nhttp://127.0.0.1:2/announce")),
    ] {
        assert_eq!(served.field(field).await, value, "{field}");
    }
    let settings = served.daemon.torrent(hash).unwrap().settings;
    assert_eq!((settings.upload_limit, settings.download_limit), (Some(10_000), Some(20_000)));

    served.modern_ok("torrent_set", json!({"ids": 1, "upload_limited": false})).await;
    assert_eq!(served.field("upload_limited").await, false);
    assert_eq!(served.field("upload_limit").await, 10, "remembered");
    let id = served.field("trackers").await[0]["id"].clone();
    served.modern_ok("torrent_set", json!({"ids": 1, "tracker_remove": [id]})).await;
    assert_eq!(served.field("tracker_list").await, "http://127.0.0.1:2/announce");
    served.modern_ok("torrent_set", json!({"tracker_add": ["http://127.0.0.1:3/announce"]})).await;
    assert_eq!(served.field("trackers").await.as_array().unwrap().len(), 2);
    let error = served.modern("torrent_set", json!({"ids": 1, "files_wanted": [2]})).await;
    assert_eq!(error.unwrap_err()["code"], 6);
}

#[tokio::test]
async fn torrents_start_stop_and_are_verified() {
    let served = Served::start().await;
    let hash = served.add("a").await;
    assert_eq!(served.field("status").await, 0);
    served.legacy_ok("torrent-start", json!({"ids": hash.to_string()})).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    assert_eq!(served.field("status").await, 4);
    let stats = served.modern_ok("session_stats", json!({})).await;
    assert_eq!((&stats["active_torrent_count"], &stats["torrent_count"]), (&json!(1), &json!(1)));
    served.legacy_ok("torrent-reannounce", json!({"ids": [1]})).await;
    served.legacy_ok("torrent-verify", json!({"ids": [1]})).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    served.legacy_ok("torrent-stop", json!({})).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Paused).await;
    served.legacy_ok("torrent-start-now", json!({"ids": ["recently-active"]})).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    assert!(served.daemon.torrent(hash).unwrap().settings.forced);
    // What is not here is passed over, as Transmission does.
    served.legacy_ok("torrent-stop", json!({"ids": [99, "ff".repeat(20)]})).await;
}

#[tokio::test]
async fn a_torrent_is_moved_found_and_renamed() {
    let served = Served::start().await;
    let hash = served.add("a").await;
    let folder = served.home.downloads().join("elsewhere");
    let request = json!({"ids": [1], "location": folder, "move": true});
    served.legacy_ok("torrent-set-location", request).await;
    until(&served.daemon, hash, |torrent| torrent.folder == folder).await;
    // Who sees the new folder may go on: nothing is being moved any more.
    for (path, name) in [("a/two.txt", "1.txt"), ("a/1.txt", "two.txt")] {
        let request = json!({"ids": [1], "path": path, "name": name});
        served.modern_ok("torrent_rename_path", request).await;
    }
    assert_eq!(served.field("download_dir").await, json!(folder));
    until(&served.daemon, hash, |torrent| torrent.state != State::Moving).await;
    let back = json!({"ids": [1], "location": served.home.downloads()});
    served.modern_ok("torrent_set_location", back).await;
    let downloads = served.home.downloads();
    until(&served.daemon, hash, |torrent| torrent.folder == downloads).await;

    let outside = json!({"ids": [1], "location": "/etc", "move": true});
    assert!(served.legacy("torrent-set-location", outside).await.0.contains("/etc"));
    let relative = served.modern("torrent_set_location", json!({"location": "x"})).await;
    assert_eq!(relative.unwrap_err()["code"], 3);

    let request = json!({"ids": [1], "path": "a/two.txt", "name": "2.txt"});
    let renamed = served.modern_ok("torrent_rename_path", request.clone()).await;
    assert_eq!(renamed, json!({"id": 1, "path": "a/two.txt", "name": "2.txt"}));
    assert_eq!(served.field("files").await[1]["name"], "a/2.txt");
    let error = served.modern("torrent_rename_path", request).await.unwrap_err();
    assert_eq!((&error["code"], &error["data"]["result"]["id"]), (&json!(5), &json!(1)));
    served.modern_ok("torrent_rename_path", json!({"ids": [1], "path": "a", "name": "b"})).await;
    assert_eq!(served.field("name").await, "b");
    let (result, _) = served.legacy("torrent-rename-path", json!({"ids": []})).await;
    assert_eq!(result, "torrent_rename_path requires 1 torrent");
}

#[tokio::test]
async fn a_rename_that_leads_elsewhere_is_refused_and_nothing_of_others_is_overwritten() {
    let served = Served::start().await;
    let theirs = served.home.file("downloads/a/one.mkv", b"somebody's own");
    let hash = served.add("a").await;
    served.legacy_ok("torrent-start", json!({"ids": [1]})).await;
    let failed = until(&served.daemon, hash, |torrent| torrent.state == State::Failed).await;
    assert!(failed.error.unwrap().contains("exists already"));
    for name in ["../b", "..", "x/y", ""] {
        let request = json!({"ids": [1], "path": "a/one.mkv", "name": name});
        served.modern("torrent_rename_path", request).await.unwrap_err();
    }
    assert_eq!(std::fs::read(&theirs).unwrap(), b"somebody's own");
    assert!(!served.home.downloads().join("b").exists());
    assert_eq!(served.field("files").await[0]["name"], "a/one.mkv");
}

#[tokio::test]
async fn the_queue_is_moved() {
    let served = Served::start().await;
    for name in ["a", "b", "c"] {
        served.add(name).await;
    }
    let order = || async {
        let answer = served.modern_ok("torrent_get", json!({"fields": ["name"]})).await;
        let rows = answer["torrents"].as_array().unwrap();
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    for (method, ids, expected) in [
        ("queue-move-top", json!([3]), "cab"),
        ("queue-move-down", json!([3]), "acb"),
        ("queue-move-up", json!([2]), "abc"),
        ("queue-move-bottom", json!([1, 2]), "cab"),
    ] {
        served.legacy_ok(method, json!({"ids": ids})).await;
        assert_eq!(order().await, expected, "{method} {ids}");
    }
    served.modern_ok("torrent_set", json!({"ids": [2], "queue_position": 0})).await;
    assert_eq!(order().await, "bca");
}

#[tokio::test]
async fn the_session_is_set_within_bounds() {
    let served = Served::start().await;
    let wish = json!({
        "speed-limit-up": 30, "speed-limit-up-enabled": true, "seedRatioLimit": 1.5,
        "seedRatioLimited": true, "alt-speed-down": 9, "peer-limit-global": 50,
        "encryption": "tolerated", "dht-enabled": false,
    });
    served.legacy_ok("session-set", wish.clone()).await;
    let told = served.legacy_ok("session-get", json!({})).await;
    for (key, value) in wish.as_object().unwrap() {
        assert_eq!(&told[key], value, "{key}");
    }
    assert_eq!(served.daemon.settings().upload_limit, Some(30_000));
    for refused in [
        json!({"script-torrent-done-enabled": true, "script-torrent-done-filename": "/bin/sh"}),
        json!({"script-torrent-added-filename": "/bin/sh"}),
        json!({"download-dir": "/etc"}),
        json!({"download-dir": "relative"}),
    ] {
        let (result, _) = served.legacy("session-set", refused.clone()).await;
        assert_ne!(result, "success", "{refused}");
    }
    assert_eq!(served.daemon.settings().downloads, served.home.downloads());
    let folder = served.home.downloads().join("new");
    served.legacy_ok("session-set", json!({"download-dir": folder})).await;
    assert_eq!(served.daemon.settings().downloads, folder);
}

/// What Flood's and other remotes' dialogs send: everything at once, computed figures, and settings of
/// Transmission that there are not here.
#[tokio::test]
async fn line_17_a_whole_settings_dialog_is_saved() {
    let served = Served::start().await;
    let flood = json!({
        "dht-enabled": true, "download-dir": served.home.downloads(), "peer-port": 51413,
        "peer-port-random-on-start": true, "pex-enabled": true,
        "speed-limit-down-enabled": true, "speed-limit-down": 976.5625,
        "speed-limit-up-enabled": true, "speed-limit-up": 48.828125,
        "seed-queue-enabled": true, "seed-queue-size": 3,
    });
    served.legacy_ok("session-set", flood).await;
    let settings = served.daemon.settings();
    assert_eq!(settings.download_limit, Some(976_563));
    assert_eq!((settings.upload_limit, settings.active_seeds), (Some(48_828), Some(3)));
    assert_eq!(served.legacy_ok("session-get", json!({})).await["dht-enabled"], false);

    // A dialog that sends back all that it was told, with one value changed.
    let mut all = served.modern_ok("session_get", json!({})).await;
    all["peer_limit_global"] = json!(33);
    all["encryption"] = json!("required");
    served.modern_ok("session_set", all).await;
    assert_eq!(served.daemon.settings().max_connections, 33);

    // What is refused takes nothing with it, and is named.
    let mixed = json!({
        "speed-limit-up": 7, "download-dir": "/etc", "peer-limit-per-torrent": 0,
        "script-torrent-done-filename": "/bin/sh", "queue-stalled-minutes": 2.5,
    });
    let (result, _) = served.legacy("session-set", mixed).await;
    for named in ["/etc", "max_peers_per_torrent", "script_torrent_done_filename"] {
        assert!(result.contains(named), "{named}: {result}");
    }
    let after = served.daemon.settings();
    assert_eq!((after.upload_limit, after.stalled_after), (Some(7_000), Some(150)));
    assert_eq!((after.downloads, after.on_done), (served.home.downloads(), None));
    assert_eq!(after.max_peers_per_torrent, settings.max_peers_per_torrent);
}

#[tokio::test]
async fn line_17_the_address_of_transmissions_page_leads_to_ours() {
    let served = Served::start_with(|config| {
        config.rpc_listen = Some(([127, 0, 0, 1], 0).into());
    })
    .await;
    let paths = ["/transmission/web/", "/transmission/web", "/transmission/", "/transmission"];
    for path in paths {
        let answer = served.http_at(path, "GET", &[], b"").await;
        assert_eq!((answer.status, answer.header("location").unwrap()), (303, "/ui/".to_owned()));
    }
    let rpc = served.control.rpc_addr().unwrap();
    for path in paths.into_iter().chain(["/"]) {
        let answer = http(rpc, "GET", path, &[], b"").await;
        let page = format!("http://{}/ui/", served.addr);
        assert_eq!((answer.status, answer.header("location").unwrap()), (303, page), "{path}");
    }
}

#[tokio::test]
async fn room_ports_lists_and_groups_are_told() {
    let served = Served::start().await;
    let path = served.home.downloads();
    let space = served.legacy_ok("free-space", json!({"path": path})).await;
    assert_eq!(space["path"], json!(path));
    assert!(space["size-bytes"].as_u64().unwrap() > 0);
    assert!(space["total_size"].as_u64().unwrap() > 0);
    let error = served.modern("free_space", json!({"path": "/etc"})).await.unwrap_err();
    assert_eq!((&error["code"], &error["data"]["result"]["size_bytes"]), (&json!(5), &json!(-1)));
    let error = served.modern("free_space", json!({"path": "x"})).await.unwrap_err();
    assert_eq!(error["code"], 3);

    assert_eq!(served.legacy_ok("port-test", json!({})).await["port-is-open"], true);
    let port = served.modern_ok("port_test", json!({"ip_protocol": "ipv4"})).await;
    assert_eq!(port["port_is_open"], true);
    assert!(served.modern("port_test", json!({"ip_protocol": "ipx"})).await.is_err());

    served.legacy_ok("group-set", json!({"name": "slow", "speed-limit-down": 5})).await;
    let groups = served.legacy_ok("group-get", json!({})).await;
    assert_eq!(groups["group"][0]["speed-limit-down"], 5);
    assert_eq!(groups["group"][0]["honorsSessionLimits"], true);
}

#[tokio::test]
async fn the_daemon_is_asked_to_end() {
    let served = Served::start().await;
    served.legacy_ok("session-close", json!({})).await;
    within(served.control.shutdown_asked()).await;
}
