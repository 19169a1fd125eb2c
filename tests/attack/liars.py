"""Peers that claim pieces and do not give them: lines 11, 16 and 17."""

from harness import HOST, Failure

import wire
from wire import ListedPeers, Seed, Torrent

MIB = 1 << 20


async def against(world, behaviours, rate=4 * MIB, size=16 * MIB, piece=256 << 10):
    """Downloads from one honest seed, alone and among liars. The bound: 1.5 times the time alone,
    and 5 seconds; one of two downloads has to keep it."""
    torrent = Torrent("content.bin", world.content(size), piece)
    tracker = await ListedPeers().listen(HOST)
    honest = await Seed(torrent, rate=rate).listen(HOST)
    tracker.peers = [honest.address]
    alone = await world.get(torrent, tracker, 60)
    if alone is None:
        raise Failure("the download from one honest seed did not end")
    if world.compare:
        other = await world.get(torrent, tracker, 60, kind="libtorrent")
        world.say(f"libtorrent: {f'{other:.1f} s' if other else 'not in 60 s'} alone")
    liars = [await Seed(torrent, behaviour).listen(f"10.99.8.{number + 1}") for number, behaviour in enumerate(behaviours)]
    # Liars come first: who answers first is asked first.
    tracker.peers = [liar.address for liar in liars] + [honest.address]
    bound = 1.5 * alone + 5
    limit = max(bound, 300 if world.long else 120 if world.compare else 2 * bound)

    async def among(kind):
        took = await world.get(torrent, tracker, limit, kind=kind)
        met = sum(1 for liar in liars if liar.connections)
        shown = f"{took:.1f} s" if took else f"not in {limit:.0f} s"
        world.say(f"{kind}: {shown} among {len(liars)} liars ({met} met), {alone:.1f} s alone; bound {bound:.1f} s")
        return took is not None and took <= bound

    # Chance decides who is asked first, and a machine is busy now and then: a second download shows
    # whether it was that.
    held = await among("ours") or await among("ours")
    if world.compare:
        await among("libtorrent")
    if not held:
        raise Failure(f"two downloads missed the bound of {bound:.1f} s")


def liars(count, make):
    async def case(world):
        await against(world, [make() for _ in range(count)])

    return case


async def mixed(world):
    kinds = [wire.Silent, wire.Trickle, wire.Dribble, wire.Turncoat, wire.Flapper, wire.Rejecter, wire.Poisoner]
    await against(world, [world.chance.choice(kinds)() for _ in range(100 if world.long else 40)])


async def slow_but_honest(world):
    """A seed that sends a block every two seconds is asked for each block about once: nobody else
    could serve it."""
    torrent = Torrent("content.bin", world.content(12 * wire.BLOCK), 4 * wire.BLOCK)
    tracker = await ListedPeers().listen(HOST)
    seed = await Seed(torrent, rate=wire.BLOCK / (20 if world.long else 2)).listen(HOST)
    tracker.peers = [seed.address]
    took = await world.get(torrent, tracker, 400 if world.long else 60)
    if took is None:
        raise Failure("the download did not end")
    asked = sum(seed.asked.values())
    sent = seed.sent // wire.BLOCK
    world.say(f"12 blocks in {took:.1f} s: asked for {asked} times, sent {sent}, {seed.cancelled} cancelled")
    if asked > 14 or sent > 13:
        raise Failure(f"12 blocks were asked for {asked} times and sent {sent} times")


async def refused_allowed_fast(world):
    """A peer rejects the pieces that it offered as allowed-fast; another is willing."""
    await against(world, [wire.Rejecter()], size=4 * MIB)


CASES = [
    ("11", "silent liars 3", liars(3, wire.Silent)),
    ("11", "silent liars 40", liars(40, wire.Silent)),
    ("11", "trickling peers 10", liars(10, wire.Trickle)),
    ("11", "dribbling peers 10", liars(10, wire.Dribble)),
    ("11", "peers that begin honest 10", liars(10, wire.Turncoat)),
    ("11", "peers that choke and unchoke 10", liars(10, wire.Flapper)),
    ("11", "poisoners 10", liars(10, wire.Poisoner)),
    ("11", "a mixed crowd", mixed),
    ("16", "slow but honest seed", slow_but_honest),
    ("17", "refused allowed-fast", refused_allowed_fast),
]
