//! The connections of a session: who may have one, and how many are made at a time.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::net::{Limiter, PeerStream};
use piecework_core::Moment;
use piecework_proto::encryption::EncryptionPolicy;
use piecework_swarm::ChokePolicy;

use super::SessionConfig;
use super::gate::Gate;
use super::places::{Place, Places};

pub(super) struct Connections {
    pub bounds: Mutex<Bounds>,
    /// Dials that may still be under way.
    pub dialing: Arc<Semaphore>,
    /// Connections that were accepted and are in their handshake.
    pub gate: Gate,
    /// Limits the keys that are computed for peers that dial us.
    pub key_exchanges: Limiter,
    places: Places,
    /// Connections for which the process has descriptors.
    affordable: usize,
    blocked: RwLock<Option<BlockList>>,
}

/// What can be changed of a session's configuration while it runs.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub connections: usize,
    pub per_torrent: usize,
    pub upload_slots: usize,
    pub choke: ChokePolicy,
    pub encryption: EncryptionPolicy,
}

pub(super) type BlockList = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl Connections {
    pub(crate) fn new(config: &SessionConfig, affordable: usize) -> Self {
        let bounds = Bounds {
            connections: config.max_connections,
            per_torrent: config.max_peers_per_torrent,
            upload_slots: config.upload_slots,
            choke: config.choke,
            encryption: config.encryption,
        };
        Self {
            bounds: Mutex::new(bounds),
            dialing: Arc::new(Semaphore::new(config.max_half_open)),
            gate: Gate::new(config.max_half_open),
            key_exchanges: Limiter::new(Some(KEY_EXCHANGES_A_SECOND)),
            places: Places::new(config.session_shares()),
            affordable,
            blocked: RwLock::default(),
        }
    }

    /// Returns a place for a connection to `ip`, if there is one or somebody makes way.
    pub(crate) fn take_place(
        &self,
        now: Moment,
        ip: IpAddr,
        stream: &Arc<PeerStream>,
    ) -> Option<Place> {
        self.places.take(now, self.most(), ip, stream)
    }

    /// Returns whether there would be a place now.
    pub(crate) fn has_place(&self, now: Moment, ip: IpAddr) -> bool {
        self.places.has_one(now, self.most(), ip)
    }

    /// Returns the number of connections.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_blocked(&self, ip: IpAddr) -> bool {
        self.blocked.read().as_ref().is_some_and(|is_blocked| is_blocked(ip.to_canonical()))
    }

    pub(crate) fn set_block_list(&self, list: BlockList) {
        *self.blocked.write() = Some(list);
    }

    fn most(&self) -> usize {
        self.bounds.lock().connections.min(self.affordable)
    }
}

/// One takes some 0.2 ms: a tenth of a core at most is spent on strangers. Only connections that are
/// half open wait, of which there are 100 by default and of one address no more than its share, so
/// nobody waits longer for them than 0.2 s.
const KEY_EXCHANGES_A_SECOND: u64 = 500;
