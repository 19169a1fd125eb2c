//! Checks of the settings that requests choose for a torrent.

use super::DaemonError;
use super::reason::Reason;
use piecework_api::{SeedLimit, TorrentSettings, parse_file_ranges};
use piecework_core::Priority;
use piecework_core::metainfo::Metainfo;
use piecework_engine::tracker_client::tier_texts;
use piecework_proto::announce::{AnnouncePlan, Magnet, NamedTrackers, TrackerTarget, TrackerUrl};

/// Returns the addresses of the tracker that the user names `name`, in tiers.
pub(super) fn parse_tracker(name: &str) -> Result<Vec<Vec<TrackerUrl>>, DaemonError> {
    let target = TrackerTarget::parse(name);
    target.map(|target| target.tiers).map_err(|error| DaemonError::invalid(Reason::of(error)))
}

/// Returns priorities by which only the files in `text` are wanted.
pub(super) fn priorities_of(metainfo: &Metainfo, text: &str) -> Result<Vec<Priority>, DaemonError> {
    let count = visible_files(metainfo);
    let chosen =
        parse_file_ranges(text, count).map_err(|error| DaemonError::invalid(Reason::of(error)))?;
    let mut files = vec![Priority::Skip; count as usize];
    for file in chosen {
        files[file as usize] = Priority::Normal;
    }
    Ok(files)
}

/// Returns priorities by which only the files that `link` chooses are wanted. `None` if it chooses none that
/// the torrent has. A link counts files with padding (BEP 53), priorities are without.
pub(super) fn priorities_of_link(metainfo: &Metainfo, link: &Magnet) -> Option<Vec<Priority>> {
    let entries = metainfo.info().files().entries();
    let chosen = link.wanted_of(u32::try_from(entries.len()).unwrap_or(u32::MAX))?;
    let mut wanted = vec![Priority::Skip; entries.len()];
    for file in chosen {
        wanted[file as usize] = Priority::Normal;
    }
    let visible = entries.iter().zip(wanted).filter(|(entry, _)| !entry.padding);
    let files: Vec<Priority> = visible.map(|(_, priority)| priority).collect();
    files.contains(&Priority::Normal).then_some(files)
}

/// Returns the number of files that are not padding.
pub(super) fn visible_files(metainfo: &Metainfo) -> u32 {
    let entries = metainfo.info().files().entries();
    u32::try_from(entries.iter().filter(|file| !file.padding).count()).unwrap_or(u32::MAX)
}

/// Refuses settings that are invalid or too large to keep.
pub(super) fn check_settings(
    metainfo: &Metainfo,
    settings: &TorrentSettings,
) -> Result<(), DaemonError> {
    let files = visible_files(metainfo);
    if settings.files.len() > files as usize {
        return Err(DaemonError::invalid(format!(
            "there are `{}` priorities for `{files}` files",
            settings.files.len()
        )));
    }
    check_words(settings)
}

/// Refuses labels, groups and ratios that are invalid or too large to keep.
pub(super) fn check_words(settings: &TorrentSettings) -> Result<(), DaemonError> {
    let too_long = |label: &String| label.len() > MAX_LABEL;
    if settings.labels.len() > MAX_LABELS || settings.labels.iter().any(too_long) {
        return Err(DaemonError::invalid(format!(
            "at most `{MAX_LABELS}` labels of `{MAX_LABEL}` bytes each are allowed"
        )));
    }
    if settings.group.as_ref().is_some_and(|group| group.len() > MAX_LABEL) {
        return Err(DaemonError::invalid(format!(
            "the name of a group may have `{MAX_LABEL}` bytes"
        )));
    }
    let ratio_ok = |ratio: f64| ratio.is_finite() && ratio >= 0.0;
    if let SeedLimit::At(ratio) = settings.seed_ratio
        && !ratio_ok(ratio)
    {
        return Err(DaemonError::invalid(format!("the ratio `{ratio}` is not 0 or more")));
    }
    Ok(())
}

/// Refuses trackers that are not in the metainfo of a private torrent.
pub(super) fn check_private(
    metainfo: &Metainfo,
    tiers: &[Vec<TrackerUrl>],
) -> Result<(), DaemonError> {
    let info = metainfo.info();
    let named = NamedTrackers { tiers, explicit: true, publish_private: false };
    AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named)
        .map(drop)
        .map_err(|error| DaemonError::invalid(Reason::of(error)))
}

/// Refuses more trackers for one torrent than an announcer uses.
pub(super) fn check_tracker_count(count: usize) -> Result<(), DaemonError> {
    if count > MAX_TRACKERS {
        return Err(DaemonError::invalid(format!(
            "`{count}` trackers are more than the allowed `{MAX_TRACKERS}`"
        )));
    }
    Ok(())
}

/// Returns the trackers in tiers. A name that is not a URL, such as `IP:PORT`, expands to its own tiers.
pub(super) fn parse_tiers(tiers: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, DaemonError> {
    check_tracker_count(tiers.iter().map(Vec::len).sum())?;
    let mut parsed = Vec::new();
    for tier in tiers {
        let mut urls = Vec::new();
        for name in tier {
            match name.parse::<TrackerUrl>() {
                Ok(url) => urls.push(url.as_str().to_owned()),
                Err(_) => parsed.extend(tier_texts(&parse_tracker(&name)?)),
            }
        }
        if !urls.is_empty() {
            parsed.push(urls);
        }
    }
    Ok(parsed)
}

/// Maximum number of trackers of one torrent: more than an announcer uses.
const MAX_TRACKERS: usize = 100;

/// Maximum number of labels of a torrent, and of bytes in each. Lists show them.
const MAX_LABELS: usize = 100;
const MAX_LABEL: usize = 255;
