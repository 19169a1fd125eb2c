//! The methods, carried out by the daemon.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::fields::Field;
use super::groups;
use super::ids::Selection;
use super::memory::{Memory, TorrentMemory};
use super::method::Method;
use super::protocol::{Core, Found};
use super::rows::Rows;
use super::session::{self, Facts, SettingsRequest};
use super::session_id::SessionIds;
use super::torrent_add::{absolute, new_torrent};
use super::torrent_set;
use piecework_api::{MoveRequest, QueueMove, RemoveRequest, RenameRequest, SettingsChange};
use piecework_core::InfoHash;
use piecework_daemon::{Caller, Daemon, DaemonError};

/// What answers: the daemon, and what is remembered between requests.
#[derive(Clone)]
pub(super) struct Rpc {
    daemon: Daemon,
    /// Somebody wants the daemon to end.
    ask: watch::Sender<bool>,
    memory: Arc<Mutex<Memory>>,
    ids: Arc<Mutex<SessionIds>>,
}

/// The arguments of a method's answer, or why it failed.
type Outcome = Result<Map<String, Value>, Fault>;

impl Core for Rpc {
    type Rows = Rows;

    async fn call(&self, method: Method, params: Map<String, Value>) -> Result<Found<Rows>, Fault> {
        let given = &Arguments::new(params);
        if method == Method::TorrentGet {
            return self.torrent_get(given);
        }
        Ok(Found { map: self.carry_out(method, given).await?, rows: None })
    }
}

impl Rpc {
    /// Carries out what tells of no single torrents.
    async fn carry_out(&self, method: Method, given: &Arguments) -> Outcome {
        match method {
            Method::TorrentGet => Ok(Map::new()),
            Method::TorrentSet => self.torrent_set(given).await,
            Method::TorrentAdd => self.torrent_add(given).await,
            Method::TorrentRemove => {
                let delete_data = given.flag("delete_local_data")?.unwrap_or(false);
                let request = RemoveRequest { delete_data, unregister: false };
                self.each(given, |hash| self.daemon.remove(hash, request)).await
            }
            Method::TorrentStart => {
                self.each(given, |hash| self.daemon.start_torrent(hash, false)).await
            }
            Method::TorrentStartNow => {
                self.each(given, |hash| self.daemon.start_torrent(hash, true)).await
            }
            Method::TorrentStop => self.each(given, |hash| self.daemon.pause(hash)).await,
            Method::TorrentVerify => self.each(given, |hash| self.daemon.recheck(hash)).await,
            Method::TorrentReannounce => {
                self.each(given, |hash| self.daemon.reannounce(hash)).await
            }
            Method::TorrentSetLocation => self.torrent_set_location(given).await,
            Method::TorrentRenamePath => self.torrent_rename_path(given).await,
            Method::SessionGet => self.session_get(given).await,
            Method::SessionSet => self.session_set(given).await,
            Method::SessionStats => {
                let overview = self.daemon.summary();
                let started = unix_now().saturating_sub_unsigned(overview.uptime);
                Ok(session::stats(&overview, self.daemon.added_since(started)))
            }
            Method::SessionClose => {
                self.ask.send_replace(true);
                Ok(Map::new())
            }
            Method::BlocklistUpdate => {
                let size = self.daemon.reload_block_list().await?;
                Ok(object(json!({"blocklist_size": size})))
            }
            Method::PortTest => self.port_test(given).await,
            Method::QueueMoveTop => self.queue_move(given, QueueMove::Top).await,
            Method::QueueMoveUp => self.queue_move(given, QueueMove::Up).await,
            Method::QueueMoveDown => self.queue_move(given, QueueMove::Down).await,
            Method::QueueMoveBottom => self.queue_move(given, QueueMove::Bottom).await,
            Method::FreeSpace => self.free_space(given).await,
            Method::GroupGet => Ok(groups::get(given, &self.memory.lock().groups)),
            Method::GroupSet => groups::set(given, &mut self.memory.lock().groups),
        }
    }

    pub(super) fn new(daemon: Daemon, ask: watch::Sender<bool>) -> Self {
        let ids = Arc::new(Mutex::new(SessionIds::new(Instant::now())));
        Self { daemon, ask, memory: Arc::default(), ids }
    }

    /// The same, asked by `caller`.
    pub(super) fn for_caller(&self, caller: Caller) -> Self {
        Self { daemon: self.daemon.for_caller(caller), ..self.clone() }
    }

    /// The word that requests must bring.
    pub(super) fn session_id(&self) -> String {
        self.ids.lock().current(Instant::now()).to_owned()
    }

    /// Whether a request with this word may go on.
    pub(super) fn accepts(&self, session_id: &[u8]) -> bool {
        self.ids.lock().accepts(session_id, Instant::now())
    }

