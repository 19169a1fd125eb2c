//! Which pieces are wanted, and how many of them are held.

use std::sync::Arc;

use piecework_core::{Bitfield, Geometry, PieceIndex, Priority};

/// The priority of every piece. Without a list, all are [`Priority::Normal`], at no cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Priorities(Option<Arc<[Priority]>>);

/// What is wanted of the torrent, held or not.
#[derive(Debug)]
pub(super) struct Wants {
    priorities: Priorities,
    /// The wanted pieces. `None` if all are.
    wanted: Option<Bitfield>,
    /// The number of wanted bytes.
    pub(super) bytes: u64,
    /// The number of wanted and held bytes.
    pub(super) bytes_have: u64,
    /// The number of pieces that are wanted and not held.
    pub(super) pieces_left: u32,
}

impl Priorities {
    /// Creates priorities from one for each piece. An empty list means that all are normal.
    pub(super) fn new(list: Arc<[Priority]>) -> Self {
        let plain = list.iter().all(|priority| *priority == Priority::Normal);
        Self((!plain).then_some(list))
    }

    pub(super) fn of(&self, piece: PieceIndex) -> Priority {
        match &self.0 {
            Some(list) => list.get(piece.0 as usize).copied().unwrap_or_default(),
            None => Priority::Normal,
        }
    }

    /// Returns whether all pieces are normal.
    pub(super) fn are_plain(&self) -> bool {
        self.0.is_none()
    }
}

impl Wants {
    /// # Panics
    /// If `list` is neither empty nor has one priority for each piece.
    pub(super) fn new(list: Arc<[Priority]>, geometry: &Geometry, have: &Bitfield) -> Self {
        let pieces = geometry.pieces();
        assert!(
            list.is_empty() || list.len() == pieces as usize,
            "`{}` priorities for `{pieces}` pieces",
            list.len()
        );
        let priorities = Priorities::new(list);
        let mut wants = Self { wanted: None, bytes: 0, bytes_have: 0, pieces_left: 0, priorities };
        let mut wanted = Bitfield::full(pieces);
        for piece in (0..pieces).map(PieceIndex) {
            if !wants.priorities.of(piece).is_wanted() {
                wanted.remove(piece);
                continue;
            }
            let bytes = u64::from(geometry.piece_size(piece));
            wants.bytes += bytes;
            if have.contains(piece) {
                wants.bytes_have += bytes;
            } else {
                wants.pieces_left += 1;
            }
        }
        wants.wanted = (!wanted.is_full()).then_some(wanted);
        wants
    }

    /// Records that a piece is held. Returns whether it was wanted.
    pub(super) fn got(&mut self, piece: PieceIndex, geometry: &Geometry) -> bool {
        let is_wanted = self.is_wanted(piece);
        if is_wanted {
            self.bytes_have += u64::from(geometry.piece_size(piece));
            self.pieces_left -= 1;
        }
        is_wanted
    }

    pub(super) fn is_wanted(&self, piece: PieceIndex) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(piece))
    }

    /// Returns whether everything wanted is held.
    pub(super) fn are_met(&self) -> bool {
        self.pieces_left == 0
    }

    pub(super) fn priorities(&self) -> &Priorities {
        &self.priorities
    }

    /// Returns how many pieces `holds` has that are wanted and not in `have`. Cost: an eighth of the
    /// pieces.
    pub(super) fn lacking_in(&self, holds: &Bitfield, have: &Bitfield) -> u32 {
        if holds.is_full() {
            return self.pieces_left;
        }
        let fresh = holds.as_wire().iter().zip(have.as_wire()).map(|(holds, have)| holds & !have);
        match &self.wanted {
            None => fresh.map(u8::count_ones).sum(),
            Some(wanted) => fresh.zip(wanted.as_wire()).map(|(f, w)| (f & w).count_ones()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{High, Low, Normal, Skip};

    #[test]
    fn all_normal_is_no_list_at_all() {
        assert_eq!(Priorities::new([].into()), Priorities(None));
        assert_eq!(Priorities::new([Normal, Normal].into()), Priorities(None));
        let mixed = Priorities::new([Normal, Low].into());
        assert_eq!((mixed.of(PieceIndex(0)), mixed.of(PieceIndex(1))), (Normal, Low));
    }

    #[test]
    fn figures_count_what_is_wanted_only() {
        let geometry = Geometry::new(35, 10).unwrap();
        let mut have = Bitfield::empty(4);
        have.insert(PieceIndex(1));
        let mut wants = Wants::new([Skip, High, Low, Normal].into(), &geometry, &have);
        assert_eq!((wants.bytes, wants.bytes_have, wants.pieces_left), (25, 10, 2));
        assert_eq!(wants.lacking_in(&Bitfield::full(4), &have), 2);
        let mut holds = Bitfield::empty(4);
        (0..3).for_each(|piece| assert!(holds.insert(PieceIndex(piece))));
        assert_eq!(wants.lacking_in(&holds, &have), 1);
        assert!(!wants.got(PieceIndex(0), &geometry));
        assert!(wants.got(PieceIndex(3), &geometry));
        assert_eq!((wants.bytes_have, wants.pieces_left, wants.are_met()), (15, 1, false));
        assert!(wants.got(PieceIndex(2), &geometry) && wants.are_met());
        assert_eq!(wants.bytes_have, wants.bytes);
    }
}
