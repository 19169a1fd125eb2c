"""Attacks on the tracker: lines 20 to 25."""

import asyncio
import json
import os
import urllib.parse

import harness
from harness import HOST, Failure, free_port, listening

import wire
from wire import Seed, Torrent

ATTACKER = "10.99.7.1"
MIB = 1 << 20


class Tracker:
    """A tracker of ours, asked over raw sockets so that each request can have its source address."""

    def __init__(self, world, *more):
        self.port = free_port(HOST)
        argv = (f"{HOST}:{self.port}", *more)
        self.process = world.program("torrent-tracker", *argv)
        self.address, self.url = (HOST, self.port), f"http://{HOST}:{self.port}/announce"

    async def up(self):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        while not listening(self.port, HOST):
            self.process.must_run()
            if loop.time() > deadline:
                raise Failure("the tracker does not listen")
            await asyncio.sleep(0.05)
        return self

    async def ask(self, method, path, source=HOST, body=b"", headers=()):
        """Status and body of the answer to one request."""
        reader, writer = await asyncio.open_connection(*self.address, local_addr=(source, 0), limit=64 << 20)
        head = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{self.port}", "Connection: close", f"Content-Length: {len(body)}", *headers]
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        try:
            answer = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            rest = b"".join(chunks(rest))
        return int(head.split(b" ", 2)[1]), rest

    async def json(self, path, source=HOST):
        status, body = await self.ask("GET", path, source)
        if status != 200:
            raise Failure(f"GET {path}: {status} {body[:200]}")
        return json.loads(body)

    async def register(self, torrent, source=HOST):
        path = f"/torrents?name={torrent.name}"
        status, body = await self.ask("POST", path, source, torrent.bytes)
        if status not in (200, 201):
            raise Failure(f"POST /torrents: {status} {body[:200]}")
        return json.loads(body)

    async def announce(self, info_hash, port, source=HOST, left=0, event="started", **more):
        query = {"info_hash": info_hash, "peer_id": b"-XX0000-%012d" % port, "port": port, "left": left, "uploaded": 0, "downloaded": 0, "compact": 1, "event": event, **more}
        return await self.ask("GET", "/announce?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote), source)


def chunks(body):
    """The parts of a body that came in chunks (RFC 9112, section 7.1)."""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        yield body[:length]
        body = body[length + 2 :]


async def blinded_log(world):
    """One client announces random hashes as fast as it can; what honest peers ask about a
    catalogued torrent must stay in the log."""
    # A log that is full soon, and shorter than one answer may be.
    config = world.path("config.toml")
    with open(config, "w") as out:
        out.write("[tracker]\nlog_records = 5000\n")
    tracker = await Tracker(world, "--config", config).up()
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10)
    await tracker.register(torrent)
    stop = False

    async def noise():
        reader, writer = await asyncio.open_connection(*tracker.address, local_addr=(ATTACKER, 0))
        count = 0
        try:
            while not stop:
                burst = b"".join(
                    b"GET /announce?info_hash=%s&peer_id=%s&port=6881&left=1&compact=1 HTTP/1.1\r\nHost: x\r\n\r\n"
                    % (urllib.parse.quote(os.urandom(20)).encode(), b"-XX0000-000000000001")
                    for _ in range(50)
                )
                writer.write(burst)
                await writer.drain()
                for _ in range(50):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                count += 50
        except (OSError, asyncio.IncompleteReadError, IndexError):
            pass
        finally:
            writer.close()
        return count

    rounds = 200_000 if world.long else 20_000
    noises = [asyncio.ensure_future(noise()) for _ in range(4)]
    honest = 0
    for number in range(40):
        status, _ = await tracker.announce(torrent.info_hash, 20000 + number, f"10.99.9.{number + 1}")
        honest += status == 200
        await asyncio.sleep(rounds / 40 / 10_000)
    stop = True
    made = sum(await asyncio.gather(*noises))
    log = await tracker.json("/logs/requests?limit=100000")
    text = json.dumps(log)
    kept = sum(f"10.99.9.{number + 1}:" in text for number in range(40))
    world.say(f"{made} announces of random hashes beside {honest} honest ones: {kept} of these are in the log")
    if honest < 40 or kept < 40:
        raise Failure(f"{kept} of 40 honest announces are in the log")


