//! Announcements of torrents on the local network (BEP 14): requests in the form of HTTP, each in one packet to a
//! multicast group.

use std::net::{Ipv4Addr, Ipv6Addr};

use piecework_core::InfoHash;

/// The group and the port for IPv4.
pub const LOCAL_GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);

/// The group for IPv6.
pub const LOCAL_GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// The port of both groups.
pub const LOCAL_PORT: u16 = 6771;

/// The maximum length of a packet. Packets that a link does not carry whole may be lost.
pub const MAX_LOCAL_LEN: usize = 1_400;

/// The number of torrents in a packet, of which each takes 52 bytes.
pub const MAX_LOCAL_TORRENTS: usize = 20;

/// An announcement: a peer listens on a port, and has torrents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalAnnounce {
    /// The port on which it accepts connections. Not 0.
    pub port: u16,
    /// The torrents, at least one.
    pub torrents: Vec<InfoHash>,
    /// A text that the sender knows as its own, at most 64 bytes.
    pub cookie: Option<String>,
}

impl LocalAnnounce {
    /// Decodes a packet. Returns `None` for one that is too long, is no request of this kind, has no valid port or
    /// names no torrent. Headers that are not known, invalid info-hashes, and all of them beyond
    /// [`MAX_LOCAL_TORRENTS`], are ignored.
    pub fn decode(packet: &[u8]) -> Option<Self> {
        if packet.len() > MAX_LOCAL_LEN {
            return None;
        }
        let text = std::str::from_utf8(packet).ok()?;
        let mut lines = text.split("\r\n");
        if lines.next()? != REQUEST {
            return None;
        }
        let (mut port, mut cookie, mut torrents) = (None, None, Vec::new());
        for (name, value) in lines.take_while(|line| !line.is_empty()).filter_map(header) {
            match name.to_ascii_lowercase().as_str() {
                "port" => port = value.parse().ok().filter(|port| *port != 0),
                "cookie" if value.len() <= MAX_COOKIE => cookie = Some(value.to_owned()),
                "infohash" if torrents.len() < MAX_LOCAL_TORRENTS => {
                    torrents.extend(value.parse::<InfoHash>().ok());
                }
                _ => {}
            }
        }
        let port = port.filter(|_| !torrents.is_empty())?;
        Some(Self { port, torrents, cookie })
    }

    /// Returns the packet for the group of IPv4 or of IPv6.
    pub fn encode(&self, is_v4: bool) -> Vec<u8> {
        let host = if is_v4 {
            format!("{LOCAL_GROUP_V4}:{LOCAL_PORT}")
        } else {
            format!("[{LOCAL_GROUP_V6}]:{LOCAL_PORT}")
        };
        let mut text = format!("{REQUEST}\r\nHost: {host}\r\nPort: {}\r\n", self.port);
        for torrent in &self.torrents {
            text.push_str(&format!("Infohash: {torrent}\r\n"));
        }
        if let Some(cookie) = &self.cookie {
            text.push_str(&format!("cookie: {cookie}\r\n"));
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }
}

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim(), value.trim()))
}

const REQUEST: &str = "BT-SEARCH * HTTP/1.1";

const MAX_COOKIE: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_packet_of_another_client_is_read() {
        let packet = b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n\
            Infohash: 0123456789ABCDEF0123456789abcdef01234567\r\ncookie: 1a2b\r\n\r\n\r\n";
        let announce = LocalAnnounce::decode(packet).unwrap();
        assert_eq!((announce.port, announce.cookie.as_deref()), (6881, Some("1a2b")));
        let torrent = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        assert_eq!(announce.torrents, [torrent]);
    }

    #[test]
    fn what_is_no_announcement_is_passed_over() {
        let hash = "Infohash: 0123456789abcdef0123456789abcdef01234567\r\n";
        let head = "BT-SEARCH * HTTP/1.1\r\n";
        for packet in [
            String::new(),
            head.to_owned(),
            format!("{head}Port: 6881\r\n\r\n"),
            format!("{head}{hash}\r\n"),
            format!("{head}Port: 0\r\n{hash}\r\n"),
            format!("{head}Port: 65536\r\n{hash}\r\n"),
            format!("{head}\r\nPort: 6881\r\n{hash}\r\n"),
            format!("GET / HTTP/1.1\r\nPort: 6881\r\n{hash}\r\n"),
            format!("{head}Port: 6881\r\nInfohash: 0123\r\n\r\n"),
            format!("{head}Port: 6881\n{hash}"),
            format!("{head}Port: 6881\r\n{}\r\n", hash.repeat(1_000)),
        ] {
            assert_eq!(LocalAnnounce::decode(packet.as_bytes()), None, "{packet:.60}");
        }
        assert_eq!(LocalAnnounce::decode(&[0xff; 100]), None);
    }

    #[test]
    fn of_many_torrents_in_a_packet_twenty_are_read() {
        let torrents = (0..24).map(|n| InfoHash([n; 20])).collect();
        let announce = LocalAnnounce { port: 1, torrents, cookie: None };
        let packet = announce.encode(true);
        assert!(packet.len() <= MAX_LOCAL_LEN);
        assert_eq!(LocalAnnounce::decode(&packet).unwrap().torrents.len(), MAX_LOCAL_TORRENTS);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            port in 1u16..,
            torrents in proptest::collection::vec(any::<[u8; 20]>(), 1..=MAX_LOCAL_TORRENTS),
            cookie in proptest::option::of("[0-9a-z]{1,64}"),
            is_v4: bool,
        ) {
            let torrents = torrents.into_iter().map(InfoHash).collect();
            let announce = LocalAnnounce { port, torrents, cookie };
            let packet = announce.encode(is_v4);
            prop_assert!(packet.len() <= MAX_LOCAL_LEN);
            prop_assert_eq!(LocalAnnounce::decode(&packet), Some(announce));
        }

        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = LocalAnnounce::decode(&bytes);
            let _ = LocalAnnounce::decode(format!("BT-SEARCH * HTTP/1.1\r\n{text}\r\n\r\n").as_bytes());
        }
    }
}
