//! Encoding and decoding of length-prefixed messages.

use bytes::{BufMut, Bytes};
use piecework_core::{SaturatingFrom, low_half};

use super::exchange::MAX_EXCHANGE_MESSAGE_LEN;
use super::metadata::MAX_METADATA_MESSAGE_LEN;
use super::{Message, WireError};
use piecework_core::{BLOCK_LEN, BlockRef, PieceIndex};

/// The length of a `piece` message's header: length prefix, type, piece and begin.
pub const PIECE_HEADER_LEN: usize = 13;

/// The maximum payload of a `piece` message: no larger blocks are requested.
pub const MAX_PIECE_PAYLOAD: u32 = BLOCK_LEN;

/// The maximum block length in a request. Old clients request up to 128 KiB and may get a reject; no client has
/// ever served more (BEP 3).
pub const MAX_REQUEST_LEN: u32 = 128 * 1024;

/// The maximum length of an extended message. A metadata piece or peer list has less than 20 KiB, and no known
/// extension comes near this limit.
pub const MAX_EXTENDED_LEN: u32 = 1024 * 1024;

/// The id by which peers send us `ut_metadata` messages.
pub const METADATA_ID: u8 = 1;

/// The id by which peers send us `ut_pex` messages, the highest of our ids.
pub const EXCHANGE_ID: u8 = 2;

/// The maximum length of an extended handshake. Real ones have less than 1 KiB.
pub const MAX_EXTENDED_HANDSHAKE_LEN: u32 = 64 * 1024;

/// The maximum length of a message of unknown type after its prefix: that of a `piece` message, which has 16 KiB +
/// 13 bytes with its prefix.
pub const MAX_UNKNOWN_LEN: u32 = MAX_PIECE_PAYLOAD + 9;

/// The limits for a torrent's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeLimits {
    /// The number of pieces of the torrent. A bitfield has exactly one bit for each.
    pub pieces: u32,
    /// The maximum length of an extended message, including its id.
    pub max_extended: u32,
    /// The highest id of an extended message that is decoded. Others become [`Decoded::Ignored`]. We choose the ids
    /// that peers use, so only those that we offered mean something.
    pub extensions: u8,
}

/// The result of decoding the beginning of the received bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// There is no complete message yet.
    Incomplete {
        /// The total number of bytes that are needed before decoding can proceed. Never more than the limits allow.
        need: usize,
    },
    /// A complete message.
    Message {
        /// The message.
        message: Message,
        /// Its length in bytes.
        consumed: usize,
    },
    /// The header of a `piece` message, [`PIECE_HEADER_LEN`] bytes. Its payload of `block.len` bytes comes next and
    /// may be read directly into its block buffer.
    Piece {
        /// The block that the peer sends.
        block: BlockRef,
    },
    /// A message that is not decoded. The first `consumed` bytes belong to it, and so do the next `rest` bytes of the
    /// stream, which need not be kept.
    Ignored {
        /// The message type.
        id: u8,
        /// The length of its header.
        consumed: usize,
        /// The length of its content.
        rest: usize,
    },
}

impl DecodeLimits {
    /// Returns the usual limits for a torrent of `pieces` pieces.
    pub fn new(pieces: u32) -> Self {
        Self { pieces, max_extended: MAX_EXTENDED_LEN, extensions: EXCHANGE_ID }
    }

    /// Returns the length of a bitfield message after its prefix.
    fn bitfield_len(&self) -> u32 {
        1 + self.pieces.div_ceil(8)
    }

    /// Returns the maximum length of any message after its prefix.
    fn longest(&self) -> u32 {
        self.bitfield_len().max(self.max_extended.saturating_add(1)).max(MAX_UNKNOWN_LEN)
    }
}

