//! Choosing folders of the daemon's machine: what is told of them, and to whom.

use std::os::unix::fs::symlink;

use piecework_api::FolderList;
use piecework_core::Secret;
use serde_json::json;

use super::{Answer, Served};

const OWNER: [&str; 2] = ["Host: localhost", "Authorization: Bearer token"];

fn listed(answer: &Answer) -> FolderList {
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_value(answer.json()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn line_20_the_owner_on_this_machine_looks_into_any_folder_and_others_into_none() {
    let served = Served::with(|config| config.token = Some(Secret::from("token"))).await;
    let downloads = served.home.downloads();
    std::fs::create_dir_all(downloads.join("films/old")).unwrap();
    std::fs::create_dir_all(served.home.path("elsewhere/inner")).unwrap();
    std::fs::write(served.home.path("elsewhere/file"), b"").unwrap();
    symlink(served.home.path("elsewhere"), downloads.join("link")).unwrap();
    let here = downloads.to_str().unwrap();
    let ask = async |query: String| served.raw(&format!("GET /folders{query}"), &OWNER, "").await;
    for query in ["", "?for=share", "?path=/etc", &format!("?path={here}")] {
        served.get(&format!("/folders{query}")).await.refuses(401, "owner's token");
    }
    let first = listed(&ask(String::new()).await);
    assert_eq!((first.path.as_str(), &first.folders[..]), (here, &["films".to_owned()][..]));
    assert_eq!((first.files.len(), first.more), (0, false));
    assert_eq!(first.roots.first().map(String::as_str), Some(here));
    assert_eq!(first.parent.as_deref(), downloads.parent().unwrap().to_str());
    let outside = listed(&ask(format!("?path={}", served.home.path("elsewhere").display())).await);
    assert_eq!(outside.folders, ["inner"]);
    // What is not there yet leads to what is.
    let typed = listed(&ask(format!("?path={here}/films/o")).await);
    assert_eq!((typed.path, typed.folders), (format!("{here}/films"), vec!["old".to_owned()]));
    ask(format!("?path={here}/link")).await.refuses(403, "link");
    ask(format!("?path={here}/../x")).await.refuses(403, "..");
    ask("?for=x".to_owned()).await.refuses(400, "`for` is `x`");
    // What is shared may be a file, and its folder is shown then.
    let shared = format!("?for=share&path={}/file", served.home.path("elsewhere").display());
    let shared = listed(&ask(shared).await);
    assert_eq!(
        (&shared.folders[..], &shared.files[..]),
        (&["inner".to_owned()][..], &["file".to_owned()][..])
    );
    ask("?for=share&path=not/absolute".to_owned()).await.refuses(400, "not absolute");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_20_by_password_only_the_allowed_folders_are_looked_into() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(root.join("may/be shared")).unwrap();
    std::fs::create_dir_all(root.join("secret/inner")).unwrap();
    symlink(root.join("secret"), root.join("may/out")).unwrap();
    symlink("be shared", root.join("may/in")).unwrap();
    let served = Served::with_daemon(
        |config| config.seed_roots = vec![root.join("may")],
        |config| config.password = Some(Secret::from("token")),
    )
    .await;
    let ask = async |query: String| served.raw(&format!("GET /folders{query}"), &OWNER, "").await;
    let output = listed(&ask(String::new()).await);
    assert_eq!((output.parent, output.roots.len()), (None, 1));
    // The downloads folder is made by the first download.
    std::fs::remove_dir_all(served.home.downloads()).unwrap();
    let absent = listed(&ask(String::new()).await);
    assert_eq!((absent.path, absent.folders.len()), (output.path, 0));
    ask("?path=/".to_owned()).await.refuses(403, "allowed");
    ask(format!("?path={}", root.display())).await.refuses(403, "allowed");
    let share = listed(&ask("?for=share".to_owned()).await);
    assert_eq!(share.path, root.join("may").to_str().unwrap());
    // The link that leads out could not be shared.
    assert_eq!(
        (share.parent, share.folders),
        (None, vec!["be shared".to_owned(), "in".to_owned()])
    );
    for path in ["secret", "may/out", "secret/none", ""] {
        let answer = ask(format!("?for=share&path={}", root.join(path).display())).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.body);
        assert!(!answer.body.contains("inner"), "{}", answer.body);
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_20_a_folder_with_more_than_can_be_shown_says_so() {
    let served = Served::start().await;
    let downloads = served.home.downloads();
    for n in 0..FolderList::MOST + 5 {
        std::fs::create_dir_all(downloads.join(format!("{n:05}"))).unwrap();
    }
    let all = listed(&served.get("/folders").await);
    assert_eq!((all.folders.len(), all.more), (FolderList::MOST, true));
    assert_eq!(all.folders[0], "00000");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_19_a_torrents_other_sources_are_told() {
    let served = Served::start().await;
    let hashes = "a".repeat(20);
    let torrent = format!(
        "d8:announce14:wss://t.org/an4:infod6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces20:{hashes}\
         6:source3:ABCe5:nodesll7:dht.orgi6881eee8:url-list14:http://t.org/ae"
    );
    let torrent = piecework_core::base64::encode(torrent.as_bytes());
    let body = json!({"source": {"torrent": torrent}, "paused": true}).to_string();
    let answer = served.send("POST /leech", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let hash = answer.json()["info_hash"].as_str().unwrap().to_owned();
    let told = served.get(&format!("/torrents/{hash}/sources")).await.json();
    assert_eq!(told["web_seeds"], json!(["http://t.org/a"]));
    assert_eq!(told["nodes"], json!(["dht.org:6881"]));
    assert_eq!(told["source"], "ABC");
    assert!(told["notices"].to_string().contains("wss://t.org/an"), "{told}");
    let made = served.daemon.seed(served.home.seed_request("a.bin", 40_000)).await.unwrap();
    let told = served.get(&format!("/torrents/{}/sources", made.info_hash)).await.json();
    assert_eq!(told, json!({"web_seeds": [], "nodes": [], "source": null, "notices": []}));
    served.end().await;
}
