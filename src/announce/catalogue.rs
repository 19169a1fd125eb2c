//! What our tracker's catalogue and its clients say to each other over HTTP: the JSON, and the
//! queries. Requests and answers are in [`crate::announce`] because both sides share them.

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::AnnounceError;
use super::query::{escape, key, once, pairs, peer_id, port, required};
use crate::base::{AnnounceKey, InfoHash, PeerId};

/// Bytes of a `.torrent` that is read, made, or handed out, at most: the hashes of two million pieces
/// are 40 MB.
pub const MAX_TORRENT_LEN: usize = 100 * 1024 * 1024;

/// Bytes of a `.torrent` that is taken of somebody who is not known to be the owner: enough for 1.6
/// TiB in pieces of 2 MiB. Several are received at a time, and a tracker keeps them.
pub const MAX_UPLOAD_LEN: usize = 16 * 1024 * 1024;

/// Bytes of the name a torrent is registered under: as many as a file name may have.
pub const MAX_NAME_LEN: usize = 255;

/// Bytes of a description: a paragraph.
pub const MAX_DESCRIPTION_LEN: usize = 1024;

/// One torrent of the catalogue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The name it is found by. Unescaped.
    pub name: String,
    /// Bytes of content.
    pub size: u64,
    /// Number of pieces.
    pub pieces: u32,
    /// Bytes a piece.
    pub piece_length: u32,
    /// Number of files.
    pub files: u32,
    /// Peers come from its trackers alone (BEP 27).
    pub private: bool,
    /// What people wrote about it. Unescaped.
    pub description: Option<String>,
    /// Peers that have everything.
    pub complete: u32,
    /// Peers that do not.
    pub incomplete: u32,
    /// When it was registered, in seconds since 1970.
    pub registered_at: i64,
}

/// Answer to `GET /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CatalogueList {
    /// The torrents of the list, in the tracker's order.
    pub torrents: Vec<CatalogueEntry>,
}

/// How a torrent is to be registered: the query of `POST /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegisterOptions {
    /// Name to be found by, in place of the one in the torrent.
    pub name: Option<String>,
    /// A note for people.
    pub description: Option<String>,
    /// Leave it out of lists: only who has the info-hash can fetch it.
    pub unlisted: bool,
    /// Do not connect to its peers to see what they hold.
    pub unobserved: bool,
}

/// Answer to `POST /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The name it is found by. Unescaped.
    pub name: String,
    /// Needed to remove it; `None` if it was registered before by somebody else.
    pub token: Option<String>,
}

/// Answer to any request that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogueFault {
    /// Why, in a sentence.
    pub error: String,
}

/// Who reports which pieces it holds: the query of `POST /torrents/{info_hash}/holdings`, whose
/// body is the bitfield as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldingsReport {
    /// The id that the reporting peer announces.
    pub peer_id: PeerId,
    /// The port it announces.
    pub port: u16,
    /// The key it announces, by which the tracker knows that it is the same peer.
    pub key: AnnounceKey,
}

impl RegisterOptions {
    /// The query, without the `?`; empty if there is nothing to say.
    pub fn encode_query(&self) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        if let Some(name) = &self.name {
            out.append_pair("name", name);
        }
        if let Some(description) = &self.description {
            out.append_pair("description", description);
        }
        if self.unlisted {
            out.append_pair("unlisted", "1");
        }
        if self.unobserved {
            out.append_pair("observe", "0");
        }
        out.finish()
    }

    /// Reads the query. Keys we do not know are passed over; an empty name or description is none.
    ///
    /// # Errors
    /// If a key is there twice, or a value is too long.
    pub fn decode_query(query: &str) -> Result<Self, AnnounceError> {
        // Bounds the query as a whole.
        let _ = pairs(query)?;
        let (mut name, mut description, mut unlisted, mut observe) = (None, None, None, None);
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "name" => once(&mut name, "name", bounded("name", &value, MAX_NAME_LEN)?)?,
                "description" => {
                    let text = bounded("description", &value, MAX_DESCRIPTION_LEN)?;
                    once(&mut description, "description", text)?;
                }
                "unlisted" => once(&mut unlisted, "unlisted", flag("unlisted", &value)?)?,
                "observe" => once(&mut observe, "observe", flag("observe", &value)?)?,
                _ => {}
            }
        }
        Ok(Self {
            name: name.flatten(),
            description: description.flatten(),
            unlisted: unlisted.unwrap_or(false),
            unobserved: !observe.unwrap_or(true),
        })
    }
}

