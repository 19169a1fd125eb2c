//! The routing tables as bytes, for the next start.

use piecework_core::SaturatingFrom;

use super::address::{Contact, Family, addr_of, put_addr};
use super::node_id::NodeId;

/// The own id and the nodes of one family.
pub(crate) type SavedSide = Option<(NodeId, Vec<Contact>)>;

/// Returns a header, and for each family its own id and its nodes in compact form.
pub(crate) fn encode(sides: &[SavedSide; 2]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for side in sides {
        let Some((id, contacts)) = side else {
            out.extend(NONE.to_be_bytes());
            continue;
        };
        let count = contacts.len().min(MOST_SAVED);
        out.extend(u16::saturating_from(count).to_be_bytes());
        out.extend(id.0);
        for contact in &contacts[..count] {
            out.extend(contact.id.0);
            put_addr(contact.addr, &mut out);
        }
    }
    out
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> Option<[SavedSide; 2]> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len)?;
        rest = left;
        Some(taken)
    };
    let mut sides = [None, None];
    for (side, family) in sides.iter_mut().zip(Family::ALL) {
        let count = u16::from_be_bytes(take(2)?.try_into().ok()?);
        if count == NONE {
            continue;
        }
        let id = NodeId(take(20)?.try_into().ok()?);
        let mut contacts = Vec::new();
        for _ in 0..count {
            let id = NodeId(take(20)?.try_into().ok()?);
            contacts.push(Contact { id, addr: addr_of(take(family.addr_len())?)? });
        }
        *side = Some((id, contacts));
    }
    rest.is_empty().then_some(sides)
}

const MAGIC: &[u8] = b"piecework-dht-1\n";

/// In place of a count: the family was not in use.
const NONE: u16 = u16::MAX;

/// A table has about 100 nodes.
const MOST_SAVED: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side(v6: bool) -> impl Strategy<Value = SavedSide> {
        let contact =
            (any::<[u8; 20]>(), any::<[u8; 16]>(), any::<u16>()).prop_map(move |(id, ip, port)| {
                let addr = match v6 {
                    true => (ip, port).into(),
                    false => ([ip[0], ip[1], ip[2], ip[3]], port).into(),
                };
                Contact { id: NodeId(id), addr }
            });
        let contacts = prop::collection::vec(contact, 0..30);
        prop::option::of((any::<[u8; 20]>().prop_map(NodeId), contacts))
    }

    proptest! {
        #[test]
        fn what_is_saved_reads_back(v4 in side(false), v6 in side(true), cut in 0_usize..2_000) {
            let sides = [v4, v6];
            let bytes = encode(&sides);
            prop_assert_eq!(decode(&bytes), Some(sides));
            if cut < bytes.len() {
                prop_assert_eq!(decode(&bytes[..cut]), None);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[MAGIC, &bytes].concat());
        }
    }
}
