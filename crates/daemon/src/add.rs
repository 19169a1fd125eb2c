//! Adding torrents.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::book::{Body, Entry, unix_now};
use super::catalogue::Tracker;
use super::files;
use super::hooks::Hook;
use super::inner::{Inner, blocking};
use super::kept::Kept;
use super::making::HashWork;
use super::roots::shown;
use super::start::Extra;
use super::{AddSource, Caller, DaemonError, NewTorrent, rename};
use crate::state::{Counters, Saved};
use piecework_api::{
    Added, LeechRequest, RenameRequest, Source, TorrentSettings, parse_file_ranges,
};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, Priority, Scope, Unwritable, base64};
use piecework_engine::tracker_client::{self, FetchError, UnknownPeer, fetch};
use piecework_proto::announce::catalogue::{MAX_TORRENT_LEN, MAX_UPLOAD_LEN};
use piecework_proto::announce::{
    self, AnnouncePlan, Magnet, NamedTrackers, PeerName, PeerNameError, Provenance, TrackerTarget,
    TrackerUrl,
};
use piecework_storage::disk_names;

/// A torrent whose `.torrent` is at hand, to be added.
pub(super) struct Ready {
    pub metainfo: Arc<Metainfo>,
    pub root: std::path::PathBuf,
    pub kept: Kept,
    pub extra: Extra,
}

/// The place that a torrent has had until its files were hashed.
struct Place {
    provisional: InfoHash,
    added_at: i64,
}

/// A torrent that was asked for.
pub(super) struct Found {
    pub metainfo: Arc<Metainfo>,
    /// The tracker whose catalogue has it.
    pub tracker: Option<Tracker>,
    /// It came from a private network or this machine.
    pub nearby: bool,
    /// The magnet link that it was found by.
    pub magnet: Option<Magnet>,
}

impl Found {
    pub fn new(metainfo: Arc<Metainfo>, tracker: Option<Tracker>, nearby: bool) -> Self {
        Self { metainfo, tracker, nearby, magnet: None }
    }
}

/// Returns the addresses of peers, `IP:PORT` or `HOST:PORT`.
pub(super) async fn look_up_peers(peers: &[String]) -> Result<Vec<SocketAddr>, DaemonError> {
    if peers.len() > MAX_PEERS {
        return Err(DaemonError::Invalid(format!(
            "`{}` peers are more than the `{MAX_PEERS}` taken",
            peers.len()
        )));
    }
    let names = peers.iter().map(|peer| {
        peer.parse().map_err(|error: PeerNameError| {
            let shown = error.0.chars().take(MAX_SHOWN).collect();
            DaemonError::Invalid(PeerNameError(shown).to_string())
        })
    });
    let names: Vec<PeerName> = names.collect::<Result<_, _>>()?;
    if names.iter().filter(|name| name.host.parse::<IpAddr>().is_err()).count() > MAX_NAMES {
        return Err(DaemonError::Invalid(format!(
            "more than `{MAX_NAMES}` peers are given by name"
        )));
    }
    let addrs = tracker_client::look_up_peers(&names).await;
    addrs.map_err(|error| DaemonError::Invalid(error.to_string()))
}

/// Peers that one request may give by name: each is a question to the system's resolver.
const MAX_NAMES: usize = 16;

/// Characters of what is no peer that an error repeats.
const MAX_SHOWN: usize = 80;

