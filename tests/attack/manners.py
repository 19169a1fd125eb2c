"""What a peer owes to trackers, to other peers and to a user's disk: lines 19, 28, 30 and 31."""

import asyncio
import hashlib
import os
import time
import urllib.parse

from harness import HOST, Failure, free_port

import wire
from trackers import Tracker
from waiting import holds
from wire import Guest, Leech, ListedPeers, Seed, Torrent

MIB = 1 << 20


class ScriptedTracker(ListedPeers):
    """A tracker that gives each announce the next of these answers, and the last one for ever."""

    def __init__(self, *answers, headers=(), status="200 OK"):
        super().__init__()
        self.answers, self.headers, self.status, self.times = list(answers), headers, status, []

    async def answer(self, reader, writer):
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            path = head.split(b" ", 2)[1]
            if not path.startswith(b"/announce"):
                # Somebody takes it for a tracker that is told who holds what.
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.times.append(time.monotonic())
            self.announces.append(path)
            body = wire.bencode(self.answers[min(len(self.announces), len(self.answers)) - 1])
            lines = [f"HTTP/1.1 {self.status}", f"Content-Length: {len(body)}", "Connection: close", *self.headers]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        finally:
            writer.close()

    def queries(self):
        return [dict(urllib.parse.parse_qsl(path.split(b"?", 1)[1].decode("latin-1"))) for path in self.announces]


async def dead_connection(world):
    """A peer's connection dies without a word, and it connects again under the same name."""
    torrent = Torrent("content.bin", world.content(4 * MIB), 64 << 10)
    tracker = await ListedPeers().listen(HOST)
    _, address = await world.share(torrent, tracker)
    peer_id = b"-XX0000-" + os.urandom(6).hex().encode()
    # It says nothing any more, and nothing says that it is gone.
    dead = await Guest.dial(address, "10.99.9.1")
    await dead.greet(torrent.info_hash, peer_id)
    dead.send(wire.HAVE_NONE)
    started, tries = time.monotonic(), 0
    while time.monotonic() - started < 40:
        tries += 1
        try:
            leech = await Leech.dial(address, "10.99.9.1")
            await leech.greet(torrent.info_hash, peer_id)
            await asyncio.wait_for(leech.run(torrent), 30)
            break
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            await asyncio.sleep(0.5)
    else:
        raise Failure("a peer whose connection died is locked out for 40 s")
    world.say(f"a peer whose connection died was served after {time.monotonic() - started:.1f} s, {tries} connections")
    del dead


async def names(world):
    """A torrent whose name would clear the screen, end a line, turn text round, or be an option."""
    for number, name in enumerate(["\x1b[2Jclear", "one\ntwo", "txt.\u202eexe", "--force"]):
        torrent = Torrent(name, world.content(100_000), 16 << 10)
        tracker = await ListedPeers().listen(HOST)
        honest = await Seed(torrent).listen(HOST)
        tracker.peers = [honest.address]
        at = os.path.join(world.folder, f"names-{number}.torrent")
        torrent.write_to(at)
        folder = os.path.join(world.folder, f"names-{number}")
        os.makedirs(folder)
        process = world.program("torrent-peer", "get", at, tracker.url, f"{HOST}:{free_port(HOST)}", "--output", folder, "--exit")
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(None, process.wait, 30) != 0:
            raise Failure(f"a torrent named {name!r} was not fetched")
        written = [entry for entry in os.listdir(folder) if not entry.endswith(".torrent") and entry != "torrents"]
        output = process.output()
        # The terminal is told nothing that it would obey.
        raw = [mark for mark in ("\x1b[2J", "\u202e") if mark in output]
        world.say(f"{name!r} is {written} on the disk")
        if len(written) != 1 or raw or any(ord(char) < 32 or char == "\u202e" for char in written[0]) or written[0].startswith("-"):
            raise Failure(f"{name!r} became {written} on the disk; shown raw: {raw}")
        with open(os.path.join(folder, written[0]), "rb") as data:
            if data.read() != torrent.content:
                raise Failure("the copy differs")


