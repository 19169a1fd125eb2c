"""A seeder that remembers: what each connection asked for, and what it said it holds."""

import hashlib
import os
import socket
import struct
import threading
import time


class Connection:
    """One connection of a leecher, as the seeder saw it."""

    def __init__(self):
        self.bitfield = set()
        self.told = set()
        self.asked = set()


class Seeder:
    """Serves one torrent at a rate, on a port of its own, and writes down everything."""

    def __init__(self, info_hash, content, piece_length, rate):
        self.info_hash = info_hash
        self.content = content
        self.piece_length = piece_length
        self.pieces = -(-len(content) // piece_length)
        self.rate = rate
        self.connections = []
        self.lock = threading.Lock()
        self.next_free = time.monotonic()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.socket.close()

    def accept(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        seen = Connection()
        with peer:
            try:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stream = peer.makefile("rb")
                handshake = stream.read(68)
                if len(handshake) < 68 or handshake[28:48] != self.info_hash:
                    return
                with self.lock:
                    self.connections.append(seen)
                # No extensions: the plain protocol of BEP 3.
                peer.sendall(b"\x13BitTorrent protocol" + bytes(8) + self.info_hash + b"-XX0001-" + os.urandom(12))
                bits = bytearray(b"\xff" * -(-self.pieces // 8))
                if self.pieces % 8:
                    bits[-1] = 0xFF << (8 - self.pieces % 8) & 0xFF
                peer.sendall(struct.pack(">IB", 1 + len(bits), 5) + bits)
                while True:
                    head = stream.read(4)
                    if len(head) < 4:
                        return
                    body = stream.read(struct.unpack(">I", head)[0])
                    self.hear(peer, seen, body)
            except OSError:
                # Killed at the other end, which is what this is for.
                return

    def hear(self, peer, seen, body):
        kind = body[0] if body else None
        if kind == 2:
            peer.sendall(struct.pack(">IB", 1, 1))
        elif kind == 4:
            with self.lock:
                seen.told.add(struct.unpack(">I", body[1:5])[0])
        elif kind == 5:
            held = {i for i in range(self.pieces) if body[1 + i // 8] >> (7 - i % 8) & 1}
            with self.lock:
                seen.bitfield = held
                seen.told |= held
        elif kind == 6:
            piece, begin, length = struct.unpack(">III", body[1:13])
            with self.lock:
                seen.asked.add(piece)
                start = max(self.next_free, time.monotonic())
                self.next_free = start + length / self.rate
            wait = start - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            at = piece * self.piece_length + begin
            block = self.content[at : at + length]
            peer.sendall(struct.pack(">IBII", 9 + len(block), 7, piece, begin) + block)


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(k) + bencode(value[k]) for k in sorted(value)) + b"e"


def torrent_of(name, content, piece_length, parts):
    """The `.torrent` and info-hash of a folder `name` whose files have the lengths of `parts`."""
    hashes = b"".join(
        hashlib.sha1(content[at : at + piece_length]).digest() for at in range(0, len(content), piece_length)
    )
    files = [{"length": length, "path": ["part %d" % i]} for i, length in enumerate(parts)]
    info = {"name": name, "piece length": piece_length, "pieces": hashes, "files": files}
    return bencode({"info": info}), hashlib.sha1(bencode(info)).digest()
