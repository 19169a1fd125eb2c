//! The file in which a tracker saves its peers for a restart.
//!
//! Each save writes a new file, which gets its name only when it is on the disk. So there is a complete file at any
//! moment, however the tracker ends. It has a header, the peers, and the SHA-256 of both. Numbers are big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PWPEERS1` |
//! | 8 | when it was written, in milliseconds since 1970 |
//! | … | the peers |
//! | 32 | SHA-256 of all of the above |
//!
//! A peer begins with two bytes of flags (see [`flag`]). Then follow the info-hash, unless it is that of the previous
//! peer, port, address, the milliseconds since the peer was last alive and since its holdings were confirmed, its id,
//! its key, the bytes it misses, and the length and bytes of its bitfield, each if its flag is set.

use piecework_core::SaturatingFrom;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, BytesMut};
use sha2::{Digest, Sha256};

use piecework_core::{AnnounceKey, InfoHash, PeerId, printable};
use piecework_database::{set_aside, with_suffix};
use piecework_registry::{HoldingsSource, KeptHoldings, KeptPeer};

/// A file under construction, in memory.
pub(super) struct PeersFile {
    bytes: BytesMut,
    last: Option<InfoHash>,
}

/// Why a peers file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeersFileError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is damaged.
    #[error("{0}")]
    Damaged(&'static str),
}

impl PeersFile {
    /// Returns a file without peers.
    pub(super) fn new(now: SystemTime) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_slice(MAGIC);
        bytes.put_u64(unix_ms(now));
        Self { bytes, last: None }
    }

    /// Appends a peer.
    pub(super) fn add(&mut self, peer: &KeptPeer) {
        let is_same = self.last == Some(peer.info_hash);
        self.last = Some(peer.info_hash);
        let mut flags = 0;
        let mut set = |flag, on| flags |= if on { flag } else { 0 };
        set(flag::SAME_TORRENT, is_same);
        set(flag::IPV6, peer.addr.is_ipv6());
        set(flag::COMPLETE, peer.complete);
        set(flag::REACHED, peer.reached);
        set(flag::PEER_ID, peer.peer_id.is_some());
        set(flag::SHORT_KEY, matches!(peer.key, Some(AnnounceKey::Short(_))));
        set(flag::LONG_KEY, matches!(peer.key, Some(AnnounceKey::Long(_))));
        set(flag::LEFT, peer.left.is_some());
        set(flag::EVERYTHING, peer.held == KeptHoldings::Everything);
        set(flag::PIECES, matches!(peer.held, KeptHoldings::Pieces(_)));
        set(flag::REPORTED, peer.source == Some(HoldingsSource::Reported));
        set(flag::OBSERVED, peer.source == Some(HoldingsSource::Observed));
        set(flag::ANNOUNCED, peer.source == Some(HoldingsSource::Announced));
        let out = &mut self.bytes;
        out.put_u16(flags);
        if !is_same {
            out.put_slice(&peer.info_hash.0);
        }
        out.put_u16(peer.addr.port());
        match peer.addr.ip() {
            IpAddr::V4(ip) => out.put_slice(&ip.octets()),
            IpAddr::V6(ip) => out.put_slice(&ip.octets()),
        }
        out.put_u32(millis(peer.silent));
        out.put_u32(millis(peer.held_for));
        if let Some(id) = peer.peer_id {
            out.put_slice(&id.0);
        }
        match peer.key {
            Some(AnnounceKey::Short(key)) => out.put_u32(key),
            Some(AnnounceKey::Long(key)) => out.put_slice(&key),
            None => {}
        }
        if let Some(left) = peer.left {
            out.put_u64(left);
        }
        if let KeptHoldings::Pieces(bits) = &peer.held {
            out.put_u32(u32::saturating_from(bits.len()));
            out.put_slice(bits);
        }
    }

    /// Writes the file to `path`, replacing the previous one. Blocks.
    ///
    /// # Errors
    /// If it cannot be written. The previous file is then still there.
    pub(super) fn write(mut self, path: &Path) -> io::Result<()> {
        let digest = Sha256::digest(&self.bytes);
        self.bytes.put_slice(&digest);
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let part = with_suffix(path, ".part");
        let write = || {
            // Only for the owner, because the file has addresses and keys of peers.
            let mut out = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            out.write_all(&self.bytes)?;
            out.sync_all()
        };
        write()
            .and_then(|()| fs::rename(&part, path))
            .inspect_err(|_| drop(fs::remove_file(&part)))?;
        File::open(folder)?.sync_all()
    }

    /// Reads the peers of the file at `path`; none if there is no file. Adds the time since the file was written to
    /// the times of each peer. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub(super) fn read(path: &Path, now: SystemTime) -> Result<Vec<KeptPeer>, PeersFileError> {
        let bytes = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
            Ok(metadata) if metadata.len() > MAX_LEN => {
                return Err(PeersFileError::Damaged("it is longer than any that is written"));
            }
            Ok(_) => fs::read(path)?,
        };
        decode(&bytes, now)
    }
}

