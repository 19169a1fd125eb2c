//! The native API over real sockets, asked by a client that knows only bytes and by our own.

mod folders;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use piecework_api::client::{ApiClient, ApiError, LogQuery};
use piecework_api::{
    Event, LeechRequest, MoveRequest, QueueMove, RemoveRequest, RenameRequest, SettingsChange,
    Source, State, Torrent, TorrentChange,
};
use piecework_control::{Control, ControlConfig, ControlError};
use piecework_core::{Secret, base64};
use piecework_daemon::{Caller, Daemon, DaemonConfig};
use piecework_testkit::daemon::{Home, control_config, until, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A daemon and the way into it.
struct Served {
    home: Home,
    daemon: Daemon,
    control: Control,
    addr: SocketAddr,
}

/// What came back.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Served {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut ControlConfig)) -> Self {
        Self::with_daemon(|_| {}, change).await
    }

    async fn with_daemon(
        daemon: impl FnOnce(&mut DaemonConfig),
        change: impl FnOnce(&mut ControlConfig),
    ) -> Self {
        let home = Home::new();
        let daemon = home.start_with(daemon).await;
        let mut config = control_config();
        change(&mut config);
        let control = Control::start(config, daemon.clone()).await.unwrap();
        let addr = control.addrs()[0];
        Self { home, daemon, control, addr }
    }

    fn client(&self) -> ApiClient {
        ApiClient::new(&self.addr.to_string(), None).unwrap()
    }

    async fn end(self) {
        self.control.shutdown().await;
        self.daemon.shutdown().await;
    }

    /// Sends a request whose headers are these and no others but its length.
    async fn raw(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        for header in headers {
            text += &format!("{header}\r\n");
        }
        text += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        exchange(self.addr, text.as_bytes()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.raw(&format!("GET {path}"), &["Host: localhost"], "").await
    }

    async fn send(&self, request: &str, body: &str) -> Answer {
        self.raw(request, &["Host: localhost", JSON], body).await
    }
}

/// What the daemon's page sends with each request.
const PAGE: &str = "X-Requested-With: piecework";

const JSON: &str = "Content-Type: application/json";

