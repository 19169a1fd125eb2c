//! Peers' reports of their holdings.

use std::net::SocketAddr;
use std::sync::Arc;

use super::access_log::{AccessLog, AccessRecord};
use super::catalogue::Catalogue;
use super::refusal::CatalogueRefusal;
use super::swarms::Swarms;
use piecework_core::{InfoHash, PeerId};
use piecework_journal::RequestEvent;
use piecework_proto::announce::catalogue::{BatchedHoldings, HoldingsReport};
use piecework_registry::Reporter;

/// Handles reports of holdings.
pub(super) struct Reports {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) swarms: Arc<Swarms>,
    pub(super) log: Arc<AccessLog>,
}

impl Reports {
    /// Handles one report.
    pub(super) fn one(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        report: &HoldingsReport,
        bitfield: &[u8],
    ) -> Result<(), CatalogueRefusal> {
        self.take(from, info_hash, report, |_| Some(bitfield))
    }

    /// Handles one report of a batch of the peer with this id and port.
    pub(super) fn batched(
        &self,
        from: SocketAddr,
        (peer_id, port): (PeerId, u16),
        batched: &BatchedHoldings,
    ) -> Result<(), CatalogueRefusal> {
        let report = HoldingsReport { peer_id, port, key: batched.key() };
        self.take(from, batched.info_hash, &report, |pieces| batched.bitfield(pieces))
    }

    fn take<T: AsRef<[u8]>>(
        &self,
        from: SocketAddr,
        info_hash: InfoHash,
        report: &HoldingsReport,
        bitfield: impl FnOnce(u32) -> Option<T>,
    ) -> Result<(), CatalogueRefusal> {
        let reporter = Reporter { ip: from.ip(), port: report.port, key: Some(report.key) };
        let outcome = match self.catalogue.get(info_hash).map(|entry| bitfield(entry.pieces)) {
            None => Err(CatalogueRefusal::Unknown(info_hash)),
            Some(None) => Err(CatalogueRefusal::BadReport),
            Some(Some(bitfield)) => {
                let reported = self.swarms.report(info_hash, reporter, bitfield.as_ref());
                reported.map_err(CatalogueRefusal::Holdings)
            }
        };
        if let Err(error) = &outcome {
            // Successful reports are not logged. They come every few seconds, and the holdings show them.
            let mut record = AccessRecord::http(
                SocketAddr::new(from.ip().to_canonical(), report.port),
                RequestEvent::Holdings,
                Some(info_hash),
                Err(error.to_string()),
            );
            record.peer_id = Some(report.peer_id);
            self.log.note(record);
        }
        outcome
    }
}