/// Returns the notice about a file that cannot be used.
pub(super) fn notice(path: &Path, error: &PeersFileError, now: SystemTime) -> String {
    let shown = |path: &Path| printable(&path.to_string_lossy()).into_owned();
    let lost = "the peers that were known before come back as they announce";
    match error {
        PeersFileError::Io(_) => format!("`{}` cannot be read ({error}): {lost}", shown(path)),
        PeersFileError::Damaged(_) => match set_aside(path, now) {
            Ok(aside) => format!(
                "`{}` was damaged ({error}) and is kept as `{}`: {lost}",
                shown(path),
                shown(&aside)
            ),
            Err(trouble) => format!(
                "`{}` is damaged ({error}) and cannot be renamed ({trouble}): {lost}",
                shown(path)
            ),
        },
    }
}

fn decode(bytes: &[u8], now: SystemTime) -> Result<Vec<KeptPeer>, PeersFileError> {
    let cut = PeersFileError::Damaged("it is cut off");
    let Some((body, digest)) = bytes.split_last_chunk::<32>() else { return Err(cut) };
    if !body.starts_with(MAGIC) {
        return Err(PeersFileError::Damaged("it does not begin as a file of peers does"));
    }
    if Sha256::digest(body).as_slice() != digest {
        return Err(PeersFileError::Damaged("its checksum is wrong"));
    }
    let mut reader = PeersReader(&body[MAGIC.len()..]);
    let written = u64::from_be_bytes(reader.take().ok_or(cut)?);
    // A clock that was set back must not make peers younger.
    let age = Duration::from_millis(unix_ms(now).saturating_sub(written));
    let (mut peers, mut last) = (Vec::new(), None);
    while !reader.0.is_empty() {
        let peer = reader.peer(age, last).ok_or(PeersFileError::Damaged("a peer is cut off"))?;
        last = Some(peer.info_hash);
        peers.push(peer);
    }
    Ok(peers)
}

/// The rest of a file.
struct PeersReader<'b>(&'b [u8]);

impl<'b> PeersReader<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn bytes(&mut self, len: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn peer(&mut self, age: Duration, last: Option<InfoHash>) -> Option<KeptPeer> {
        let flags = u16::from_be_bytes(self.take()?);
        let is = |flag| flags & flag != 0;
        let info_hash = if is(flag::SAME_TORRENT) { last? } else { InfoHash(self.take()?) };
        let port = u16::from_be_bytes(self.take()?);
        let ip = match is(flag::IPV6) {
            true => IpAddr::from(self.take::<16>()?),
            false => IpAddr::from(self.take::<4>()?),
        };
        let silent = Duration::from_millis(self.u32()?.into()) + age;
        let held_for = Duration::from_millis(self.u32()?.into()) + age;
        let peer_id = if is(flag::PEER_ID) { Some(PeerId(self.take()?)) } else { None };
        let key = match (is(flag::SHORT_KEY), is(flag::LONG_KEY)) {
            (true, _) => Some(AnnounceKey::Short(self.u32()?)),
            (_, true) => Some(AnnounceKey::Long(self.take()?)),
            _ => None,
        };
        let left = if is(flag::LEFT) { Some(u64::from_be_bytes(self.take()?)) } else { None };
        let held = match (is(flag::EVERYTHING), is(flag::PIECES)) {
            (true, _) => KeptHoldings::Everything,
            (_, true) => {
                let len = self.u32()? as usize;
                KeptHoldings::Pieces(self.bytes(len)?.to_vec())
            }
            _ => KeptHoldings::Unknown,
        };
        let source = match () {
            () if is(flag::REPORTED) => Some(HoldingsSource::Reported),
            () if is(flag::OBSERVED) => Some(HoldingsSource::Observed),
            () if is(flag::ANNOUNCED) => Some(HoldingsSource::Announced),
            () => None,
        };
        Some(KeptPeer {
            info_hash,
            addr: SocketAddr::new(ip, port),
            complete: is(flag::COMPLETE),
            silent,
            reached: is(flag::REACHED),
            peer_id,
            key,
            left,
            held,
            source,
            held_for,
        })
    }
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns milliseconds, at most 49 days. Older peers are not saved.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// The flags in a peer's first two bytes.
mod flag {
    pub(super) const SAME_TORRENT: u16 = 1;
    pub(super) const IPV6: u16 = 1 << 1;
    pub(super) const COMPLETE: u16 = 1 << 2;
    pub(super) const REACHED: u16 = 1 << 3;
    pub(super) const PEER_ID: u16 = 1 << 4;
    pub(super) const SHORT_KEY: u16 = 1 << 5;
    pub(super) const LONG_KEY: u16 = 1 << 6;
    pub(super) const LEFT: u16 = 1 << 7;
    pub(super) const EVERYTHING: u16 = 1 << 8;
    pub(super) const PIECES: u16 = 1 << 9;
    pub(super) const REPORTED: u16 = 1 << 10;
    pub(super) const OBSERVED: u16 = 1 << 11;
    pub(super) const ANNOUNCED: u16 = 1 << 12;
}