impl Inner {
    /// Adds what the native API asks for.
    pub async fn leech(&self, request: LeechRequest, caller: Caller) -> Result<Added, DaemonError> {
        let (start_added, sequential) = {
            let book = self.book.lock();
            (book.settings.start_added, book.settings.sequential)
        };
        let peers = look_up_peers(&request.peers).await?;
        let source = source_of(request.source)?;
        let new = NewTorrent {
            source,
            folder: request.output,
            settings: TorrentSettings {
                paused: request.paused.unwrap_or(!start_added),
                upload_limit: request.upload_limit.filter(|limit| *limit > 0),
                download_limit: request.download_limit.filter(|limit| *limit > 0),
                max_peers: request.max_peers.filter(|most| *most > 0),
                bandwidth: request.bandwidth.unwrap_or_default(),
                sequential: request.sequential.unwrap_or(sequential),
                files: request.files,
                labels: request.labels,
                seed_ratio: request.seed_ratio,
                seed_time: request.seed_time,
                ..TorrentSettings::default()
            },
            only_files: request.only_files,
            trackers: request.trackers,
            peers,
            rename: request.rename,
            overwrite: request.overwrite,
        };
        self.add(new, caller).await
    }

    /// Adds a torrent.
    pub async fn add(&self, new: NewTorrent, caller: Caller) -> Result<Added, DaemonError> {
        self.is_open()?;
        let NewTorrent { source, folder, mut settings, only_files, trackers, mut peers, .. } = new;
        check_trackers(trackers.len())?;
        if new.overwrite {
            caller.must_own("overwriting files")?;
        }
        if let AddSource::Url(text) | AddSource::Catalogue { name: text, .. } = &source
            && let Ok(link) = Magnet::parse(text)
            && let Some(added) = self.duplicate(link.info_hash)
        {
            return Ok(added);
        }
        let Found { metainfo, tracker: found_at, nearby, magnet } =
            self.obtain(source, caller).await?;
        if let Some(added) = self.duplicate(metainfo.info_hash()) {
            return Ok(added);
        }
        let root = self.output_folder(folder.as_deref(), caller).await?;
        self.check_reach(caller, &root)?;
        let (torrent, folder) = (Arc::clone(&metainfo), root.clone());
        let raw = self.config.session.raw_names;
        let names = blocking(move || disk_names(&torrent, &folder, raw)).await?;
        settings.name_anew(metainfo.info().name(), names);
        if let Some(text) = only_files {
            settings.files = only(&metainfo, &text)?;
        }
        check_settings(&metainfo, &settings)?;
        let on_disk = settings.name.clone().unwrap_or_else(|| metainfo.info().name().to_owned());
        if let Some(name) = new.rename.filter(|name| *name != on_disk) {
            let request = RenameRequest { path: on_disk, name };
            let renamed = rename::plan(&metainfo, &settings, &request)?;
            (settings.renamed, settings.name) = (renamed.names, renamed.name);
        }
        let mut tiers = settings.trackers.take().unwrap_or_else(|| metainfo.trackers().to_vec());
        let known: Vec<String> = tiers.iter().flatten().cloned().collect();
        let more =
            trackers.into_iter().map(|name| Ok((parse_tracker(&name)?, caller.provenance())));
        let more = more.collect::<Result<Vec<_>, DaemonError>>()?;
        for (tiers, _) in &more {
            check_private(&metainfo, tiers)?;
        }
        // The tracker that handed the torrent out knows of it, private or not.
        let found_at = found_at.map(Tracker::into_tiers);
        let more = more.into_iter().chain(found_at);
        let mut named: Vec<Box<str>> = Vec::new();
        for (tier, by) in more.flat_map(|(tiers, by)| tiers.into_iter().map(move |t| (t, by))) {
            let mut tier: Vec<String> = tier.iter().map(|url| url.as_str().to_owned()).collect();
            if by == Provenance::Named {
                named.extend(tier.iter().map(|url| url.as_str().into()));
            }
            tier.retain(|url| !known.contains(url));
            if !tier.is_empty() {
                tiers.push(tier);
            }
        }
        let mut warnings = Vec::new();
        if let Some(magnet) = magnet {
            // A private torrent has the trackers that its maker gave it.
            let more = magnet.trackers.iter().filter(|_| !metainfo.info().is_private());
            for url in more.map(|url| url.as_str().to_owned()) {
                if !tiers.iter().flatten().any(|known| *known == url) {
                    tiers.push(vec![url]);
                }
            }
            if !metainfo.info().is_private() {
                let (known, unknown) = tracker_client::look_up_known_peers(&magnet.peers).await;
                peers.extend(known);
                warnings.extend(unknown.iter().map(UnknownPeer::to_string));
            }
            warnings.extend(magnet.unused);
        }
        settings.trackers = (tiers != metainfo.trackers()).then_some(tiers);
        let mut kept = Kept { settings: settings.into(), ..Kept::default() };
        let configured: Option<TrackerTarget> =
            self.config.tracker.as_deref().and_then(|name| name.parse().ok());
        let known = configured.map(|target| target.tiers.concat()).unwrap_or_default();
        // What the configuration names need not be kept for each torrent.
        named.retain(|url| !known.iter().any(|known| known.as_str() == &**url));
        kept.rare.change(|rare| (rare.named, rare.nearby) = (Some(named), nearby));
        if new.overwrite {
            kept.rare.change(|rare| rare.overwrite = true);
        }
        let extra = Extra { peers, new: true, ..Extra::default() };
        let mut added = self.admit(Ready { metainfo, root, kept, extra }).await?;
        added.warnings.splice(0..0, warnings);
        Ok(added)
    }

