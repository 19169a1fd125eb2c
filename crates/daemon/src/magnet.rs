//! Magnet links: the `.torrent` that a link names, of whoever gives it. Peers are not asked for it yet, so
//! that is a catalogue of a tracker of ours, or a web address in the link.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::add::{Found, fetch_torrent, is_near, parse};
use super::catalogue::Tracker;
use super::inner::{Inner, blocking};
use super::{Caller, DaemonError};
use piecework_core::metainfo::Metainfo;
use piecework_core::{InfoHash, Scope, printable};
use piecework_proto::announce::Magnet;

impl Inner {
    /// The torrent that the link `text` names. The catalogue of the tracker that is `named`, or of the
    /// configured one, is asked first, then those of the link's trackers, then its web addresses.
    ///
    /// # Errors
    /// If it is no link, or nobody gives the torrent.
    pub(super) async fn resolve(
        &self,
        text: &str,
        named: Option<&str>,
        caller: Caller,
    ) -> Result<Found, DaemonError> {
        let link = Magnet::parse(text).map_err(|error| DaemonError::Invalid(error.to_string()))?;
        let mut trackers = Vec::new();
        match self.tracker_named(named, caller) {
            Ok(tracker) => trackers.push(tracker),
            Err(error) if named.is_some() => return Err(error),
            // There are others to ask.
            Err(_) => {}
        }
        let others = link.tracker_names();
        let others =
            others.iter().filter_map(|name| Tracker::named_by(caller.provenance(), name).ok());
        trackers.extend(others.take(MOST_TRACKERS));
        let asked = tokio::time::timeout(PATIENCE, first_of(trackers, link.info_hash)).await;
        let mut faults = match asked {
            Ok(Ok((tracker, metainfo, scope))) => {
                let found = Found::new(Arc::new(metainfo), Some(tracker), is_near(scope));
                return Ok(Found { magnet: Some(link), ..found });
            }
            Ok(Err(faults)) => faults,
            Err(_) => vec!["its trackers did not answer in time".to_owned()],
        };
        for source in &link.sources {
            match self.at_source(source, link.info_hash, caller).await {
                Ok((metainfo, scope)) => {
                    let found = Found::new(metainfo, None, is_near(scope));
                    return Ok(Found { magnet: Some(link), ..found });
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        Err(DaemonError::NotFound(nobody(&link, faults)))
    }

    async fn at_source(
        &self,
        url: &str,
        info_hash: InfoHash,
        caller: Caller,
    ) -> Result<(Arc<Metainfo>, Scope), DaemonError> {
        let (bytes, scope) = fetch_torrent(url, caller).await?;
        let metainfo = blocking(move || parse(&bytes)).await??;
        if metainfo.info_hash() != info_hash {
            let (url, other) = (printable(url), metainfo.info_hash());
            return Err(DaemonError::Upstream(format!("`{url}` gave another torrent: `{other}`")));
        }
        Ok((metainfo, scope))
    }
}

/// What the first of `trackers` gives that has the torrent; one after the other is asked, the next without
/// waiting long for the one before. If none has it, what each of them said.
async fn first_of(
    trackers: Vec<Tracker>,
    info_hash: InfoHash,
) -> Result<(Tracker, Metainfo, Scope), Vec<String>> {
    let mut waiting = trackers.into_iter();
    let mut asked = JoinSet::new();
    let mut faults = Vec::new();
    loop {
        if asked.len() < AT_ONCE
            && let Some(tracker) = waiting.next()
        {
            asked.spawn(async move {
                let found = tracker.find(&info_hash.to_string()).await;
                (tracker, found)
            });
        }
        let may_ask = asked.len() < AT_ONCE && waiting.len() > 0;
        tokio::select! {
            ended = asked.join_next() => match ended {
                Some(Ok((tracker, Ok((metainfo, scope))))) => {
                    return Ok((tracker, metainfo, scope));
                }
                Some(Ok((_, Err(error)))) => faults.push(error.to_string()),
                Some(Err(broken)) => faults.push(broken.to_string()),
                None => return Err(faults),
            },
            () = tokio::time::sleep(NEXT_AFTER), if may_ask => {}
        }
    }
}

/// Why a link leads nowhere, and what is missing.
fn nobody(link: &Magnet, mut faults: Vec<String>) -> String {
    // Trackers mostly say the same.
    let mut seen = HashSet::new();
    faults.retain(|fault| seen.insert(fault.clone()));
    let name = link.name.as_deref().map_or_else(
        || format!("`{}`", link.info_hash),
        |name| {
            let name: String = printable(name).chars().take(MAX_NAME).collect();
            format!("`{name}` ({})", link.info_hash)
        },
    );
    let why = match faults.len() {
        0 => "it names no tracker that can be asked, and none is configured".to_owned(),
        more if more > MOST_FAULTS => {
            format!("{}; and {} more", faults[..MOST_FAULTS].join("; "), more - MOST_FAULTS)
        }
        _ => faults.join("; "),
    };
    format!(
        "the magnet link of {name} leads to no .torrent: {why}. The .torrent is not asked of peers or the \
         DHT yet: name a tracker that has it in its catalogue, or give the .torrent file"
    )
}

/// Trackers of a link that are asked.
const MOST_TRACKERS: usize = 20;

/// Trackers that are asked at a time: each may send the longest `.torrent` there is.
const AT_ONCE: usize = 2;

/// Time after which the next one is asked as well.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// Time for all trackers of a link.
const PATIENCE: Duration = Duration::from_secs(45);

/// What is shown of what is long.
const MOST_FAULTS: usize = 4;
const MAX_NAME: usize = 80;
