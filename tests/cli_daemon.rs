//! The daemon and its tools as processes: the tutorial's commands unchanged except for the ports,
//! signals, and a daemon that does not run.

#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

/// A running program, and its output.
struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The line that says that it is ready.
    ready: String,
}

impl Program {
    /// Starts a shell command and waits for its first line.
    fn start(dir: &Path, command: &str) -> Self {
        let mut child = shell(dir, &format!("exec {command}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        if ready.is_empty() {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            panic!("`{command}` ended: {text}");
        }
        Self { child, stdout, ready }
    }

    fn daemon(dir: &Path, more: &str) -> Self {
        Self::start(
            dir,
            &format!("torrent-daemon --port 0 --listen 127.0.0.1:0 --rpc-port 0 {more}"),
        )
    }

    /// Returns the `IP:PORT` after `before` in its first line.
    fn addr(&self, before: &str) -> String {
        let rest = self.ready.split(before).nth(1);
        let rest = rest.unwrap_or_else(|| panic!("no `{before}` in `{}`", self.ready));
        let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
        rest[..end.unwrap_or(rest.len())].to_owned()
    }

    fn port(&self) -> String {
        self.addr("control on http://").rsplit(':').next().unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns its exit code, the rest of its stdout, and its stderr.
    fn ends(mut self) -> (Option<i32>, String, String) {
        let (mut said, mut complained) = (String::new(), String::new());
        self.stdout.read_to_string(&mut said).unwrap();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut complained).unwrap();
        }
        (self.child.wait().unwrap().code(), said, complained)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has ended need not be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a shell command in `dir` that finds our programs.
fn shell(dir: &Path, command: &str) -> Command {
    let bin = Path::new(env!("CARGO_BIN_EXE_torrent-daemon")).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)));
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(dir).env_clear().env("PATH", path.unwrap());
    shell
}

fn run(dir: &Path, command: &str) -> Output {
    shell(dir, command).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn fine(dir: &Path, command: &str) -> String {
    let output = run(dir, command);
    assert_eq!(output.status.code(), Some(0), "`{command}`: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(dir: &Path, command: &str, code: i32) -> String {
    let output = run(dir, command);
    assert_eq!(output.status.code(), Some(code), "`{command}`: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Returns the commands of the tutorial's section about the daemon.
fn walk() -> Vec<String> {
    let tutorial = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tutorial.md");
    let tutorial = std::fs::read_to_string(tutorial).unwrap();
    let section = tutorial.split("\n## The daemon\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let mut commands = Vec::new();
    for block in section.split("```sh\n").skip(1) {
        let block = block.split("```").next().unwrap().replace("\\\n", " ");
        commands.extend(block.lines().map(str::to_owned));
    }
    commands
}

#[test]
fn the_tutorials_walk_works_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut programs = Vec::new();
    // The tutorial's addresses, and those that the system chose instead.
    let mut chosen: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = Vec::new();
    for command in walk() {
        let mut text = command.clone();
        for (its, ours) in &chosen {
            text = text.replace(its, ours);
        }
        seen.push(command.split_whitespace().next().unwrap().to_owned());
        let Some(background) = text.strip_suffix('&') else {
            fine(dir.path(), &text);
            continue;
        };
        let words: Vec<&str> = command.split_whitespace().collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag);
            at.map(|at| words[at + 1].to_owned())
        };
        if words[0] == "torrent-tracker" {
            let program = Program::start(dir.path(), &background.replace(words[1], "127.0.0.1:0"));
            chosen.insert(words[1].to_owned(), program.addr("http://"));
            programs.push(program);
        } else {
            let (port, listen) = (after("--port").unwrap(), after("--listen").unwrap());
            let free = background
                .replace(&format!("--port {port}"), "--port 0")
                .replace(&listen, "127.0.0.1:0");
            let program = Program::start(dir.path(), &free);
            assert!(program.ready.contains(", peers on 127.0.0.1:"), "{}", program.ready);
            chosen.insert(format!("--port {port}"), format!("--port {}", program.port()));
            programs.push(program);
        }
    }
    for tool in ["daemon", "seed", "fetch", "leech", "status", "test", "remove"] {
        assert!(
            seen.contains(&format!("torrent-{tool}")),
            "the tutorial does not show torrent-{tool}"
        );
    }
    for program in programs {
        program.signal(Signal::TERM);
        let (code, _, complained) = program.ends();
        assert_eq!(code, Some(0), "{complained}");
    }
}

#[test]
fn what_it_was_told_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.bin"), vec![7; 100_000]).unwrap();
    let first = Program::daemon(dir.path(), "--tracker ''");
    let port = first.port();
    fine(dir.path(), &format!("torrent-seed --port {port} --input f.bin --label kept"));
    first.signal(Signal::INT);
    assert_eq!(first.ends().0, Some(0));
    let second = Program::daemon(dir.path(), "--tracker ''");
    let said = fine(dir.path(), &format!("torrent-status --port {} f.bin", second.port()));
    assert!(said.contains("f.bin") && said.contains("kept"), "{said}");
    second.signal(Signal::TERM);
    assert_eq!(second.ends().0, Some(0));
}

/// A tracker that accepts every announce, but does not answer when a peer leaves. Reports when that
/// happens.
fn silent_tracker() -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (leaves, left) = channel();
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                request.push(byte[0]);
            }
            if request.windows(13).any(|part| part == b"event=stopped") {
                silent.push(stream);
                // The test may have ended.
                let _ = leaves.send(());
                continue;
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 27\r\nConnection: close\r\n\r\n\
                           d8:intervali1800e5:peers0:e";
            let _ = stream.write_all(answer);
        }
    });
    (addr, left)
}

