//! Restoring the torrents of an earlier run.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::background::blocking;
use super::entry::{Body, BodyView, BrokenTorrent, Entry};
use super::link_follower::LinkFollower;
use super::linked::{LinkPhase, LinkedTorrent};
use super::loader::TorrentLoader;
use super::reason::Reason;
use super::record::{FileWork, TorrentRecord};
use super::recovery::{self, RemainingWork};
use super::relocate::Relocator;
use super::share::Sharer;
use super::stored_state::StoredTorrent;
use super::torrents::Torrents;
use super::unhashed::UnhashedTorrent;
use super::{DaemonError, magnet};
use crate::queue::Order;
use crate::state::{Saved, Update};
use piecework_api::TorrentSettings;
use piecework_core::metainfo::Metainfo;

/// Restores the torrents of an earlier run.
pub(super) struct Restorer {
    pub torrents: Arc<Torrents>,
    pub loader: Arc<TorrentLoader>,
    pub sharer: Arc<Sharer>,
    pub links: Arc<LinkFollower>,
    pub relocator: Arc<Relocator>,
}

impl Restorer {
    /// Restores all torrents.
    pub(crate) async fn restore(&self, found: Vec<StoredTorrent>) {
        let mut ranks = Vec::with_capacity(found.len());
        let mut all = Vec::with_capacity(found.len());
        for StoredTorrent { saved, record, metainfo } in found {
            let record = record.unwrap_or_else(|error| {
                let hash = saved.info_hash;
                self.torrents.table().notice(format!(
                    "the settings of the torrent `{hash}` cannot be read, so it is paused: \
                     {error}"
                ));
                let settings = TorrentSettings { paused: true, ..TorrentSettings::default() };
                TorrentRecord { settings: settings.into(), ..TorrentRecord::default() }
            });
            ranks.push((record.rank, saved.info_hash));
            all.push((saved, record, metainfo));
        }
        let order = Order::new(ranks);
        let places: BTreeMap<_, _> = order.iter().zip(0_usize..).collect();
        all.sort_by_key(|(saved, ..)| places.get(&saved.info_hash).copied());
        self.torrents.table().order = order.clone();
        for ((saved, mut record, metainfo), (rank, _)) in all.into_iter().zip(order.ranks()) {
            record.rank = rank;
            self.restore_one(saved, record, metainfo).await;
        }
        self.torrents.table().review = true;
    }

    async fn restore_one(
        &self,
        mut saved: Saved,
        mut record: TorrentRecord,
        metainfo: Result<Arc<Metainfo>, Reason>,
    ) {
        let mut rest = RemainingWork::Nothing;
        if let (Ok(metainfo), Some(_)) = (&metainfo, &record.common.unfinished) {
            rest = self.finish_file_work(metainfo, &mut saved, &mut record).await;
        }
        let body = self.body(&saved, &record, metainfo).await;
        let body = body.unwrap_or_else(|broken| {
            tracing::warn!(torrent = %saved.info_hash, "{}", broken.error);
            Body::broken(broken)
        });
        let mut table = self.torrents.table();
        let id = table.new_id();
        let entry = Entry::new(id, &saved, record, body, Instant::now());
        let handle = entry.handle().cloned();
        let work = match entry.body.view() {
            BodyView::Unhashed(unhashed) => Some((Arc::clone(&unhashed.work), true)),
            BodyView::Linked(linked) if linked.phase == LinkPhase::Fetching => {
                Some((Arc::clone(&linked.work), false))
            }
            _ => None,
        };
        table.enter(saved.info_hash, Box::new(entry));
        drop(table);
        match work {
            Some((work, true)) => self.sharer.start_hashing(saved.info_hash, work),
            Some((work, false)) => self.links.start_fetching(saved.info_hash, work),
            None => {}
        }
        if let (RemainingWork::Move(folder), Some(handle)) = (rest, handle) {
            self.relocator.begin_move(saved.info_hash, handle, folder, false);
        }
    }

    async fn body(
        &self,
        saved: &Saved,
        record: &TorrentRecord,
        metainfo: Result<Arc<Metainfo>, Reason>,
    ) -> Result<Body, BrokenTorrent> {
        if let Some(to_hash) = &record.common.to_hash {
            let unhashed = UnhashedTorrent::new(to_hash.name.clone(), saved.root.clone());
            return Ok(Body::unhashed(unhashed));
        }
        if let Some(to_fetch) = &record.common.to_fetch
            && let Ok(link) = magnet::parsed(&to_fetch.link)
        {
            let paused = record.settings.paused;
            return Ok(Body::linked(LinkedTorrent::new(&link, saved.root.clone(), paused)));
        }
        match metainfo {
            Ok(metainfo) => self.loader.load_by_age(&metainfo, saved, record).await,
            Err(error) => Err(BrokenTorrent {
                name: saved.file.trim_end_matches(".torrent").to_owned(),
                error,
                root: saved.root.clone(),
                metainfo: None,
                checkpoint: saved.checkpoint.clone(),
                taken: None,
            }),
        }
    }

    /// Determines where the files of a torrent are that was being renamed or moved.
    async fn finish_file_work(
        &self,
        metainfo: &Arc<Metainfo>,
        saved: &mut Saved,
        record: &mut TorrentRecord,
    ) -> RemainingWork {
        let info_hash = saved.info_hash;
        let (suffix, keep_to) = (self.loader.suffix(record), self.loader.keep_to());
        let (metainfo, mut root, mut now) =
            (Arc::clone(metainfo), saved.root.clone(), record.clone());
        let settled = blocking(move || {
            recovery::settle(&metainfo, &mut root, &mut now, &suffix, &keep_to)
                .map(|rest| (rest, root, now))
        });
        let settled = settled.await.and_then(|settled| settled.map_err(DaemonError::from));
        let (rest, root, now) = match settled {
            Ok(settled) => settled,
            Err(error) => {
                self.torrents.table().notice(format!(
                    "the torrent `{info_hash}` was being moved or renamed, and where its files are \
                     cannot be told: {error}"
                ));
                return RemainingWork::Nothing;
            }
        };
        (saved.root, *record) = (root, now);
        if let RemainingWork::Move(folder) = &rest {
            // The move starts again, and may be interrupted again.
            let folder = folder.to_str().map(str::to_owned);
            record.common.unfinished = folder.map(|folder| Box::new(FileWork::Move { folder }));
        }
        let (root, settings) = (Some(saved.root.clone()), Some(record.to_text()));
        let update = Update { root, settings, ..Update::default() };
        if let Err(error) = self.torrents.state.update(info_hash, update).await {
            tracing::warn!(%error, "where a torrent's files are is determined again at the next start");
        }
        rest
    }
}
