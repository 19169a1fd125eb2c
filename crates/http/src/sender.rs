//! Finds which local user owns the other end of a loopback connection.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The users of all connected TCP sockets, by the local address of the socket.
///
/// Read from `/proc/self/net/tcp` and `tcp6`, which every process may read. This takes about a millisecond for a
/// thousand connections.
#[derive(Debug, Default)]
pub struct Senders {
    users: HashMap<SocketAddr, u32>,
}

impl Senders {
    /// Reads the present connections.
    pub fn now() -> Self {
        let mut tables = String::new();
        for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            let read = fs::File::open(path)
                .and_then(|file| file.take(MAX_TABLE).read_to_string(&mut tables));
            // A system without IPv6 has only the first file. Without both no user is known.
            if let Err(error) = read {
                tracing::debug!(%error, path, "the users of connections cannot be read");
            }
        }
        Self::of(tables.lines().filter_map(row))
    }

    /// Returns a table with these local addresses and their users.
    pub(super) fn of(users: impl Iterator<Item = (SocketAddr, u32)>) -> Self {
        Self { users: users.collect() }
    }

    /// Returns the id of the user that owns the local socket at `addr`.
    pub fn user_of(&self, addr: SocketAddr) -> Option<u32> {
        self.users.get(&canonical(addr)).copied()
    }
}

/// Returns the address and user of a socket. The columns are number, local address, remote address, state, queues,
/// timer, retransmits, user.
fn row(line: &str) -> Option<(SocketAddr, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // 32-bit words in the machine's byte order.
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

/// Converts the IPv4-mapped address of an IPv6 socket.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The maximum number of bytes read from a file: some 25,000 connections.
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