    /// Puts a torrent into the folder, the state and the engine.
    pub async fn admit(&self, ready: Ready) -> Result<Added, DaemonError> {
        let _door = self.door(ready.metainfo.info_hash()).await;
        self.admit_at_door(ready, None).await
    }

    /// The same for a torrent whose files were hashed, in the place that it has under its provisional
    /// info-hash, with what was chosen for it meanwhile.
    pub async fn admit_hashed(
        &self,
        provisional: InfoHash,
        work: &Arc<HashWork>,
        mut ready: Ready,
    ) -> Result<Added, DaemonError> {
        let info_hash = ready.metainfo.info_hash();
        let _doors = self.doors(provisional, info_hash).await;
        if !self.is_at(provisional, work) {
            return Err(DaemonError::Ending);
        }
        let (kept, added_at, file) = self.with(provisional, |entry| {
            (entry.kept.clone(), entry.added_at, entry.file().into_owned())
        })?;
        let fresh = std::mem::replace(&mut ready.kept.settings, kept.settings);
        let settings = &mut *ready.kept.settings;
        settings.name.clone_from(&fresh.name);
        settings.renamed.clone_from(&fresh.renamed);
        match settings.trackers {
            None => settings.trackers.clone_from(&fresh.trackers),
            Some(_) => ready.kept.rare.change(|rare| rare.named.clone_from(&kept.rare.named)),
        }
        ready.kept.rank = kept.rank;
        let added = self.admit_at_door(ready, Some(Place { provisional, added_at })).await?;
        if added.duplicate {
            let mut book = self.book.lock();
            book.take(provisional, unix_now());
            book.lead(provisional, info_hash);
        }
        self.forget_provisional(provisional, &file).await;
        Ok(added)
    }

