//! Serving files that were hashed, and registering them with a tracker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::background::blocking;
use super::entry::unix_now;
use super::hashing::HashedContent;
use super::install::{Installation, Placeholder, TorrentInstaller};
use super::loader::LoadHints;
use super::pending_work::PendingWork;
use super::provisional::ProvisionalTorrents;
use super::reason::Reason;
use super::record::{Registration, TorrentRecord};
use super::registration::Registrar;
use super::share_request::{ShareInput, ShareRequests, plan_announces};
use super::torrents::Torrents;
use super::{DaemonError, torrent_files};
use piecework_api::{Added, SeedRequest};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, printable_path};
use piecework_engine::tracker_client::tier_texts;
use piecework_proto::announce::AnnouncePlan;
use piecework_proto::announce::catalogue::Registered;
use piecework_storage::write_new;

/// Serves files that were hashed.
pub(super) struct Publisher {
    pub torrents: Arc<Torrents>,
    pub requests: Arc<ShareRequests>,
    pub registrar: Arc<Registrar>,
    pub installer: Arc<TorrentInstaller>,
    pub provisional: Arc<ProvisionalTorrents>,
}

/// How an attempt to register a torrent ended.
type Registering = Option<(Registration, Result<Registered, DaemonError>)>;

impl Publisher {
    /// Serves what was hashed in the place of the torrent that is listed as `provisional`, and
    /// registers it.
    pub(crate) async fn publish(
        &self,
        provisional: InfoHash,
        work: &Arc<PendingWork>,
        content: HashedContent,
        input: ShareInput,
        request: SeedRequest,
    ) -> Result<Added, DaemonError> {
        let metainfo = Arc::clone(&content.metainfo);
        if let Some(out) = &request.torrent_out {
            // Checked again, since a link can have been planted while files were hashed for hours.
            let out = self.requests.torrent_out(out, &input.input, input.caller).await?;
            write_out(&metainfo, out).await?;
        }
        let plan = match content.is_made {
            true => plan_announces(&metainfo, &input.tiers, &request)?,
            false => AnnouncePlan { tiers: tier_texts(&input.tiers), register: true },
        };
        // It is registered before it is announced. Otherwise the tracker would show the announce
        // without a name, and refuse reports of holdings.
        let registering = match input.named.clone().filter(|_| plan.register) {
            Some(tracker) => {
                let pending = registration(&metainfo, tracker, &request);
                let registered = self.registrar.ask_to_register(&metainfo, &pending).await;
                Some((pending, registered))
            }
            None => None,
        };
        let (new, mut warnings) = installation(content, plan.tiers, &input, &request);
        let mut added = match self.install_hashed(provisional, work, new).await {
            Ok(added) => added,
            Err(error) => {
                if let Some((pending, Ok(registered))) = registering {
                    self.registrar.take_back(metainfo.info_hash(), &pending, registered).await;
                }
                return Err(error);
            }
        };
        added.warnings.append(&mut warnings);
        self.keep_registration(&mut added, registering).await;
        Ok(added)
    }

    /// Records how registering ended. Errors become warnings, since the torrent is shared
    /// nevertheless.
    async fn keep_registration(&self, added: &mut Added, registering: Registering) {
        let info_hash = added.info_hash;
        match registering {
            None => {}
            Some((pending, Ok(registered))) => {
                let kept = self.registrar.keep_registered(info_hash, &pending, registered).await;
                if let Err(error) = kept {
                    added
                        .warnings
                        .push(format!("it is registered, but that could not be recorded: {error}"));
                }
                added.tracker = Some(pending.tracker);
            }
            Some((pending, Err(error @ DaemonError::Upstream(_)))) => {
                added
                    .warnings
                    .push(format!("it is not registered yet, which is tried again: {error}"));
                if let Err(error) = self.registrar.register_later(info_hash, pending).await {
                    let sentence =
                        format!("registering is not tried again after a restart: {error}");
                    added.warnings.push(sentence);
                }
            }
            Some((_, Err(error))) => {
                added.warnings.push(format!("it is not registered: {error}"));
            }
        }
    }