async def private_torrent(world):
    """A private torrent with a tracker of its own is shared at another tracker of ours."""
    ours = await Tracker(world).up()
    own = await ScriptedTracker({"interval": 1800, "peers": b""}).listen(HOST)
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10, announce=own.url)
    torrent.info["private"] = 1
    torrent.info_hash = hashlib.sha1(wire.bencode(torrent.info)).digest()
    at, data = world.path("private.torrent"), world.path("data")
    torrent.write_to(at)
    os.makedirs(data)
    with open(os.path.join(data, torrent.name), "wb") as out:
        out.write(torrent.content)
    share = ("share", "--torrent", at, "--data", data)
    loop = asyncio.get_running_loop()
    # To another tracker, which its user names; then to its own one, beside the one of the configuration.
    refused = world.program("torrent-peer", *share, ours.url, f"{HOST}:{free_port(HOST)}")
    code = await loop.run_in_executor(None, refused.wait, 20)
    with open(world.path("config.toml"), "w") as config:
        config.write(f'[peer]\ntracker = "{ours.url}"\nprivate_trackers = true\n')
    process = world.program("torrent-peer", *share, "--log-level", "info", "--config", world.path("config.toml"), "--listen", f"{HOST}:{free_port(HOST)}")
    if not await holds(lambda: process.must_run() or own.announces, 20):
        raise Failure("its own tracker was not told")
    await asyncio.sleep(3)
    stats = await ours.json("/stats")
    listed = await ours.json("/torrents")
    world.say(f"its own tracker heard {len(own.announces)} announces; ours {stats['announces_http'] + stats['announces_udp']}, and lists {len(listed['torrents'])} torrents; named, it got exit code {code}")
    if code == 0 or stats["announces_http"] or stats["announces_udp"] or stats["catalogued"] or listed["torrents"]:
        raise Failure("a private torrent leaks to another tracker")


async def intervals(world):
    """Trackers that say when to come back, and peers that are not there."""
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10)
    answers = {
        "interval 1800": ({"interval": 1800, "peers": b""}, (), "200 OK"),
        "interval 5, min interval 60": ({"interval": 5, "min interval": 60, "peers": b""}, (), "200 OK"),
        "a refusal with an interval": ({"failure reason": "come back later", "interval": 900}, (), "200 OK"),
        "a refusal that says when (BEP 31)": ({"failure reason": "come back later", "retry in": 10}, (), "200 OK"),
        "503 with Retry-After": ({}, ("Retry-After: 300",), "503 Service Unavailable"),
    }
    trackers = {}
    for number, (name, (answer, headers, status)) in enumerate(answers.items()):
        tracker = trackers[name] = await ScriptedTracker(answer, headers=headers, status=status).listen(HOST)
        at = os.path.join(world.folder, f"intervals-{number}.torrent")
        torrent.write_to(at)
        folder = os.path.join(world.folder, f"intervals-{number}")
        os.makedirs(folder)
        world.program("torrent-peer", "get", at, tracker.url, f"{HOST}:{free_port(HOST)}", "--output", folder)
    await asyncio.sleep(90 if world.long else 25)
    for name, tracker in trackers.items():
        # Its end is told whenever it comes; the rest has to wait.
        asked = [query for query in tracker.queries() if query.get("event") != "stopped"]
        world.say(f"{name}: {len(asked)} announces")
        if len(asked) != 1:
            gaps = [round(later - earlier, 1) for earlier, later in zip(tracker.times, tracker.times[1:])]
            raise Failure(f"{name}: {len(asked)} announces, {gaps} s apart")


CASES = [
    ("19", "a connection that died", dead_connection),
    ("28", "names that terminals obey", names),
    ("30", "private torrent", private_torrent),
    ("31", "intervals of trackers", intervals),
]
