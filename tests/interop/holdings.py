"""A tracker that sees what every client holds: a seeder of ours, and Transmission, aria2 and libtorrent
as leechers, which know nothing of that.

While they download, the tracker's map of each is held against what the client itself says: never ahead
of it, and at most ten seconds behind. And who is killed is off the list within half a minute.
"""

import base64
import json
import os
import time
from contextlib import ExitStack

import clients
import trackers
from harness import TRACKER_HOST, Failure, http, wait_for

# What the seeder gives and each leecher takes, in KiB a second: 64 MiB come in some 20 seconds, also to
# one that begins when others have them all.
LIMIT = 4096

# How much later than the client says it the map must show a piece, in seconds.
BEHIND = 10

# How long one that was killed may be on the list, in seconds.
GONE = 30


def case(binaries, content, folder):
    with ExitStack() as stack:
        tracker = trackers.ours(binaries, folder, TRACKER_HOST)
        stack.callback(tracker.stop)
        torrent, info_hash = clients.create(binaries, content["single"], tracker.url("http"), folder)
        seeder = clients.Ours(folder, binaries)
        stack.callback(seeder.stop)
        at = f"{TRACKER_HOST}:{tracker.port}"
        seeder.share(torrent, os.path.dirname(content["single"]), at, "--upload-limit", f"{LIMIT}KiB")
        tracker.wait_for_seeders(info_hash, 1)
        swarm = Swarm(tracker, info_hash, os.path.basename(content["single"]))
        leechers = [make(folder) for make in clients.FOREIGN.values()]
        for leecher in leechers:
            leecher.limit = LIMIT
            stack.callback(leecher.stop)
            leecher.add(torrent, os.path.join(folder, f"got-{leecher.name}"))

        watched = {leecher.name: Watched(leecher) for leecher in leechers}
        aria2 = next(leecher for leecher in leechers if leecher.name == "aria2")
        deadline = time.monotonic() + 120
        while watched:
            rows = swarm.rows()
            for one in list(watched.values()):
                one.look(rows)
                if one is not watched.get(aria2.name) and one.is_seen_whole():
                    del watched[one.client.name]
            if aria2.name in watched and len(watched[aria2.name].shown) > swarm.pieces / 2:
                if watched.pop(aria2.name).grew < 3:
                    raise Failure("the pieces of aria2 came all at once")
                swarm.console_must_agree(leechers)
                swarm.kill([aria2])
            if time.monotonic() > deadline:
                state = {name: (len(one.said), len(one.shown)) for name, one in watched.items()}
                raise Failure(f"not all was seen of {state} (said, shown)")
            time.sleep(0.3)
        left = [leecher for leecher in leechers if leecher is not aria2]
        sources = {row["peer"]: row["source"] for row in swarm.rows().values()}
        wanted = {address(one): "observed" for one in left} | {address(seeder): "reported"}
        if sources != wanted:
            raise Failure(f"the map knows {sources}, not {wanted}")
        swarm.kill([*left, seeder])


class Watched:
    """One client, and what the map shows of it."""

    def __init__(self, client):
        self.client = client
        self.said = set()
        self.shown = set()
        # How often it was seen to have more than before.
        self.grew = 0
        # What it said when, until the map has had its time.
        self.due = []

    def look(self, rows):
        now = time.monotonic()
        shown = pieces_of(rows.get(address(self.client)))
        if self.due and self.due[0][0] + BEHIND < now:
            late = self.due.pop(0)[1] - shown
            if late:
                raise Failure(f"{len(late)} pieces of {self.client.name} are not shown after {BEHIND} s: {sorted(late)[:9]}")
        self.grew += len(shown) > len(self.shown)
        self.shown = shown
        self.client.process.must_run()
        self.said = self.client.pieces()
        ahead = shown - self.said
        if ahead:
            raise Failure(f"{len(ahead)} pieces of {self.client.name} are shown that it does not hold: {sorted(ahead)[:9]}")
        self.due.append((time.monotonic(), self.said))

    def is_seen_whole(self):
        return self.client.complete() and self.shown == self.said and self.grew > 2


class Swarm:
    """The torrent as the tracker shows it."""

    def __init__(self, tracker, info_hash, name):
        self.tracker = tracker
        self.at = f"http://{tracker.host}:{tracker.port}"
        self.info_hash = info_hash
        self.name = name
        self.pieces = self.map()["pieces"]

    def map(self):
        return self.get(f"/torrents/{self.info_hash}/map")

    def rows(self):
        return {row["peer"]: row for row in self.map()["peers"]}

    def get(self, path):
        status, _, body = http("GET", self.at + path)
        if status != 200:
            raise Failure(f"{path} gives {status}: {body}")
        return json.loads(body)

    def console_must_agree(self, leechers):
        """`file_logs NAME`, typed and over HTTP, shows of each client what the map shows."""
        before = {name: len(pieces_of(row)) for name, row in self.rows().items()}
        stdin = self.tracker.process.child.stdin
        stdin.write(f"file_logs {self.name}\n".encode())
        stdin.flush()
        lines = lambda: self.tracker.process.output().splitlines()
        shown = {}
        for client in leechers:
            of_it = lambda: [line for line in lines() if f" {address(client)} " in f" {line} "]
            shown[client.name] = wait_for(f"{client.name} in file_logs", 10, of_it)[-1]
        (file,) = self.get(f"/logs/files/{self.name}")["files"]
        after = {peer["peer"]: peer for peer in file["peers"]}
        for client in leechers:
            name = address(client)
            if not before[name] <= after[name]["held"] or after[name]["source"] != "observed":
                raise Failure(f"/logs/files says {after[name]} where {before[name]} pieces are held")
            if " observed" not in shown[client.name] or f" {after[name]['percent']} % " not in f"{shown[client.name]} ":
                # It may have grown between the two.
                percent = int(shown[client.name].split(" %")[0].split()[-1])
                if not before[name] * 100 // self.pieces <= percent <= after[name]["percent"]:
                    raise Failure(f"file_logs says {shown[client.name]!r}, the map {after[name]}")

    def kill(self, victims):
        """Kills them all, and waits until none is on the list."""
        for victim in victims:
            victim.kill()
        names = {address(victim) for victim in victims}
        others = self.rows().keys() - names
        wait_for(f"{sorted(names)} to be off the list", GONE, lambda: not names & self.rows().keys(), 0.3)
        if others - self.rows().keys():
            raise Failure(f"{sorted(others - self.rows().keys())} left the list as well")


def address(client):
    return f"{client.host}:{client.port}"


def pieces_of(row):
    """The pieces that a row shows, as a set of numbers."""
    if row is None or row["have"] in (None, "none"):
        return set()
    if row["have"] == "all":
        return set(range(row["held"]))
    return clients.bits(base64.b64decode(row["have"]["bits"]))