async def unread_maps(world):
    """Many ask for a large map and do not read it."""
    tracker = await Tracker(world).up()
    # 100,000 pieces: a bitfield of 12.5 KB a peer.
    hashes = os.urandom(20 * 100_000)
    info = {"name": "large", "length": 100_000 << 14, "piece length": 1 << 14, "pieces": hashes}
    import hashlib

    info_hash = hashlib.sha1(wire.bencode(info)).digest()
    status, body = await tracker.ask("POST", "/torrents?name=large&observe=0", body=wire.bencode({"info": info}))
    if status not in (200, 201):
        raise Failure(f"POST /torrents: {status} {body[:200]}")
    peers = 600 if world.long else 200
    bits = os.urandom(12_499) + b"\x00"
    for number in range(peers):
        source = f"10.99.8.{number % 250 + 1}"
        key = f"{number:08x}"
        await tracker.announce(info_hash, 20000 + number, source, left=1, key=key)
        peer_id = urllib.parse.quote(b"-XX0000-%012d" % (20000 + number))
        await tracker.ask("POST", f"/torrents/{info_hash.hex()}/holdings?peer_id={peer_id}&port={20000 + number}&key={key}", source, bits)
    size = len((await tracker.ask("GET", f"/torrents/{info_hash.hex()}/map"))[1])
    before = world.peak_memory(tracker.process)
    unread = []
    for _ in range(60):
        try:
            _, writer = await asyncio.open_connection(*tracker.address, local_addr=(ATTACKER, 0), limit=1)
            writer.transport.pause_reading()
            writer.write(f"GET /torrents/{info_hash.hex()}/map HTTP/1.1\r\nHost: {HOST}:{tracker.port}\r\n\r\n".encode())
            unread.append(writer)
        except OSError:
            pass
    await asyncio.sleep(5)
    peak = world.peak_memory(tracker.process)
    bound = before + 48
    world.say(f"60 unread maps of {size / MIB:.1f} MiB: {before:.0f} MiB before, {peak:.0f} at most; bound {bound:.0f} MiB")
    if peak > bound:
        raise Failure(f"the tracker took {peak:.0f} MiB for answers that nobody reads")
    started = asyncio.get_running_loop().time()
    await tracker.json("/stats", "10.99.9.1")
    world.say(f"others are answered after {asyncio.get_running_loop().time() - started:.2f} s")


async def fake_seeds(world):
    """A thousand seeds that do not exist, announced from one address: how long until a leecher is
    given the one that does."""
    tracker = await Tracker(world).up()
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10)
    await tracker.register(torrent)
    seed = await Seed(torrent).listen("10.99.9.1")
    await tracker.announce(torrent.info_hash, seed.address[1], "10.99.9.1")
    for port in range(20000, 21000):
        await tracker.announce(torrent.info_hash, port, ATTACKER)
    took = await world.get(torrent, tracker, 120)
    world.say(f"the download took {took and round(took, 1)} s beside 1,000 fake seeds of one address")
    if took is None or took > 10:
        raise Failure("fake seeds hide the real one")


async def full_catalogue(world):
    """One address registers torrents until it may not; another can still register one."""
    tracker = await Tracker(world).up()
    taken = refused = 0
    for number in range(3000):
        torrent = Torrent(f"junk-{number}", b"%d" % number, 1 << 14)
        status, _ = await tracker.ask("POST", f"/torrents?name=junk-{number}", ATTACKER, torrent.bytes)
        taken, refused = taken + (status in (200, 201)), refused + (status not in (200, 201))
    honest = Torrent("honest.bin", world.content(MIB), 64 << 10)
    await tracker.register(honest, "10.99.9.1")
    world.say(f"one address registered {taken} torrents, {refused} were refused; another could register one")
    if not refused:
        raise Failure("one address may register without end")


async def foreign_pages(world):
    """A web page of another site asks the tracker to register a torrent, and for the map."""
    tracker = await Tracker(world).up()
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10)
    await tracker.register(torrent)
    other = Torrent("other.bin", world.content(MIB), 64 << 10)
    headers = ("Origin: http://evil.example", "Content-Type: text/plain")
    status, _ = await tracker.ask("POST", "/torrents?name=other", ATTACKER, other.bytes, headers)
    seen, _ = await tracker.ask("GET", f"/torrents/{torrent.info_hash.hex()}/map", ATTACKER, headers=headers)
    announced, _ = await tracker.ask("GET", "/stats", HOST)
    world.say(f"a page of another site gets {status} for a registration and {seen} for a map")
    if status < 400 or seen < 400 or announced != 200:
        raise Failure("pages of other sites are served")


async def falsified_holdings(world):
    """Another peer at the same address announces a live peer's port with another key and reports
    in its name."""
    tracker = await Tracker(world).up()
    torrent = Torrent("content.bin", world.content(MIB), 64 << 10)
    await tracker.register(torrent)
    path = f"/torrents/{torrent.info_hash.hex()}/holdings?peer_id={urllib.parse.quote(b'-XX0000-000000020000')}&port=20000&key="
    await tracker.announce(torrent.info_hash, 20000, "10.99.9.1", left=1, key="11111111")
    status, body = await tracker.ask("POST", path + "11111111", "10.99.9.1", b"\xff\x00")
    if status != 204:
        raise Failure(f"the honest report got {status} {body[:100]}")
    await tracker.announce(torrent.info_hash, 20000, "10.99.9.1", left=1, key="22222222", event="")
    false, _ = await tracker.ask("POST", path + "22222222", "10.99.9.1", b"\x00\xff")
    held = (await tracker.json(f"/torrents/{torrent.info_hash.hex()}/map"))["peers"][0]
    status, _ = await tracker.ask("POST", path + "11111111", "10.99.9.1", b"\xff\x80")
    after = (await tracker.json(f"/torrents/{torrent.info_hash.hex()}/map"))["peers"][0]
    world.say(f"a false report got {false}; the map then had {held['held']} pieces; the honest next report got {status}")
    if held["have"] != {"bits": "/wA="} or status != 204 or after["held"] != 9:
        raise Failure("another key took a live peer's reports over")


CASES = [
    ("20", "blinded request log", blinded_log),
    ("21", "maps that nobody reads", unread_maps),
    ("22", "fake seeds of one address", fake_seeds),
    ("23", "a catalogue filled by one", full_catalogue),
    ("24", "pages of other sites", foreign_pages),
    ("25", "falsified holdings", falsified_holdings),
]
