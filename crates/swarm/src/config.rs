//! Default values of the configuration.

use std::time::Duration;

use super::{ChokePolicy, SwarmConfig};
use crate::admission::Shares;
use piecework_core::PeerId;

impl SwarmConfig {
    /// Creates the configuration of a peer on the open internet with the id `local_id` that accepts no
    /// connections.
    pub fn new(local_id: PeerId) -> Self {
        Self {
            local_id,
            info_hash: None,
            metadata_size: None,
            is_private: false,
            exchange: false,
            listen_port: None,
            client: local_id.client_name(),
            choke: ChokePolicy::TitForTat,
            upload_slots: 8,
            max_peers: 80,
            shares: Shares { public: 8, local: 64 },
            max_dialing: 8,
            // 64 MiB.
            memory_blocks: 4096,
            max_requests_in: 1000,
            max_requests_out: 500,
            idle_timeout: Duration::from_secs(150),
            request_timeout: Duration::from_secs(20),
            upload_only: false,
            priorities: None,
            sequential: false,
        }
    }
}