const MAGIC: &[u8] = b"PWPEERS1";

/// The maximum number of bytes of bitfields in a file.
pub(super) const MAX_BITFIELD_BYTES: usize = 32 << 20;

/// The maximum size of a file that is read: a million peers of 100 bytes, and their bitfields.
const MAX_LEN: u64 = 160 << 20;

/// The maximum number of peers in a file, whatever the configuration says.
pub(super) const MAX_KEPT: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]
    }

    fn any_key() -> impl Strategy<Value = Option<AnnounceKey>> {
        prop_oneof![
            Just(None),
            any::<u32>().prop_map(|key| Some(AnnounceKey::Short(key))),
            any::<[u8; 16]>().prop_map(|key| Some(AnnounceKey::Long(key))),
        ]
    }

    fn any_peer() -> impl Strategy<Value = KeptPeer> {
        let who = (0u8..3, any_ip(), any::<u16>(), any::<[bool; 2]>());
        let said = (
            proptest::option::of(any::<[u8; 20]>()),
            any_key(),
            any::<Option<u64>>(),
            any::<[u32; 2]>(),
        );
        let held = prop_oneof![
            Just(KeptHoldings::Unknown),
            Just(KeptHoldings::Everything),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(KeptHoldings::Pieces),
        ];
        let source = proptest::option::of(proptest::sample::select(vec![
            HoldingsSource::Reported,
            HoldingsSource::Observed,
            HoldingsSource::Announced,
        ]));
        (who, said, held, source).prop_map(|(who, said, held, source)| {
            let ((torrent, ip, port, [complete, reached]), (id, key, left, [silent, held_for])) =
                (who, said);
            KeptPeer {
                info_hash: InfoHash([torrent; 20]),
                addr: SocketAddr::new(ip, port),
                complete,
                silent: Duration::from_millis(silent.into()),
                reached,
                peer_id: id.map(PeerId),
                key,
                left,
                held,
                source,
                held_for: Duration::from_millis(held_for.into()),
            }
        })
    }

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
    }

    proptest! {
        #[test]
        fn peers_come_back_as_they_were_and_older(
            peers in proptest::collection::vec(any_peer(), 0..20),
            age in 0u64..10_000,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tracker.peers");
            let mut file = PeersFile::new(at(1_000_000));
            peers.iter().for_each(|peer| file.add(peer));
            file.write(&path).unwrap();
            let read = PeersFile::read(&path, at(1_000_000 + age)).unwrap();
            let older = peers.into_iter().map(|mut peer| {
                peer.silent += Duration::from_millis(age);
                peer.held_for += Duration::from_millis(age);
                peer
            });
            prop_assert_eq!(read, older.collect::<Vec<_>>());
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        }

        #[test]
        fn any_other_bytes_are_damage_and_no_panic(
            peers in proptest::collection::vec(any_peer(), 1..5),
            at_byte in 0usize..400,
            change in 1u8..,
            cut in 0usize..400,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("tracker.peers");
            let mut file = PeersFile::new(at(0));
            peers.iter().for_each(|peer| file.add(peer));
            file.write(&path).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            let cut = cut.min(bytes.len() - 1);
            prop_assert!(matches!(decode(&bytes[..cut], at(0)), Err(PeersFileError::Damaged(_))));
            let changed = at_byte % bytes.len();
            bytes[changed] ^= change;
            prop_assert!(matches!(decode(&bytes, at(0)), Err(PeersFileError::Damaged(_))));
            // A body that is signed and makes no sense, as from another program.
            let mut body = [MAGIC, &[0; 8], &bytes[..cut]].concat();
            let digest = Sha256::digest(&body);
            body.extend_from_slice(&digest);
            let _ = decode(&body, at(0));
        }
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracker.peers");
        fs::write(&path, b"PWPEERS1 and then something else").unwrap();
        let error = PeersFile::read(&path, at(5_000)).unwrap_err();
        let told = notice(&path, &error, at(5_000));
        assert!(
            told.contains("was damaged") && told.contains("tracker.peers.damaged-5`"),
            "{told}"
        );
        assert!(!path.exists() && dir.path().join("tracker.peers.damaged-5").exists());
        fs::write(&path, b"").unwrap();
        let error = PeersFile::read(&path, at(5_000)).unwrap_err();
        assert!(notice(&path, &error, at(5_000)).contains("damaged-5-1"));
        assert!(PeersFile::read(&path, at(0)).unwrap().is_empty(), "there is none");
    }
}
