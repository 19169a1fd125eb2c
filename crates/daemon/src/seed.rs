//! Sharing what is on this machine.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::add::{Ready, check_trackers, check_words, parse, parse_tracker};
use super::book::unix_now;
use super::caller::Caller;
use super::catalogue;
use super::inner::{Inner, blocking};
use super::kept::{Kept, Pending};
use super::making::HashWork;
use super::roots::{self, shown};
use super::start::Extra;
use super::{DaemonError, files};
use piecework_api::{Added, SeedRequest, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, name_of_text};
use piecework_engine::tracker_client::tier_texts;
use piecework_proto::announce::catalogue::{MAX_DESCRIPTION_LEN, MAX_NAME_LEN};
use piecework_proto::announce::{AnnouncePlan, NamedTrackers, TrackerUrl};
use piecework_storage::{
    CheckProgress, CreateError, CreateOptions, CreateProgress, CreatedTorrent, FileHandles,
    Selection, Store, StoreMode, StoreOptions, check, content_names, create, may_be_called,
    write_new,
};

/// What is to be shared, looked at.
pub(super) struct Shared {
    metainfo: Arc<Metainfo>,
    root: PathBuf,
    /// Files that have other names on disk than in the torrent.
    names: BTreeMap<usize, Vec<String>>,
    /// Symbolic links led to some of them.
    through_links: bool,
    warnings: Vec<String>,
    /// The torrent was made elsewhere.
    is_made: bool,
}

/// What a request asks for, looked at.
pub(super) struct Look {
    /// The file or folder, links resolved.
    pub input: PathBuf,
    /// Its own name, if it is a link.
    pub link: Option<String>,
    /// Where to announce, in tiers.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// The name of the tracker to register with.
    named: Option<String>,
    /// Who asked.
    caller: Caller,
}

impl Inner {
    /// Looks whether what is asked for may be done, as far as that can be told before it is hashed.
    pub async fn look_at(
        &self,
        request: &SeedRequest,
        caller: Caller,
    ) -> Result<Look, DaemonError> {
        let (input, link) = self.seed_input(&request.input).await?;
        let long = |text: &Option<String>, most| text.as_ref().is_some_and(|t| t.len() > most);
        if long(&request.name, MAX_NAME_LEN) || long(&request.description, MAX_DESCRIPTION_LEN) {
            return Err(DaemonError::Invalid(format!(
                "a name may have `{MAX_NAME_LEN}` bytes and a description `{MAX_DESCRIPTION_LEN}`"
            )));
        }
        let (tiers, named) = self.seed_trackers(&request.trackers)?;
        check_words(&TorrentSettings { labels: request.labels.clone(), ..Default::default() })?;
        if let Some(out) = &request.torrent_out {
            self.torrent_out(out, &input, caller).await?;
        }
        Ok(Look { input, link, tiers, named, caller })
    }