/// Decodes the beginning of `buf`.
///
/// # Errors
/// If a message is too long, or its length does not fit its type. This is detected as soon as length and type are
/// there; nothing is allocated before a message is complete.
pub fn decode(buf: &[u8], limits: &DecodeLimits) -> Result<Decoded, WireError> {
    let Some((&prefix, rest)) = buf.split_first_chunk::<LEN_LEN>() else {
        return Ok(Decoded::Incomplete { need: LEN_LEN });
    };
    let len = u32::from_be_bytes(prefix);
    if len == 0 {
        return Ok(Decoded::Message { message: Message::KeepAlive, consumed: LEN_LEN });
    }
    if len > limits.longest() {
        return Err(WireError::OverLong { got: len });
    }
    let Some((&id, body)) = rest.split_first() else {
        return Ok(Decoded::Incomplete { need: LEN_LEN + 1 });
    };
    check_len(id, len, limits)?;

    if id == id::PIECE {
        let Some(&fields) = body.first_chunk::<8>() else {
            return Ok(Decoded::Incomplete { need: PIECE_HEADER_LEN });
        };
        let [piece, begin] = two_u32(fields);
        let block = BlockRef { piece: PieceIndex(piece), begin, len: len - 9 };
        return Ok(Decoded::Piece { block });
    }
    if !id::KNOWN.contains(&id) {
        return Ok(Decoded::Ignored { id, consumed: LEN_LEN + 1, rest: len as usize - 1 });
    }
    if id == id::EXTENDED {
        let Some(&number) = body.first() else {
            return Ok(Decoded::Incomplete { need: LEN_LEN + 2 });
        };
        let longest = match number {
            0 => MAX_EXTENDED_HANDSHAKE_LEN,
            METADATA_ID => MAX_METADATA_MESSAGE_LEN,
            EXCHANGE_ID => MAX_EXCHANGE_MESSAGE_LEN,
            _ => u32::MAX - 2,
        };
        if number <= limits.extensions && len > longest + 2 {
            return Err(WireError::TooLong { id, limit: longest + 2, got: len });
        }
        if number > limits.extensions {
            return Ok(Decoded::Ignored { id, consumed: LEN_LEN + 2, rest: len as usize - 2 });
        }
    }
    let consumed = LEN_LEN + len as usize;
    let Some(body) = body.get(..len as usize - 1) else {
        return Ok(Decoded::Incomplete { need: consumed });
    };
    Ok(Decoded::Message { message: parse(id, body)?, consumed })
}

/// Appends the wire form of `message`. An unknown message is encoded without content.
pub fn encode(message: &Message, out: &mut impl BufMut) {
    // Sent messages are far below 4 GiB, so that a length always fits its prefix.
    let mut head = |len: usize, id: u8| {
        out.put_u32(u32::saturating_from(len));
        out.put_u8(id);
    };
    match message {
        Message::KeepAlive => out.put_u32(0),
        Message::Choke => head(1, id::CHOKE),
        Message::Unchoke => head(1, id::UNCHOKE),
        Message::Interested => head(1, id::INTERESTED),
        Message::NotInterested => head(1, id::NOT_INTERESTED),
        Message::HaveAll => head(1, id::HAVE_ALL),
        Message::HaveNone => head(1, id::HAVE_NONE),
        Message::Unknown { id } => head(1, *id),
        Message::Have(piece) => {
            head(5, id::HAVE);
            out.put_u32(piece.0);
        }
        Message::Suggest(piece) => {
            head(5, id::SUGGEST);
            out.put_u32(piece.0);
        }
        Message::AllowedFast(piece) => {
            head(5, id::ALLOWED_FAST);
            out.put_u32(piece.0);
        }
        Message::Request(block) => {
            head(13, id::REQUEST);
            put_block(*block, out);
        }
        Message::Cancel(block) => {
            head(13, id::CANCEL);
            put_block(*block, out);
        }
        Message::Reject(block) => {
            head(13, id::REJECT);
            put_block(*block, out);
        }
        Message::Port(port) => {
            head(3, id::PORT);
            out.put_u16(*port);
        }
        Message::Bitfield(bits) => {
            head(1 + bits.len(), id::BITFIELD);
            out.put_slice(bits);
        }
        Message::Extended { id, payload } => {
            head(2 + payload.len(), id::EXTENDED);
            out.put_u8(*id);
            out.put_slice(payload);
        }
    }
}