    /// The torrents the request means, in the order of the queue.
    fn selected(&self, given: &Arguments) -> Vec<InfoHash> {
        let selection = Selection::read(given);
        let recent = match selection.needs_recent() {
            true => self.daemon.changed_since(unix_now() - RECENTLY),
            false => Vec::new(),
        };
        match selection.pick(recent, || self.daemon.numbers()) {
            Some(meant) => self.daemon.in_order(meant),
            None => self.daemon.hashes(),
        }
    }

    pub(super) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// What is remembered of a torrent.
    pub(super) fn remembered(&self, info_hash: InfoHash) -> TorrentMemory {
        self.memory.lock().torrents.get(&info_hash).cloned().unwrap_or_default()
    }

    /// Does something with each torrent the request means, and tells the first thing that went
    /// wrong. One that has gone meanwhile is as if it had not been named.
    async fn each<F>(&self, given: &Arguments, act: impl Fn(InfoHash) -> F) -> Outcome
    where
        F: Future<Output = Result<(), DaemonError>>,
    {
        let mut first = None;
        for info_hash in self.selected(given) {
            match act(info_hash).await {
                Ok(()) | Err(DaemonError::Unknown(_)) => {}
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        first.map_or_else(|| Ok(Map::new()), |error| Err(error.into()))
    }

    /// What is told of the torrents the request means; the torrents themselves come row by row.
    fn torrent_get(&self, given: &Arguments) -> Result<Found<Rows>, Fault> {
        let names = given.list("fields")?.unwrap_or_default();
        let mut fields: Vec<&Field> = Vec::new();
        for field in names.iter().filter_map(Value::as_str).filter_map(Field::named) {
            if !fields.iter().any(|known| known.name == field.name) {
                fields.push(field);
            }
        }
        if fields.is_empty() {
            return Err(Fault::new(Code::InvalidParams, "no fields specified"));
        }
        let table = given.text("format")? == Some("table");
        let mut map = Map::new();
        if Selection::read(given).is_recently_active() {
            let gone = self.daemon.removed_since(unix_now() - RECENTLY);
            let gone: Vec<u64> = gone.into_iter().filter_map(|(_, id)| id).collect();
            map.insert("removed".to_owned(), json!(gone));
        }
        let rows = Rows { rpc: self.clone(), fields, table, hashes: self.selected(given) };
        Ok(Found { map, rows: Some(rows) })
    }

    async fn torrent_set(&self, given: &Arguments) -> Outcome {
        let location = given.text("location")?.map(absolute).transpose()?;
        for hash in self.selected(given) {
            match self.change(given, hash).await {
                Err(error) if error == Fault::from(DaemonError::Unknown(hash)) => continue,
                changed => changed?,
            }
            if let Some(folder) = &location {
                let request = MoveRequest { folder: folder.clone(), find: false };
                self.daemon.move_data(hash, request).await?;
            }
        }
        self.forget_what_is_gone();
        Ok(Map::new())
    }

    /// Changes one torrent.
    async fn change(&self, given: &Arguments, hash: InfoHash) -> Result<(), Fault> {
        let detail = self.daemon.detail(hash).await?;
        let mut memory = self.memory.lock().torrents.get(&hash).cloned().unwrap_or_default();
        let change = torrent_set::change(given, &detail, &mut memory)?;
        if change != piecework_api::TorrentChange::default() {
            self.daemon.change(hash, change).await?;
        }
        self.memory.lock().torrents.insert(hash, memory);
        Ok(())
    }

    /// Nothing is remembered of torrents that are gone.
    fn forget_what_is_gone(&self) {
        self.memory.lock().torrents.retain(|hash, _| self.daemon.torrent(*hash).is_some());
    }

    async fn torrent_add(&self, given: &Arguments) -> Outcome {
        let new = new_torrent(given, &self.daemon.settings())?;
        let added = self.daemon.add(new).await?;
        let key = if added.duplicate { "torrent_duplicate" } else { "torrent_added" };
        let hash = added.info_hash.to_string();
        Ok(object(json!({key: {"id": added.id, "name": added.name, "hash_string": hash}})))
    }

    async fn torrent_set_location(&self, given: &Arguments) -> Outcome {
        let Some(location) = given.text("location")? else {
            return Err(Fault::new(Code::InvalidParams, "no location"));
        };
        let folder = absolute(location)?;
        let find = !given.flag("move")?.unwrap_or(false);
        let request = MoveRequest { folder, find };
        self.each(given, |hash| self.daemon.move_data(hash, request.clone())).await
    }

    async fn torrent_rename_path(&self, given: &Arguments) -> Outcome {
        let [info_hash] = self.selected(given)[..] else {
            return Err(Fault::new(Code::InvalidParams, "torrent_rename_path requires 1 torrent"));
        };
        let torrent = self.daemon.shown(info_hash)?;
        let (path, name) = (given.text("path")?, given.text("name")?);
        let (Some(path), Some(name)) = (path, name) else {
            return Err(Fault::new(Code::InvalidParams, "`path` and `name` are needed"));
        };
        let result = object(json!({"id": torrent.id, "path": path, "name": name}));
        let request = RenameRequest { path: path.to_owned(), name: name.to_owned() };
        match self.daemon.rename(torrent.info_hash, request).await {
            Ok(()) => Ok(result),
            Err(error) => Err(Fault::new(Code::System, error.to_string()).with_result(result)),
        }
    }

    async fn queue_move(&self, given: &Arguments, to: QueueMove) -> Outcome {
        self.daemon.move_in_queue(&self.selected(given), to).await?;
        Ok(Map::new())
    }

    async fn session_get(&self, given: &Arguments) -> Outcome {
        let fields = given.list("fields")?.unwrap_or_default();
        let fields: Vec<&str> = fields.iter().filter_map(Value::as_str).collect();
        let wanted = |key: &str| fields.is_empty() || fields.contains(&key);
        let settings = self.daemon.settings();
        let mut facts = self.facts();
        if wanted("download_dir_free_space") {
            let space = self.daemon.free_space(&settings.downloads).await;
            // A disk that cannot be asked must not hide all the rest: it is told as -1.
            facts.free = space.ok().map(|space| space.free);
        }
        let mut told = session::told(&settings, &facts, &self.memory.lock().session);
        told.retain(|key, _| wanted(key));
        Ok(told)
    }

    async fn session_set(&self, given: &Arguments) -> Outcome {
        let mut figures = self.memory.lock().session.clone();
        let settings = self.daemon.settings();
        let facts = self.facts();
        let SettingsRequest { change, mut refused } =
            session::requested_changes(given, &settings, &facts, &mut figures);
        if !change.0.is_empty() {
            refused.extend(self.change_what_can_be(change).await?);
        }
        self.memory.lock().session = figures;
        session::partial(refused).map(|()| Map::new())
    }

    /// Changes settings, all at once if that can be, else one by one; returns why some cannot be.
    async fn change_what_can_be(&self, change: SettingsChange) -> Result<Vec<Fault>, Fault> {
        match self.daemon.change_settings(change.clone()).await {
            Ok(_) => return Ok(Vec::new()),
            // About one of them.
            Err(
                DaemonError::Invalid(_)
                | DaemonError::OwnerOnly(_)
                | DaemonError::Forbidden(_)
                | DaemonError::Conflict(_)
                | DaemonError::Occupied(_)
                | DaemonError::NotFound(_)
                | DaemonError::Storage(_),
            ) => {}
            Err(error) => return Err(error.into()),
        }
        let mut refused = Vec::new();
        for pair in change.0 {
            let one = SettingsChange([pair].into_iter().collect());
            if let Err(error) = self.daemon.change_settings(one).await {
                refused.push(error.into());
            }
        }
        Ok(refused)
    }

    fn facts(&self) -> Facts {
        Facts {
            peer_port: self.daemon.peer_port(),
            block_list_len: self.daemon.block_list_len(),
            free: None,
            session_id: self.session_id(),
            pex: self.daemon.exchanges_peers(),
            lpd: self.daemon.announces_locally(),
        }
    }

    async fn port_test(&self, given: &Arguments) -> Outcome {
        let protocol = given.text("ip_protocol")?;
        if !matches!(protocol, None | Some("ipv4" | "ipv6")) {
            return Err(Fault::new(Code::InvalidParams, "invalid ip protocol string"));
        }
        let test = self.daemon.port_test().await;
        let mut result = object(json!({"port_is_open": test.open}));
        let addr = test.addr.as_deref().and_then(|addr| addr.parse().ok());
        if let Some(addr) = addr {
            let tested = if std::net::SocketAddr::is_ipv4(&addr) { "ipv4" } else { "ipv6" };
            result.insert("ip_protocol".to_owned(), json!(tested));
        }
        Ok(result)
    }

    async fn free_space(&self, given: &Arguments) -> Outcome {
        let Some(path) = given.text("path")? else {
            return Err(Fault::new(Code::InvalidParams, "directory path argument is missing"));
        };
        let result = |free: Value, total: Value| {
            object(json!({"path": path, "size_bytes": free, "total_size": total}))
        };
        match self.daemon.free_space(&absolute(path)?).await {
            Ok(space) => Ok(result(json!(space.free), json!(space.total))),
            Err(error) => {
                let fault = Fault::new(Code::System, error.to_string());
                Err(fault.with_result(result(json!(-1), json!(-1))))
            }
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Seconds for which a torrent counts as recently active: as Transmission has it.
const RECENTLY: i64 = 60;