/// A daemon that seeds a file, and whose tracker has just been told that it leaves.
fn leaving(dir: &Path) -> Program {
    std::fs::write(dir.join("f.bin"), vec![7; 100_000]).unwrap();
    let (tracker, left) = silent_tracker();
    let daemon = Program::daemon(dir, &format!("--tracker http://{tracker}/announce"));
    let port = daemon.port();
    fine(dir, &format!("torrent-seed --port {port} --input f.bin"));
    loop {
        let shown = fine(dir, &format!("torrent-status --port {port} --json f.bin"));
        if shown.contains("\"working\"") {
            break;
        }
    }
    daemon.signal(Signal::TERM);
    left.recv().unwrap();
    daemon
}

#[test]
fn a_second_signal_ends_the_daemon_at_once_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = leaving(dir.path());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().0, Some(130));
    let second = Program::daemon(dir.path(), "--tracker ''");
    let said = fine(dir.path(), &format!("torrent-status --port {} f.bin", second.port()));
    assert!(said.contains("seeding"), "{said}");
}

#[test]
fn a_daemon_whose_tracker_does_not_answer_ends_in_time_and_says_who_was_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, complained) = leaving(dir.path()).ends();
    assert_eq!(code, Some(0));
    assert!(
        complained.contains("the trackers of `1` torrent were not told that we leave"),
        "{complained}"
    );
}

#[test]
fn without_a_daemon_every_tool_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), b"f").unwrap();
    for tool in [
        "seed --input f",
        "leech --torrent name",
        "fetch",
        "status",
        "status --watch",
        "set name --pause",
        "set --daemon",
        "remove name",
    ] {
        // Nothing listens on port 1.
        let text = fails(dir.path(), &format!("torrent-{tool} --port 1"), 3);
        assert!(text.contains("torrent-daemon --port 1"), "{tool}: {text}");
        assert_eq!(text.lines().count(), 1, "{tool}: {text}");
    }
    let output = run(dir.path(), "torrent-status --port 1 --json");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), &b""[..]));
    let fault: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(fault["error"].as_str().unwrap().contains("torrent-daemon"), "{fault}");
    let output = run(dir.path(), "torrent-test --port 1 --tracker 127.0.0.1:1");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn ctrl_c_ends_the_waiting_and_not_the_download() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.bin"), vec![7; 100_000]).unwrap();
    fine(dir.path(), "torrent-create f.bin && rm f.bin");
    let daemon = Program::daemon(dir.path(), "--tracker ''");
    let port = daemon.port();
    let waiting = Program::start(
        dir.path(),
        &format!("torrent-leech --port {port} --torrent f.bin.torrent --wait"),
    );
    assert!(waiting.ready.starts_with("downloading f.bin"), "{}", waiting.ready);
    waiting.signal(Signal::INT);
    let (code, _, complained) = waiting.ends();
    assert_eq!(code, Some(130), "{complained}");
    assert!(complained.contains("continues to download f.bin"), "{complained}");
    let said = fine(dir.path(), &format!("torrent-status --port {port} --json"));
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["torrents"][0]["name"], "f.bin");
    assert_eq!(status["torrents"][0]["settings"]["paused"], false);
}