    async fn admit_at_door(
        &self,
        ready: Ready,
        place: Option<Place>,
    ) -> Result<Added, DaemonError> {
        let Ready { metainfo, root, mut kept, extra } = ready;
        let info_hash = metainfo.info_hash();
        self.is_open()?;
        if let Some(added) = self.duplicate(info_hash) {
            return Ok(added);
        }
        let (folder, written) = (self.config.torrents.clone(), Arc::clone(&metainfo));
        let file = blocking(move || files::put(&folder, &written)).await?.map_err(|error| {
            let folder = shown(&self.config.torrents);
            let sentence = format!("the torrent cannot be kept in `{folder}`: {error}");
            match Unwritable::of(&error) {
                Some(Unwritable::Full) => DaemonError::StateFull(sentence),
                _ => DaemonError::State(sentence),
            }
        })?;
        // Its place is taken before anything that takes time, so that ranks are those of the calls.
        {
            let mut book = self.book.lock();
            if place.is_none() {
                kept.rank = book.order.push(info_hash);
            }
            let suffix = book.settings.incomplete_suffix.clone();
            kept.rare.change(|rare| rare.suffix = Some(suffix.into()));
        }
        let saved = Saved {
            info_hash,
            file,
            root,
            added_at: place.as_ref().map_or_else(unix_now, |place| place.added_at),
            done_at: None,
            settings: kept.to_text(),
            checkpoint: None,
            counters: Counters::default(),
        };
        let added = match self.state.put(saved.clone()).await {
            Ok(()) => match self.enter(&metainfo, &saved, &kept, extra).await {
                Ok(body) => Ok(self.enlist(info_hash, &saved, kept.clone(), body, place.as_ref())),
                Err(broken) => {
                    // It was never there: what was written goes again.
                    if let Err(error) = self.state.remove(info_hash).await {
                        tracing::warn!(%error, "a torrent that was not added stays in the state");
                    }
                    Err(DaemonError::Conflict(broken.error))
                }
            },
            Err(error) => Err(error.into()),
        };
        if added.is_err() {
            if place.is_none() {
                self.book.lock().order.remove(kept.rank);
            }
            // A file that stays behind harms nobody.
            let _ = std::fs::remove_file(self.config.torrents.join(&saved.file));
        }
        let (id, name) = added?;
        self.keep_mounts().await;
        self.ears.changed(info_hash);
        self.wake.notify_one();
        self.run_hook(Hook::Added, info_hash);
        let mut warnings: Vec<String> = self.lack_of_room(info_hash).await.into_iter().collect();
        warnings.extend(announce::unusable(metainfo.trackers()));
        match blocking(move || metainfo.notices()).await? {
            Ok(notices) => warnings.extend(notices),
            Err(error) => tracing::warn!(%error, "what was repaired in a torrent is not known"),
        }
        Ok(Added { info_hash, id, name, duplicate: false, tracker: None, warnings })
    }

    /// What is said of a torrent that is here already.
    pub fn duplicate(&self, info_hash: InfoHash) -> Option<Added> {
        let book = self.book.lock();
        let entry = book.torrents.get(&info_hash)?;
        Some(Added {
            info_hash,
            id: entry.id,
            name: entry.name().to_owned(),
            duplicate: true,
            tracker: entry.kept.rare.tracker.clone().map(String::from),
            warnings: Vec::new(),
        })
    }

    fn enlist(
        &self,
        info_hash: InfoHash,
        saved: &Saved,
        kept: Kept,
        body: Body,
        place: Option<&Place>,
    ) -> (u64, String) {
        let mut book = self.book.lock();
        let before = place.and_then(|place| book.torrents.get(&place.provisional)).map(|it| it.id);
        let id = before.unwrap_or_else(|| book.new_id());
        let entry = Box::new(Entry::new(id, saved, kept, body, Instant::now()));
        let name = entry.name().to_owned();
        match place {
            Some(place) => book.settle(place.provisional, info_hash, entry),
            None => book.enter(info_hash, entry),
        }
        book.totals.added += 1;
        book.fresh.push(info_hash);
        (id, name)
    }

    /// The torrent in `source`.
    pub(super) async fn obtain(
        &self,
        source: AddSource,
        caller: Caller,
    ) -> Result<Found, DaemonError> {
        let mut nearby = false;
        // What is read and parsed at a time is bounded.
        let _place = self.fetching(caller).await?;
        let bytes = match source {
            AddSource::Url(text) if Magnet::is_meant(&text) => {
                return self.resolve(&text, None, caller).await;
            }
            AddSource::Catalogue { name, tracker } if Magnet::is_meant(&name) => {
                return self.resolve(&name, tracker.as_deref(), caller).await;
            }
            AddSource::Bytes(bytes) => bytes,
            AddSource::File(path) => {
                caller.must_own("adding a `.torrent` by its path on the daemon's machine")?;
                if !path.is_absolute() {
                    let shown = shown(&path);
                    return Err(DaemonError::Invalid(format!(
                        "the path `{shown}` is not absolute"
                    )));
                }
                blocking(move || files::read_bounded(&path))
                    .await?
                    .map_err(DaemonError::NotFound)?
            }
            AddSource::Url(url) => {
                let (bytes, scope) = fetch_torrent(url.trim(), caller).await?;
                nearby = is_near(scope);
                bytes
            }
            AddSource::Catalogue { name, tracker } => {
                let tracker = self.tracker_named(tracker.as_deref(), caller)?;
                let (metainfo, scope) = tracker.find(&name).await?;
                return Ok(Found::new(Arc::new(metainfo), Some(tracker), is_near(scope)));
            }
        };
        // Megabytes of bencode and a hash over them.
        Ok(Found::new(blocking(move || parse(&bytes)).await??, None, nearby))
    }

