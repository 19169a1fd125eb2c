//! The HTTP API of the tracker's catalogue: JSON and queries. Both sides use these types.

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use super::AnnounceError;
use super::query::{escape, key, once, pairs, peer_id, port, required};
use piecework_core::{AnnounceKey, Bitfield, InfoHash, PeerId, base64};

/// The maximum length of a `.torrent` file that is read, made, or served. The hashes of two million pieces are 40 MB.
pub const MAX_TORRENT_LEN: usize = 100 * 1024 * 1024;

/// The maximum length of a `.torrent` file from anybody but the operator: enough for 1.6 TiB in pieces of 2 MiB. A
/// tracker receives several at a time and keeps them.
pub const MAX_UPLOAD_LEN: usize = 16 * 1024 * 1024;

/// The maximum length of a torrent's name in the catalogue: that of a file name.
pub const MAX_NAME_LEN: usize = 255;

/// The maximum length of a description: a paragraph.
pub const MAX_DESCRIPTION_LEN: usize = 1024;

/// One torrent of the catalogue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The torrent's name. Unescaped.
    pub name: String,
    /// The size of the content in bytes.
    pub size: u64,
    /// Number of pieces.
    pub pieces: u32,
    /// The size of a piece in bytes.
    pub piece_length: u32,
    /// Number of files.
    pub files: u32,
    /// Whether peers may come only from its trackers (BEP 27).
    pub private: bool,
    /// The description. Unescaped.
    pub description: Option<String>,
    /// The number of complete peers.
    pub complete: u32,
    /// The number of incomplete peers.
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

/// The options for registering a torrent: the query of `POST /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegisterOptions {
    /// The name in the catalogue, in place of the one in the torrent.
    pub name: Option<String>,
    /// A description for users.
    pub description: Option<String>,
    /// Whether to leave it out of lists, so that only clients with the info-hash can fetch it.
    pub unlisted: bool,
    /// Whether the tracker must not connect to its peers to read their holdings.
    pub unobserved: bool,
}

/// Answer to `POST /torrents`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registered {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The torrent's name. Unescaped.
    pub name: String,
    /// The token for removing it; `None` if the torrent was already registered.
    pub token: Option<String>,
}

/// Answer to any request that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogueFault {
    /// The reason, as a sentence.
    pub error: String,
}

/// The sender of a report of holdings: the query of `POST /torrents/{info_hash}/holdings`, whose body is the
/// bitfield in its wire form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HoldingsReport {
    /// The announced peer id.
    pub peer_id: PeerId,
    /// The announced port.
    pub port: u16,
    /// The announced key, which proves that it is the same peer.
    pub key: AnnounceKey,
}

/// Reports for several torrents of peers at one address and port: the body of `POST /holdings`, whose query is the
/// `peer_id` and `port` of a [`HoldingsReport`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HoldingsBatch {
    /// One report for each torrent, at most [`MAX_BATCH`].
    pub torrents: Vec<BatchedHoldings>,
}

/// The report for one torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchedHoldings {
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// The announced key, in the form of an announce's query.
    pub key: String,
    /// The pieces held.
    pub have: BatchedPieces,
}

/// The pieces held of one torrent, as [`HoldingsBatch`] and the tracker's map write them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchedPieces {
    /// All pieces.
    All,
    /// No pieces.
    None,
    /// Base64 of the bitfield as on the wire.
    #[serde(untagged)]
    Some {
        /// The text.
        bits: String,
    },
}

/// Answer to `POST /holdings`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// The outcome of each report, in the order of the request.
    pub torrents: Vec<BatchOutcome>,
}

/// The outcome of the report for one torrent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchOutcome {
    /// The torrent's info-hash.
    pub info_hash: InfoHash,
    /// The HTTP status that a report for this torrent alone would have got.
    pub status: u16,
    /// Why the report was refused; `None` if it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The maximum number of reports in a [`HoldingsBatch`].
pub const MAX_BATCH: usize = 500;

/// The maximum length of a [`HoldingsBatch`]: 500 torrents with some 2,000 pieces each.
pub const MAX_BATCH_LEN: usize = 256 * 1024;

impl BatchedHoldings {
    /// Returns the report of `bitfield`, as on the wire; `None` is all pieces.
    pub fn new(info_hash: InfoHash, key: AnnounceKey, bitfield: Option<&[u8]>) -> Self {
        let have = match bitfield {
            None => BatchedPieces::All,
            Some(bits) if bits.iter().all(|byte| *byte == 0) => BatchedPieces::None,
            Some(bits) => BatchedPieces::Some { bits: base64::encode(bits) },
        };
        Self { info_hash, key: key.to_string(), have }
    }

    /// Returns the announced key.
    pub fn key(&self) -> AnnounceKey {
        key(&self.key)
    }

    /// Returns the bitfield of a torrent of so many pieces, as on the wire. `None` if the text is no
    /// base64.
    pub fn bitfield(&self, pieces: u32) -> Option<Vec<u8>> {
        match &self.have {
            BatchedPieces::All => Some(Bitfield::full(pieces).as_wire().to_vec()),
            BatchedPieces::None => Some(Bitfield::empty(pieces).as_wire().to_vec()),
            BatchedPieces::Some { bits } => base64::decode(bits),
        }
    }

