//! The trackers that torrents are announced to, and who named each of them.

use std::sync::Arc;

use super::catalogue::{CatalogueTracker, base_of};
use super::checks::{check_tracker_count, parse_tracker};
use super::record::TorrentRecord;
use super::torrents::Torrents;
use super::{Caller, DaemonConfig, DaemonError};
use piecework_api::TorrentSettings;
use piecework_core::metainfo::Metainfo;
use piecework_proto::announce::{Provenance, TrackerTarget, TrackerUrl};

/// What the configuration says of trackers.
pub(super) struct TrackerPolicy {
    torrents: Arc<Torrents>,
    /// The tracker that is asked and registered with unless a request names another one.
    configured: Option<String>,
    /// Trackers in private networks may be announced to, whoever named them.
    private_trackers: bool,
}

impl TrackerPolicy {
    pub(crate) fn new(config: &DaemonConfig, torrents: Arc<Torrents>) -> Self {
        Self {
            torrents,
            configured: config.tracker.clone(),
            private_trackers: config.session.private_trackers,
        }
    }

    /// Returns the tracker of the configuration: `IP:PORT` or a URL.
    pub(crate) fn configured(&self) -> Option<&str> {
        self.configured.as_deref()
    }

    /// Returns the tracker that `caller` names, or that of the configuration.
    pub(crate) fn named(
        &self,
        named: Option<&str>,
        caller: Caller,
    ) -> Result<CatalogueTracker, DaemonError> {
        let configured = self.configured();
        match (named, configured) {
            (Some(named), _) if Some(named) != configured => {
                CatalogueTracker::named_by(caller.provenance(), named)
            }
            (_, Some(configured)) => CatalogueTracker::named(configured),
            _ => Err(DaemonError::invalid(
                "no tracker is configured: name one, as IP:PORT or URL".to_owned(),
            )),
        }
    }

    /// Returns the trackers to announce to: the torrent's own or those chosen, and the daemon's. Each
    /// says who named it.
    pub(crate) fn tiers(
        &self,
        metainfo: &Metainfo,
        record: &TorrentRecord,
    ) -> Vec<Vec<TrackerUrl>> {
        let mut tiers = self.all_tiers(metainfo, &record.settings);
        let own: Vec<TrackerUrl> = parsed(metainfo.trackers().iter().flatten());
        let mut named = parsed(self.torrents.table().settings.default_trackers.iter().flatten());
        // That of the configuration, and the one that it is registered with.
        let trackers = [self.configured(), record.common.tracker.as_deref()];
        let targets = trackers.into_iter().flatten().filter_map(|name| name.parse().ok());
        named.extend(targets.flat_map(|target: TrackerTarget| target.tiers).flatten());
        let private = record.common.nearby || self.private_trackers;
        let others = if private { Provenance::Nearby } else { Provenance::Foreign };
        match &record.common.named {
            Some(by_owner) => named.extend(by_owner.iter().filter_map(|url| url.parse().ok())),
            // Records of earlier versions do not say who named a tracker. Then the owner did.
            None => named.extend(tiers.iter().flatten().filter(|url| !own.contains(url)).cloned()),
        }
        for url in tiers.iter_mut().flatten() {
            *url = url.clone().named_by(others).named_among(named.iter());
        }
        tiers
    }

    fn all_tiers(&self, metainfo: &Metainfo, chosen: &TorrentSettings) -> Vec<Vec<TrackerUrl>> {
        let known = |tiers: &[Vec<String>]| -> Vec<Vec<TrackerUrl>> {
            let tier =
                |tier: &Vec<String>| tier.iter().filter_map(|url| url.parse().ok()).collect();
            tiers.iter().map(tier).collect()
        };
        let mut tiers = known(chosen.trackers.as_deref().unwrap_or(metainfo.trackers()));
        if !metainfo.info().is_private() {
            let more = known(&self.torrents.table().settings.default_trackers);
            let there: Vec<TrackerUrl> = tiers.iter().flatten().cloned().collect();
            tiers.extend(more.into_iter().map(|mut tier| {
                tier.retain(|url| !there.contains(url));
                tier
            }));
        }
        tiers.retain(|tier| !tier.is_empty());
        tiers
    }

    /// Returns where files that are shared are announced if a request asks for these trackers, and the
    /// name of the tracker that they are registered with.
    pub(crate) fn for_sharing(
        &self,
        asked: &[Vec<String>],
    ) -> Result<(Vec<Vec<TrackerUrl>>, Option<String>), DaemonError> {
        let asked: Vec<&String> = asked.iter().flatten().collect();
        check_tracker_count(asked.len())?;
        let named: Vec<&String> = match asked.is_empty() {
            true => self.configured.iter().collect(),
            false => asked,
        };
        let mut tiers = Vec::new();
        for name in &named {
            tiers.extend(parse_tracker(name)?);
        }
        let registered = named.into_iter().find(|name| base_of(name).is_some());
        Ok((tiers, registered.cloned()))
    }

    /// Gives every torrent the trackers that it has now.
    pub(crate) async fn update_all(&self) {
        let all: Vec<_> = {
            let table = self.torrents.table();
            let entries = table.entries.values();
            entries.filter_map(|it| Some((it.handle()?.clone(), it.record.clone()))).collect()
        };
        for (handle, record) in all {
            if !handle.metainfo().info().is_private() {
                handle.set_trackers(self.tiers(handle.metainfo(), &record)).await;
            }
        }
    }
}

fn parsed<'a>(urls: impl Iterator<Item = &'a String>) -> Vec<TrackerUrl> {
    urls.filter_map(|url| url.parse().ok()).collect()
}
