"""More ways to fill somebody's memory: line 12. The first ones are in `crowds`."""

import asyncio

from harness import HOST, Failure

import crowds
import wire
from crowds import ATTACKER, MIB, seeder, try_to
from wire import BLOCK, Behaviour, Guest, ListedPeers, Seed, Torrent


def check(world, what, count, before, peak):
    # The session's own budget, and 256 KiB a peer.
    bound = before + 64 + count / 4
    world.say(f"{count} {what}: {before:.0f} MiB before, {peak:.0f} MiB at most; bound {bound:.0f} MiB")
    if peak > bound:
        raise Failure(f"it took {peak:.0f} MiB")


class Flood(Behaviour):
    """Answers the first request with something else, over and over, 8 MiB of it."""

    def __init__(self, payload):
        self.payload = payload * (65536 // len(payload))

    async def requested(self, seed, guest, piece, begin, length):
        for _ in range(8 * MIB // len(self.payload)):
            guest.writer.write(self.payload)
            await guest.writer.drain()


def floods_to_a_leecher(payload, count=60):
    async def case(world):
        torrent = Torrent("content.bin", world.content(16 * MIB), 256 << 10)
        tracker = await ListedPeers().listen(HOST)
        before = 40
        for number in range(count):
            seed = await Seed(torrent, Flood(payload)).listen(f"10.99.8.{number + 1}")
            tracker.peers.append(seed.address)
        download = asyncio.ensure_future(world.get(torrent, tracker, 10))
        peak = 0
        while not download.done():
            await asyncio.sleep(0.2)
            try:
                peak = max(peak, world.peak_memory(world.processes[-1]))
            except (IndexError, OSError, StopIteration):
                # It has not begun, or has ended.
                pass
        await download
        check(world, "seeds that flood", count, before, peak)

    return case


async def unread_blocks(world):
    """Peers ask for 500 blocks and read none of them."""
    torrent, process, address = await seeder(world)
    before, count = world.peak_memory(process), 60

    async def attack():
        guest = await Guest.dial(address, ATTACKER)
        await guest.greet(torrent.info_hash)
        guest.send(wire.HAVE_NONE)
        guest.send(wire.INTERESTED)
        while not guest.unchoked:
            await guest.read(5)
        for number in range(500):
            guest.writer.write(wire.request(number // 16 % torrent.pieces, number % 16 * BLOCK, BLOCK))
        await guest.writer.drain()
        guest.writer.transport.pause_reading()
        return guest

    guests = await asyncio.gather(*(try_to(attack()) for _ in range(count)))
    await asyncio.sleep(6)
    check(world, "peers that ask for blocks and read nothing", count, before, world.peak_memory(process))
    del guests


EMPTY_PIECE = wire.message(wire.PIECE, bytes(8))
WRONG_PIECE = wire.piece_message(0, 0, bytes(BLOCK))
HANDSHAKE = wire.message(wire.EXTENDED, b"\x00" + b"x" * 64_000)

CASES = [
    ("12", "empty blocks to a leecher", floods_to_a_leecher(EMPTY_PIECE)),
    ("12", "blocks that a leecher did not ask for", floods_to_a_leecher(WRONG_PIECE)),
    ("12", "blocks that nobody reads", unread_blocks),
    ("12", "extended handshakes from 20 peers", crowds.floods(HANDSHAKE, 20)),
]
