//! Checks of requests to share files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::allowed_folders::{AllowedFolders, check_output, check_shared, path_of};
use super::background::blocking;
use super::checks::check_words;
use super::reason::Reason;
use super::trackers::TrackerPolicy;
use super::{Caller, DaemonError, torrent_source};
use piecework_api::{SeedRequest, TorrentSettings};
use piecework_core::metainfo::Metainfo;
use piecework_core::printable_path;
use piecework_proto::announce::catalogue::{MAX_DESCRIPTION_LEN, MAX_NAME_LEN};
use piecework_proto::announce::{AnnouncePlan, NamedTrackers, TrackerUrl};

/// A checked request.
pub(super) struct ShareInput {
    /// The file or folder, links resolved.
    pub input: PathBuf,
    /// The link's name, if it is a link.
    pub link: Option<String>,
    /// Trackers to announce to, in tiers.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Name of the tracker to register with.
    pub named: Option<String>,
    /// Who sent the request.
    pub caller: Caller,
}

/// Checks requests to share files.
pub(super) struct ShareRequests {
    pub folders: Arc<AllowedFolders>,
    pub trackers: Arc<TrackerPolicy>,
}

impl ShareRequests {
    /// Checks whether a request is allowed, as far as that can be known before files are hashed.
    pub(crate) async fn check(
        &self,
        request: &SeedRequest,
        caller: Caller,
    ) -> Result<ShareInput, DaemonError> {
        let (input, link) = self.input(&request.input).await?;
        let long = |text: &Option<String>, most| text.as_ref().is_some_and(|t| t.len() > most);
        if long(&request.name, MAX_NAME_LEN) || long(&request.description, MAX_DESCRIPTION_LEN) {
            return Err(DaemonError::invalid(format!(
                "a name may have `{MAX_NAME_LEN}` bytes and a description `{MAX_DESCRIPTION_LEN}`"
            )));
        }
        let (tiers, named) = self.trackers.for_sharing(&request.trackers)?;
        check_words(&TorrentSettings { labels: request.labels.clone(), ..Default::default() })?;
        if let Some(out) = &request.torrent_out {
            self.torrent_out(out, &input, caller).await?;
        }
        Ok(ShareInput { input, link, tiers, named, caller })
    }

    /// Returns the file or folder with links resolved, if it may be shared, and the link's name if
    /// it is a link.
    async fn input(&self, input: &Path) -> Result<(PathBuf, Option<String>), DaemonError> {
        if !input.is_absolute() {
            let shown = printable_path(input);
            return Err(DaemonError::invalid(format!("the path `{shown}` is not absolute")));
        }
        let input = path_of(input);
        let roots = self.folders.share_roots().to_vec();
        blocking(move || {
            let is_link = input.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
            let name = input.file_name().filter(|_| is_link).and_then(OsStr::to_str);
            Ok((check_shared(&input, &roots)?, name.map(str::to_owned)))
        })
        .await?
    }

    /// Returns where a copy of the `.torrent` is written: into an output folder, or beside the
    /// input.
    pub(crate) async fn torrent_out(
        &self,
        out: &Path,
        input: &Path,
        caller: Caller,
    ) -> Result<PathBuf, DaemonError> {
        let (Some(folder), Some(name)) = (out.parent(), out.file_name()) else {
            let shown = printable_path(out);
            return Err(DaemonError::invalid(format!("`{shown}` is not the path of a file")));
        };
        // Outside the downloads a file with another name could be one that a shell executes.
        if Path::new(name).extension().is_none_or(|end| end != "torrent") {
            let shown = printable_path(out);
            return Err(DaemonError::forbidden(format!(
                "`{shown}` does not end in `.torrent`, so no torrent is written there"
            )));
        }
        let mut allowed = self.folders.output_roots();
        allowed.extend(input.parent().map(Path::to_owned));
        let folder = folder.to_owned();
        let folder = blocking(move || check_output(&folder, &allowed, caller)).await??;
        Ok(folder.join(name))
    }
}

/// Parses the `.torrent` that came with a request. Returns the torrent's name and those bytes.
pub(super) async fn check_torrent(
    bytes: Vec<u8>,
    input: &ShareInput,
    request: &SeedRequest,
) -> Result<(String, Vec<u8>), DaemonError> {
    let parsed = blocking(move || torrent_source::parse(&bytes).map(|parsed| (parsed, bytes)));
    let (metainfo, bytes) = parsed.await??;
    plan_announces(&metainfo, &input.tiers, request)?;
    Ok((metainfo.info().name().to_owned(), bytes))
}

/// Returns where an existing torrent is announced, and whether it may be registered.
pub(super) fn plan_announces(
    metainfo: &Metainfo,
    tiers: &[Vec<TrackerUrl>],
    request: &SeedRequest,
) -> Result<AnnouncePlan, DaemonError> {
    let explicit = !request.trackers.is_empty();
    let named = NamedTrackers { tiers, explicit, publish_private: request.publish_private };
    let info = metainfo.info();
    AnnouncePlan::of(info.name(), metainfo.trackers(), info.is_private(), named).map_err(|error| {
        let sentence = format!("{error}; `--publish-private` announces it there and registers it");
        DaemonError::invalid(Reason::with_cause(sentence, error))
    })
}

/// Refuses a request that is too long to keep a thousand of its size.
pub(super) fn check_len(request: &SeedRequest) -> Result<(), DaemonError> {
    let len = serde_json::to_vec(request).map_or(usize::MAX, |text| text.len());
    if len > MOST_REQUEST {
        return Err(DaemonError::invalid(format!(
            "the request has `{len}` bytes besides a `.torrent`, more than the allowed `{MOST_REQUEST}`: \
             exclude files by fewer patterns",
        )));
    }
    Ok(())
}

/// Maximum length of a request in bytes, without its `.torrent`: 64 MiB for all that may be kept. A request
/// names a path, trackers, labels and patterns; a hundred of each with 255 bytes fit.
const MOST_REQUEST: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_bounded_but_for_its_torrent() {
        let patterns = |number| SeedRequest {
            exclude: vec!["x".repeat(255); number],
            ..SeedRequest::default()
        };
        check_len(&patterns(100)).unwrap();
        let refused = check_len(&patterns(300)).unwrap_err().to_string();
        assert!(refused.contains("more than the allowed `65536`"), "{refused}");
    }
}
