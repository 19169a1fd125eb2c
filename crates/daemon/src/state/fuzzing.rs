//! Checkpoints for `fuzz/`.

use super::packed::{pack, sum, unpack};
use piecework_core::InfoHash;

pub(crate) fn resume(body: &[u8]) {
    let info_hash = InfoHash([7; 20]);
    // Without the right checksum it is noise.
    let noise = unpack(info_hash, body);
    let sealed = [body, &sum(info_hash, body)].concat();
    for checkpoint in [noise, unpack(info_hash, &sealed)].into_iter().flatten() {
        let packed = pack(info_hash, &checkpoint);
        assert_eq!(unpack(info_hash, &packed), Some(checkpoint));
    }
}
