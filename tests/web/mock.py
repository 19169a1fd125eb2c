#!/usr/bin/env python3
"""Stands in for daemon and tracker with swarms far larger than a test can run.

    mock.py [--pieces N] [--peers N] [--torrents N] [--rate N]

Serves the pages of `crates/http/web/` with the headers that the programs give them, over the same API, and tells
`--rate` events a second. Printed are the addresses of the daemon's page and of the tracker's. It answers
only what the pages ask.
"""

import argparse
import base64
import hashlib
import json
import os
import random
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

WEB = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "crates", "http", "web")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
CLIENTS = ["Piecework 0.1.0", "Transmission 4.0.6", "qBittorrent 5.1.2", "libtorrent 2.0.11", "aria2 1.37.0", None]


def moment(seconds=None):
    return datetime.fromtimestamp(seconds or time.time(), timezone.utc).isoformat().replace("+00:00", "Z")


def addr(n):
    return f"10.{n // 62500 % 250}.{n // 250 % 250}.{n % 250 + 1}:{51413 + n % 7}"


def hash_of(n):
    return hashlib.sha1(b"%d" % n).hexdigest()


def ranges(pieces):
    out = []
    for piece in sorted(pieces):
        if out and out[-1][1] == piece - 1:
            out[-1][1] = piece
        else:
            out.append([piece, piece])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in out)