    /// Serves what was hashed in the place of the torrent that is listed as `provisional`, and
    /// registers it.
    pub async fn publish(
        &self,
        provisional: InfoHash,
        work: &Arc<HashWork>,
        shared: Shared,
        look: Look,
        request: SeedRequest,
    ) -> Result<Added, DaemonError> {
        let Shared { metainfo, root, names, through_links, mut warnings, is_made } = shared;
        let Look { input, tiers, named, caller, .. } = look;
        if let Some(out) = &request.torrent_out {
            // Looked at again: hashing may have taken hours, in which a link can be planted.
            write_out(&metainfo, self.torrent_out(out, &input, caller).await?).await?;
        }
        let plan = match is_made {
            true => plan_of(&metainfo, &tiers, &request)?,
            false => AnnouncePlan { tiers: tier_texts(&tiers), register: true },
        };
        let pending = named.filter(|_| plan.register).map(|tracker| Pending {
            tracker,
            name: request.name,
            description: request.description,
            unlisted: request.private || metainfo.info().is_private(),
        });
        // Registered before it is announced: a tracker that does not know it yet would show the
        // announce without a name, and refuse reports of holdings.
        let registering = match &pending {
            Some(pending) => Some(self.ask_to_register(&metainfo, pending).await),
            None => None,
        };
        let mut kept = Kept { seed: true, ..Kept::default() };
        match is_made {
            true => kept.settings.name_anew(metainfo.info().name(), names),
            // It is called as it was called when it was given, wherever its files lie.
            false => kept.settings.renamed = numbered(names),
        }
        let urls = plan.tiers;
        kept.settings.trackers = (urls != metainfo.trackers() && !urls.is_empty()).then_some(urls);
        if !request.trackers.is_empty() {
            let named = tiers.iter().flatten().map(|url| url.as_str().into()).collect();
            kept.rare.change(|rare| rare.named = Some(named));
        }
        if through_links {
            kept.rare.change(|rare| rare.through_links = true);
        }
        let extra = Extra { whole: true, new: true, ..Extra::default() };
        let ready = Ready { metainfo: Arc::clone(&metainfo), root, kept, extra };
        let mut added = match self.admit_hashed(provisional, work, ready).await {
            Ok(added) => added,
            Err(error) => {
                if let (Some(pending), Some(Ok(registered))) = (&pending, registering) {
                    self.take_back(metainfo.info_hash(), pending, registered).await;
                }
                return Err(error);
            }
        };
        match (pending, registering) {
            (Some(pending), Some(Ok(registered))) => {
                let kept = self.keep_registered(metainfo.info_hash(), &pending, registered).await;
                if let Err(error) = kept {
                    warnings.push(format!("that it is registered is not kept: {error}"));
                }
                added.tracker = Some(pending.tracker);
            }
            (Some(pending), Some(Err(error @ DaemonError::Upstream(_)))) => {
                warnings.push(format!("it is not registered yet, and tried again: {error}"));
                // It is shared all the same: an error would say that it is not.
                if let Err(error) = self.register_later(metainfo.info_hash(), pending).await {
                    warnings.push(format!("after a restart it is not tried again: {error}"));
                }
            }
            (_, Some(Err(error))) => warnings.push(format!("it is not registered: {error}")),
            (_, None) => {}
            (None, Some(Ok(_))) => {}
        }
        added.warnings.append(&mut warnings);
        Ok(added)
    }

    /// The file or folder, links resolved, if it may be shared; and its own name if it is a link.
    async fn seed_input(&self, input: &Path) -> Result<(PathBuf, Option<String>), DaemonError> {
        if !input.is_absolute() {
            let shown = shown(input);
            return Err(DaemonError::Invalid(format!("the path `{shown}` is not absolute")));
        }
        let input = path_of(input);
        let roots = self.config.seed_roots.clone();
        blocking(move || {
            let is_link = input.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
            let name = input.file_name().filter(|_| is_link).and_then(OsStr::to_str);
            Ok((check_input(&input, &roots)?, name.map(str::to_owned)))
        })
        .await?
    }

    /// Where to announce, and the name of the tracker to register with.
    fn seed_trackers(
        &self,
        asked: &[Vec<String>],
    ) -> Result<(Vec<Vec<TrackerUrl>>, Option<String>), DaemonError> {
        let asked: Vec<&String> = asked.iter().flatten().collect();
        check_trackers(asked.len())?;
        let named: Vec<&String> = match asked.is_empty() {
            true => self.config.tracker.iter().collect(),
            false => asked,
        };
        let mut tiers = Vec::new();
        for name in &named {
            tiers.extend(parse_tracker(name)?);
        }
        let ours = named.into_iter().find(|name| catalogue::base_of(name).is_some());
        Ok((tiers, ours.cloned()))
    }

