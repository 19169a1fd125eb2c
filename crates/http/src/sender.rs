//! Which user of this machine is at the other end of a connection over loopback.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The users whose sockets are connected over TCP, by the address of the socket.
///
/// From `/proc/self/net/tcp` and `tcp6`, which every process may read. Reading takes about a millisecond
/// for a thousand connections.
#[derive(Debug, Default)]
pub struct Senders {
    users: HashMap<SocketAddr, u32>,
}

impl Senders {
    /// Those of this moment.
    pub fn now() -> Self {
        let mut tables = String::new();
        for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            let read = fs::File::open(path)
                .and_then(|file| file.take(MAX_TABLE).read_to_string(&mut tables));
            // A system without IPv6 has only the first; without both nobody is known.
            if let Err(error) = read {
                tracing::debug!(%error, path, "connected users are not known");
            }
        }
        Self::of(tables.lines().filter_map(row))
    }

    /// Returns the senders of these connections: local addresses with the users they belong to.
    pub(super) fn of(users: impl Iterator<Item = (SocketAddr, u32)>) -> Self {
        Self { users: users.collect() }
    }

    /// The user id of whoever has the socket at `addr`, of this machine.
    pub fn user_of(&self, addr: SocketAddr) -> Option<u32> {
        self.users.get(&canonical(addr)).copied()
    }
}

/// The address and user of a socket: number, local address, remote address, state, queues, timer,
/// retransmits, user.
fn row(line: &str) -> Option<(SocketAddr, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits in the order of the machine.
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            Ipv6Addr::from_bits(u128::from_be_bytes(words.concat().try_into().ok()?)).into()
        }
        _ => return None,
    };
    Some((canonical(SocketAddr::new(ip, port)), fields.nth(5)?.parse().ok()?))
}

/// A socket of IPv6 has an IPv4 address in another form.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Bytes of a table that are read: some 25,000 connections.
const MAX_TABLE: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn whoever_connects_over_loopback_is_known_by_user() {
        let own = rustix::process::geteuid().as_raw();
        for addr in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(addr) else { continue };
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_far, peer) = listener.accept().unwrap();
            assert_eq!(peer, near.local_addr().unwrap());
            assert_eq!(Senders::now().user_of(peer), Some(own));
        }
        assert_eq!(Senders::now().user_of("192.0.2.1:1".parse().unwrap()), None);
    }

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        let tables = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n   \
            1: 0100007F:8235 0100007F:1388 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n   \
            2: 0000000000000000FFFF00000100007F:8236 0000000000000000FFFF00000100007F:1388 01 00000000:00000000 00:00000000 00000000  1001        0 3 1\n";
        if cfg!(target_endian = "big") {
            return;
        }
        let senders = Senders::of(tables.lines().filter_map(row));
        let user = |addr: &str| senders.user_of(addr.parse().unwrap());
        assert_eq!(user("127.0.0.1:33333"), Some(1000));
        assert_eq!(user("[::ffff:127.0.0.1]:33333"), Some(1000));
        assert_eq!(user("127.0.0.1:33334"), Some(1001));
        assert_eq!(user("127.0.0.2:33333"), None);
        assert_eq!(user("127.0.0.1:33335"), None);
    }
}