/// Returns the header of a `piece` message for `block`.
pub fn piece_header(block: BlockRef) -> [u8; PIECE_HEADER_LEN] {
    let mut header = [0; PIECE_HEADER_LEN];
    header[..4].copy_from_slice(&block.len.saturating_add(9).to_be_bytes());
    header[4] = id::PIECE;
    header[5..9].copy_from_slice(&block.piece.0.to_be_bytes());
    header[9..].copy_from_slice(&block.begin.to_be_bytes());
    header
}

/// Checks that a message of type `id` may have `len` bytes after its prefix.
fn check_len(id: u8, len: u32, limits: &DecodeLimits) -> Result<(), WireError> {
    let exactly = |message, wanted| {
        if len == wanted { Ok(()) } else { Err(WireError::WrongSize { message, wanted, got: len }) }
    };
    let between = |message, least, most| {
        if len < least {
            Err(WireError::WrongSize { message, wanted: least, got: len })
        } else if len > most {
            Err(WireError::TooLong { id, limit: most, got: len })
        } else {
            Ok(())
        }
    };
    match id {
        id::CHOKE => exactly("choke", 1),
        id::UNCHOKE => exactly("unchoke", 1),
        id::INTERESTED => exactly("interested", 1),
        id::NOT_INTERESTED => exactly("not interested", 1),
        id::HAVE => exactly("have", 5),
        id::BITFIELD => exactly("bitfield", limits.bitfield_len()),
        id::REQUEST => exactly("request", 13),
        id::PIECE => between("piece", 9, 9 + MAX_PIECE_PAYLOAD),
        id::CANCEL => exactly("cancel", 13),
        id::PORT => exactly("port", 3),
        id::SUGGEST => exactly("suggest", 5),
        id::HAVE_ALL => exactly("have all", 1),
        id::HAVE_NONE => exactly("have none", 1),
        id::REJECT => exactly("reject", 13),
        id::ALLOWED_FAST => exactly("allowed fast", 5),
        id::EXTENDED => between("extended", 2, limits.max_extended.saturating_add(1)),
        _ => between("unknown", 1, MAX_UNKNOWN_LEN),
    }
}

/// Decodes a message of type `id` with this body, whose length [`check_len`] has accepted.
fn parse(id: u8, body: &[u8]) -> Result<Message, WireError> {
    Ok(match id {
        id::CHOKE => Message::Choke,
        id::UNCHOKE => Message::Unchoke,
        id::INTERESTED => Message::Interested,
        id::NOT_INTERESTED => Message::NotInterested,
        id::HAVE => Message::Have(piece_of(body)),
        id::BITFIELD => Message::Bitfield(Bytes::copy_from_slice(body)),
        id::REQUEST => Message::Request(block_of("request", body)?),
        id::CANCEL => Message::Cancel(block_of("cancel", body)?),
        id::PORT => Message::Port(u16::from_be_bytes(array(body))),
        id::SUGGEST => Message::Suggest(piece_of(body)),
        id::HAVE_ALL => Message::HaveAll,
        id::HAVE_NONE => Message::HaveNone,
        id::REJECT => Message::Reject(block_of("reject", body)?),
        id::ALLOWED_FAST => Message::AllowedFast(piece_of(body)),
        id::EXTENDED => {
            Message::Extended { id: body[0], payload: Bytes::copy_from_slice(&body[1..]) }
        }
        id => Message::Unknown { id },
    })
}

fn piece_of(body: &[u8]) -> PieceIndex {
    PieceIndex(u32::from_be_bytes(array(body)))
}

fn block_of(message: &'static str, body: &[u8]) -> Result<BlockRef, WireError> {
    let fields: [u8; 12] = array(body);
    let [piece, begin] = two_u32(array(&fields[..8]));
    let len = u32::from_be_bytes(array(&fields[8..]));
    if len > MAX_REQUEST_LEN {
        return Err(WireError::BlockTooLong { message, len, limit: MAX_REQUEST_LEN });
    }
    Ok(BlockRef { piece: PieceIndex(piece), begin, len })
}