/// Writes `bytes` and reads to the end.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // Who has seen enough of a request may close before all of it is written.
    let _ = stream.write_all(bytes).await;
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> Answer {
    let mut all = Vec::new();
    // Unread parts of a request make the close a reset; what came before counts.
    let _ = within(stream.read_to_end(&mut all)).await;
    let text = String::from_utf8(all).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body))
    }

    /// It failed with `status`, in our form, and its sentence has these words.
    fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        let error = self.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(words), "`{error}` should say `{words}`");
        assert!(self.head.contains("x-content-type-options: nosniff"), "{}", self.head);
        assert!(self.head.contains("cache-control: no-store"), "{}", self.head);
        assert!(!self.head.contains("access-control"), "{}", self.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_gets_nothing_and_changes_nothing() {
    let served = Served::start().await;
    let added = served.daemon.seed(served.home.seed_request("a.bin", 40_000)).await.unwrap();
    let pause = format!("POST /torrents/{}/pause", added.info_hash);
    let host = format!("Host: {}", served.addr);

    let strange = ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"];
    for header in strange {
        let answer = served.raw(&pause, &[&host, JSON, header], "{}").await;
        answer.refuses(403, "other sites");
        served.raw("GET /status", &[&host, header], "").await.refuses(403, "other sites");
        served.raw("OPTIONS /seed", &[&host, header], "").await.refuses(403, "other sites");
    }
    let rebound = served.raw(&pause, &["Host: evil.example:5000", JSON], "{}").await;
    rebound.refuses(421, "`evil.example`");
    served.raw("GET /", &[], "").await.refuses(400, "`Host`");
    for form in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let kind = format!("Content-Type: {form}");
        served.raw(&pause, &[&host, &kind], "{}").await.refuses(415, "application/json");
    }
    served.raw(&pause, &[&host], "").await.refuses(415, "application/json");
    let get = pause.replace("POST", "GET");
    served.raw(&get, &[&host], "").await.refuses(405, "method");
    served.raw("GET /shutdown", &[&host], "").await.refuses(405, "method");
    assert!(!served.daemon.torrent(added.info_hash).unwrap().settings.paused);

    let ours = format!("Origin: http://{}", served.addr);
    assert_eq!(served.raw(&pause, &[&host, JSON, &ours], "").await.status, 204);
    assert!(served.daemon.torrent(added.info_hash).unwrap().settings.paused);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_asks_for_the_password_itself_and_tells_nothing_before() {
    let served = Served::with(|config| config.password = Some(Secret::from("sesame"))).await;
    let (host, key) = ("Host: localhost", "Authorization: Bearer sesame");
    for path in ["/ui", "/ui/", "/ui/common/style.css"] {
        let get = format!("GET {path}");
        assert!(served.raw(&get, &[host], "").await.status < 400, "{path} shows no form");
        served.raw(&get, &["Host: evil.example", key], "").await.refuses(421, "evil.example");
        let strange = "Sec-Fetch-Site: cross-site";
        served.raw(&get, &[host, key, strange], "").await.refuses(403, "other sites");
    }
    let html = "Accept: text/html,*/*;q=0.8";
    let led = served.raw("GET /", &[host, key, html], "").await;
    assert_eq!(led.status, 303);
    assert!(led.head.contains("location: /ui/"), "{}", led.head);
    assert_eq!(served.raw("GET /", &[host, html], "").await.status, 303);
    let alive = served.raw("GET /", &[host, key], "").await.json();
    assert_eq!((&alive["program"], &alive["owner"]), (&"piecework".into(), &true.into()));
    for path in ["/", "/status", "/events", "/settings", "/uis", "//ui/"] {
        let get = format!("GET {path}");
        let refused = served.raw(&get, &[host], "").await;
        refused.refuses(401, "password");
        assert!(refused.head.contains("www-authenticate: basic"), "a browser would not ask");
        // The page has a form of its own: the browser's would be in its way.
        for more in [&[host, PAGE][..], &[host, PAGE, "Authorization: Bearer wrong"]] {
            let refused = served.raw(&get, more, "").await;
            refused.refuses(401, "password");
            assert!(!refused.head.contains("www-authenticate"), "{}", refused.head);
        }
    }

    let page = served.raw("GET /ui/", &[host, key], "").await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!doctype html>"));
    // What may be kept is asked for each time; everything else is not kept at all.
    for part in ["cache-control: no-cache", "default-src 'none'", "nosniff", "etag: \""] {
        assert!(page.head.contains(part), "{}", page.head);
    }
    assert_eq!(served.raw("HEAD /ui/", &[host, key], "").await.body, "");
    served.raw("POST /ui/", &[host, key, JSON], "").await.refuses(405, "method");
    served.raw("GET /ui/nothing", &[host, key], "").await.refuses(404, "nothing at this address");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_everywhere_and_guessing_is_slow() {
    let served = Served::with(|config| config.password = Some(Secret::from("sesame"))).await;
    let host = "Host: localhost";
    for path in ["/", "/status", "/nowhere", "/events"] {
        let answer = served.raw(&format!("GET {path}"), &[host], "").await;
        answer.refuses(401, "a password");
        assert!(answer.head.contains("www-authenticate: basic realm="), "{}", answer.head);
    }
    served.raw("POST /shutdown", &[host, JSON], "").await.refuses(401, "password");
    let basic = format!("Authorization: Basic {}", base64::encode(b"piecework:sesame"));
    assert_eq!(served.raw("GET /", &[host, &basic], "").await.status, 200);
    let bearer = "Authorization: Bearer sesame";
    assert_eq!(served.raw("GET /", &[host, bearer], "").await.status, 200);
    let client = |password: &str| {
        ApiClient::new(&served.addr.to_string(), Some(Secret::from(password))).unwrap()
    };
    assert_eq!(client("sesame").alive().await.unwrap().program, "piecework");

    for _ in 0..10 {
        let error = client("guess").alive().await.unwrap_err();
        assert!(matches!(error, ApiError::Fault { status: 401, .. }), "{error:?}");
    }
    // The next guess has to wait for its answer; right ones, from the same address, do not.
    let guesser = client("guess");
    let begun = Instant::now();
    let guess = tokio::spawn(async move {
        let error = guesser.alive().await.unwrap_err();
        assert!(matches!(error, ApiError::Fault { status: 401, .. }), "{error:?}");
        begun.elapsed()
    });
    for _ in 0..72 {
        assert_eq!(served.raw("GET /", &[host, bearer], "").await.status, 200);
    }
    // Each would have taken ten seconds as a guess, 720 s together.
    assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", begun.elapsed());
    let waited = guess.await.unwrap();
    assert!(waited >= Duration::from_secs(9), "{waited:?}");
    served.end().await;
}

/// What reaches files outside the downloads folder, changes settings, or has requests sent into the
/// own network: by whoever does not show the owner's token.
#[tokio::test(flavor = "multi_thread")]
async fn other_users_of_the_machine_reach_no_file_no_setting_and_no_network() {
    let served = Served::with(|config| config.token = Some(Secret::from("token"))).await;
    let owner = ApiClient::new(&served.addr.to_string(), Some(Secret::from("token"))).unwrap();
    let added = owner.seed(&served.home.seed_request("a.bin", 40_000)).await.unwrap();
    let torrent = base64::encode(served.home.made("b.bin", 40_000).bytes().unwrap().as_ref());
    let planted = served.home.downloads().join("planted.torrent");
    let secret = served.home.file("downloads/secret", b"root:*:1::::::");
    let made = served.home.made("c.bin", 40_000);
    let file = served.home.file("c.torrent", made.bytes().unwrap().as_ref());
    let hash = added.info_hash;
    let json = |value: Value| value.to_string();
    let moving = format!("POST /torrents/{hash}/move");
    let refused = [
        ("POST /seed", json(json!({"input": "/etc/shadow"}))),
        ("POST /seed", json(json!({"input": secret}))),
        ("POST /seed", json(json!({"input": secret, "torrent_out": planted}))),
        ("POST /leech", json(json!({"source": {"file": file}}))),
        ("POST /leech", json(json!({"source": {"file": "/etc/shadow"}}))),
        (&*moving, json(json!({"folder": "x", "find": false}))),
        (&*moving, json(json!({"folder": "x", "find": true}))),
        ("PATCH /settings", json(json!({"downloads": served.home.path("x")}))),
        ("PATCH /settings", json(json!({"watch_folder": served.home.downloads()}))),
        ("PATCH /settings", json(json!({"on_done": "/bin/true"}))),
        ("PATCH /settings", json(json!({"upload_limit": 1}))),
    ];
    for (request, body) in &refused {
        for more in ["", "Authorization: Bearer tokens", "Authorization: Basic dG9rZW46"] {
            let mut headers = vec!["Host: localhost", JSON];
            headers.extend(Some(more).filter(|more| !more.is_empty()));
            let answer = served.raw(request, &headers, body).await;
            answer.refuses(401, "owner's token");
            assert!(answer.head.contains("www-authenticate: basic realm="), "{}", answer.head);
        }
    }
    let inner = [
        ("POST /leech", json(json!({"source": {"url": "http://127.0.0.1:1/reboot?x=.torrent"}}))),
        ("POST /leech", json(json!({"source": {"url": "http://[::ffff:10.0.0.1]/x.torrent"}}))),
        (
            "POST /leech",
            json(json!({"source": {"catalogue": {"name": "a", "tracker": "127.0.0.1:1"}}})),
        ),
    ];
    for (request, body) in &inner {
        served.send(request, body).await.refuses(403, "without the owner's token");
    }
    served.get("/torrents?tracker=http://localhost:1/").await.refuses(403, "this machine");
    assert!(!planted.exists());
    assert_eq!(served.daemon.torrents().len(), 1);

    // Deleting what the owner shares from elsewhere is refused as before; the rest is open.
    let delete = format!("DELETE /torrents/{hash}?delete_data=true");
    assert!(matches!(served.send(&delete, "").await.status, 401 | 403));
    assert_eq!(served.get("/status").await.status, 200);
    let leech = json(json!({"source": {"torrent": torrent}, "paused": true}));
    let answer = served.send("POST /leech", &leech).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let got = answer.json()["info_hash"].as_str().unwrap().to_owned();
    let answer = served.send(&format!("POST /torrents/{got}/pause"), "").await;
    assert_eq!(answer.status, 204, "{}", answer.body);
    let answer = served.send(&format!("DELETE /torrents/{got}?delete_data=true"), "").await;
    assert_eq!(answer.status, 204, "{}", answer.body);

    // The owner may do all that.
    let limit = SettingsChange([("upload_limit".to_owned(), 9_000.into())].into_iter().collect());
    assert_eq!(owner.change_settings(&limit).await.unwrap().upload_limit, Some(9_000));
    let error = owner.catalogue(Some("127.0.0.1:1"), None).await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { status: 502, .. }), "{error:?}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_daemon_answers_nobody_but_its_owner() {
    let served = Served::with(|config| {
        (config.token, config.open_on_loopback) = (Some(Secret::from("token")), false);
    })
    .await;
    for path in ["/", "/status", "/events", "/uis", "/metrics", "/transmission/rpc"] {
        served.get(path).await.refuses(401, "owner's token");
    }
    let token = ["Host: localhost", "Authorization: Bearer token"];
    assert_eq!(served.raw("GET /status", &token, "").await.status, 200);
    served.end().await;
}

/// A tracker that only a `.torrent` names, and what the owner named: who is asked, and after a
/// restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_leads_to_no_tracker_in_a_private_network_unless_the_owner_names_it() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let url = "http://10.255.255.1:1/announce";
    let with_tracker = |name: &str| {
        let mut new = home.new_torrent(name, 40_000);
        new.settings.trackers = Some(vec![vec![url.to_owned()]]);
        new
    };
    let guest = daemon.for_caller(Caller::Guest);
    let foreign = guest.add(with_tracker("foreign")).await.unwrap().info_hash;
    let mut new = home.new_torrent("named", 40_000);
    new.trackers = vec![url.to_owned()];
    let named = daemon.add(new).await.unwrap().info_hash;
    for _ in 0..2 {
        let is_refused = |torrent: &Torrent| {
            torrent.error.as_ref().is_some_and(|error| error.contains("private network"))
        };
        until(&daemon, foreign, is_refused).await;
        assert!(!is_refused(&daemon.torrent(named).unwrap()));
        daemon.shutdown().await;
        daemon = home.start().await;
    }
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_others_are_not_listened_on_without_a_password() {
    let home = Home::new();
    let daemon = home.start().await;
    let open = ControlConfig { listen: vec!["0.0.0.0:0".parse().unwrap()], ..control_config() };
    let error = Control::start(open.clone(), daemon.clone()).await.unwrap_err();
    assert!(matches!(error, ControlError::NoPassword(_)), "{error}");
    let password = Some(Secret::from("sesame"));
    let locked = Control::start(ControlConfig { password, ..open }, daemon.clone()).await;
    locked.unwrap().shutdown().await;
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_writes_outside_the_allowed_folders() {
    let served = Served::start().await;
    let torrent = base64::encode(served.home.made("b.bin", 40_000).bytes().unwrap().as_ref());
    for output in ["../outside", "/etc", "a/../../outside"] {
        let body = serde_json::json!({ "source": { "torrent": torrent }, "output": output });
        let answer = served.send("POST /leech", &body.to_string()).await;
        assert_eq!(answer.status, 403, "{output}: {}", answer.body);
    }
    assert!(served.daemon.torrents().is_empty());
    assert!(!served.home.path("outside").exists());

    let added = served.daemon.seed(served.home.seed_request("a.bin", 40_000)).await.unwrap();
    let client = served.client();
    let outside = MoveRequest { folder: "/etc".into(), find: false };
    let error = client.move_data(added.info_hash, &outside).await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { status: 403, .. }), "{error:?}");
    let upward = RenameRequest { path: "a.bin".to_owned(), name: "../b".to_owned() };
    let error = client.rename(added.info_hash, &upward).await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { status: 400 | 403 | 409, .. }), "{error:?}");
    assert!(served.home.path("shared/a.bin").exists());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_in_a_sentence() {
    let served = Served::start().await;
    served.send("POST /leech", r#"{"sauce": {}}"#).await.refuses(400, "`sauce`");
    served.send("PATCH /settings", r#"{"colour": 1}"#).await.refuses(400, "colour");
    served.send("POST /leech", "{").await.refuses(400, "JSON");
    served.send("POST /queue", "").await.refuses(400, "`torrents`");
    served.get("/torrents?nome=x").await.refuses(400, "`nome`");
    served.get("/torrents/abc").await.refuses(400, "`abc`");
    served.get("/torrents/abcd").await.refuses(404, "`abcd`");
    served.get(&format!("/torrents/{}", "a".repeat(40))).await.refuses(404, "no torrent");
    served.get("/torrents/%ff").await.refuses(400, "UTF-8");
    served.get("/free-space").await.refuses(400, "path=");
    served.get("/nowhere").await.refuses(404, "nothing at this address");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_of_0_or_null_is_no_limit_for_one_torrent_and_for_all() {
    let served = Served::start().await;
    let added = served.daemon.seed(served.home.seed_request("a.bin", 40_000)).await.unwrap();
    let torrent = format!("/torrents/{}", added.info_hash);
    for key in ["upload_limit", "download_limit"] {
        for none in ["0", "null"] {
            for (path, shown) in [("/settings", ""), (&*torrent, "/settings")] {
                let patch = format!("PATCH {path}");
                let of = |answer: Answer| answer.json().pointer(&format!("{shown}/{key}")).cloned();
                let answer = served.send(&patch, &format!(r#"{{"{key}": 9000}}"#)).await;
                assert_eq!(of(answer), Some(9000.into()), "{path}");
                let answer = served.send(&patch, "{}").await;
                assert_eq!(of(answer), Some(9000.into()), "{path}: left out, it stays");
                let answer = served.send(&patch, &format!(r#"{{"{key}": {none}}}"#)).await;
                assert_eq!(of(answer), Some(Value::Null), "{path}: {none}");
            }
        }
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_heads_and_connections_have_bounds() {
    let served = Served::with(|config| {
        config.header_timeout = Duration::from_millis(100);
        config.body_timeout = Duration::from_millis(100);
        config.max_connections = 16;
    })
    .await;
    let large = format!(r#"{{"path": "{}", "name": "x"}}"#, "a".repeat(70_000));
    let rename = format!("POST /torrents/{}/rename", "a".repeat(40));
    served.send(&rename, &large).await.refuses(413, "`65536`");

    // A head that never ends is not waited for, nor is a body.
    let slow = exchange(served.addr, b"GET / HTTP/1.1\r\nHost: local").await;
    assert!(matches!(slow.status, 0 | 408), "{}", slow.head);
    let begun = "POST /seed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    exchange(served.addr, begun.as_bytes()).await.refuses(408, "took too long");
    let long = format!("X-Long: {}", "x".repeat(20_000));
    let answer = served.raw("GET /", &["Host: localhost", &long], "").await;
    assert!(matches!(answer.status, 0 | 431), "{}", answer.head);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_closed_at_once() {
    // One user of this machine may have half of the three quarters that loopback may have.
    let served = Served::with(|config| config.max_connections = 4).await;
    let client = served.client();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut events = client.events().await.unwrap();
        assert_eq!(within(events.next()).await.unwrap(), Some(Event::Ready));
        held.push(events);
    }
    let answer = exchange(served.addr, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!((answer.status, answer.head.as_str()), (0, ""));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_events_are_bounded_and_end_with_bye() {
    let served = Served::with(|config| config.max_event_streams = 1).await;
    let client = served.client();
    let mut events = client.events().await.unwrap();
    assert_eq!(within(events.next()).await.unwrap(), Some(Event::Ready));
    let error = client.events().await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { status: 503, .. }), "{error:?}");
    assert!(error.to_string().contains("`1` at most"), "{error}");

    let added = client.seed(&served.home.seed_request("a.bin", 40_000)).await.unwrap();
    loop {
        match within(events.next()).await.unwrap().unwrap() {
            Event::Torrent(torrent) if torrent.state == State::Seeding => {
                assert_eq!(torrent.info_hash, added.info_hash);
                break;
            }
            Event::Bye => panic!("it ended early"),
            _ => {}
        }
    }
    let Served { daemon, control, home: _home, .. } = served;
    control.shutdown().await;
    while within(events.next()).await.unwrap().unwrap() != Event::Bye {}
    assert_eq!(events.next().await, Ok(None));
    daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_form_of_an_event_stream_is_that_of_the_standard() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let mut part = [0; 1024];
    while !text.contains("event: ready\ndata: null\n\n") {
        let len = within(stream.read(&mut part)).await.unwrap();
        assert_ne!(len, 0, "{text}");
        text.push_str(std::str::from_utf8(&part[..len]).unwrap());
    }
    assert!(text.contains("content-type: text/event-stream\r\n"), "{text}");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_client_does_what_it_says() {
    let served = Served::start().await;
    let client = served.client();
    let alive = client.alive().await.unwrap();
    assert_eq!(alive.peer_port, served.daemon.peer_port());

    let request = served.home.seed_request("a.bin", 100_000);
    let hash = client.seed(&request).await.unwrap().info_hash;
    assert!(client.seed(&request).await.unwrap().duplicate);
    until(&served.daemon, hash, |torrent| torrent.state == State::Seeding).await;
    assert_eq!(client.overview().await.unwrap().torrents[0].info_hash, hash);

    let detail = client.detail(hash).await.unwrap();
    assert_eq!(detail.torrent.name, "a.bin");
    assert_eq!(client.files(hash).await.unwrap(), detail.file_list);
    assert_eq!(client.trackers(hash).await.unwrap().len(), detail.trackers.len());
    assert!(client.peers(hash).await.unwrap().is_empty());
    assert!(client.log(hash, 10).await.unwrap().is_empty());
    let pieces = client.pieces(hash).await.unwrap();
    assert_eq!(pieces.pieces, pieces.pieces_have);
    let bytes = client.torrent_bytes(hash).await.unwrap();
    assert_eq!(bytes, served.daemon.torrent_bytes(hash).await.unwrap());
    let short = &hash.to_string()[..8];
    assert_eq!(served.get(&format!("/torrents/{short}")).await.json()["id"], detail.torrent.id);

    let labels = Some(vec!["film".to_owned()]);
    let change = TorrentChange { labels, ..TorrentChange::default() };
    assert_eq!(client.change(hash, &change).await.unwrap().settings.labels, ["film"]);
    client.pause(hash).await.unwrap();
    until(&served.daemon, hash, |torrent| torrent.state == State::Paused).await;
    client.start(hash, false).await.unwrap();
    until(&served.daemon, hash, |torrent| torrent.state == State::Seeding).await;
    client.start(hash, true).await.unwrap();
    assert!(client.detail(hash).await.unwrap().torrent.settings.forced);
    client.recheck(hash).await.unwrap();
    until(&served.daemon, hash, |torrent| torrent.state == State::Seeding).await;
    client.reannounce(hash).await.unwrap();
    client.add_peers(hash, &["127.0.0.1:9".parse().unwrap()]).await.unwrap();

    let torrent = base64::encode(served.home.made("b.bin", 20_000).bytes().unwrap().as_ref());
    let source = Source::Torrent(torrent);
    let leech = LeechRequest { source, paused: Some(true), ..LeechRequest::default() };
    let second = client.leech(&leech).await.unwrap();
    client.queue(&[second.info_hash], QueueMove::Top).await.unwrap();
    let first = &client.overview().await.unwrap().torrents[0];
    assert_eq!(first.info_hash, second.info_hash);
    let mut events = client.events_of(Some(hash)).await.unwrap();
    assert!(matches!(within(events.next()).await.unwrap(), Some(Event::Torrent(_))));
    assert_eq!(within(events.next()).await.unwrap(), Some(Event::Ready));
    client.remove(second.info_hash, &RemoveRequest::default()).await.unwrap();
    assert!(matches!(
        client.detail(second.info_hash).await,
        Err(ApiError::Fault { status: 404, .. })
    ));

    let change: SettingsChange = serde_json::from_str(r#"{"upload_limit": 70000}"#).unwrap();
    let changed = client.change_settings(&change).await.unwrap();
    assert_eq!(changed.upload_limit, Some(70_000));
    assert_eq!(client.settings().await.unwrap(), changed);
    assert!(client.free_space(&served.home.downloads()).await.unwrap().free > 0);
    assert!(client.test().await.unwrap().open);
    let error = client.catalogue(None, None).await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { .. }), "there is no tracker: {error:?}");
    client.shutdown().await.unwrap();
    within(served.control.shutdown_asked()).await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_answers_created_and_once_more_only_ok() {
    let served = Served::start().await;
    let request = served.home.seed_request("a.bin", 40_000);
    let body = serde_json::to_string(&request).unwrap();
    assert_eq!(served.send("POST /seed", &body).await.status, 201);
    let again = served.send("POST /seed", &body).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &Value::Bool(true)));
    let hash = again.json()["info_hash"].as_str().unwrap().to_owned();
    let gone = served.send(&format!("DELETE /torrents/{hash}?delete_data=false"), "").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    assert!(served.daemon.torrents().is_empty() && request.input.exists());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gave_which_piece_is_told_when_asked_and_as_it_happens() {
    let (seeds, leeches) = (Served::start().await, Served::start().await);
    let added = seeds.client().seed(&seeds.home.seed_request("a.bin", 200_000)).await.unwrap();
    let hash = added.info_hash;
    let torrent = seeds.client().torrent_bytes(hash).await.unwrap();
    let client = leeches.client();
    let request = LeechRequest {
        source: Source::Torrent(base64::encode(&torrent)),
        paused: Some(true),
        ..LeechRequest::default()
    };
    client.leech(&request).await.unwrap();
    let mut events = client.events_of(Some(hash)).await.unwrap();
    while within(events.next()).await.unwrap() != Some(Event::Ready) {}
    let port = seeds.daemon.peer_port();
    let seeder = SocketAddr::from(([127, 0, 0, 1], port));
    client.start(hash, false).await.unwrap();
    client.add_peers(hash, &[seeder.to_string().parse().unwrap()]).await.unwrap();

    let pieces = client.detail(hash).await.unwrap().torrent.pieces;
    let (mut came, mut giver) = (std::collections::BTreeSet::new(), None);
    while came.len() < pieces as usize {
        let event = within(events.next()).await.unwrap();
        let Some(Event::Pieces(new)) = event else { continue };
        assert!(new.bad.is_empty() && new.givers.iter().all(|giver| giver.peer == seeder));
        giver = new.givers.first().map(|giver| giver.id).or(giver);
        for (piece, of) in new.pieces {
            assert!(came.insert(piece), "{piece} was told twice");
            assert_eq!(Some(of), giver);
        }
    }
    let givers = client.givers(hash).await.unwrap();
    assert_eq!((givers.givers.len(), givers.givers[0].bytes), (1, 200_000));
    assert_eq!(givers.by_piece, vec![giver.unwrap(); pieces as usize]);
    let story = client.story(hash, 0).await.unwrap();
    assert_eq!(story.state, piecework_api::PieceState::Held);
    assert_eq!((story.story[0].kind.as_str(), story.story[0].peer), ("given", seeder));
    let error = client.story(hash, pieces).await.unwrap_err();
    assert!(matches!(error, ApiError::Fault { status: 404, .. }), "{error}");
    assert!(client.bad(hash).await.unwrap().is_empty());
    let line = client.timeline(hash, 4).await.unwrap();
    assert_eq!(line.series[0].bytes.iter().sum::<u64>(), 200_000);
    assert!(client.timeline(hash, 1_001).await.is_err());
    let log = client.log(hash, 3).await.unwrap();
    let query = LogQuery { limit: 10, after: Some(log[1].id), ..LogQuery::default() };
    assert_eq!(client.log_where(hash, &query).await.unwrap(), log[2..]);
    // What the other side says it sent: each piece once, in two looks.
    let all = within(async {
        loop {
            let all = seeds.client().sent_pieces(hash, 0, None).await.unwrap();
            if all.pieces.iter().map(|(_, bytes, _)| bytes).sum::<u64>() >= 200_000 {
                return all;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(all.pieces.len(), pieces as usize);
    let taker = all.takers[0].id;
    assert!(all.pieces.iter().all(|(_, _, to)| *to == taker), "{all:?}");
    let since = seeds.client().sent_pieces(hash, all.last, Some(taker)).await.unwrap();
    assert_eq!((since.pieces.len(), since.last), (0, all.last));
    let other = seeds.client().sent_pieces(hash, 0, Some(taker + 1)).await.unwrap();
    assert_eq!((other.pieces.len(), other.takers.len()), (0, 1));
    let takers = within(async {
        loop {
            let takers = seeds.client().givers(hash).await.unwrap().takers;
            // A part of a piece is written a second after it went out.
            if takers.iter().map(|taker| taker.bytes).sum::<u64>() >= 200_000 {
                return takers;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(takers.len(), 1);
    assert!(seeds.client().givers(hash).await.unwrap().by_piece.iter().all(|of| *of == -2));
    seeds.end().await;
    leeches.end().await;
}

/// The info-hashes in an answer of `/status`.
fn listed(status: &Value) -> Vec<String> {
    let torrents = status["torrents"].as_array().unwrap().iter();
    torrents.map(|torrent| torrent["info_hash"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_told_in_part_by_field_by_page_and_by_time() {
    let served = Served::start().await;
    for n in 0..5 {
        served.daemon.add(served.home.tiny(n)).await.unwrap();
    }
    let whole = served.get("/status").await.json();
    let all = listed(&whole);
    assert_eq!(all.len(), 5);
    let few = served.get("/status?fields=name,id").await.json();
    assert_eq!(few["torrents"][1], json!({"name": "tiny 1", "id": 2}));
    // What each torrent does may change between two answers, the number of all does not.
    let names =
        |status: &Value| status["counts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((names(&few), &few["counts"]["all"]), (names(&whole), &json!(5)));
    let counted = |status: &Value| {
        let counts = status["counts"].as_object().unwrap().iter();
        let states = counts.filter(|(name, _)| !matches!(name.as_str(), "all" | "active"));
        states.map(|(_, count)| count.as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((counted(&few), counted(&whole)), (5, 5));
    let page = served.get("/status?offset=3&limit=9").await.json();
    assert_eq!(listed(&page), all[3..]);
    served.get("/status?fields=nome").await.refuses(400, "`nome`");
    served.get("/status?limit=-1").await.refuses(400, "`limit`");
    served.get("/status?page=1").await.refuses(400, "`fields`, `since`, `offset`, `limit`");

    // What changes is told, and what goes; and nothing else once that is long ago.
    let later = whole["time"].as_i64().unwrap() + 1_000;
    let none = served.get(&format!("/status?since={later}")).await.json();
    assert_eq!((listed(&none), &none["removed"]), (Vec::new(), &json!([])));
    let gone = all[2].parse().unwrap();
    served.daemon.remove(gone, RemoveRequest::default()).await.unwrap();
    let since = served.get("/status?since=0&fields=info_hash").await.json();
    assert_eq!(since["removed"], json!([all[2]]));
    assert_eq!(listed(&since), [&all[..2], &all[3..]].concat());

    let path = format!("/torrents/{}", all[0]);
    let detail = served.get(&path).await.json();
    assert_eq!(detail["file_list"][0]["path"], "tiny 0");
    assert_eq!(served.get(&format!("{path}/files")).await.json(), detail["file_list"]);
    assert_eq!(served.get(&format!("{path}/files?offset=1")).await.json(), json!([]));
    let some = served.get(&format!("{path}?fields=file_list,state")).await.json();
    assert_eq!(some, json!({"file_list": detail["file_list"], "state": detail["state"]}));
    served.get(&format!("{path}?fields=files,x")).await.refuses(400, "`x`");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_listed_at_once_and_hashed_whoever_waits() {
    let served = Served::start().await;
    let long = served.home.file("shared/long", b"");
    std::fs::File::options().write(true).open(&long).unwrap().set_len(1 << 38).unwrap();
    let body = json!({"input": long}).to_string();
    let answer = served.send("POST /seed?wait=false", &body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let long = answer.json();
    let path = format!("/torrents/{}", long["info_hash"].as_str().unwrap());
    let torrent = async || served.get(&path).await.json();
    within(async {
        while torrent().await["check_progress"] == 0.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let shown = torrent().await;
    assert_eq!((shown["state"].as_str(), shown["id"] == long["id"]), (Some("hashing"), true));
    assert_eq!(
        (shown["bytes"].as_u64(), shown["torrent_file"].as_str()),
        (Some(1 << 38), Some(""))
    );
    assert_eq!(served.get("/status").await.json()["counts"]["checking"], 1);

    // Nobody waits for this one any more.
    let short = served.home.seed_request("short", 40_000);
    let body = json!({"input": short.input, "wait": true}).to_string();
    let request = format!(
        "POST /seed HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(served.addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let provisional = short.provisional_hash().unwrap();
    until(&served.daemon, provisional, |it| it.state == State::QueuedHash).await;
    drop(stream);
    let body = json!({"input": short.input, "wait": false}).to_string();
    let same = served.send("POST /seed", &body).await;
    assert_eq!((same.status, &same.json()["duplicate"]), (202, &json!(true)));
    served
        .send(&format!("POST {path}/rename"), r#"{"path": "long", "name": "x"}"#)
        .await
        .refuses(409, "`long` is being hashed");
    served.get(&format!("{path}/torrent")).await.refuses(409, "is being hashed");
    for part in ["/files", "/peers", "/trackers"] {
        assert_eq!(served.get(&format!("{path}{part}")).await.json(), json!([]), "{part}");
    }
    for part in ["/pieces", "/givers", "/bad", "/log", "/timeline"] {
        let answer = served.get(&format!("{path}{part}")).await;
        assert_eq!(answer.status, 200, "{part}: {}", answer.body);
    }
    assert_eq!(served.send(&format!("DELETE {path}"), "").await.status, 204);
    served.get(&path).await.refuses(404, "there is no torrent");

    // The address that it had leads to it.
    let path = format!("/torrents/{provisional}");
    let seeding = within(async {
        loop {
            let torrent = served.get(&path).await.json();
            if torrent["state"] == "seeding" {
                return torrent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(seeding["id"], same.json()["id"]);
    assert_ne!(seeding["info_hash"], provisional.to_string());
    served.send("POST /seed?wait=x", "{}").await.refuses(400, "`wait` is `x`");
    let missing = json!({"input": "/no/such/file"}).to_string();
    served.send("POST /seed?wait=false", &missing).await.refuses(404, "cannot be read");
    assert_eq!(served.daemon.hashes().len(), 1);
    served.end().await;
}