    /// Installs a torrent whose files were hashed, in the place of its provisional entry, with the
    /// settings that were chosen for it meanwhile.
    async fn install_hashed(
        &self,
        provisional: InfoHash,
        work: &Arc<PendingWork>,
        mut new: Installation,
    ) -> Result<Added, DaemonError> {
        let info_hash = new.metainfo.info_hash();
        let _locks = self.torrents.lock_both(provisional, info_hash).await;
        if !self.provisional.is_at(provisional, work) {
            return Err(DaemonError::Ending);
        }
        let (record, added_at, file) = self.torrents.with(provisional, |entry| {
            (entry.record.clone(), entry.added_at, entry.file().into_owned())
        })?;
        let fresh = std::mem::replace(&mut new.record.settings, record.settings);
        let settings = &mut *new.record.settings;
        settings.name.clone_from(&fresh.name);
        settings.renamed.clone_from(&fresh.renamed);
        match settings.trackers {
            None => settings.trackers.clone_from(&fresh.trackers),
            Some(_) => {
                let named = &record.common.named;
                new.record.common.change(|common| common.named.clone_from(named));
            }
        }
        new.record.rank = record.rank;
        new.placeholder = Some(Placeholder { provisional, added_at, before: None });
        let added = self.installer.install_locked(new).await?;
        if added.duplicate {
            let mut table = self.torrents.table();
            table.take(provisional, unix_now());
            table.lead(provisional, info_hash);
        }
        self.provisional.forget(provisional, &file).await;
        Ok(added)
    }
}

fn registration(metainfo: &Metainfo, tracker: String, request: &SeedRequest) -> Registration {
    Registration {
        tracker,
        name: request.name.clone(),
        description: request.description.clone(),
        unlisted: request.private || metainfo.info().is_private(),
    }
}

/// Returns the installation of `content`, which is announced to `urls`, and its warnings.
fn installation(
    content: HashedContent,
    urls: Vec<Vec<String>>,
    input: &ShareInput,
    request: &SeedRequest,
) -> (Installation, Vec<String>) {
    let HashedContent { metainfo, root, names, through_links, warnings, is_made } = content;
    let mut record = TorrentRecord { seed: true, ..TorrentRecord::default() };
    match is_made {
        true => record.settings.name_anew(metainfo.info().name(), names),
        // It keeps the name that it was shared under, wherever its files lie.
        false => record.settings.renamed = numbered(names),
    }
    record.settings.trackers = (urls != metainfo.trackers() && !urls.is_empty()).then_some(urls);
    if !request.trackers.is_empty() {
        let named = input.tiers.iter().flatten().map(|url| url.as_str().into()).collect();
        record.common.change(|common| common.named = Some(named));
    }
    if through_links {
        record.common.change(|common| common.through_links = true);
    }
    let hints = LoadHints { whole: true, new: true, ..LoadHints::default() };
    (Installation { metainfo, root, record, hints, placeholder: None }, warnings)
}

/// Writes the `.torrent` to `out`, unless another file exists there.
async fn write_out(metainfo: &Arc<Metainfo>, out: PathBuf) -> Result<(), DaemonError> {
    let torrent = metainfo.bytes().map_err(|error| DaemonError::torrent_file(Reason::of(error)))?;
    blocking(move || match std::fs::symlink_metadata(&out) {
        Ok(meta)
            if meta.is_file()
                && torrent_files::read_bounded(&out).is_ok_and(|old| old[..] == *torrent) =>
        {
            Ok(())
        }
        Ok(_) => Err(DaemonError::occupied(format!(
            "`{}` exists and is another file, so it is not overwritten",
            printable_path(&out)
        ))),
        Err(_) => write_new(&out, &torrent).map_err(|error| {
            let sentence = format!("`{}` cannot be written: {error}", printable_path(&out));
            DaemonError::occupied(Reason::with_cause(sentence, error))
        }),
    })
    .await?
}

/// Returns names by file number, as records have them.
fn numbered(names: BTreeMap<usize, Vec<String>>) -> Vec<(u32, Vec<String>)> {
    let names = names.into_iter();
    names.filter_map(|(file, path)| Some((u32::try_from(file).ok()?, path))).collect()
}
