"""Crowds of strangers at an honest peer's door: lines 12 to 15, 18 and 19."""

import asyncio
import struct

from harness import HOST, Failure

import wire
from wire import Guest, Leech, ListedPeers, Seed, Torrent

MIB = 1 << 20

# All attackers of these cases share one address, unless said otherwise.
ATTACKER = "10.99.7.1"
HONEST = "10.99.9.1"


async def honest_leech(torrent, address, seconds, source=HONEST):
    """An honest leecher takes everything; returns how long that took, `None` if it did not."""
    clock = asyncio.get_running_loop().time
    started = clock()

    async def take():
        guest = await Leech.dial(address, source)
        await guest.greet(torrent.info_hash)
        await guest.run(torrent)
        guest.close()

    try:
        await asyncio.wait_for(take(), seconds)
        return clock() - started
    except (asyncio.TimeoutError, OSError, asyncio.IncompleteReadError):
        return None


async def seeder(world, size=8 * MIB, *more):
    torrent = Torrent("content.bin", world.content(size), 256 << 10)
    tracker = await ListedPeers().listen(HOST)
    process, address = await world.share(torrent, tracker, *more)
    return torrent, process, address


async def try_to(coroutine):
    """The attacker does not mind being thrown out."""
    try:
        return await asyncio.wait_for(coroutine, 20)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        return None