#[test]
fn an_address_in_use_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let other: PathBuf = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let first = Program::daemon(dir.path(), "");
    let port = first.port();
    let text = fails(&other, &format!("torrent-daemon --port {port}"), 1);
    assert!(text.contains("another program listens there"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    let peers = first.addr("peers on ");
    let command = format!("torrent-daemon --port 0 --rpc-port 0 --listen {peers} --log-level off");
    let text = fails(&other, &command, 1);
    assert!(text.contains(&peers) && text.contains("choose another port"), "{text}");
}

#[test]
fn tools_reach_a_daemon_by_https_and_on_its_own_machine_by_http() {
    let dir = tempfile::tempdir().unwrap();
    let certificates =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tracker/tests/it/service/certificates");
    for (from, to) in [("one.pem", "cert.pem"), ("one.key", "key.pem")] {
        std::fs::copy(certificates.join(from), dir.path().join(to)).unwrap();
    }
    let config = "[daemon]\ncertificate = \"cert.pem\"\ncertificate_key = \"key.pem\"\n";
    std::fs::write(dir.path().join("config.toml"), config).unwrap();
    let daemon = Program::daemon(dir.path(), "");
    let port = daemon.addr("control on https://").rsplit(':').next().unwrap().to_owned();
    let status = format!("torrent-status --port {port} --json");
    fine(dir.path(), &status);
    let by_https = format!("PIECEWORK_HOST=https://localhost {status}");
    fine(dir.path(), &format!("SSL_CERT_FILE=cert.pem {by_https}"));
    let stranger = fails(
        dir.path(),
        &format!("SSL_CERT_FILE={} {by_https}", certificates.join("two.pem").display()),
        1,
    );
    assert!(stranger.is_empty() || stranger.contains("certificate"), "{stranger}");
    let login = fine(
        dir.path(),
        &format!(
            "SSL_CERT_FILE=cert.pem torrent-status --host https://localhost --port {port} --login"
        ),
    );
    assert!(login.contains(&format!("open https://localhost:{port}/")), "{login}");
}

#[test]
fn a_service_manager_hears_when_it_is_ready_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let socket = path.to_str().unwrap();
    let daemon = Program::start(
        dir.path(),
        &format!(
            "env NOTIFY_SOCKET={socket} torrent-daemon --port 0 --listen 127.0.0.1:0 --rpc-port 0"
        ),
    );
    let ready = next();
    assert!(ready.starts_with("READY=1\n") && ready.contains(daemon.ready.trim()), "{ready}");
    daemon.signal(Signal::TERM);
    assert!(next().starts_with("STOPPING=1\n"));
    assert_eq!(daemon.ends().0, Some(0));
}