    /// Returns how many bytes it takes in a batch at most.
    pub fn encoded_len(&self) -> usize {
        let bits = match &self.have {
            BatchedPieces::Some { bits } => bits.len(),
            BatchedPieces::All | BatchedPieces::None => 0,
        };
        self.key.len() + bits + BATCHED_OVERHEAD
    }
}

impl RegisterOptions {
    /// Returns the query without the `?`; empty if all options have their defaults.
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

    /// Parses the query. Unknown keys are ignored. An empty name or description counts as absent.
    ///
    /// # Errors
    /// If a key is repeated, or a value is too long.
    pub fn decode_query(query: &str) -> Result<Self, AnnounceError> {
        // Limits the query as a whole.
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
    /// Returns the query without the `?`.
    pub fn encode_query(&self) -> String {
        let Self { peer_id, port, key } = self;
        format!("peer_id={}&port={port}&key={key}", escape(&peer_id.0))
    }

    /// Returns the query of a batch, whose keys are in its body.
    pub fn encode_batch_query(peer_id: PeerId, port: u16) -> String {
        format!("peer_id={}&port={port}", escape(&peer_id.0))
    }

    /// Parses the query of a batch: the peer id and the port.
    ///
    /// # Errors
    /// See [`HoldingsReport::decode_query`].
    pub fn decode_batch_query(query: &str) -> Result<(PeerId, u16), AnnounceError> {
        let (id, listens, _) = Self::decode_parts(query)?;
        Ok((required(id, "peer_id")?, required(listens, "port")?))
    }

    /// Parses the query. Unknown keys are ignored.
    ///
    /// # Errors
    /// If a key is missing or repeated, or a value is not valid.
    pub fn decode_query(query: &str) -> Result<Self, AnnounceError> {
        let (id, listens, number) = Self::decode_parts(query)?;
        Ok(Self {
            peer_id: required(id, "peer_id")?,
            port: required(listens, "port")?,
            key: required(number, "key")?,
        })
    }

    fn decode_parts(query: &str) -> Result<Parts, AnnounceError> {
        let (mut id, mut listens, mut number) = (None, None, None);
        for (name, value) in pairs(query)? {
            match name {
                "peer_id" => once(&mut id, "peer_id", peer_id(value)?)?,
                "port" => once(&mut listens, "port", port(value)?)?,
                "key" => once(&mut number, "key", key(value))?,
                _ => {}
            }
        }
        Ok((id, listens, number))
    }
}

/// The parts of a report's query, each if present.
type Parts = (Option<PeerId>, Option<u16>, Option<AnnounceKey>);

/// Bytes of a report's info-hash, names and punctuation.
const BATCHED_OVERHEAD: usize = 120;

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
    use piecework_core::PieceIndex;

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
        fn batches_round_trip_and_are_as_long_as_they_say(
            hash: [u8; 20],
            key in any_key(),
            pieces in 1u32..5_000,
            every in 1u32..9,
            whole: bool,
        ) {
            let key = key.unwrap_or(AnnounceKey::Short(0));
            let mut held = Bitfield::empty(pieces);
            for piece in (0..pieces).filter(|piece| piece % every == 1) {
                held.insert(PieceIndex(piece));
            }
            let bits = (!whole).then(|| held.as_wire());
            let report = BatchedHoldings::new(InfoHash(hash), key, bits);
            let text = serde_json::to_string(&report).unwrap();
            prop_assert!(text.len() < report.encoded_len());
            let read: BatchedHoldings = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&read, &report);
            prop_assert_eq!(read.key(), key);
            let expected = if whole { Bitfield::full(pieces) } else { held };
            prop_assert_eq!(read.bitfield(pieces).unwrap(), expected.as_wire());
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
    fn a_batch_keeps_its_json_form() {
        let batch = HoldingsBatch {
            torrents: vec![
                BatchedHoldings::new(InfoHash([0xab; 20]), AnnounceKey::Short(1), None),
                BatchedHoldings::new(InfoHash([1; 20]), AnnounceKey::Long([2; 16]), Some(&[0])),
                BatchedHoldings::new(InfoHash([3; 20]), AnnounceKey::Short(4), Some(&[0x80])),
            ],
        };
        let text = format!(
            "{{\"torrents\":[\
             {{\"info_hash\":\"{}\",\"key\":\"00000001\",\"have\":\"all\"}},\
             {{\"info_hash\":\"{}\",\"key\":\"{}\",\"have\":\"none\"}},\
             {{\"info_hash\":\"{}\",\"key\":\"00000004\",\"have\":{{\"bits\":\"gA==\"}}}}]}}",
            "ab".repeat(20),
            "01".repeat(20),
            "02".repeat(16),
            "03".repeat(20)
        );
        assert_eq!(serde_json::to_string(&batch).unwrap(), text);
        assert_eq!(serde_json::from_str::<HoldingsBatch>(&text).unwrap(), batch);
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