    /// Where the `.torrent` goes as well: an output folder, or beside the input.
    async fn torrent_out(
        &self,
        out: &Path,
        input: &Path,
        caller: Caller,
    ) -> Result<PathBuf, DaemonError> {
        let (Some(folder), Some(name)) = (out.parent(), out.file_name()) else {
            let shown = shown(out);
            return Err(DaemonError::Invalid(format!("`{shown}` is not the path of a file")));
        };
        // Elsewhere than among downloads, a file of any name could be one that a shell reads.
        if Path::new(name).extension().is_none_or(|end| end != "torrent") {
            let shown = shown(out);
            return Err(DaemonError::Forbidden(format!(
                "`{shown}` does not end in `.torrent`, so no torrent is written there"
            )));
        }
        let mut allowed = self.output_roots();
        allowed.extend(input.parent().map(Path::to_owned));
        let folder = folder.to_owned();
        let folder = blocking(move || roots::check(&folder, &allowed, caller)).await??;
        Ok(folder.join(name))
    }

    /// Hashes what is to be shared with all cores.
    pub async fn hash(
        self: &Arc<Self>,
        provisional: InfoHash,
        work: &Arc<HashWork>,
        look: &Look,
        request: &SeedRequest,
    ) -> Result<Shared, DaemonError> {
        let roots = self.config.seed_roots.iter();
        let options = CreateOptions {
            piece_len: request.piece_length,
            private: request.private,
            trackers: tier_texts(&look.tiers),
            comment: request.description.clone(),
            name: look.link.clone(),
            source: request.source.clone(),
            selection: Selection {
                follow_links: request.follow_links,
                links_within: roots
                    .map(|root| root.canonicalize().unwrap_or_else(|_| root.clone()))
                    .collect(),
                exclude: request.exclude.clone(),
                skip_hidden: request.no_hidden,
            },
            ..CreateOptions::by_piecework(unix_now())
        };
        let (inner, work, input) = (Arc::clone(self), Arc::clone(work), look.input.clone());
        let created = blocking(move || {
            let progress = |at: CreateProgress| {
                if work.at(at.bytes_done, at.bytes_total, at.pieces_total) {
                    inner.touch(provisional, false);
                }
            };
            create(&input, options, cores(), progress, work.is_cancelled())
        });
        let created = created.await?.map_err(|error| match error {
            CreateError::Storage(error) => DaemonError::Storage(error),
            CreateError::Cancelled => DaemonError::Ending,
            CreateError::Changed { .. } => DaemonError::Conflict(error.to_string()),
            error => DaemonError::Invalid(error.to_string()),
        })?;
        let warnings = created.notices();
        let CreatedTorrent { metainfo, root, names, through_links, .. } = created;
        let through_links = through_links || look.link.is_some();
        let metainfo = Arc::new(metainfo);
        Ok(Shared { metainfo, root, names, through_links, warnings, is_made: false })
    }

    /// Looks whether all that a torrent describes, whose `.torrent` lies at `torrent`, is at `input`.
    pub async fn check(
        self: &Arc<Self>,
        provisional: InfoHash,
        work: &Arc<HashWork>,
        torrent: PathBuf,
        input: PathBuf,
    ) -> Result<Shared, DaemonError> {
        let (inner, work) = (Arc::clone(self), Arc::clone(work));
        blocking(move || {
            let bytes = files::read_bounded(&torrent).map_err(DaemonError::Conflict)?;
            let metainfo = parse(&bytes)?;
            drop(bytes);
            let geometry = metainfo.info().geometry();
            let progress = |at: CheckProgress| {
                if work.at(at.bytes_done, geometry.total_len(), geometry.pieces()) {
                    inner.touch(provisional, false);
                }
            };
            take_made(Arc::clone(&metainfo), &input, progress, work.is_cancelled())
        })
        .await?
    }
}

/// The path that a text stands for, in which bytes that are not UTF-8 are marked.
pub(super) fn path_of(text: &Path) -> PathBuf {
    match text.to_str().map(name_of_text) {
        Some(Cow::Owned(name)) => OsString::from_vec(name).into(),
        _ => text.to_owned(),
    }
}