async def flooded(world, make_payload, count):
    """`count` peers of one address send `make_payload()` over and over, 16 MiB each."""
    torrent, process, address = await seeder(world)
    before = world.peak_memory(process)

    async def attack():
        guest = await Guest.dial(address, ATTACKER)
        await guest.greet(torrent.info_hash)
        guest.send(wire.HAVE_NONE)
        payload = make_payload(torrent)
        for _ in range(16 * MIB // len(payload)):
            guest.writer.write(payload)
            await guest.writer.drain()
        return guest

    await asyncio.gather(*(try_to(attack()) for _ in range(count)))
    peak = world.peak_memory(process)
    # The session's own budget, and 256 KiB a peer.
    bound = before + 64 + count / 4
    world.say(f"{count} peers: {before:.0f} MiB before, {peak:.0f} MiB at most; bound {bound:.0f} MiB")
    if peak > bound:
        raise Failure(f"the seeder took {peak:.0f} MiB")
    process.must_run()


def floods(payload, count):
    async def case(world):
        await flooded(world, lambda torrent: payload * (65536 // len(payload)), count)

    return case


async def unread_rejects(world):
    """Peers ask on and on while choked, and read nothing."""
    ask = wire.request(0, 0, wire.BLOCK)
    await flooded(world, lambda torrent: ask * 4096, 20)


async def unfinished_messages(world):
    """Peers begin an extended message of a mebibyte and do not end it."""
    torrent, process, address = await seeder(world)
    before, count = world.peak_memory(process), 70

    async def attack():
        guest = await Guest.dial(address, ATTACKER)
        await guest.greet(torrent.info_hash)
        guest.writer.write(struct.pack(">IBB", 1 << 20, wire.EXTENDED, 0) + bytes((1 << 20) - 100))
        await guest.writer.drain()
        return guest

    guests = await asyncio.gather(*(try_to(attack()) for _ in range(count)))
    peak = world.peak_memory(process)
    bound = before + 64 + count / 4
    world.say(f"{count} unfinished messages: {before:.0f} MiB before, {peak:.0f} at most; bound {bound:.0f} MiB")
    if peak > bound:
        raise Failure(f"the seeder took {peak:.0f} MiB")
    del guests


async def idle_and_interested(world):
    """72 peers are interested, are unchoked in turn, and ask for nothing."""
    torrent, process, address = await seeder(world, 8 * MIB)

    async def idle():
        guest = await Guest.dial(address, ATTACKER)
        await guest.greet(torrent.info_hash)
        guest.send(wire.HAVE_NONE)
        guest.send(wire.INTERESTED)

        async def listen():
            try:
                while True:
                    await guest.read()
            except (OSError, asyncio.IncompleteReadError):
                pass

        return asyncio.ensure_future(listen())

    tasks = [await try_to(idle()) for _ in range(72)]
    await asyncio.sleep(2)
    took = await honest_leech(torrent, address, 60)
    world.say(f"an honest leecher took {took:.1f} s among 72 idle ones" if took else "it did not end in 60 s")
    if took is None or took > 30:
        raise Failure("idle peers starve an honest leecher")
    del tasks


async def idle_places(world):
    """Peers of one address hold all places of a torrent, and want nothing."""
    torrent, process, address = await seeder(world, 4 * MIB)

    async def idle():
        guest = await Guest.dial(address, ATTACKER)
        return await guest.greet(torrent.info_hash)

    guests = [await try_to(idle()) for _ in range(100)]
    took = await honest_leech(torrent, address, 40)
    world.say(f"{sum(guest is not None for guest in guests)} idle peers were let in; an honest leecher took {took}")
    if took is None or took > 20:
        raise Failure("idle peers of one address keep an honest leecher out")


async def half_open(world):
    """Connections that never say anything, and an honest peer that comes after them."""
    torrent, process, address = await seeder(world, MIB)
    count = 5000 if world.long else 600
    silent = [await try_to(asyncio.open_connection(*address, local_addr=(ATTACKER, 0))) for _ in range(count)]
    loop, waits = asyncio.get_running_loop(), []
    for number in range(12):
        started = loop.time()
        guest = await try_to(Guest.dial(address, f"10.99.9.{number + 1}"))
        answered = guest and await try_to(guest.greet(torrent.info_hash))
        waits.append(loop.time() - started if answered else None)
    world.say(f"{count} silent connections; 12 honest peers were greeted after {[w and round(w, 2) for w in waits]} s")
    if not all(wait is not None and wait < 1 for wait in waits):
        raise Failure("silent connections keep honest peers out")
    del silent


async def framed(world):
    """An attacker at the honest seed's address names the seed's port as its own and sends a wrong
    piece. The seed, whose connection then breaks, must not be banned for it."""
    torrent = Torrent("content.bin", world.content(4 * MIB), 64 << 10)
    tracker = await ListedPeers().listen(HOST)
    honest = await Seed(torrent, rate=512 << 10).listen("10.99.9.1")
    tracker.peers = [honest.address]
    port = wire.bencode({"m": {}, "p": honest.address[1]})
    download = asyncio.ensure_future(world.get(torrent, tracker, 60))
    # Its announces say where the download listens.
    while not tracker.announces:
        await asyncio.sleep(0.05)
    theirs = int(tracker.announces[0].split(b"port=")[1].split(b"&")[0])
    poisoned = 0

    async def frame():
        nonlocal poisoned
        guest = await Guest.dial((HOST, theirs), "10.99.9.1")
        await guest.greet(torrent.info_hash)
        guest.send(wire.EXTENDED, b"\x00" + port)
        guest.send(wire.HAVE_ALL)
        guest.send(wire.UNCHOKE)
        while True:
            kind, payload = await guest.read()
            if kind == wire.REQUEST:
                piece, begin, length = struct.unpack(">III", payload)
                guest.writer.write(wire.piece_message(piece, begin, bytes(length)))
                poisoned += 1

    await try_to(frame())
    if not poisoned:
        raise Failure("the attacker was asked for nothing")
    for guest in list(honest.guests):
        guest.close()
    took = await download
    world.say(f"after {poisoned} wrong blocks the download took {took and round(took, 1)} s; the honest seed sent {honest.sent >> 10} KiB")
    if took is None:
        raise Failure("the honest seed was banned for what another sent")


async def finished_together(world):
    """A download tells every peer of each piece, also those that hold it; and complete peers part."""
    torrent = Torrent("content.bin", world.content(2 * MIB), 64 << 10)
    tracker = await ListedPeers().listen(HOST)
    honest = await Seed(torrent, rate=MIB).listen(HOST)
    tracker.peers = [honest.address]
    download = asyncio.ensure_future(world.get(torrent, tracker, 60, "--seed-for", "10s"))
    while not tracker.announces:
        await asyncio.sleep(0.05)
    theirs = int(tracker.announces[0].split(b"port=")[1].split(b"&")[0])
    guest = await Guest.dial((HOST, theirs), HONEST)
    await guest.greet(torrent.info_hash)
    # The first half of the pieces, which it does not give.
    bits = bytearray(torrent.full_bitfield())
    guest.send(wire.BITFIELD, bytes(bits[: len(bits) // 2]) + bytes(len(bits) - len(bits) // 2))
    while len(guest.held) < torrent.pieces and await try_to(guest.read()):
        pass
    world.say(f"a peer that holds half of {torrent.pieces} pieces was told of {len(guest.held)}")
    if len(guest.held) < torrent.pieces:
        raise Failure("a peer is not told of the pieces that it holds itself")
    # Now it is complete too.
    for piece in range(torrent.pieces):
        guest.send(wire.HAVE, struct.pack(">I", piece))
    try:
        async with asyncio.timeout(8):
            while True:
                await guest.read()
    except (asyncio.IncompleteReadError, OSError):
        pass
    except TimeoutError:
        raise Failure("two complete peers stay connected") from None
    await download


HAVE_ZERO = wire.message(wire.HAVE, bytes(4))
EMPTY_PIECE = wire.message(wire.PIECE, bytes(8))

CASES = [
    ("12", "empty pieces from one peer", floods(EMPTY_PIECE, 1)),
    ("12", "empty pieces from 60 peers", floods(EMPTY_PIECE, 60)),
    ("12", "haves from 20 peers", floods(HAVE_ZERO, 20)),
    ("12", "unfinished extended messages", unfinished_messages),
    ("12", "rejects that nobody reads", unread_rejects),
    ("13", "idle and interested", idle_and_interested),
    ("14", "idle places", idle_places),
    ("14", "half-open connections", half_open),
    ("15", "framing", framed),
    ("18", "peers that finish together", finished_together),
]