/// A request of another user of the machine: no token, no password.
fn asked_by_another_user(port: &str, request: &str, body: &str) -> u16 {
    let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn secrets_are_shared_for_the_owner_alone_who_needs_no_word() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.bin"), [7; 40_000]).unwrap();
    let daemon = Program::daemon(dir.path(), "--tracker ''");
    let port = daemon.port();
    let planted = dir.path().join("planted.torrent");
    for input in ["/etc/shadow", "/etc/passwd", dir.path().join("a.bin").to_str().unwrap()] {
        let body =
            format!("{{\"input\": \"{input}\", \"torrent_out\": \"{}\"}}", planted.display());
        assert_eq!(asked_by_another_user(&port, "POST /seed", &body), 401, "{input}");
    }
    let settings = r#"{"watch_folder": "/tmp"}"#;
    assert_eq!(asked_by_another_user(&port, "PATCH /settings", settings), 401);
    assert_eq!(asked_by_another_user(&port, "GET /status", ""), 200);
    assert!(!planted.exists());

    fine(dir.path(), &format!("torrent-seed --port {port} --input a.bin"));
    fine(dir.path(), &format!("torrent-set --port {port} --daemon upload_limit=9000"));
    let login = fine(dir.path(), &format!("torrent-status --port {port} --login --json"));
    let login: serde_json::Value = serde_json::from_str(&login).unwrap();
    let token = login["password"].as_str().unwrap();
    assert_eq!(token.len(), 64, "{login}");
    let kept = dir.path().join("torrents/daemon.token");
    assert_eq!(std::fs::read_to_string(&kept).unwrap().trim(), token);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A daemon run as root shares from its own folders.
    if rustix::process::geteuid().is_root() {
        let text = fails(dir.path(), &format!("torrent-seed --port {port} --input /etc/shadow"), 1);
        assert!(text.contains("seed_roots"), "{text}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ends().0, Some(0));
    assert!(!kept.exists(), "it holds for one run");
}

#[test]
fn the_daemons_user_names_any_folder_on_its_machine_and_others_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path().canonicalize().unwrap();
    std::fs::write(dir.path().join("a.bin"), [7; 40_000]).unwrap();
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let seeder = Program::daemon(dir.path(), "--tracker ''");
    let daemon = Program::daemon(&other, "--tracker ''");
    let (from, port) = (seeder.port(), daemon.port());
    // `torrent-seed --torrent OUT`.
    let out = there.join("out/a.torrent");
    std::fs::create_dir(there.join("out")).unwrap();
    let seed = format!("torrent-seed --port {from} --input a.bin --torrent {}", out.display());
    fine(dir.path(), &seed);
    // `torrent-leech --output DIR`, also with a path relative to the tool's working directory.
    let peer = seeder.addr("peers on ");
    std::os::unix::fs::symlink(&there, other.join("link")).unwrap();
    let leech = format!(
        "torrent-leech --port {port} --torrent {} --output link/isos --peer {peer} --wait",
        out.display()
    );
    fine(&other, &leech);
    assert_eq!(std::fs::read(there.join("isos/a.bin")).unwrap(), [7; 40_000]);
    // `torrent-set NAME --move DIR`.
    let moved = there.join("moved");
    fine(&other, &format!("torrent-set --port {port} a.bin --move {}", moved.display()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !moved.join("a.bin").exists() || there.join("isos/a.bin").exists() {
        assert!(std::time::Instant::now() < deadline, "it is not moved");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // With a password, as from another machine, only the configured folders are allowed.
    let status = fine(&other, &format!("torrent-status --port {port} --login --json"));
    let login: serde_json::Value = serde_json::from_str(&status).unwrap();
    let token = login["password"].as_str().unwrap();
    let list = fine(&other, &format!("torrent-status --port {port} a.bin --json"));
    let detail: serde_json::Value = serde_json::from_str(&list).unwrap();
    let hash = detail["info_hash"].as_str().unwrap();
    let body = format!("{{\"folder\": \"{}\"}}", there.join("again").display());
    let through_a_proxy = format!(
        "POST /torrents/{hash}/move HTTP/1.1\r\nAuthorization: Bearer {token}\r\n\
         X-Forwarded-For: 192.0.2.1\r\nX-Rest:"
    );
    assert_eq!(asked_by_another_user(&port, &through_a_proxy, &body), 403);
    let request = format!("POST /torrents/{hash}/move");
    assert_eq!(asked_by_another_user(&port, &request, &body), 401);
    assert!(!there.join("again").exists());
    fine(&other, &format!("torrent-remove --port {port} a.bin --delete-data --yes"));
    assert!(!moved.join("a.bin").exists());
}

#[test]
fn a_closed_daemon_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.toml"), "[daemon]\nopen_on_loopback = false\n").unwrap();
    let daemon = Program::daemon(dir.path(), "");
    let port = daemon.port();
    for request in ["GET /status", "GET /", "POST /transmission/rpc", "GET /ui-not"] {
        assert_eq!(asked_by_another_user(&port, request, ""), 401, "{request}");
    }
    fine(dir.path(), &format!("torrent-status --port {port}"));
}

#[test]
fn the_log_is_json_when_asked_and_the_password_is_no_secret_to_the_tools() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "open sesame\n").unwrap();
    std::fs::write(dir.path().join("config.toml"), "[daemon]\npassword_file = \"secret\"\n")
        .unwrap();
    let daemon = Program::daemon(dir.path(), "--log-json");
    let port = daemon.port();
    fine(dir.path(), &format!("torrent-status --port {port}"));
    let wrong = format!("env PIECEWORK_PASSWORD=wrong torrent-status --port {port}");
    let text = fails(dir.path(), &wrong, 1);
    assert!(text.contains("password") && !text.contains("sesame"), "{text}");
    daemon.signal(Signal::TERM);
    let (code, _, log) = daemon.ends();
    assert_eq!(code, Some(0));
    assert!(log.contains("password"), "others may read the file: {log}");
    assert!(!log.contains("sesame"), "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object(), "{line}");
    }
}
