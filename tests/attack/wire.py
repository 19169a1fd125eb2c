"""The peer protocol (BEP 3, 6, 10) as an attacker, or an honest peer, speaks it here.

Everything runs on one asyncio loop. A `Seed` serves or misbehaves as a `Behaviour` says; a `Guest`
is a connection that a case drives itself.
"""

import asyncio
import hashlib
import os
import struct

CHOKE, UNCHOKE, INTERESTED, NOT_INTERESTED, HAVE, BITFIELD, REQUEST, PIECE, CANCEL = range(9)
SUGGEST, HAVE_ALL, HAVE_NONE, REJECT, ALLOWED_FAST = range(13, 18)
EXTENDED = 20

BLOCK = 16 << 10

# Reserved bits: fast extension (BEP 6) and extension protocol (BEP 10).
FAST, EXTENSIONS = 0x04, 0x100000


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, dict):
        keys = sorted((key.encode() if isinstance(key, str) else key, item) for key, item in value.items())
        return b"d" + b"".join(bencode(key) + bencode(item) for key, item in keys) + b"e"
    return b"l" + b"".join(map(bencode, value)) + b"e"


class Torrent:
    """A torrent of one file, with its content."""

    def __init__(self, name, content, piece_length, announce=None):
        self.name, self.content, self.piece_length = name, content, piece_length
        self.pieces = -(-len(content) // piece_length)
        starts = range(0, len(content), piece_length)
        hashes = b"".join(hashlib.sha1(content[at : at + piece_length]).digest() for at in starts)
        info = {"name": name, "length": len(content), "piece length": piece_length, "pieces": hashes}
        self.info, self.announce = info, announce
        self.info_hash = hashlib.sha1(bencode(info)).digest()

    @property
    def bytes(self):
        return bencode({"info": self.info, **({"announce": self.announce} if self.announce else {})})

    def full_bitfield(self):
        bits = bytearray((self.pieces + 7) // 8)
        for piece in range(self.pieces):
            bits[piece // 8] |= 0x80 >> piece % 8
        return bytes(bits)

    def block(self, piece, begin, length):
        start = piece * self.piece_length + begin
        return self.content[start : start + length]

    def blocks(self, piece):
        """Where each block of a piece begins, and its length."""
        size = min(self.piece_length, len(self.content) - piece * self.piece_length)
        return [(begin, min(BLOCK, size - begin)) for begin in range(0, size, BLOCK)]

    def write_to(self, path):
        with open(path, "wb") as out:
            out.write(self.bytes)
        return path


def handshake(info_hash, peer_id, reserved=FAST | EXTENSIONS):
    return b"\x13BitTorrent protocol" + struct.pack(">Q", reserved) + info_hash + peer_id


def message(kind, payload=b""):
    return struct.pack(">IB", len(payload) + 1, kind) + payload


def request(piece, begin, length, kind=REQUEST):
    return message(kind, struct.pack(">III", piece, begin, length))


def piece_message(piece, begin, block):
    return message(PIECE, struct.pack(">II", piece, begin) + block)


class Guest:
    """A connection with the peer protocol on it."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.theirs = None
        # What the other end said, as far as it was read.
        self.unchoked = False
        self.held = set()
        self.received = 0

    @classmethod
    async def dial(cls, address, source=None):
        local = (source, 0) if source else None
        reader, writer = await asyncio.open_connection(*address, local_addr=local, limit=1 << 20)
        return cls(reader, writer)

    async def greet(self, info_hash, peer_id=None, reserved=FAST | EXTENSIONS):
        self.writer.write(handshake(info_hash, peer_id or b"-XX0000-" + os.urandom(6).hex().encode(), reserved))
        self.theirs = await asyncio.wait_for(self.reader.readexactly(68), 10)
        return self

    def send(self, kind, payload=b""):
        self.writer.write(message(kind, payload))

    async def read(self, seconds=None):
        """The next message, as its kind and payload; keep-alives are passed over."""
        while True:
            head = await asyncio.wait_for(self.reader.readexactly(4), seconds)
            (length,) = struct.unpack(">I", head)
            if length:
                body = await asyncio.wait_for(self.reader.readexactly(length), seconds)
                return self.note(body[0], body[1:])

    def note(self, kind, payload):
        if kind == UNCHOKE:
            self.unchoked = True
        elif kind == CHOKE:
            self.unchoked = False
        elif kind == HAVE:
            self.held.add(struct.unpack(">I", payload)[0])
        elif kind == BITFIELD:
            for at, byte in enumerate(payload):
                self.held.update(at * 8 + bit for bit in range(8) if byte & (0x80 >> bit))
        elif kind == PIECE:
            self.received += len(payload) - 8
        return kind, payload

    def close(self):
        self.writer.close()


class Behaviour:
    """An honest seed. Misbehaving ones override what they do otherwise."""

    async def greeted(self, seed, guest):
        guest.send(HAVE_ALL if seed.speaks_fast(guest) else BITFIELD, b"" if seed.speaks_fast(guest) else seed.torrent.full_bitfield())

    async def interested(self, seed, guest):
        guest.send(UNCHOKE)

    async def requested(self, seed, guest, piece, begin, length):
        await seed.pace(length)
        guest.writer.write(piece_message(piece, begin, seed.torrent.block(piece, begin, length)))
        seed.sent += length
        await guest.writer.drain()


class Silent(Behaviour):
    """Claims everything, unchokes, and never sends a block."""

    async def requested(self, seed, guest, piece, begin, length):
        pass


class Trickle(Behaviour):
    """Sends a block each `every` seconds, just in time not to be called silent."""

    def __init__(self, every=19):
        self.every = every

    async def requested(self, seed, guest, piece, begin, length):
        await asyncio.sleep(self.every)
        await Behaviour.requested(self, seed, guest, piece, begin, length)


class Dribble(Behaviour):
    """Sends a byte a second."""

    async def requested(self, seed, guest, piece, begin, length):
        whole = piece_message(piece, begin, seed.torrent.block(piece, begin, length))
        for at in range(len(whole)):
            guest.writer.write(whole[at : at + 1])
            await guest.writer.drain()
            await asyncio.sleep(1)


class Turncoat(Behaviour):
    """Is honest for `blocks` blocks, then silent."""

    def __init__(self, blocks=40):
        self.blocks = blocks

    async def requested(self, seed, guest, piece, begin, length):
        guest.given = getattr(guest, "given", 0) + 1
        if guest.given <= self.blocks:
            await Behaviour.requested(self, seed, guest, piece, begin, length)


class Flapper(Behaviour):
    """Chokes and unchokes ten times a second, and sends nothing."""

    async def interested(self, seed, guest):
        async def flap():
            while not guest.writer.is_closing():
                guest.send(UNCHOKE)
                await asyncio.sleep(0.05)
                guest.send(CHOKE)
                await asyncio.sleep(0.05)

        guest.task = asyncio.ensure_future(flap())

    async def requested(self, seed, guest, piece, begin, length):
        pass


class Rejecter(Behaviour):
    """Unchokes, offers allowed-fast pieces, and rejects every request."""

    async def greeted(self, seed, guest):
        await Behaviour.greeted(self, seed, guest)
        for piece in range(min(10, seed.torrent.pieces)):
            guest.send(ALLOWED_FAST, struct.pack(">I", piece))

    async def interested(self, seed, guest):
        pass

    async def requested(self, seed, guest, piece, begin, length):
        guest.writer.write(request(piece, begin, length, REJECT))


class Poisoner(Behaviour):
    """Sends a wrong block at once, for whatever it is asked."""

    async def requested(self, seed, guest, piece, begin, length):
        guest.writer.write(piece_message(piece, begin, bytes(length)))
        await guest.writer.drain()


class Seed:
    """A peer that listens and claims to have everything."""

    def __init__(self, torrent, behaviour=None, rate=None):
        self.torrent, self.behaviour, self.rate = torrent, behaviour or Behaviour(), rate
        self.peer_id = b"-XX0000-" + os.urandom(6).hex().encode()
        self.sent, self.asked, self.cancelled = 0, {}, 0
        self.connections, self.guests = 0, set()
        self.free_at = 0.0
        self.server = None

    async def listen(self, host):
        self.server = await asyncio.start_server(self.serve, host, 0, limit=1 << 20)
        self.address = self.server.sockets[0].getsockname()[:2]
        return self

    def speaks_fast(self, guest):
        return guest.theirs[20 + 7] & FAST

    async def pace(self, length):
        """Waits for this many bytes' turn at the seed's rate, over all connections."""
        if self.rate:
            now = asyncio.get_running_loop().time()
            self.free_at = max(self.free_at, now) + length / self.rate
            await asyncio.sleep(self.free_at - now)

    async def serve(self, reader, writer):
        guest = Guest(reader, writer)
        self.connections += 1
        self.guests.add(guest)
        waiting, server = asyncio.Queue(), None
        try:
            guest.theirs = await asyncio.wait_for(reader.readexactly(68), 30)
            writer.write(handshake(self.torrent.info_hash, self.peer_id))
            await self.behaviour.greeted(self, guest)
            server = asyncio.ensure_future(self.answer(guest, waiting))
            while True:
                kind, payload = await guest.read()
                if kind == INTERESTED:
                    await self.behaviour.interested(self, guest)
                elif kind == REQUEST:
                    block = struct.unpack(">III", payload)
                    self.asked[block] = self.asked.get(block, 0) + 1
                    waiting.put_nowait(block)
                elif kind == CANCEL:
                    self.cancelled += 1
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.CancelledError):
            # A stream's handler that ends as cancelled would be reported by the loop.
            pass
        finally:
            self.guests.discard(guest)
            for task in (server, getattr(guest, "task", None)):
                if task:
                    task.cancel()
            guest.close()

    async def answer(self, guest, waiting):
        try:
            while True:
                await self.behaviour.requested(self, guest, *await waiting.get())
        except OSError:
            pass


class Leech(Guest):
    """An honest leecher: wants everything, asks for blocks in order, counts what comes."""

    async def run(self, torrent, window=32):
        self.send(HAVE_NONE)
        self.send(INTERESTED)
        missing = dict.fromkeys((piece, begin) for piece in range(torrent.pieces) for begin, _ in torrent.blocks(piece))
        lengths = {(piece, begin): length for piece in range(torrent.pieces) for begin, length in torrent.blocks(piece)}
        asked = set()
        while missing:
            for block in missing:
                if not self.unchoked or len(asked) >= window:
                    break
                if block not in asked:
                    asked.add(block)
                    self.writer.write(request(*block, lengths[block]))
            kind, payload = await self.read()
            if kind == PIECE:
                block = struct.unpack(">II", payload[:8])
                asked.discard(block)
                missing.pop(block, None)
            elif kind == CHOKE:
                asked.clear()


class ListedPeers:
    """A tracker that gives everybody the same peers, as they are listed."""

    def __init__(self):
        self.peers, self.announces = [], []

    async def listen(self, host):
        self.server = await asyncio.start_server(self.answer, host, 0)
        self.address = self.server.sockets[0].getsockname()[:2]
        self.url = "http://%s:%d/announce" % self.address
        return self

    async def answer(self, reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            self.announces.append(head.split(b" ", 2)[1])
            packed = b"".join(bytes(map(int, host.split("."))) + struct.pack(">H", port) for host, port in self.peers)
            body = bencode({"interval": 1800, "peers": packed})
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