    /// The tracker that `caller` names, or that of the configuration.
    pub fn tracker_named(
        &self,
        named: Option<&str>,
        caller: Caller,
    ) -> Result<Tracker, DaemonError> {
        let configured = self.config.tracker.as_deref();
        match (named, configured) {
            (Some(named), _) if Some(named) != configured => {
                Tracker::named_by(caller.provenance(), named)
            }
            (_, Some(configured)) => Tracker::named(configured),
            _ => Err(DaemonError::Invalid(
                "no tracker is configured: name one, as IP:PORT or URL".to_owned(),
            )),
        }
    }
}

/// Where a torrent is that the native API names.
pub(super) fn source_of(source: Source) -> Result<AddSource, DaemonError> {
    Ok(match source {
        Source::Torrent(text) => AddSource::Bytes(decode(&text)?),
        Source::Catalogue { name, tracker } => AddSource::Catalogue { name, tracker },
        Source::File(path) => AddSource::File(path),
        Source::Url(url) => AddSource::Url(url),
    })
}

/// Whether an address of that scope lies in the own network.
pub(super) fn is_near(scope: Scope) -> bool {
    matches!(scope, Scope::Private | Scope::Loopback)
}

/// The bytes of the `.torrent` at a web address, and the scope of where they came from.
pub(super) async fn fetch_torrent(
    url: &str,
    caller: Caller,
) -> Result<(Vec<u8>, Scope), DaemonError> {
    // A guest's may be as long as what it may send.
    let (limit, time) = match caller {
        Caller::Local | Caller::Owner => (MAX_TORRENT_LEN, FETCH),
        Caller::Guest => (MAX_UPLOAD_LEN, FETCH / 4),
    };
    let fetched = fetch(url, caller.provenance(), limit, time).await;
    fetched.map_err(|error| match error {
        FetchError::Address { .. } => DaemonError::Invalid(error.to_string()),
        FetchError::Outside { .. } => DaemonError::Forbidden(error.to_string()),
        FetchError::Failed { .. } => DaemonError::Upstream(error.to_string()),
    })
}

/// The torrent in these bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Arc<Metainfo>, DaemonError> {
    Metainfo::parse(bytes, &ParseLimits::default())
        .map(Arc::new)
        .map_err(|error| DaemonError::Invalid(error.to_string()))
}

/// The bytes that `text` holds in base64.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, DaemonError> {
    if text.len() / 4 * 3 > MAX_TORRENT_LEN + 3 {
        return Err(DaemonError::Invalid(format!(
            "the torrent has some `{}` bytes, more than the `{MAX_TORRENT_LEN}` taken",
            text.len() / 4 * 3
        )));
    }
    base64::decode(text).ok_or_else(|| DaemonError::Invalid("the torrent is not base64".to_owned()))
}

/// The tracker people call `name`, in tiers.
pub(super) fn parse_tracker(name: &str) -> Result<Vec<Vec<TrackerUrl>>, DaemonError> {
    let target = piecework_proto::announce::TrackerTarget::parse(name);
    target.map(|target| target.tiers).map_err(|error| DaemonError::Invalid(error.to_string()))
}