fn two_u32(bytes: [u8; 8]) -> [u32; 2] {
    let both = u64::from_be_bytes(bytes);
    [(both >> 32) as u32, low_half(both)]
}

/// Converts `bytes`, which must be `N`, to an array.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

fn put_block(block: BlockRef, out: &mut impl BufMut) {
    out.put_u32(block.piece.0);
    out.put_u32(block.begin);
    out.put_u32(block.len);
}

/// The length of the length prefix.
const LEN_LEN: usize = 4;

/// The types of messages.
mod id {
    pub(super) const CHOKE: u8 = 0;
    pub(super) const UNCHOKE: u8 = 1;
    pub(super) const INTERESTED: u8 = 2;
    pub(super) const NOT_INTERESTED: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const BITFIELD: u8 = 5;
    pub(super) const REQUEST: u8 = 6;
    pub(super) const PIECE: u8 = 7;
    pub(super) const CANCEL: u8 = 8;
    pub(super) const PORT: u8 = 9;
    pub(super) const SUGGEST: u8 = 13;
    pub(super) const HAVE_ALL: u8 = 14;
    pub(super) const HAVE_NONE: u8 = 15;
    pub(super) const REJECT: u8 = 16;
    pub(super) const ALLOWED_FAST: u8 = 17;
    pub(super) const EXTENDED: u8 = 20;

    /// All of them.
    pub(super) const KNOWN: [u8; 16] = [
        CHOKE,
        UNCHOKE,
        INTERESTED,
        NOT_INTERESTED,
        HAVE,
        BITFIELD,
        REQUEST,
        PIECE,
        CANCEL,
        PORT,
        SUGGEST,
        HAVE_ALL,
        HAVE_NONE,
        REJECT,
        ALLOWED_FAST,
        EXTENDED,
    ];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PIECES: u32 = 77;
    const LIMITS: DecodeLimits =
        DecodeLimits { pieces: PIECES, max_extended: 5_000, extensions: u8::MAX };