impl HoldingsReport {
    /// The query, without the `?`.
    pub fn encode_query(&self) -> String {
        let Self { peer_id, port, key } = self;
        format!("peer_id={}&port={port}&key={key}", escape(&peer_id.0))
    }

    /// Reads the query. Keys we do not know are passed over.
    ///
    /// # Errors
    /// If a key is missing or there twice, or its value is not what it should be.
    pub fn decode_query(query: &str) -> Result<Self, AnnounceError> {
        let (mut id, mut listens, mut number) = (None, None, None);
        for (name, value) in pairs(query)? {
            match name {
                "peer_id" => once(&mut id, "peer_id", peer_id(value)?)?,
                "port" => once(&mut listens, "port", port(value)?)?,
                "key" => once(&mut number, "key", key(value))?,
                _ => {}
            }
        }
        Ok(Self {
            peer_id: required(id, "peer_id")?,
            port: required(listens, "port")?,
            key: required(number, "key")?,
        })
    }
}

fn bounded(key: &'static str, value: &str, limit: usize) -> Result<Option<String>, AnnounceError> {
    if value.len() > limit {
        return Err(AnnounceError::bad_value(key, value.as_bytes(), "short enough"));
    }
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn flag(key: &'static str, value: &str) -> Result<bool, AnnounceError> {
    match value {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(AnnounceError::bad_value(key, value.as_bytes(), "`1` or `0`")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::announce::model::tests::any_key;

    proptest! {
        #[test]
        fn register_options_round_trip(
            name in proptest::option::of("\\PC{1,60}"),
            description in proptest::option::of("\\PC{1,80}"),
            unlisted: bool,
            unobserved: bool,
        ) {
            let options = RegisterOptions { name, description, unlisted, unobserved };
            let read = RegisterOptions::decode_query(&options.encode_query()).unwrap();
            prop_assert_eq!(read, options);
        }

        #[test]
        fn holdings_reports_round_trip(id: [u8; 20], port in 1u16.., key in any_key()) {
            let key = key.unwrap_or(AnnounceKey::Short(0));
            let report = HoldingsReport { peer_id: PeerId(id), port, key };
            prop_assert_eq!(HoldingsReport::decode_query(&report.encode_query()).unwrap(), report);
        }

        #[test]
        fn arbitrary_queries_never_panic(query in "\\PC{0,80}") {
            let _ = RegisterOptions::decode_query(&query);
            let _ = HoldingsReport::decode_query(&query);
        }
    }

    #[test]
    fn over_long_names_and_doubled_keys_are_refused() {
        let long = format!("name={}", "a".repeat(MAX_NAME_LEN + 1));
        assert!(RegisterOptions::decode_query(&long).is_err());
        assert!(RegisterOptions::decode_query("name=a&name=b").is_err());
        assert!(RegisterOptions::decode_query("unlisted=perhaps").is_err());
    }

    #[test]
    fn an_entry_keeps_its_json_form() {
        let entry = CatalogueEntry {
            info_hash: InfoHash([0xab; 20]),
            name: "a".to_owned(),
            size: 1,
            pieces: 1,
            piece_length: 16_384,
            files: 1,
            private: false,
            description: None,
            complete: 2,
            incomplete: 3,
            registered_at: 4,
        };
        let text = serde_json::to_string(&CatalogueList { torrents: vec![entry.clone()] }).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"torrents\":[{{\"info_hash\":\"{}\",\"name\":\"a\",\"size\":1,\"pieces\":1,\
                 \"piece_length\":16384,\"files\":1,\"private\":false,\"description\":null,\
                 \"complete\":2,\"incomplete\":3,\"registered_at\":4}}]}}",
                "ab".repeat(20)
            )
        );
        let read: CatalogueList = serde_json::from_str(&text).unwrap();
        assert_eq!(read.torrents, [entry]);
    }
}
