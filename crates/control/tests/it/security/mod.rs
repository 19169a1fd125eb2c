//! What the daemon promises about those who reach it and should not: a page of another site, a
//! rebound name, a GET, a request without the session id, a path that leads out of the download
//! folders, a link planted in them. None of these changes state or writes outside, on the native API
//! and on Transmission's RPC alike.

mod served;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use piecework_api::{SeedRequest, State};
use piecework_core::{InfoHash, Rng, base64};
use piecework_daemon::Daemon;
use piecework_testkit::daemon::{Home, content, until};
use serde_json::{Value, json};
use served::{Change, JSON, RPC, Served, names};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_cross_site_page_changes_nothing() {
    let served = Served::start().await;
    let (host, id) = (served.host(), served.id());
    let changes = served.changes();
    let before = served.snapshot();
    let port = served.addr.port();
    let ours_by_another_name = format!("Origin: http://localhost:{port}");
    let other_port = "Origin: http://127.0.0.1:1";
    for header in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: file://",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        other_port,
        &ours_by_another_name,
    ] {
        for Change { method, path, body } in &changes {
            // Even one that knew the session id, and whatever it calls its content.
            for kind in [JSON, "Content-Type: text/plain"] {
                let answer = served.raw(method, path, &[&host, kind, &id, header], body).await;
                assert_eq!(answer.status, 403, "{header}: {method} {path}");
                assert!(!answer.head.to_lowercase().contains("access-control"), "{}", answer.head);
            }
        }
        // It can read nothing either, not even the session id, and is not let in beforehand.
        for (method, path) in [
            ("GET", "/status"),
            ("GET", "/events"),
            ("OPTIONS", "/seed"),
            ("POST", RPC),
            ("OPTIONS", RPC),
        ] {
            let preflight = "Access-Control-Request-Method: POST";
            let answer = served.raw(method, path, &[&host, header, preflight], "").await;
            assert_eq!(answer.status, 403, "{header}: {method} {path}");
            assert!(
                !answer.head.contains("session-id") && !answer.body.contains(&served.session_id)
            );
        }
        served.is_as(&before, header).await;
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_a_page_that_hides_where_it_is_from_changes_nothing() {
    let served = Served::start().await;
    let host = served.host();
    let changes = served.changes();
    let before = served.snapshot();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let kind = format!("Content-Type: {kind}");
        for Change { method, path, body } in &changes {
            let answer = served.raw(method, path, &[&host, &kind], body).await;
            let expected = if path == RPC { 409 } else { 415 };
            assert_eq!(answer.status, expected, "{kind}: {method} {path}");
        }
    }
    served.is_as(&before, "forms").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebound_host_changes_nothing() {
    let served = Served::start().await;
    let id = served.id();
    let port = served.addr.port();
    let changes = served.changes();
    let before = served.snapshot();
    for name in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1].evil"] {
        let host = format!("Host: {name}:{port}");
        // To the browser the page and the daemon are one site then.
        let same = format!("Origin: http://{name}:{port}");
        let site = "Sec-Fetch-Site: same-origin";
        for Change { method, path, body } in &changes {
            for headers in [&[&host[..], JSON, &id, &same, site][..], &[&host, JSON, &id]] {
                let answer = served.raw(method, path, headers, body).await;
                assert!([400, 421].contains(&answer.status), "{name}: {method} {path}");
            }
        }
        for path in ["/", "/status", "/events", RPC] {
            let answer = served.raw("GET", path, &[&host], "").await;
            assert!([400, 421].contains(&answer.status), "{name}: {path}");
            assert!(!answer.body.contains(&served.session_id));
        }
    }
    // Two hosts, none, and one that the request line contradicts.
    let ours = served.host();
    for Change { method, path, body } in &changes {
        let two = served.raw(method, path, &[&ours, "Host: evil.example", JSON, &id], body).await;
        let none = served.raw(method, path, &[JSON, &id], body).await;
        let absolute = format!("http://evil.example:{port}{path}");
        let other = served.raw(method, &absolute, &[&ours, JSON, &id], body).await;
        assert_eq!((two.status, none.status, other.status), (400, 400, 421), "{method} {path}");
    }
    served.is_as(&before, "rebound").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_changes_nothing() {
    let served = Served::start().await;
    let (host, id) = (served.host(), served.id());
    let changes = served.changes();
    let before = served.snapshot();
    for Change { method, path, body } in &changes {
        // A link that somebody clicks; tricks by which other servers take a GET for something else;
        // a socket of a page's script.
        let get = format!("X-HTTP-Method-Override: {method}");
        for how in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            for more in ["Sec-Fetch-Site: none", &get] {
                let headers = [&host[..], &id, more, JSON];
                let answer = served.raw(how, path, &headers, body).await;
                assert!(
                    [200, 400, 404, 405].contains(&answer.status),
                    "{how} {path}: {} {}",
                    answer.status,
                    answer.body
                );
            }
        }
        let socket = [
            &host[..],
            &id,
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        assert_ne!(served.raw("GET", path, &socket, body).await.status, 101, "{path}");
        let query = format!("{path}{}_method={method}", if path.contains('?') { '&' } else { '?' });
        served.raw("GET", &query, &[&host, &id], "").await;
    }
    served.is_as(&before, "GET").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_session_id_changes_nothing() {
    let served = Served::start().await;
    let host = served.host();
    let changes = served.rpc_changes();
    let before = served.snapshot();
    let wrong = format!("X-Transmission-Session-Id: {}", "x".repeat(48));
    let short = format!("X-Transmission-Session-Id: {}", &served.session_id[..47]);
    let cookie = format!("Cookie: X-Transmission-Session-Id={}", served.session_id);
    let none = "X-Transmission-Session-Id:";
    for header in [JSON, &wrong, &short, &cookie, none] {
        for Change { body, .. } in &changes {
            for path in [RPC, "/transmission/rpc/", "/transmission//rpc/"] {
                let answer = served.raw("POST", path, &[&host, header], body).await;
                assert_eq!(answer.status, 409, "{header}: {body}");
            }
        }
    }
    let in_query = format!("{RPC}?X-Transmission-Session-Id={}", served.session_id);
    assert_eq!(served.raw("POST", &in_query, &[&host], &changes[0].body).await.status, 409);
    served.is_as(&before, "no session id").await;
    served.end().await;
}

/// Asks for `folder`, in all the ways there are, and sees each refused.
async fn all_refuse_the_folder(served: &Served, folder: &Path) {
    let left = served.left;
    let torrent = base64::encode(served.home.made("new", 30_000).bytes().unwrap().as_ref());
    let (input, ids) = (served.home.path("shared/a.bin"), json!([left]));
    let native = [
        ("POST", "/leech".to_owned(), json!({"source": {"torrent": torrent}, "output": folder})),
        ("POST", format!("/torrents/{left}/move"), json!({"folder": folder, "find": false})),
        ("POST", format!("/torrents/{left}/move"), json!({"folder": folder, "find": true})),
        ("PATCH", "/settings".to_owned(), json!({"downloads": folder})),
        ("PATCH", "/settings".to_owned(), json!({"watch_folder": folder})),
        (
            "POST",
            "/seed".to_owned(),
            json!({"input": input, "torrent_out": folder.join("a.torrent")}),
        ),
    ];
    for (method, path, body) in native {
        let answer = served.native(method, &path, &body).await;
        assert_eq!(answer.status, 403, "{method} {path} {body}: {}", answer.body);
    }
    let rpc = [
        ("torrent_add", json!({"metainfo": torrent, "download_dir": folder})),
        ("torrent_set_location", json!({"ids": ids, "location": folder, "move": true})),
        ("torrent_set_location", json!({"ids": ids, "location": folder, "move": false})),
        ("torrent_set", json!({"ids": ids, "location": folder})),
        ("session_set", json!({"download_dir": folder})),
    ];
    for (method, params) in rpc {
        let error = served.rpc(method, params.clone()).await.unwrap_err();
        assert!([3, 5].contains(&error["code"].as_i64().unwrap()), "{method} {params}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dots_and_foreign_folders_in_an_output_path_write_nothing_outside() {
    let served = Served::start().await;
    served.home.made("new", 30_000);
    let before = served.snapshot();
    let downloads = served.home.downloads();
    for folder in [
        downloads.join("../outside"),
        downloads.join("a/../../outside"),
        downloads.join(".."),
        served.home.path("outside"),
        served.home.path("downloads2"),
        served.home.torrents(),
        "/".into(),
        "/etc".into(),
        "/proc/self/cwd".into(),
    ] {
        all_refuse_the_folder(&served, &folder).await;
    }
    for (path, name) in [("left", "../outside/x"), ("left", ".."), ("left", "/etc/x"), ("left", "")]
    {
        let rename = format!("/torrents/{}/rename", served.left);
        let body = json!({"path": path, "name": name});
        assert_eq!(served.native("POST", &rename, &body).await.status, 400, "{name}");
        let params = json!({"ids": [served.left], "path": path, "name": name});
        served.rpc("torrent_rename_path", params).await.unwrap_err();
    }
    served.is_as(&before, "dots").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_planted_in_the_download_folder_leads_no_request_outside() {
    let served = Served::start().await;
    served.home.made("new", 30_000);
    let downloads = served.home.downloads();
    symlink(served.home.path("outside"), downloads.join("link")).unwrap();
    symlink("../..", downloads.join("up")).unwrap();
    symlink("/proc/self/cwd", downloads.join("magic")).unwrap();
    let before = served.snapshot();
    for folder in ["link", "link/new/deep", "up", "up/outside", "magic"] {
        all_refuse_the_folder(&served, &downloads.join(folder)).await;
    }
    served.is_as(&before, "links").await;
    served.end().await;
}

/// A daemon that shares the folder `set` of two files.
async fn seeder() -> (Home, Daemon, String) {
    let home = Home::new();
    home.file("shared/set/a", &content(40_000, 1));
    home.file("shared/set/sub/b", &content(50_000, 2));
    let daemon = home.start().await;
    let input = home.path("shared/set");
    let request = SeedRequest { input, piece_length: Some(16_384), ..SeedRequest::default() };
    let hash = daemon.seed(request).await.unwrap().info_hash;
    let torrent = base64::encode(&daemon.torrent_bytes(hash).await.unwrap());
    until(&daemon, hash, |torrent| torrent.state == State::Seeding).await;
    (home, daemon, torrent)
}

/// Adds `torrent`, paused, into `folder` of the downloads, by one API or the other.
async fn add_paused(served: &Served, rpc: bool, torrent: &str, folder: &str) -> InfoHash {
    let folder = served.home.downloads().join(folder);
    let hash = if rpc {
        let params = json!({"metainfo": torrent, "download_dir": folder, "paused": true});
        let added = served.rpc("torrent_add", params).await.unwrap();
        added["torrent_added"]["hash_string"].clone()
    } else {
        let body = json!({"source": {"torrent": torrent}, "output": folder, "paused": true});
        let answer = served.native("POST", "/leech", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        serde_json::from_str::<Value>(&answer.body).unwrap()["info_hash"].clone()
    };
    let hash: InfoHash = hash.as_str().unwrap().parse().unwrap();
    // With a link in its place it fails at once.
    until(&served.daemon, hash, |it| [State::Paused, State::Failed].contains(&it.state)).await;
    hash
}

/// Starts the torrent, gives it the peer that has everything, and waits until it fails.
async fn fails_to_download(served: &Served, rpc: bool, hash: InfoHash, peer: u16) {
    let peers = json!({"peers": [format!("127.0.0.1:{peer}")]});
    let path = format!("/torrents/{hash}/peers");
    assert_eq!(served.native("POST", &path, &peers).await.status, 204);
    if rpc {
        served.rpc("torrent_start", json!({"ids": [hash]})).await.unwrap();
    } else {
        let path = format!("/torrents/{hash}/resume");
        assert_eq!(served.native("POST", &path, &json!({})).await.status, 204);
    }
    let failed = until(&served.daemon, hash, |torrent| {
        assert_ne!(torrent.state, State::Seeding, "it was downloaded through the link");
        torrent.state == State::Failed
    });
    assert!(failed.await.error.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_planted_where_a_torrent_s_files_belong_is_not_written_through() {
    let (_shared, seeder, torrent) = seeder().await;
    for rpc in [false, true] {
        for (before, link) in
            [(true, "set"), (true, "set/sub"), (false, "set"), (false, "set/sub"), (false, "set/a")]
        {
            let served = Served::start().await;
            let outside = served.home.path("outside");
            let target = if link == "set/a" { outside.join("new") } else { outside.clone() };
            let at = served.home.downloads().join(link);
            let plant = || {
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                symlink(&target, &at).unwrap();
            };
            if before {
                plant();
            }
            let hash = add_paused(&served, rpc, &torrent, "").await;
            if !before {
                plant();
            }
            fails_to_download(&served, rpc, hash, seeder.peer_port()).await;
            assert_eq!(names(&outside), [""; 0], "{link}, before: {before}, rpc: {rpc}");
            // Taking it away with its data takes nothing away outside either.
            std::fs::write(outside.join("a"), b"mine").unwrap();
            let path = format!("/torrents/{hash}?delete_data=true");
            served.native("DELETE", &path, &json!({})).await;
            assert_eq!(std::fs::read(outside.join("a")).unwrap(), b"mine");
            served.end().await;
        }
    }
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_planted_in_place_of_an_output_folder_is_not_followed() {
    let (_shared, seeder, torrent) = seeder().await;
    for rpc in [false, true] {
        for (folder, link) in [("sub/deep", "sub"), ("sub/deep", "sub/deep"), ("sub", "sub")] {
            let served = Served::start().await;
            let (downloads, outside) = (served.home.downloads(), served.home.path("outside"));
            let hash = add_paused(&served, rpc, &torrent, folder).await;
            let at = downloads.join(link);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            symlink(&outside, &at).unwrap();
            fails_to_download(&served, rpc, hash, seeder.peer_port()).await;
            assert_eq!(names(&outside), [""; 0], "{link}, rpc: {rpc}");
            served.end().await;
        }
        // Nor where a request has chosen the folder for all downloads.
        let served = Served::start().await;
        let (chosen, outside) =
            (served.home.downloads().join("chosen"), served.home.path("outside"));
        if rpc {
            served.rpc("session_set", json!({"download_dir": chosen})).await.unwrap();
        } else {
            let answer = served.native("PATCH", "/settings", &json!({"downloads": chosen})).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        symlink(&outside, &chosen).unwrap();
        let before = served.snapshot();
        if rpc {
            served.rpc("torrent_add", json!({"metainfo": torrent})).await.unwrap_err();
        } else {
            let body = json!({"source": {"torrent": torrent}});
            assert_eq!(served.native("POST", "/leech", &body).await.status, 403);
        }
        served.is_as(&before, "chosen").await;
        served.end().await;
    }
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_from_outside_is_neither_moved_nor_renamed_nor_deleted() {
    let served = Served::start().await;
    let (shared, ids) = (served.shared, json!([served.shared]));
    let file = served.home.path("shared/a.bin");
    let bytes = std::fs::read(&file).unwrap();
    let disk = names(&served.home.path("shared"));
    let one = |rest: &str| format!("/torrents/{shared}{rest}");
    let name = json!({"path": "a.bin", "name": ".profile"});
    let answer = served.native("POST", &one("/rename"), &name).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    let name = json!({"ids": ids, "path": "a.bin", "name": ".profile"});
    served.rpc("torrent_rename_path", name).await.unwrap_err();
    let downloads = served.home.downloads();
    let body = json!({"folder": downloads, "find": false});
    let answer = served.native("POST", &one("/move"), &body).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    let params = json!({"ids": ids, "location": downloads, "move": true});
    served.rpc("torrent_set_location", params).await.unwrap_err();
    // Nothing has happened to it.
    let torrent = served.daemon.torrent(shared).unwrap();
    assert_eq!((torrent.state, torrent.error), (State::Seeding, None));
    let answer = served.native("DELETE", &one("?delete_data=true"), &json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.body);
    let params = json!({"ids": ids, "delete_local_data": true});
    served.rpc("torrent_remove", params).await.unwrap_err();
    assert!(served.daemon.torrent(shared).is_some());
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    assert_eq!(names(&served.home.path("shared")), disk);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_is_written_beside_what_is_shared_only_as_a_new_torrent_file() {
    let served = Served::start().await;
    let input = served.home.seed_request("b.bin", 10_000).input;
    let beside = input.parent().unwrap().to_owned();
    std::fs::write(beside.join("old.torrent"), b"old").unwrap();
    symlink(served.home.path("outside/x.torrent"), beside.join("link.torrent")).unwrap();
    symlink("/dev/zero", beside.join("zero.torrent")).unwrap();
    let before = served.snapshot();
    for (name, status) in [
        (".profile", 403),
        (".torrent", 403),
        ("cron", 403),
        ("x.torrent.sh", 403),
        ("..", 400),
        ("old.torrent", 409),
        ("link.torrent", 409),
        ("zero.torrent", 409),
    ] {
        let body = json!({"input": input, "torrent_out": beside.join(name)});
        let answer = served.native("POST", "/seed", &body).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
    }
    let labels = json!({"input": input, "labels": ["x".repeat(300)],
        "torrent_out": beside.join("b.torrent")});
    assert_eq!(served.native("POST", "/seed", &labels).await.status, 400);
    served.is_as(&before, "torrent_out").await;
    let body = json!({"input": input, "torrent_out": beside.join("b.torrent")});
    assert_eq!(served.native("POST", "/seed", &body).await.status, 201);
    assert!(beside.join("b.torrent").exists());
    served.end().await;
}

/// Such names are repaired, see docs/torrents.md.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_in_a_torrent_leads_outside() {
    let served = Served::start().await;
    let beside = || {
        let entries = std::fs::read_dir(served.home.path("")).unwrap();
        // The state's database comes and goes with its log.
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.contains(".sqlite")).collect::<BTreeSet<String>>()
    };
    let before = beside();
    let mut taken = 0;
    for name in ["../outside", "..", ".", "", "/etc/x", "a/b", "a\\b", "..\\outside", "a\0b"] {
        let pieces = |last: char| format!("{}{last}", "x".repeat(19));
        let single = format!(
            "d4:infod6:lengthi1e4:name{}:{name}12:piece lengthi16384e6:pieces20:{}ee",
            name.len(),
            pieces('s')
        );
        let folder = format!(
            "d4:infod5:filesld6:lengthi1e4:pathl{}:{name}1:xeee4:name1:t12:piece lengthi16384e\
             6:pieces20:{}ee",
            name.len(),
            pieces('f')
        );
        for torrent in [single, folder] {
            let body = json!({"source": {"torrent": base64::encode(torrent.as_bytes())}});
            let answer = served.native("POST", "/leech", &body).await;
            assert!(matches!(answer.status, 201 | 400 | 409), "{name:?}: {}", answer.body);
            if answer.status != 201 {
                continue;
            }
            taken += 1;
            let answer: Value = serde_json::from_str(&answer.body).unwrap();
            let hash: InfoHash = answer["info_hash"].as_str().unwrap().parse().unwrap();
            until(&served.daemon, hash, |it| it.state != State::Checking).await;
            let detail = served.native("GET", &format!("/torrents/{hash}"), &json!({})).await;
            let detail: Value = serde_json::from_str(&detail.body).unwrap();
            for file in detail["file_list"].as_array().unwrap() {
                let path = file["path"].as_str().unwrap();
                let is_plain =
                    |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
                assert!(path.split('/').all(is_plain), "{name:?}: {path:?}");
            }
        }
    }
    assert!(taken > 8, "{taken}");
    assert_eq!(beside(), before);
    assert!(!std::path::Path::new("/etc/x").exists());
    served.end().await;
}

/// A web server that answers every request with `answer`, for ever if that is `endless`.
async fn web_server(answer: String, endless: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.replace("SELF", &addr.to_string());
            tokio::spawn(async move {
                let mut head = [0; 2_048];
                // It leaves when it has had enough: that is what is tested.
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                while endless && stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
            });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torrent_s_web_address_leads_to_no_file_and_has_an_end() {
    let served = Served::start().await;
    let made = served.home.made("secret", 10_000);
    let file = served.home.file("secret.torrent", made.bytes().unwrap().as_ref());
    let before = served.snapshot();
    let to = |place: &str| {
        format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")
    };
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: application/x-bittorrent\r\n\r\n".to_owned();
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned();
    let servers = [
        web_server(to(&format!("file://{}", file.display())), false).await,
        web_server(to("ftp://127.0.0.1/x"), false).await,
        web_server(to("http://SELF/again"), false).await,
        web_server(endless, true).await,
        web_server(huge, true).await,
    ];
    for addr in servers {
        let url = format!("http://{addr}/x.torrent");
        let answer = served.native("POST", "/leech", &json!({"source": {"url": url}})).await;
        assert_eq!(answer.status, 502, "{}", answer.body);
        let error = served.rpc("torrent_add", json!({"filename": url})).await.unwrap_err();
        assert_eq!(error["code"], 8, "{error}");
    }
    for url in [format!("file://{}", file.display()), "ftp://x/y".to_owned(), "data:x".to_owned()] {
        let answer = served.native("POST", "/leech", &json!({"source": {"url": url}})).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        served.rpc("torrent_add", json!({"filename": url})).await.unwrap_err();
    }
    served.is_as(&before, "web").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_may_list_is_bounded() {
    let served = Served::start().await;
    let torrent = base64::encode(served.home.made("new", 30_000).bytes().unwrap().as_ref());
    let before = served.snapshot();
    let many = |count: usize, text: &str| vec![text.to_owned(); count];
    let one = format!("/torrents/{}", served.left);
    let source = json!({"torrent": torrent});
    let input = served.home.path("shared/a.bin");
    for (method, path, body) in [
        ("POST", "/leech", json!({"source": source, "trackers": many(101, "127.0.0.1:1")})),
        ("POST", "/leech", json!({"source": source, "peers": many(1_001, "127.0.0.1:1")})),
        ("POST", "/leech", json!({"source": source, "labels": many(101, "x")})),
        ("POST", "/leech", json!({"source": source, "files": many(2, "skip")})),
        ("POST", "/seed", json!({"input": input, "trackers": [many(101, "127.0.0.1:1")]})),
        ("POST", "/seed", json!({"input": input, "name": "x".repeat(100_000)})),
        ("PATCH", &one, json!({"labels": ["x".repeat(256)]})),
        ("PATCH", &one, json!({"group": "x".repeat(256)})),
        ("PATCH", &one, json!({"trackers": [many(101, "http://127.0.0.1:1/announce")]})),
        (
            "PATCH",
            &one,
            json!({"trackers": [[format!("http://127.0.0.1:1/{}", "x".repeat(3_000))]]}),
        ),
        ("PATCH", &one, json!({"files": [[99, "skip"]]})),
        ("PATCH", "/settings", json!({"default_trackers": [many(101, "http://127.0.0.1:1/")]})),
        ("PATCH", "/settings", json!({"incomplete_suffix": "x".repeat(33)})),
    ] {
        let answer = served.native(method, path, &body).await;
        assert_eq!(
            answer.status,
            400,
            "{method} {path} {:.100}: {}",
            body.to_string(),
            answer.body
        );
    }
    let ids = json!([served.left]);
    for (method, params) in [
        ("torrent_add", json!({"metainfo": torrent, "labels": many(101, "x")})),
        ("torrent_add", json!({"metainfo": torrent, "files_unwanted": [1 << 30]})),
        ("torrent_set", json!({"ids": ids, "labels": ["x".repeat(256)]})),
        ("torrent_set", json!({"ids": ids, "group": "x".repeat(256)})),
        ("torrent_set", json!({"ids": ids, "tracker_list": "http://127.0.0.1:1/a\n".repeat(101)})),
        ("torrent_set", json!({"ids": ids, "files_unwanted": [99]})),
        ("session_set", json!({"default_trackers": "http://127.0.0.1:1/a\n".repeat(101)})),
        ("group_set", json!({"name": "x".repeat(300)})),
    ] {
        served.rpc(method, params.clone()).await.unwrap_err();
    }
    let batch = vec![json!({"jsonrpc": "2.0", "method": "torrent_stop", "id": 1}); 101];
    let (host, id) = (served.host(), served.id());
    let body = Value::from(batch).to_string();
    let answer = served.raw("POST", RPC, &[&host, &id], &body).await;
    assert!(answer.body.contains("-32600"), "{}", answer.body);
    // Deep and wide.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let wide = format!("[{}0]", "0,".repeat(600_000));
    let pairs = format!("[{}[]]", "[],".repeat(300_000));
    for body in [&deep, &wide, &pairs] {
        let answer = served.raw("POST", "/leech", &[&host, JSON], body).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        let answer = served.raw("POST", RPC, &[&host, &id], body).await;
        assert!(answer.body.contains("-326") || answer.body.contains("-32700"), "{}", answer.body);
    }
    // A head without an end.
    let long = format!("X: {}", "x".repeat(20_000));
    for path in ["/status", RPC] {
        let answer = served.raw("GET", path, &[&host, &long], "").await;
        assert_eq!(answer.status, 431, "{path}");
    }
    served.is_as(&before, "lists").await;
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_all_bounds_stop_nothing() {
    let served = Served::start().await;
    let (huge, shared) = (u64::MAX, served.shared);
    let one = format!("/torrents/{shared}");
    for (path, body) in [
        (&one[..], json!({"seed_time": {"at": huge}, "seed_idle": {"at": huge}})),
        (&one, json!({"seed_ratio": {"at": 1e308}})),
        (&one, json!({"upload_limit": huge, "download_limit": huge, "max_peers": u32::MAX})),
        (&one, json!({"queue_position": u32::MAX})),
        ("/settings", json!({"seed_time": huge, "seed_idle": huge, "stalled_after": huge})),
        ("/settings", json!({"active_downloads": u32::MAX, "active_seeds": u32::MAX})),
        ("/settings", json!({"max_connections": u32::MAX, "max_peers_per_torrent": u32::MAX})),
        ("/settings", json!({"upload_slots": u32::MAX, "upload_limit": huge})),
        ("/settings", json!({"alt": {"on": true, "upload": huge, "download": huge}})),
        ("/settings", json!({"seed_ratio": 1e308})),
    ] {
        let answer = served.native("PATCH", path, &body).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    }
    let ids = json!([shared]);
    for (method, params) in [
        ("torrent_set", json!({"ids": ids, "seed_idle_limit": 1e300, "seed_idle_mode": 1})),
        ("torrent_set", json!({"ids": ids, "upload_limit": huge / 1_000, "upload_limited": false})),
        ("torrent_set", json!({"ids": ids, "upload_limited": true})),
        ("torrent_set", json!({"ids": ids, "queue_position": u32::MAX})),
        ("session_set", json!({"idle_seeding_limit": 1e300, "idle_seeding_limit_enabled": true})),
        ("session_set", json!({"queue_stalled_minutes": 1e300, "queue_stalled_enabled": true})),
        ("session_set", json!({"seed_queue_size": 1e300, "seed_queue_enabled": true})),
    ] {
        served
            .rpc(method, params.clone())
            .await
            .unwrap_or_else(|error| panic!("{params}: {error}"));
    }
    let before = served.snapshot();
    for (path, body) in [
        (&one[..], r#"{"seed_ratio": {"at": -1}}"#),
        (&one, r#"{"seed_ratio": {"at": 1e999}}"#),
        (&one, r#"{"seed_ratio": {"at": NaN}}"#),
        (&one, r#"{"seed_time": {"at": -1}}"#),
        (&one, r#"{"queue_position": -1}"#),
        (&one, r#"{"upload_limit": 18446744073709551616}"#),
        ("/settings", r#"{"seed_ratio": -0.5}"#),
        ("/settings", r#"{"max_connections": 0}"#),
        ("/settings", r#"{"max_connections": 4294967296}"#),
        ("/settings", r#"{"alt": {"begin": 1440}}"#),
    ] {
        let answer = served.raw("PATCH", path, &[&served.host(), JSON], body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
    }
    for (method, params) in [
        ("torrent_set", json!({"ids": ids, "seed_ratio_limit": -1, "seed_ratio_mode": 1})),
        ("torrent_set", json!({"ids": ids, "queue_position": -1})),
        ("torrent_set", json!({"ids": ids, "upload_limit": -1})),
        ("session_set", json!({"peer_limit_global": -1})),
        ("session_set", json!({"peer_limit_global": 1e300})),
        ("session_set", json!({"alt_speed_time_begin": 1440})),
    ] {
        served.rpc(method, params).await.unwrap_err();
    }
    served.is_as(&before, "numbers").await;
    // The queue still turns: what waits is started by itself.
    let torrent = base64::encode(served.home.made("new", 30_000).bytes().unwrap().as_ref());
    let added = served.rpc("torrent_add", json!({"metainfo": torrent})).await.unwrap();
    let hash = added["torrent_added"]["hash_string"].as_str().unwrap().parse().unwrap();
    until(&served.daemon, hash, |torrent| torrent.state == State::Downloading).await;
    let path = format!("/torrents/{hash}/pause");
    served.native("POST", &path, &json!({})).await;
    until(&served.daemon, hash, |torrent| torrent.state == State::Paused).await;
    served.end().await;
}

/// JSON that nobody would write: of every type, of every size, and deep.
fn any_value(rng: &mut Rng, words: &[String], depth: u32) -> Value {
    match rng.below(if depth == 0 { 9 } else { 12 }) {
        0 => Value::Null,
        1 => json!(rng.below(2) == 0),
        2 => json!(rng.below(4)),
        3 => json!(u64::MAX - rng.below(2)),
        4 => json!(i64::MIN + rng.below(2) as i64),
        5 => json!([1e308, -1e308, 5e-324, 0.5, -0.0, 1e19][rng.below(6) as usize]),
        6 => json!("\u{0}\u{1b}[2J\u{202e}\u{fffd}".repeat(rng.below(3) as usize)),
        7 => json!("x".repeat(1 << rng.below(12))),
        8 => json!(rng.choose(words)),
        9 => (0..rng.below(4)).map(|_| any_value(rng, words, depth - 1)).collect(),
        _ => any_object(rng, words, depth - 1),
    }
}

fn any_object(rng: &mut Rng, words: &[String], depth: u32) -> Value {
    let count = rng.below(6);
    let mut pairs = Vec::new();
    for _ in 0..count {
        let key = rng.choose(words).cloned().unwrap_or_default();
        pairs.push((key, any_value(rng, words, depth)));
    }
    Value::Object(pairs.into_iter().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_json_makes_a_route_fail() {
    let served = Served::start().await;
    let outside = names(&served.home.path("outside"));
    let words = "source torrent url file catalogue name tracker output paused files only_files \
        sequential upload_limit download_limit max_peers seed_ratio seed_time seed_idle at never \
        session labels trackers peers bandwidth skip low normal high input private piece_length \
        torrent_out description find folder path to top up down bottom torrents delete_data \
        queue_position group default_trackers incomplete_suffix alt on upload download begin end \
        days scheduled max_connections upload_slots active_downloads stalled_after choke ids \
        fields format table files_wanted files_unwanted priority_high tracker_list tracker_add \
        tracker_remove tracker_replace location move seed_ratio_limit seed_ratio_mode \
        seed_idle_limit seed_idle_mode upload_limited speed_limit_up speed_limit_up_enabled \
        alt_speed_up alt_speed_time_begin alt_speed_time_day peer_limit_global metainfo filename \
        download_dir seed_queue_size seed_queue_enabled queue_stalled_minutes recently_active \
        ip_protocol ipv4 bandwidth_priority sequential_download_from_piece";
    let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    words.extend([served.left.to_string(), served.shared.to_string(), "../outside".to_owned()]);
    let one = |rest: &str| format!("/torrents/{}{rest}", served.left);
    let routes = [
        ("POST", "/seed".to_owned()),
        ("POST", "/leech".to_owned()),
        ("PATCH", one("")),
        ("POST", one("/peers")),
        ("POST", one("/move")),
        ("POST", one("/rename")),
        ("POST", one("/queue")),
        ("POST", "/queue".to_owned()),
        ("PATCH", "/settings".to_owned()),
        ("POST", "/test".to_owned()),
    ];
    let methods = "torrent_get torrent_set torrent_add torrent_start torrent_stop torrent_verify \
        torrent_reannounce torrent_set_location torrent_rename_path session_get session_set \
        session_stats blocklist_update port_test queue_move_top queue_move_up free_space group_get \
        group_set";
    let methods: Vec<&str> = methods.split_whitespace().collect();
    let mut rng = Rng::from_seed(7);
    let (host, id) = (served.host(), served.id());
    for _ in 0..400 {
        let (method, path) = rng.choose(&routes).unwrap().clone();
        let body = any_object(&mut rng, &words, 3).to_string();
        let answer = served.raw(method, &path, &[&host, JSON], &body).await;
        let refused = (200..500).contains(&answer.status) || answer.status == 502;
        assert!(refused, "{method} {path} {body}: {} {}", answer.status, answer.body);
        let method = rng.choose(&methods).unwrap();
        let params = any_object(&mut rng, &words, 3);
        let body = match rng.below(4) {
            0 => json!({"method": method.replace('_', "-"), "arguments": params, "tag": 1}),
            1 => json!([{"jsonrpc": "2.0", "method": method, "params": params, "id": 1}]),
            _ => json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}),
        };
        let answer = served.raw("POST", RPC, &[&host, &id], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        assert!(!answer.body.contains("-32603"), "{body}: {}", answer.body);
        assert!(serde_json::from_str::<Value>(&answer.body).is_ok(), "{}", answer.body);
    }
    // It is as alive as before, and nothing came to lie where nothing may.
    assert_eq!(served.raw("GET", "/", &[&host], "").await.status, 200);
    let pause = format!("/torrents/{}/pause", served.left);
    assert_eq!(served.native("POST", &pause, &json!({})).await.status, 204);
    until(&served.daemon, served.left, |torrent| torrent.settings.paused).await;
    assert_eq!(names(&served.home.path("outside")), outside);
    tokio::time::timeout(Duration::from_secs(60), served.end()).await.unwrap();
}