/// Returns the file or folder at `input`, links resolved, if it is there and lies in one of `roots`, or if
/// there are none. Blocks.
pub(super) fn check_input(input: &Path, roots: &[PathBuf]) -> Result<PathBuf, DaemonError> {
    let real = input.canonicalize().map_err(|error| {
        DaemonError::NotFound(format!("`{}` cannot be read: {error}", shown(input)))
    })?;
    let inside = |root: &PathBuf| real.starts_with(root.canonicalize().as_ref().unwrap_or(root));
    if roots.is_empty() || roots.iter().any(inside) {
        return Ok(real);
    }
    Err(DaemonError::Forbidden(format!(
        "`{}` may not be shared: it lies in none of the folders that the configuration allows as \
         `seed_roots`",
        shown(input)
    )))
}

/// Where a torrent that exists already is announced, and whether it may be registered.
pub(super) fn plan_of(
    metainfo: &Metainfo,
    tiers: &[Vec<TrackerUrl>],
    request: &SeedRequest,
) -> Result<AnnouncePlan, DaemonError> {
    let explicit = !request.trackers.is_empty();
    let named = NamedTrackers { tiers, explicit, publish_private: request.publish_private };
    let info = metainfo.info();
    AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named).map_err(|error| {
        DaemonError::Invalid(format!(
            "{error}; `--publish-private` announces it there and registers it"
        ))
    })
}

/// A torrent that was made elsewhere: its content must be whole.
fn take_made(
    metainfo: Arc<Metainfo>,
    input: &Path,
    progress: impl Fn(CheckProgress) + Send + Sync,
    cancel: &AtomicBool,
) -> Result<Shared, DaemonError> {
    let info = metainfo.info();
    // The content itself, or the folder it lies in.
    let is_content = input.file_name().is_some_and(|name| may_be_called(&metainfo, name))
        && input.is_file() == info.is_single_file();
    let root = match input.parent() {
        Some(parent) if is_content => parent.to_owned(),
        _ => input.to_owned(),
    };
    let handles = Arc::new(FileHandles::default());
    let names = content_names(&metainfo, &root, false);
    let options = StoreOptions { mode: StoreMode::ReadOnly, names, ..StoreOptions::default() };
    let store = Store::with_options(&root, Arc::clone(&metainfo), handles, options)?;
    let have = check(&store, None, progress, cancel)?;
    if cancel.load(std::sync::atomic::Ordering::Relaxed) {
        return Err(DaemonError::Ending);
    }
    let pieces = info.geometry().pieces();
    if have.count() < pieces {
        return Err(DaemonError::Invalid(format!(
            "`{}` is not what the torrent describes: {} of {pieces} pieces are right",
            shown(&root.join(info.name())),
            have.count(),
        )));
    }
    let names = store.options().names;
    let warnings = Vec::new();
    Ok(Shared { metainfo, root, names, through_links: false, warnings, is_made: true })
}

/// Writes the `.torrent` where it was asked for, unless something else is there.
async fn write_out(metainfo: &Arc<Metainfo>, out: PathBuf) -> Result<(), DaemonError> {
    let torrent = metainfo.bytes().map_err(|error| DaemonError::State(error.to_string()))?;
    blocking(move || match std::fs::symlink_metadata(&out) {
        Ok(meta)
            if meta.is_file() && files::read_bounded(&out).is_ok_and(|old| old[..] == *torrent) =>
        {
            Ok(())
        }
        Ok(_) => Err(DaemonError::Occupied(format!(
            "`{}` exists and is another file, so it is not overwritten",
            shown(&out)
        ))),
        Err(_) => write_new(&out, &torrent).map_err(|error| {
            DaemonError::Occupied(format!("`{}` cannot be written: {error}", shown(&out)))
        }),
    })
    .await?
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Names by the number of a file, as they are kept.
fn numbered(names: BTreeMap<usize, Vec<String>>) -> Vec<(u32, Vec<String>)> {
    let names = names.into_iter();
    names.filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path))).collect()
}
