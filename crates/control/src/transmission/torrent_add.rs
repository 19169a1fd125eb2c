//! What `torrent_add` asks for, as a torrent for the daemon.

use std::path::PathBuf;

use super::arguments::Arguments;
use super::fault::{Code, Fault};
use super::torrent_set::{bandwidth, labels, new_files};
use piecework_api::{Settings, TorrentSettings};
use piecework_core::metainfo::{Metainfo, ParseLimits};
use piecework_core::{InfoHash, base64, printable};
use piecework_daemon::{AddSource, NewTorrent};
use piecework_proto::announce::Magnet;

/// The torrent that the request wants added.
pub(super) fn new_torrent(given: &Arguments, session: &Settings) -> Result<NewTorrent, Fault> {
    let folder = match given.text("download_dir")? {
        None | Some("") => None,
        Some(folder) => Some(absolute(folder)?),
    };
    let settings = TorrentSettings {
        paused: given.flag("paused")?.unwrap_or(!session.start_added),
        max_peers: given.count("peer_limit")?.filter(|peers| *peers > 0),
        bandwidth: bandwidth(given)?.unwrap_or_default(),
        sequential: given.flag("sequential_download")?.unwrap_or(session.sequential),
        files: new_files(given)?,
        labels: labels(given)?.unwrap_or_default(),
        ..TorrentSettings::default()
    };
    Ok(NewTorrent { folder, ..NewTorrent::new(source(given)?, settings) })
}

/// A folder or file of the daemon's machine.
pub(super) fn absolute(path: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Ok(path);
    }
    let shown = path.to_string_lossy();
    let detail = format!("`{}` is not an absolute path", printable(&shown));
    Err(Fault::new(Code::PathNotAbsolute, detail))
}

fn source(given: &Arguments) -> Result<AddSource, Fault> {
    let filename = given.text("filename")?.unwrap_or_default();
    if filename.is_empty() {
        let metainfo = given.text("metainfo")?.unwrap_or_default();
        if metainfo.is_empty() {
            return Err(Fault::new(Code::InvalidParams, "no filename or metainfo specified"));
        }
        let bytes = base64::decode(metainfo)
            .ok_or_else(|| Fault::new(Code::UnrecognizedInfo, "`metainfo` is not base64"))?;
        // The daemon reads it again; here it is told from all else that can go wrong.
        Metainfo::parse(&bytes, &ParseLimits::default())
            .map_err(|error| Fault::new(Code::CorruptTorrent, error.to_string()))?;
        return Ok(AddSource::Bytes(bytes));
    }
    let scheme = filename.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("http" | "https") => {
            if given.text("cookies")?.is_some_and(|cookies| !cookies.trim().is_empty()) {
                let detail =
                    "`cookies` are not sent along: fetch the .torrent and give it as `metainfo`";
                return Err(Fault::new(Code::InvalidParams, detail));
            }
            Ok(AddSource::Url(filename.to_owned()))
        }
        Some("magnet") => {
            // The daemon reads it again; here it is told from all else that can go wrong.
            Magnet::parse(filename)
                .map_err(|error| Fault::new(Code::UnrecognizedInfo, error.to_string()))?;
            Ok(AddSource::Url(filename.to_owned()))
        }
        _ if filename.parse::<InfoHash>().is_ok() => {
            Ok(AddSource::Url(format!("magnet:?xt=urn:btih:{filename}")))
        }
        _ => absolute(filename).map(AddSource::File).map_err(|_| {
            let shown = printable(filename);
            let detail = format!("`{shown}` is neither a web address nor an absolute path");
            Fault::new(Code::UnrecognizedInfo, detail)
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use piecework_core::Priority;

    fn added(value: Value) -> Result<NewTorrent, Fault> {
        let given = Arguments::new(value.as_object().unwrap().clone());
        new_torrent(&given, &Settings { sequential: true, ..Settings::default() })
    }

    #[test]
    fn a_torrent_comes_as_bytes_path_or_web_address() {
        let bytes = super::super::samples::torrent_file();
        let metainfo = base64::encode(&bytes);
        let source = |value| added(value).unwrap().source;
        assert!(matches!(source(json!({"metainfo": metainfo})), AddSource::Bytes(b) if b == bytes));
        let path = source(json!({"filename": "/a/b.torrent"}));
        assert!(matches!(path, AddSource::File(path) if path.as_os_str() == "/a/b.torrent"));
        let url = source(json!({"filename": "HTTPS://x.org/b.torrent", "cookies": ""}));
        assert!(matches!(url, AddSource::Url(url) if url == "HTTPS://x.org/b.torrent"));
        let hash = "ab".repeat(20);
        let link = format!("magnet:?xt=urn:btih:{hash}");
        for named in [&link, &hash] {
            let source = source(json!({"filename": named}));
            assert!(matches!(source, AddSource::Url(url) if url == link), "{named}");
        }
    }

    #[test]
    fn what_is_no_torrent_is_refused_in_the_words_clients_know() {
        let fault = |value| added(value).unwrap_err();
        assert_eq!(fault(json!({})).legacy_result(), "no filename or metainfo specified");
        assert_eq!(
            fault(json!({"metainfo": base64::encode(b"d4:infoi1ee")})).legacy_result(),
            "invalid or corrupt torrent file"
        );
        for unknown in ["magnet:?xt=urn:btih:aa", "magnet:?dn=x", "ftp://x.org/b", "b.torrent"] {
            assert_eq!(
                fault(json!({"filename": unknown})).code,
                Code::UnrecognizedInfo,
                "{unknown}"
            );
        }
        assert_eq!(fault(json!({"metainfo": "*"})).code, Code::UnrecognizedInfo);
        let relative = fault(json!({"filename": "/a", "download_dir": "a"}));
        assert_eq!(relative.code, Code::PathNotAbsolute);
        let cookies = fault(json!({"filename": "http://x.org/b", "cookies": "a=b"}));
        assert_eq!(cookies.code, Code::InvalidParams);
    }

    #[test]
    fn what_is_chosen_goes_along() {
        let new = added(json!({
            "filename": "/a", "download_dir": "/d", "paused": true, "peer_limit": 5,
            "bandwidth_priority": -1, "labels": ["x"], "files_unwanted": [1], "priority_high": [0],
            "sequential_download": false,
        }))
        .unwrap();
        assert_eq!(new.folder, Some(PathBuf::from("/d")));
        let expected = TorrentSettings {
            paused: true,
            max_peers: Some(5),
            bandwidth: Priority::Low,
            labels: vec!["x".to_owned()],
            files: vec![Priority::High, Priority::Skip],
            sequential: false,
            ..TorrentSettings::default()
        };
        assert_eq!(new.settings, expected);
        let plain = added(json!({"filename": "/a", "download_dir": ""})).unwrap();
        assert_eq!((plain.folder, plain.settings.paused), (None, false));
        assert!(plain.settings.sequential, "the daemon's choice");
    }
}
