//! Sources of the content that a torrent names besides its trackers.

use crate::bencode::{self, Kind, Node};
use crate::printable_bytes;

use super::{Metainfo, MetainfoError, ParseLimits};

/// Sources of the content that a torrent names, and where it was first published. None of it is
/// used. All text in it is printable.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OtherSources {
    /// URLs of web seeds (BEP 17, BEP 19), at most [`OtherSources::MOST`].
    pub web_seeds: Vec<String>,
    /// DHT nodes (BEP 5) as `HOST:PORT`, at most [`OtherSources::MOST`].
    pub nodes: Vec<String>,
    /// The `source` inside `info`, by which sites give the same files another info-hash.
    pub source: Option<String>,
}

impl OtherSources {
    /// Entries of each kind that are listed.
    pub const MOST: usize = 100;
}

impl Metainfo {
    /// Returns the sources that the torrent names. Blocks if its bytes were dropped and have to be
    /// read again.
    ///
    /// # Errors
    /// If the bytes cannot be read again.
    pub fn other_sources(&self) -> Result<OtherSources, MetainfoError> {
        let bytes = self.bytes()?;
        let limits = ParseLimits::default();
        let limits =
            bencode::Limits { bytes: limits.bytes, tokens: limits.tokens, ..Default::default() };
        let all = bencode::Tolerance { numbers: true, duplicate_keys: true };
        let (scan, _) = bencode::scan_tolerant(&bytes, &limits, all)?;
        let root = scan.root();
        let mut web_seeds = Vec::new();
        for key in [&b"url-list"[..], b"httpseeds"] {
            let Some(node) = root.get(key) else { continue };
            match node.kind() {
                Kind::List => {
                    web_seeds.extend(node.items().filter_map(text).take(OtherSources::MOST))
                }
                _ => web_seeds.extend(text(node)),
            }
        }
        web_seeds.truncate(OtherSources::MOST);
        let nodes = root.get(b"nodes").filter(|node| node.kind() == Kind::List);
        let nodes = nodes.into_iter().flat_map(Node::items).filter_map(host_and_port);
        let source = root.get(b"info").and_then(|info| info.get(b"source")).and_then(text);
        Ok(OtherSources { web_seeds, nodes: nodes.take(OtherSources::MOST).collect(), source })
    }
}

/// Returns a printable text that is not empty.
fn text(node: Node<'_, '_>) -> Option<String> {
    let bytes = node.as_bytes().filter(|bytes| !bytes.is_empty())?;
    Some(printable_bytes(&bytes[..bytes.len().min(MOST_TEXT)]))
}

/// Returns a DHT node: a list of host and port.
fn host_and_port(node: Node<'_, '_>) -> Option<String> {
    let mut parts = node.items();
    let (host, port) = (text(parts.next()?)?, parts.next()?.as_int()?);
    // An IPv6 address contains colons.
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("{host}:{port}"))
}

/// Bytes of a text that are shown.
const MOST_TEXT: usize = 2_000;