class World:
    """What both programs know, and the events that change it."""

    def __init__(self, pieces, peers, torrents, rate, seed=7):
        self.chance = random.Random(seed)
        self.pieces, self.rate, self.started = pieces, rate, time.time()
        self.lock = threading.Lock()
        self.streams = []
        self.torrents = [self.torrent(n) for n in range(torrents)]
        # The daemon's: which giver gave a piece, a few gave most.
        weights = [1 / (n + 1) for n in range(peers)]
        self.by_piece = [-1] * pieces
        held = int(pieces * 0.55)
        for piece, giver in zip(self.chance.sample(range(pieces), held), self.chance.choices(range(peers), weights, k=held)):
            self.by_piece[piece] = giver
        for piece in range(min(pieces // 20, 400)):
            self.by_piece[piece] = -2
        self.weights = weights
        self.given = [0] * peers
        for giver in self.by_piece:
            if giver >= 0:
                self.given[giver] += 1
        self.bad = [
            {"time": moment(self.started - 90 + n), "piece": pieces // 3 + 7 * n, "block": 3 * n, "peer": addr(min(4, peers - 1)), "client": "qBittorrent 5.1.2",
             "givers": 2, "expected": hash_of(n), "got": hash_of(n + 1000), "block_sent": hash_of(n + 2000), "block_right": hash_of(n + 3000)} for n in range(3)
        ]
        # The tracker's: who holds what.
        self.peers = []
        for n in range(peers):
            done = 1 if n % 41 == 0 and n < 90 else self.chance.random() ** 0.7 * 0.97
            source = "announced" if n % 17 == 5 else "observed" if n % 3 else "reported"
            bits = None
            if done < 1:
                bits = bytearray((pieces + 7) // 8)
                at, left = 0, int(done * pieces)
                while left > 0 and at < pieces:
                    run = min(left, self.chance.randint(1, max(2, pieces // 60)))
                    for piece in range(at, min(pieces, at + run)):
                        bits[piece >> 3] |= 0x80 >> (piece & 7)
                    left -= run
                    at += run + int(run * (1 - done) / max(done, 0.02) * self.chance.uniform(0.3, 1.7))
            held = pieces if bits is None else sum(byte.bit_count() for byte in bits)
            self.peers.append({
                "id": n, "peer": addr(n), "client": CLIENTS[n % len(CLIENTS)], "bits": bits, "held": held, "source": source,
                "sure": n % 29 != 3, "left": 0 if bits is None else (pieces - held) << 18, "rate": None if bits is None else round(self.chance.uniform(0, 9), 2),
                "eta": None if bits is None else int((pieces - held) / 4), "silent": 700 if n % 37 == 9 else n % 130, "reachable": None if n % 5 == 1 else n % 7 != 2, "as_of": moment(self.started - n * n), "joined_at": moment(self.started - 1000 + n),
            })

    def torrent(self, n):
        size = self.chance.randint(1 << 22, 1 << 36)
        part = 1 if n % 3 == 0 else self.chance.random()
        state = ["seeding", "downloading", "downloading", "paused", "queued-download", "checking", "failed"][n % 7] if part < 1 else "seeding"
        down = self.chance.randint(1 << 16, 1 << 23) if state == "downloading" else 0
        return {
            "info_hash": hash_of(n), "id": n, "name": NAMES[n] if n < len(NAMES) else f"dataset-{n:04}-{self.chance.choice(['train', 'eval', 'raw'])}.tar.zst",
            "state": state, "error": "cannot write `/srv/data/part`: there is no room left: No space left on device (os error 28)" if state == "failed" else None, "folder": "/srv/downloads",
            "bytes": size, "bytes_have": int(size * part), "bytes_wanted": size, "bytes_wanted_have": int(size * part), "pieces": self.pieces, "pieces_have": int(self.pieces * part),
            "piece_length": 1 << 18, "files": 3, "private": False, "downloaded": int(size * part), "uploaded": size // 3, "corrupt": 3 << 14 if n == 0 else 0,
            "download_rate": down, "upload_rate": self.chance.randint(0, 1 << 21) if state in ("seeding", "downloading") else 0, "peers": self.chance.randint(0, 60),
            "seeds": 2, "peers_giving": 2, "peers_taking": 1, "eta": int(size * (1 - part) / down) if down else None, "ratio": 0.33, "check_progress": 0.4,
            "limit_reached": False, "stalled": False, "queue_position": n, "added_at": int(self.started) - 5000 + n, "started_at": None, "done_at": None, "active_at": None,
            "seconds_downloading": 100, "seconds_seeding": 0, "settings": SETTINGS | {"labels": LABELS[n % len(LABELS)]},
        }

    def giver(self, n):
        return {
            "id": n, "peer": addr(n), "client": CLIENTS[n % len(CLIENTS)], "pieces": self.given[n], "blocks": 16 * self.given[n], "bytes": self.given[n] << 18,
            "failed": 3 if n == 4 else 0, "banned": n == 4, "unused_blocks": 0, "unused_bytes": 0, "first_at": int(self.started) - 600, "last_at": int(time.time()),
        }

    def row(self, peer):
        have = "all" if peer["bits"] is None else {"bits": base64.b64encode(peer["bits"]).decode()}
        return {**{key: value for key, value in peer.items() if key != "bits"}, "have": have}

    def copies(self):
        whole = sum(1 for peer in self.peers if peer["bits"] is None)
        return whole + 0.62

    def map(self):
        whole = sum(1 for peer in self.peers if peer["bits"] is None)
        return {
            "info_hash": hash_of(0), "name": NAMES[0], "size": self.pieces << 18, "pieces": self.pieces, "piece_length": 1 << 18, "complete": whole,
            "incomplete": len(self.peers) - whole, "downloads": 12, "copies": self.copies(), "silent_after": 150, "observer": {"on": True, "connected": len(self.peers) * 2 // 3},
            "peers": [self.row(peer) for peer in self.peers],
        }

    def run(self):
        """Tells `rate` events a second, as evenly as the system lets it."""
        due = time.monotonic()
        count = 0
        while True:
            due += 1 / self.rate
            time.sleep(max(0, due - time.monotonic()))
            count += 1
            with self.lock:
                self.tell("swarm", "have", self.have())
                if count % self.rate == 0:
                    pulse = [{key: peer[key] for key in ("id", "rate", "eta", "silent", "as_of")} for peer in self.peers]
                    self.tell("swarm", "pulse", {"peers": pulse})
                if count % max(1, self.rate // 4) == 0:
                    self.tell("torrent", "pieces", self.arrivals(max(1, self.rate // 4)))
                    self.tell("requests", "request", self.request(count))
                if count % max(1, self.rate // 5) == 0:
                    torrent = self.chance.choice(self.torrents)
                    if torrent["state"] == "downloading":
                        torrent["download_rate"] = self.chance.randint(1 << 16, 1 << 23)
                        torrent["bytes_wanted_have"] = min(torrent["bytes"], torrent["bytes_wanted_have"] + (1 << 22))
                    self.tell("list", "torrent", torrent)
                    self.tell("torrent", "torrent", self.torrents[0])

    def tell(self, topic, name, data):
        text = None
        for stream in self.streams:
            if stream.topic == topic:
                text = text or f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
                stream.add(text)

    def have(self):
        while True:
            peer = self.chance.choice(self.peers)
            if peer["bits"] is not None:
                break
        new = set()
        for _ in range(self.chance.randint(1, 5)):
            piece = self.chance.randrange(self.pieces)
            if not peer["bits"][piece >> 3] >> (7 - (piece & 7)) & 1:
                peer["bits"][piece >> 3] |= 0x80 >> (piece & 7)
                new.add(piece)
        peer["held"] += len(new)
        peer["rate"] = round(self.chance.uniform(0, 9), 2)
        return {"id": peer["id"], "pieces": ranges(new), "held": peer["held"], "rate": peer["rate"], "eta": peer["eta"], "source": peer["source"], "sure": peer["sure"], "as_of": moment()}

    def arrivals(self, count):
        changed, touched = [], set()
        for _ in range(count):
            piece = self.chance.randrange(self.pieces)
            if self.by_piece[piece] == -1:
                giver = self.chance.choices(range(len(self.peers)), self.weights)[0]
                self.by_piece[piece] = giver
                self.given[giver] += 1
                changed.append([piece, giver])
                touched.add(giver)
        return {"givers": [self.giver(n) for n in touched], "pieces": changed, "bad": []}

    def request(self, count):
        peer = self.chance.choice(self.peers)
        ok = count % 9 != 0
        return {
            "time": moment(), "peer": peer["peer"], "client": peer["client"], "event": self.chance.choice(["announce", "announce", "started", "completed", "scrape"]),
            "info_hash": hash_of(0), "name": NAMES[0], "peers": [{"peer": addr(n), "complete": False} for n in range(self.chance.randint(0, 9))],
            "ok": ok, "error": None if ok else "the torrent is not in the catalogue", "via": self.chance.choice(["http", "udp"]),
        }


SETTINGS = {
    "paused": False, "forced": False, "upload_limit": None, "download_limit": None, "session_limits": True, "max_peers": None, "bandwidth": "normal", "sequential": False,
    "files": [], "labels": [], "seed_ratio": "session", "seed_time": "session", "seed_idle": "session", "trackers": None, "group": None, "renamed": [], "name": None,
}
LABELS = [[], [], ["film"], ["data set"], ["film", "new"]]

NAMES = ["debian-13.2.0-amd64-netinst.iso", "llama-weights-70b.safetensors", "nightly-build-2026-11-27.tar.zst", "planet-osm-latest.pbf"]


class Stream:
    """Events that wait to be written to one client; who is slow loses the oldest."""

    def __init__(self, topic):
        self.topic, self.waiting, self.ready = topic, [], threading.Event()

    def add(self, text):
        self.waiting.append(text)
        del self.waiting[:-5000]
        self.ready.set()


def handler(world, kind):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def send(self, status, body, content_type="application/json", **headers):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def json(self, value, status=200):
            self.send(status, json.dumps(value).encode())

        def stream(self, first, topic):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            stream = Stream(topic)
            with world.lock:
                # All there is at the beginning, however much that is.
                stream.waiting = [f"event: {name}\ndata: {json.dumps(data)}\n\n".encode() for name, data in first()]
                stream.ready.set()
                world.streams.append(stream)
            try:
                while True:
                    stream.ready.wait(15)
                    stream.ready.clear()
                    waiting, stream.waiting = stream.waiting, []
                    self.wfile.write(b"".join(waiting) or b": still here\n\n")
                    self.wfile.flush()
            except OSError:
                pass
            finally:
                with world.lock:
                    world.streams.remove(stream)
                self.close_connection = True

        def do_GET(self):
            url = urlsplit(self.path)
            path, query = url.path, {key: values[0] for key, values in parse_qs(url.query).items()}
            if path == "/" and "text/html" in self.headers.get("Accept", ""):
                self.send(303, b"", Location="/ui/")
            elif path.startswith("/ui/"):
                self.page(path[4:])
            elif kind == "daemon":
                self.daemon(path, query)
            else:
                self.tracker(path, query)

        def page(self, name):
            file = os.path.normpath(os.path.join(WEB, name or f"{kind}/index.html"))
            if not file.startswith(os.path.normpath(WEB)) or not os.path.isfile(file):
                self.json({"error": "there is nothing at this address"}, 404)
                return
            with open(file, "rb") as opened:
                body = opened.read()
            self.send(200, body, TYPES[os.path.splitext(file)[1]], Content_Security_Policy=POLICY, Cache_Control="no-cache")

        def daemon(self, path, query):
            parts = path.strip("/").split("/")
            torrent = next((one for one in world.torrents if len(parts) > 1 and one["info_hash"] == parts[1]), None)
            if path == "/":
                self.json({"program": "piecework", "version": "0.1.0", "uptime": 5, "peer_port": 1, "tracker": None})
            elif path == "/events" and "torrent" in query:
                self.stream(lambda: [("torrent", world.torrents[0]), ("ready", None)], "torrent")
            elif path == "/events":
                self.stream(lambda: [("torrent", one) for one in world.torrents] + [("ready", None)], "list")
            elif path == "/settings":
                self.json({"downloads": "/srv/downloads", "start_added": True, "sequential": False,
                           "alt": {"on": False, "upload": 50_000, "download": 50_000, "scheduled": False, "begin": 540, "end": 1020, "days": 127}})
            elif path == "/status":
                self.json({"downloaded_ever": 7 << 40, "uploaded_ever": 9 << 40, "torrents": []})
            elif path == "/folders":
                self.json(folders(query.get("path", "/srv/downloads"), query.get("for")))
            elif path == "/free-space":
                self.json({"path": query["path"], "free": 3 << 40, "total": 8 << 40})
            elif path == "/torrents":
                self.json({"tracker": "mock", "torrents": catalogue(world)})
            elif torrent is None:
                self.json({"error": "there is no such torrent here"}, 404)
            elif len(parts) == 2:
                self.json({**torrent, "comment": None, "created_by": None, "created_at": None, "torrent_file": "x", "magnet": f"magnet:?xt=urn:btih:{torrent['info_hash']}", "availability": 3.4, "trackers": [],
                           "waiting": {"seconds": {}, "recent": {"choked": 0.61, "peer_upload": 0.22, "request_window": 0.08},
                                       "sentence": "In the last minute it mostly waited because 9 of 12 peers choke it; more peers, or a better ratio with these, would help."},
                           "file_list": [{"index": n, "path": f"{torrent['name']}/part {n}.bin", "bytes": 1 << 30, "bytes_have": 1 << (30 - n), "priority": "normal", "first_piece": 0, "end_piece": 9} for n in range(3)]})
            elif parts[2] == "givers":
                with world.lock:
                    self.json({"givers": [world.giver(n) for n, count in enumerate(world.given) if count], "takers": [], "by_piece": world.by_piece})
            elif parts[2] == "sent":
                self.json({"takers": [], "pieces": [], "last": 0})
            elif parts[2] == "sources":
                self.json({"web_seeds": ["http://mirror.example/debian.iso"], "nodes": ["router.example:6881"], "source": None,
                           "notices": ["web seeds are not supported: its `1` are not used"]})
            elif parts[2] == "bad":
                self.json(world.bad)
            elif parts[2] == "timeline":
                self.timeline(int(query.get("buckets", 100)))
            elif parts[2] == "peers":
                self.json([{"addr": peer["peer"], "client": peer["client"] or "?", "incoming": False, "pieces": peer["held"], "progress": peer["held"] / world.pieces,
                            "download_rate": int((peer["rate"] or 0) * 20000), "upload_rate": 900 * (n % 5), "downloaded": world.given[n] << 18, "uploaded": n << 16,
                            "choked_by_us": n % 2 == 0, "choking_us": n % 3 == 0, "we_are_interested": True, "interested_in_us": True, "outstanding": n % 9} for n, peer in enumerate(world.peers)])
            elif parts[2] == "pieces" and len(parts) == 4:
                piece = int(parts[3])
                giver = world.by_piece[piece]
                story = [] if giver < 0 else [{"time": moment(), "kind": "given", "peer": addr(giver), "client": CLIENTS[giver % 6], "blocks": "0-15", "block_count": 16, "bytes": 1 << 18, "evidence": None,
                                               "requested_at": moment(time.time() - 0.34), "received_at": moment(), "verdict": "verified"}]
                self.json({"piece": piece, "state": "held" if giver != -1 else "missing", "story": story})
            else:
                self.json({"error": "there is nothing at this address"}, 404)

        def timeline(self, buckets):
            chance = random.Random(3)
            series = []
            for giver in range(min(20, len(world.peers))):
                weight = world.weights[giver]
                pieces = [int(weight * chance.randint(0, 30) * (1 + (n * 7 // buckets) % 3)) for n in range(buckets)]
                series.append({"giver": giver, "pieces": pieces, "bytes": [n << 18 for n in pieces]})
            self.json({"from": int(world.started) - 600, "to": int(time.time()), "seconds": 600 / buckets, "series": series})

        def tracker(self, path, query):
            parts = path.strip("/").split("/")
            if path == "/stats":
                self.json({"version": "0.1.0"})
            elif path == "/events":
                topic = "requests" if "requests" in query else "catalogue"
                self.stream(lambda: [("torrent", one) for one in catalogue(world)] + [("ready", None)], topic)
            elif path == "/logs/requests":
                with world.lock:
                    self.json({"requests": [world.request(n) for n in range(500)], "more": 0, "dropped": 0})
            elif path == "/peers":
                found = [peer for peer in world.peers if query["find"] in peer["peer"] or query["find"] in (peer["client"] or "").lower()]
                self.json({"peers": [{"info_hash": hash_of(0), "name": NAMES[0], "pieces": world.pieces, **{key: peer[key] for key in ("peer", "client", "held")}} for peer in found[:50]], "more": len(found) > 50})
            elif parts[0] != "torrents" or len(parts) < 3 or parts[1] != hash_of(0):
                self.json({"error": "no torrent of that info-hash is in the catalogue of this tracker"}, 404)
            elif parts[2] == "events":
                self.stream(lambda: [("map", world.map())], "swarm")
            elif parts[2] == "map":
                with world.lock:
                    self.json(world.map())
            elif parts[2] == "pieces":
                piece = int(parts[3])
                held = [peer for peer in world.peers if peer["bits"] is None or peer["bits"][piece >> 3] >> (7 - (piece & 7)) & 1]
                self.json({"piece": piece, "count": len(held), "holders": [{key: peer[key] for key in ("peer", "client", "source", "sure")} for peer in held]})
            elif parts[2] == "missing":
                peer = next(peer for peer in world.peers if peer["peer"] == query["peer"])
                missing = [] if peer["bits"] is None else [n for n in range(world.pieces) if not peer["bits"][n >> 3] >> (7 - (n & 7)) & 1]
                self.json({"peer": query["peer"], "count": len(missing), "pieces": ranges(missing)})
            elif parts[2] == "without":
                self.json({"can_complete": True, "count": 0, "pieces": "", "copies": world.copies() - 1})
            elif parts[2] == "at-risk":
                self.json({"k": 1, "count": 0, "pieces": "", "groups": [], "more": 0})
            else:
                self.json({"error": "there is nothing at this address"}, 404)

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send(204, b"")

        do_PATCH = do_DELETE = do_POST

    return Handler


def folders(path, use):
    """A tree in which each folder holds the same."""
    path = path.rstrip("/")
    return {"path": path or "/", "parent": (os.path.dirname(path) if path else None), "roots": ["/srv/downloads", "/"],
            "folders": [".cache", "films", "isos", "x" * 90, *(f"folder {n:03}" for n in range(300))], "more": False,
            "files": ["debian.iso", "notes.txt"] if use == "share" else []}


def catalogue(world):
    return [{"info_hash": one["info_hash"], "name": one["name"], "size": one["bytes"], "pieces": one["pieces"], "piece_length": one["piece_length"], "files": 3, "private": False,
             "description": "as released" if n % 4 == 0 else None, "complete": n % 5, "incomplete": n % 11, "registered_at": int(world.started) - 400 * n} for n, one in enumerate(world.torrents)]


class Mock:
    """Both programs, each on a port that the system chose."""

    def __init__(self, pieces=100_000, peers=500, torrents=1_000, rate=40):
        self.world = World(pieces, peers, torrents, rate)
        self.servers = {}
        for kind in ("daemon", "tracker"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self.world, kind))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self.servers[kind] = server
        self.torrent = hash_of(0)
        threading.Thread(target=self.world.run, daemon=True).start()

    def url(self, kind):
        return f"http://127.0.0.1:{self.servers[kind].server_port}/ui/"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--peers", type=int, default=500)
    parser.add_argument("--torrents", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=40)
    mock = Mock(**vars(parser.parse_args()))
    for kind in mock.servers:
        print(f"{kind} {mock.url(kind)}#/t/{mock.torrent}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