    /// What a driver sees of a stream.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Item {
        Message(Message),
        Piece(BlockRef, Vec<u8>),
    }

    /// Reads the stream as a driver does, given the chunks as they come off the network.
    fn read(chunks: &[&[u8]]) -> Result<Vec<Item>, WireError> {
        let (mut buf, mut items) = (Vec::new(), Vec::new());
        for chunk in chunks {
            buf.extend_from_slice(chunk);
            loop {
                match decode(&buf, &LIMITS)? {
                    Decoded::Incomplete { need } => {
                        assert!(need > buf.len());
                        assert!(need <= LEN_LEN + LIMITS.longest() as usize);
                        break;
                    }
                    Decoded::Message { message, consumed } => {
                        items.push(Item::Message(message));
                        buf.drain(..consumed);
                    }
                    Decoded::Piece { block } => {
                        let end = PIECE_HEADER_LEN + block.len as usize;
                        if buf.len() < end {
                            break;
                        }
                        items.push(Item::Piece(block, buf[PIECE_HEADER_LEN..end].to_vec()));
                        buf.drain(..end);
                    }
                    Decoded::Ignored { id, consumed, rest } => {
                        if buf.len() < consumed + rest {
                            break;
                        }
                        items.push(Item::Message(Message::Unknown { id }));
                        buf.drain(..consumed + rest);
                    }
                }
            }
        }
        assert!(buf.len() < LEN_LEN + LIMITS.longest() as usize);
        Ok(items)
    }

    fn wire(items: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        for item in items {
            match item {
                Item::Message(message) => encode(message, &mut out),
                Item::Piece(block, payload) => {
                    out.extend_from_slice(&piece_header(*block));
                    out.extend_from_slice(payload);
                }
            }
        }
        out
    }

    fn any_block() -> impl Strategy<Value = BlockRef> {
        (any::<u32>(), any::<u32>(), 0..=MAX_REQUEST_LEN).prop_map(|(piece, begin, len)| BlockRef {
            piece: PieceIndex(piece),
            begin,
            len,
        })
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let piece = || any::<u32>().prop_map(PieceIndex);
        let plain = vec![
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::HaveAll,
            Message::HaveNone,
        ];
        let bytes = |len| proptest::collection::vec(any::<u8>(), len).prop_map(Bytes::from);
        prop_oneof![
            proptest::sample::select(plain),
            piece().prop_map(Message::Have),
            piece().prop_map(Message::Suggest),
            piece().prop_map(Message::AllowedFast),
            any_block().prop_map(Message::Request),
            any_block().prop_map(Message::Cancel),
            any_block().prop_map(Message::Reject),
            any::<u16>().prop_map(Message::Port),
            bytes(10..=10).prop_map(Message::Bitfield),
            (any::<u8>(), bytes(0..=300))
                .prop_map(|(id, payload)| Message::Extended { id, payload }),
            (21..=255u8).prop_map(|id| Message::Unknown { id }),
        ]
    }

    fn any_item() -> impl Strategy<Value = Item> {
        let piece = (any_block(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(
            |(block, payload)| {
                Item::Piece(BlockRef { len: payload.len() as u32, ..block }, payload)
            },
        );
        prop_oneof![4 => any_message().prop_map(Item::Message), 1 => piece]
    }

    proptest! {
        #[test]
        fn messages_round_trip_however_the_stream_is_split(
            items in proptest::collection::vec(any_item(), 0..12),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let bytes = wire(&items);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&chunks).unwrap(), items);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
        }

        #[test]
        fn arbitrary_bytes_behind_a_plausible_length_never_panic(
            len in 0..40u8,
            id in 0..24u8,
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut stream = vec![0, 0, 0, len, id];
            stream.extend(bytes);
            let _ = read(&[&stream]);
        }
    }

    fn refused(len: u32, id: u8) -> WireError {
        let mut bytes = len.to_be_bytes().to_vec();
        bytes.push(id);
        decode(&bytes, &LIMITS).unwrap_err()
    }

    #[test]
    fn byte_by_byte_gives_the_same_messages() {
        let items = [
            Item::Message(Message::Bitfield(Bytes::from_static(&[1; 10]))),
            Item::Message(Message::KeepAlive),
            Item::Piece(BlockRef { piece: PieceIndex(3), begin: 4, len: 2 }, vec![8, 9]),
            Item::Message(Message::Have(PieceIndex(1))),
        ];
        let bytes = wire(&items);
        let chunks: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(&chunks).unwrap(), items);
    }

    #[test]
    fn a_piece_is_told_from_its_header_alone() {
        let block = BlockRef { piece: PieceIndex(9), begin: 16_384, len: 16_384 };
        let header = piece_header(block);
        assert_eq!(decode(&header[..12], &LIMITS), Ok(Decoded::Incomplete { need: 13 }));
        assert_eq!(decode(&header, &LIMITS), Ok(Decoded::Piece { block }));
    }

    #[test]
    fn over_long_messages_are_refused_by_their_length_alone() {
        assert_eq!(
            decode(&[0xff; 4], &LIMITS),
            Err(WireError::OverLong { got: u32::MAX }),
            "nothing but the prefix is there"
        );
        let limit = 5_001;
        assert_eq!(refused(5_002, 20), WireError::TooLong { id: 20, limit, got: 5_002 });
        let limit = 16_384 + 9;
        assert_eq!(refused(limit + 1, 99), WireError::OverLong { got: limit + 1 });
        let roomy = DecodeLimits::new(PIECES);
        let long = [0, 0, 0x40, 10, 7];
        assert_eq!(
            decode(&long, &roomy),
            Err(WireError::TooLong { id: 7, limit, got: limit + 1 }),
            "a piece of 16 KiB and one byte"
        );
        let long = [0, 0, 0x40, 10, 99];
        assert_eq!(
            decode(&long, &roomy),
            Err(WireError::TooLong { id: 99, limit, got: limit + 1 }),
            "an unknown message longer than any piece"
        );
    }

    #[test]
    fn messages_of_wrong_size_are_refused_by_their_length_and_type() {
        for id in (0..=17).filter(|id| !(10..=12).contains(id)) {
            let error = refused(8, id);
            assert!(matches!(error, WireError::WrongSize { got: 8, .. }), "type {id}: {error}");
        }
        assert!(matches!(refused(1, 20), WireError::WrongSize { wanted: 2, .. }));
    }

    #[test]
    fn wrong_bitfield_size_is_refused() {
        let wanted = 11;
        for got in [1, 10, 12, 5_000] {
            let message = "bitfield";
            assert_eq!(refused(got, 5), WireError::WrongSize { message, wanted, got });
        }
    }

    #[test]
    fn a_request_over_128_kib_is_a_fault() {
        let request = |len| {
            let mut bytes = Vec::new();
            let block = BlockRef { piece: PieceIndex(0), begin: 0, len };
            encode(&Message::Request(block), &mut bytes);
            decode(&bytes, &LIMITS)
        };
        assert!(matches!(request(MAX_REQUEST_LEN), Ok(Decoded::Message { .. })));
        assert_eq!(
            request(MAX_REQUEST_LEN + 1),
            Err(WireError::BlockTooLong { message: "request", len: 131_073, limit: 131_072 })
        );
    }

    #[test]
    fn unknown_messages_are_passed_over_whole() {
        let mut bytes = vec![0, 0, 0, 3, 200, 1, 2];
        encode(&Message::Choke, &mut bytes);
        assert_eq!(
            read(&[&bytes]).unwrap(),
            [Item::Message(Message::Unknown { id: 200 }), Item::Message(Message::Choke)]
        );
    }

    #[test]
    fn extended_messages_that_nobody_wants_are_known_by_their_header() {
        let long = [0, 0x0f, 0xff, 0xff, 20, 3];
        let limits = DecodeLimits::new(PIECES);
        assert_eq!(decode(&long[..5], &limits), Ok(Decoded::Incomplete { need: 6 }));
        let ignored = Decoded::Ignored { id: 20, consumed: 6, rest: 0xf_ffff - 2 };
        assert_eq!(decode(&long, &limits), Ok(ignored));
    }

    #[test]
    fn a_message_of_an_extension_that_is_too_long_is_refused_by_its_header() {
        for (number, limit) in
            [(METADATA_ID, MAX_METADATA_MESSAGE_LEN), (EXCHANGE_ID, MAX_EXCHANGE_MESSAGE_LEN)]
        {
            let limit = limit + 2;
            let header = |len: u32| [&len.to_be_bytes()[..], &[20, number]].concat();
            let limits = DecodeLimits::new(PIECES);
            let need = 4 + limit as usize;
            assert_eq!(decode(&header(limit), &limits), Ok(Decoded::Incomplete { need }));
            assert_eq!(
                decode(&header(limit + 1), &limits),
                Err(WireError::TooLong { id: 20, limit, got: limit + 1 })
            );
        }
    }

    #[test]
    fn an_extended_handshake_over_64_kib_is_refused_by_its_header() {
        let header = |len: u32| [&len.to_be_bytes()[..], &[20, 0]].concat();
        let limits = DecodeLimits::new(PIECES);
        let limit = MAX_EXTENDED_HANDSHAKE_LEN + 2;
        let need = 4 + limit as usize;
        assert_eq!(decode(&header(limit), &limits), Ok(Decoded::Incomplete { need }));
        assert_eq!(
            decode(&header(limit + 1), &limits),
            Err(WireError::TooLong { id: 20, limit, got: limit + 1 })
        );
    }

    #[test]
    fn a_torrent_without_pieces_has_a_bitfield_without_bytes() {
        let limits = DecodeLimits::new(0);
        let message = Message::Bitfield(Bytes::new());
        let decoded = Decoded::Message { message, consumed: 5 };
        assert_eq!(decode(&[0, 0, 0, 1, 5], &limits), Ok(decoded));
    }
}
