//! `torrent-tracker` as a process: its pipe, its signals, its files, and its dialogue with our own
//! client.

#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

use piecework_core::PeerId;
use piecework_core::metainfo::{Metainfo, MetainfoBuilder};
use piecework_engine::tracker_client::{
    Catalogue, CatalogueError, ClientOptions, Holdings, TrackerClient,
};
use piecework_proto::announce::catalogue::RegisterOptions;
use piecework_proto::announce::{Announce, AnnounceEvent, TrackerTarget};
use piecework_tracker::{ConsoleReply, TrackerConfig, TrackerServer};

struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<std::process::ChildStdout>,
    addr: SocketAddr,
}

impl Program {
    fn start(dir: &Path) -> Self {
        Self::start_as(&mut command(dir))
    }

    fn start_as(command: &mut Command) -> Self {
        let mut child = command
            .args(["--port", "0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let addr = addr.unwrap_or_else(|| panic!("`{line}` names no address")).parse().unwrap();
        Self { child, stdin, stdout, addr }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torrent-tracker"));
    command.current_dir(dir).env_clear();
    command
}

fn torrent(name: &str) -> Metainfo {
    MetainfoBuilder::single_file(name, 3 << 14).piece_len(1 << 14).build(vec![7; 60]).unwrap()
}

#[test]
fn the_end_of_a_pipe_does_not_end_the_tracker_but_a_signal_does() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut program = Program::start(dir.path());
        program.type_line("file_logs>x");
        let mut line = String::new();
        program.stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "no file named `x` is known to this tracker\n");
        program.stdin = None;
        assert!(program.get("/").ends_with(concat!("tracker ", env!("CARGO_PKG_VERSION"), "\n")));
        program.signal(signal);
        let (status, _) = program.end();
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_service_manager_learns_when_the_tracker_is_ready_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let program = Program::start_as(command(dir.path()).env("NOTIFY_SOCKET", &path));
    let ready = next();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(ready.contains(&format!("http://{}/announce", program.addr)), "{ready}");
    program.signal(rustix::process::Signal::TERM);
    assert!(next().starts_with("STOPPING=1\n"));
    assert_eq!(program.end().0.code(), Some(0));
}

#[test]
fn quit_ends_it_and_everything_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("torrents")).unwrap();
    std::fs::write(dir.path().join("torrents/a.torrent"), torrent("a").bytes().unwrap().as_ref())
        .unwrap();
    let mut program = Program::start(dir.path());
    let hash: String =
        torrent("a").info_hash().0.iter().map(|byte| format!("%{byte:02x}")).collect();
    let announce = |port: u16| {
        format!("/announce?info_hash={hash}&peer_id=-PW0100-abcdefghijkl&port={port}&left=0")
    };
    program.get(&format!("{}&event=completed", announce(1001)));
    program.type_line(">quit");
    assert_eq!(program.end().0.code(), Some(0));
    let mut program = Program::start(dir.path());
    program.type_line("file_logs a");
    program.type_line("quit");
    let (_, text) = program.end();
    assert!(text.contains("1 complete, 0 incomplete, 1 download\n"), "{text}");
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let first = Program::start(dir.path());
    let fails = |args: &[&str]| {
        let output = command(dir.path()).args(args).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        (output.status.code(), text)
    };
    let (code, text) = fails(&[&first.addr.to_string()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("error: cannot listen on") && text.contains("for HTTP"), "{text}");
    std::fs::write(dir.path().join("file"), "").unwrap();
    std::fs::write(dir.path().join("c.toml"), "[tracker]\ntorrents = \"file\"\nstate = \"\"\n")
        .unwrap();
    let (code, text) = fails(&["--port", "0", "--config", "c.toml"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("file` cannot be used"), "{text}");
    std::fs::write(dir.path().join("c.toml"), "[tracker]\ngrace = \"soon\"\n").unwrap();
    let (code, text) = fails(&["--config", "c.toml"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("`soon` is not a time"), "{text}");
    first.signal(rustix::process::Signal::TERM);
    assert_eq!(first.end().0.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_client_registers_announces_reports_fetches_and_removes() {
    let tracker = TrackerServer::start(TrackerConfig::in_memory()).await.unwrap();
    let target = TrackerTarget::parse(&tracker.local_addr().to_string()).unwrap();
    let catalogue = Catalogue::new(target.catalogue.as_deref().unwrap()).unwrap();
    let a = torrent("Füße & Co?.bin");
    let options = RegisterOptions {
        name: Some("näme = 100 %".to_owned()),
        description: Some("a+b".to_owned()),
        ..RegisterOptions::default()
    };
    let registered =
        catalogue.register(a.bytes().unwrap().as_ref(), options.clone()).await.unwrap();
    assert_eq!((registered.info_hash, registered.name.as_str()), (a.info_hash(), "näme = 100 %"));
    assert_eq!(catalogue.register(a.bytes().unwrap().as_ref(), options).await.unwrap().token, None);
    let listed = catalogue.list(Some("näme = 100 %")).await.unwrap();
    assert_eq!((listed.len(), listed[0].description.as_deref()), (1, Some("a+b")));
    assert_eq!(catalogue.fetch(a.info_hash()).await.unwrap(), *a.bytes().unwrap().as_ref());

    let client = TrackerClient::new(ClientOptions::default()).unwrap();
    let (udp, http) = (&target.tiers[0][0], &target.tiers[1][0]);
    let peer_id = PeerId(*b"-PW0100-abcdefghijkl");
    let mut announce = Announce::new(a.info_hash(), peer_id, 1001, 1 << 14);
    announce.key = Some(0xabc.into());
    announce.event = AnnounceEvent::Started;
    assert!(client.announce(udp, &announce).await.unwrap().peers.is_empty());
    let held = Holdings { peer_id, port: 1001, key: 0xabc.into(), bitfield: &[0b1010_0000] };
    catalogue.report_holdings(a.info_hash(), held).await.unwrap();
    let wrong = catalogue.report_holdings(a.info_hash(), Holdings { key: 1.into(), ..held }).await;
    assert!(matches!(wrong, Err(CatalogueError::Refused { status: 403, .. })), "{wrong:?}");
    let other = Announce::new(a.info_hash(), PeerId(*b"-PW0100-ABCDEFGHIJKL"), 1002, 0);
    let reply = client.announce(http, &other).await.unwrap();
    assert_eq!(reply.peers, [SocketAddr::from(([127, 0, 0, 1], 1001))]);
    assert_eq!((reply.complete, reply.incomplete), (1, 1));
    assert_eq!(reply.external_ip, Some([127, 0, 0, 1].into()));
    for tracker in [udp, http] {
        let counts = client.scrape(tracker, &[a.info_hash()]).await.unwrap();
        assert_eq!((counts.entries[0].1.complete, counts.entries[0].1.incomplete), (1, 1));
    }
    let ConsoleReply::Text(shown) = tracker.console("file_logs näme = 100 %") else { panic!() };
    assert!(shown.contains(" 0,2 ") && shown.contains("reported"), "{shown}");

    let denied = catalogue.remove(a.info_hash(), "wrong").await;
    assert!(matches!(denied, Err(CatalogueError::Refused { status: 403, .. })), "{denied:?}");
    catalogue.remove(a.info_hash(), &registered.token.unwrap()).await.unwrap();
    let gone = catalogue.fetch(a.info_hash()).await;
    assert!(matches!(gone, Err(CatalogueError::NotFound(_))), "{gone:?}");
    tracker.shutdown().await;
}