/// Priorities by which only the files in `text` are wanted.
pub(super) fn only(metainfo: &Metainfo, text: &str) -> Result<Vec<Priority>, DaemonError> {
    let count = shown_files(metainfo);
    let chosen = parse_file_ranges(text, count).map_err(DaemonError::Invalid)?;
    let mut files = vec![Priority::Skip; count as usize];
    for file in chosen {
        files[file as usize] = Priority::Normal;
    }
    Ok(files)
}

/// Files that are not padding.
pub(super) fn shown_files(metainfo: &Metainfo) -> u32 {
    let entries = metainfo.info().files().entries();
    u32::try_from(entries.iter().filter(|file| !file.padding).count()).unwrap_or(u32::MAX)
}

/// Refuses what makes no sense or is too much to keep.
pub(super) fn check_settings(
    metainfo: &Metainfo,
    settings: &TorrentSettings,
) -> Result<(), DaemonError> {
    let files = shown_files(metainfo);
    if settings.files.len() > files as usize {
        return Err(DaemonError::Invalid(format!(
            "there are `{}` priorities for `{files}` files",
            settings.files.len()
        )));
    }
    check_words(settings)
}

/// The same of what has nothing to do with its files.
pub(super) fn check_words(settings: &TorrentSettings) -> Result<(), DaemonError> {
    let too_long = |label: &String| label.len() > MAX_LABEL;
    if settings.labels.len() > MAX_LABELS || settings.labels.iter().any(too_long) {
        return Err(DaemonError::Invalid(format!(
            "there may be `{MAX_LABELS}` labels of `{MAX_LABEL}` bytes each"
        )));
    }
    if settings.group.as_ref().is_some_and(|group| group.len() > MAX_LABEL) {
        return Err(DaemonError::Invalid(format!(
            "the name of a group may have `{MAX_LABEL}` bytes"
        )));
    }
    let ratio_ok = |ratio: f64| ratio.is_finite() && ratio >= 0.0;
    if let piecework_api::SeedLimit::At(ratio) = settings.seed_ratio
        && !ratio_ok(ratio)
    {
        return Err(DaemonError::Invalid(format!("the ratio `{ratio}` is not 0 or more")));
    }
    Ok(())
}

/// Refuses trackers that a private torrent does not name.
fn check_private(metainfo: &Metainfo, tiers: &[Vec<TrackerUrl>]) -> Result<(), DaemonError> {
    let info = metainfo.info();
    let named = NamedTrackers { tiers, explicit: true, publish_private: false };
    AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named)
        .map(drop)
        .map_err(|error| DaemonError::Invalid(error.to_string()))
}

/// Refuses more trackers named for one torrent than it could ever announce to.
pub(super) fn check_trackers(count: usize) -> Result<(), DaemonError> {
    if count > MAX_TRACKERS {
        return Err(DaemonError::Invalid(format!(
            "`{count}` trackers are more than the `{MAX_TRACKERS}` taken"
        )));
    }
    Ok(())
}

/// Trackers of one torrent: more than an announcer takes.
const MAX_TRACKERS: usize = 100;

/// Peers to begin with: a torrent remembers no more of its user's.
const MAX_PEERS: usize = 1_000;

/// Time for a web server to give a `.torrent`: 100 MiB at 900 KB/s. A guest's has a quarter of it.
const FETCH: Duration = Duration::from_secs(120);

/// Labels of a torrent, and bytes of each: they are shown in lists.
const MAX_LABELS: usize = 100;
const MAX_LABEL: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_that_cannot_be_asked_are_named() {
        let urls = ["http://t.example/announce", "wss://t.example", "no\u{1b} address", ""];
        let tiers = [urls.map(str::to_owned).to_vec()];
        let told = announce::unusable(&tiers);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("its tracker `wss://t.example` is not used: "), "{told:?}");
        assert!(told.iter().all(|sentence| !sentence.contains('\u{1b}')));
    }
}
