"""Encrypted handshakes (MSE) that are begun and not ended, wrong, or nonsense: line 14."""

import asyncio
import hashlib
import os
import struct

from harness import HOST, Failure

import wire
from crowds import ATTACKER, HONEST, MIB, honest_leech, seeder, try_to
from wire import Guest, ListedPeers, Torrent

PRIME = int(
    "ffffffffffffffffc90fdaa22168c234c4c6628b80dc1cd129024e088a67cc74"
    "020bbea63b139b22514a08798e3404ddef9519b3cd3a431b302b0a6df25f1437"
    "4fe1356d6d51c245e485b576625e7ec6f44c42e9a63a36210000000000090563",
    16,
)
PLAINTEXT, RC4 = 1, 2
BOTH = PLAINTEXT | RC4
LONGEST_PAD = 512
VC = bytes(8)

# How long a key of 96 bytes may take to come, and the whole handshake.
KEY_SECONDS, HANDSHAKE_SECONDS = 4, 10

# What a session computes for all strangers together.
KEY_EXCHANGES_A_SECOND = 500


def sha1(*parts):
    return hashlib.sha1(b"".join(parts)).digest()


def xor(left, right):
    return bytes(a ^ b for a, b in zip(left, right))


class Cipher:
    """RC4 without its first 1,024 bytes."""

    def __init__(self, key):
        self.state, self.i, self.j = list(range(256)), 0, 0
        j = 0
        for i in range(256):
            j = (j + self.state[i] + key[i % len(key)]) & 255
            self.state[i], self.state[j] = self.state[j], self.state[i]
        self.apply(bytes(1024))

    def apply(self, data):
        state, i, j, out = self.state, self.i, self.j, bytearray()
        for byte in data:
            i = (i + 1) & 255
            j = (j + state[i]) & 255
            state[i], state[j] = state[j], state[i]
            out.append(byte ^ state[(state[i] + state[j]) & 255])
        self.i, self.j = i, j
        return bytes(out)


class Keys:
    def __init__(self):
        self.private = int.from_bytes(os.urandom(20), "big")
        self.public = pow(2, self.private, PRIME).to_bytes(96, "big")

    def secret(self, theirs):
        return pow(int.from_bytes(theirs, "big"), self.private, PRIME).to_bytes(96, "big")


def ciphers(secret, info_hash):
    """The streams of the side that dialled, and of the other one."""
    return Cipher(sha1(b"keyA", secret, info_hash)), Cipher(sha1(b"keyB", secret, info_hash))


async def send(writer, data, at_once=None):
    """Sends `data`, `at_once` bytes at a time."""
    step = at_once or len(data) or 1
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
        await writer.drain()
        if at_once:
            # So that they come as segments of their own.
            await asyncio.sleep(0)


async def read_mark(reader, mark):
    """Reads on until behind `mark`."""
    seen = b""
    while not seen.endswith(mark):
        seen += await reader.readexactly(1)
        if len(seen) > LONGEST_PAD + len(mark):
            raise Failure("the other side's mark does not come")


class Encrypted(Guest):
    """A connection of the side that dials. Whatever of its handshake is given as an argument is not
    as it should be."""

    async def greet_encrypted(
        self,
        info_hash,
        methods=BOTH,
        *,
        key=None,
        pad_a=b"",
        pad_c=b"",
        pad_len=None,
        first_len=None,
        vc=VC,
        at_once=None,
        in_first=True,
        but=0,
    ):
        """Sends the handshakes, the encrypted one without its last `but` bytes, and reads the other
        side's; returns the method that it chose."""
        keys = Keys()
        await send(self.writer, (keys.public if key is None else key) + pad_a, at_once)
        # Who sent another key than its own cannot know the secret.
        secret = keys.secret(await self.reader.readexactly(96))
        ours, theirs = ciphers(secret, info_hash)
        greeting = wire.handshake(info_hash, b"-XX0000-" + os.urandom(6).hex().encode())
        first = greeting if in_first else b""
        hidden = vc + struct.pack(">IH", methods, len(pad_c) if pad_len is None else pad_len) + pad_c
        hidden += struct.pack(">H", len(first) if first_len is None else first_len) + first
        marks = sha1(b"req1", secret) + xor(sha1(b"req2", info_hash), sha1(b"req3", secret))
        whole = marks + ours.apply(hidden)
        await send(self.writer, whole[: len(whole) - but], at_once)
        await read_mark(self.reader, theirs.apply(VC))
        method, pad = struct.unpack(">IH", theirs.apply(await self.reader.readexactly(6)))
        theirs.apply(await self.reader.readexactly(pad))
        plain = lambda data: data
        seal, unseal = (ours.apply, theirs.apply) if method == RC4 else (plain, plain)
        if not in_first:
            self.writer.write(seal(greeting))
        self.theirs = unseal(await self.reader.readexactly(68))
        # The first message after the handshakes, whatever it is.
        (length,) = struct.unpack(">I", unseal(await self.reader.readexactly(4)))
        await self.reader.readexactly(length)
        if self.theirs[28:48] != info_hash or length > MIB:
            raise Failure("what comes after the encrypted handshake is not readable")
        return method


async def greeting_takes(address, source, info_hash, encrypted):
    """How long an honest peer waits for the other side's handshake, `None` if it does not come."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    guest = await try_to(Encrypted.dial(address, source))
    if not guest:
        return None
    answered = await try_to(guest.greet_encrypted(info_hash) if encrypted else guest.greet(info_hash))
    took = loop.time() - started
    guest.close()
    return took if answered else None


async def honest_peers_are_greeted(world, what, address, info_hash, seconds):
    """Twelve honest peers, encrypted and plain in turn, must be greeted within `seconds`."""
    waits = []
    for number in range(12):
        waits.append(await greeting_takes(address, f"10.99.9.{number + 1}", info_hash, number % 2 == 0))
    world.say(f"{what}; 12 honest peers were greeted after {[wait and round(wait, 2) for wait in waits]} s")
    if not all(wait is not None and wait < seconds for wait in waits):
        raise Failure("encrypted handshakes of strangers keep honest peers out")


def cpu_seconds(process):
    with open(f"/proc/{process.child.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def half_open(world):
    """Encrypted handshakes that stop at a byte of the key, within the key, behind it, behind the
    padding, and one byte before their end."""
    torrent, process, address = await seeder(world, MIB)
    before, cpu = world.peak_memory(process), cpu_seconds(process)
    count = 5000 if world.long else 1000
    # Not the first byte of a plain handshake.
    key = b"\x80" + os.urandom(95)
    stops = [key[:1], key[:95], key, key + os.urandom(LONGEST_PAD), None]
    kept = []
    for number in range(count):
        guest = await try_to(Encrypted.dial(address, ATTACKER))
        if not guest:
            continue
        kept.append(guest)
        stop = stops[number % len(stops)]
        if stop is None:
            kept.append(asyncio.ensure_future(try_to(guest.greet_encrypted(torrent.info_hash, but=1))))
        else:
            guest.writer.write(stop)
        # Reads are served too.
        await asyncio.sleep(0)
    await honest_peers_are_greeted(world, f"{count} half-open encrypted handshakes", address, torrent.info_hash, 2)
    peak, used = world.peak_memory(process), cpu_seconds(process) - cpu
    bound = before + 32
    world.say(f"{before:.0f} MiB before, {peak:.0f} MiB at most, bound {bound:.0f} MiB; {used:.1f} s of CPU")
    if peak > bound:
        raise Failure(f"the seeder took {peak:.0f} MiB")
    process.must_run()
    del kept


async def key_flood(world):
    """Strangers send keys over and over, each over a connection of its own, as fast as they can."""
    torrent, process, address = await seeder(world, MIB)
    keys, answers = 0, 0
    sent = b"\x80" + os.urandom(95 + LONGEST_PAD)

    async def attack(source):
        nonlocal keys, answers
        while True:
            try:
                guest = await Guest.dial(address, source)
                guest.writer.write(sent)
                keys += 1
                # Its key, or the end.
                answer = await asyncio.wait_for(guest.reader.read(96), 5)
                answers += bool(answer)
                guest.close()
            except (OSError, asyncio.TimeoutError):
                await asyncio.sleep(0.01)

    attackers = [asyncio.ensure_future(attack(f"10.99.8.{number + 1}")) for number in range(60)]
    loop = asyncio.get_running_loop()
    await asyncio.sleep(2)
    began, cpu, keys, answers = loop.time(), cpu_seconds(process), 0, 0
    await honest_peers_are_greeted(world, "60 addresses flood with keys", address, torrent.info_hash, 4)
    await asyncio.sleep(max(0, began + 5 - loop.time()))
    took = loop.time() - began
    used = cpu_seconds(process) - cpu
    rate = answers / took
    world.say(f"{keys / took:.0f} keys a second, {rate:.0f} answered; {used / took:.2f} of a core")
    if rate > 1.2 * KEY_EXCHANGES_A_SECOND:
        raise Failure(f"{rate:.0f} keys a second were computed for strangers")
    for attacker in attackers:
        attacker.cancel()
    process.must_run()


def encoded(number):
    return number.to_bytes(96, "big")


async def nonsense(world):
    """What is no handshake is closed at once; what is one, however it comes, is served."""
    torrent, process, address = await seeder(world, MIB)
    loop = asyncio.get_running_loop()

    async def closes_at(what, seconds, attempt):
        """The other side closes the connection within `seconds`, and agrees on nothing."""
        guest = await Encrypted.dial(address, ATTACKER)
        began = loop.time()
        try:
            method = await asyncio.wait_for(attempt(guest), seconds)
        except (OSError, asyncio.IncompleteReadError):
            world.say(f"{what}: closed after {loop.time() - began:.2f} s")
        except asyncio.TimeoutError:
            raise Failure(f"{what}: still open after {seconds} s") from None
        else:
            raise Failure(f"{what}: it is answered (`{method}`)")
        finally:
            guest.close()

    async def raw(guest, data, pause=0.0):
        for at in range(0, len(data), 1 if pause else len(data)):
            guest.writer.write(data[at : at + 1] if pause else data)
            await guest.writer.drain()
            if pause:
                # Until it is time for the next byte, or the other side has closed.
                try:
                    if not await asyncio.wait_for(guest.reader.read(1), pause):
                        raise ConnectionResetError
                except asyncio.TimeoutError:
                    pass
        while await guest.reader.read(4096):
            pass
        raise ConnectionResetError

    hash_, other = torrent.info_hash, os.urandom(20)
    garbage = b"\x80" + os.urandom(8191)
    wrong = [
        ("8 KiB of garbage", 2, lambda guest: raw(guest, garbage)),
        ("a key that comes a byte in 0.2 s", KEY_SECONDS + 2, lambda guest: raw(guest, garbage[:96], 0.2)),
        ("nothing behind a key", HANDSHAKE_SECONDS + 3, lambda guest: raw(guest, garbage[:96])),
        ("a wrong verification constant", 2, lambda guest: guest.greet_encrypted(hash_, vc=b"\0\0\0\0\0\0\0\1")),
        ("a torrent that is not there", 2, lambda guest: guest.greet_encrypted(other)),
        ("no method", 2, lambda guest: guest.greet_encrypted(hash_, 0)),
        ("an unknown method", 2, lambda guest: guest.greet_encrypted(hash_, 0xFFFFFFFC)),
        ("padding of 513 bytes", 2, lambda guest: guest.greet_encrypted(hash_, pad_c=bytes(513))),
        ("padding of 65,535 bytes", 2, lambda guest: guest.greet_encrypted(hash_, pad_len=65535)),
        ("a first message of 65,535 bytes", 2, lambda guest: guest.greet_encrypted(hash_, first_len=65535)),
    ]
    # The secret of each of these is 0 or 1, or one of the two numbers 1 and −1.
    weak = {"0": 0, "1": 1, "p − 1": PRIME - 1, "p": PRIME, "p + 1": PRIME + 1}
    for name, key in weak.items():
        wrong.append((f"the key {name}", 2, lambda guest, key=key: guest.greet_encrypted(hash_, key=encoded(key))))
    for what, seconds, attempt in wrong:
        await closes_at(what, seconds, attempt)

    pad = os.urandom(LONGEST_PAD)
    right = [
        ("both methods offered", PLAINTEXT, {}),
        ("RC4 alone offered", RC4, {"methods": RC4}),
        ("unknown methods beside RC4", RC4, {"methods": 0xFFFFFFFE}),
        ("maximum pads", PLAINTEXT, {"pad_a": pad, "pad_c": pad}),
        ("byte by byte", PLAINTEXT, {"at_once": 1, "pad_a": pad, "pad_c": pad}),
        ("byte by byte, RC4", RC4, {"methods": RC4, "at_once": 1}),
        ("an empty first message", PLAINTEXT, {"in_first": False}),
        ("an empty first message, RC4", RC4, {"methods": RC4, "in_first": False}),
    ]
    for what, expected, arguments in right:
        guest = await Encrypted.dial(address, HONEST)
        method = await try_to(guest.greet_encrypted(hash_, **arguments))
        guest.close()
        world.say(f"{what}: method {method}")
        if method != expected:
            raise Failure(f"{what}: method `{method}`, not `{expected}`")
    took = await honest_leech(torrent, address, 20)
    if took is None:
        raise Failure("an honest leecher is not served after that")
    process.must_run()


class FalseResponder:
    """Listens, and answers encrypted handshakes as `answer` does; closes at plain ones."""

    def __init__(self, torrent, answer):
        self.torrent, self.answer, self.keys_seen = torrent, answer, 0

    async def listen(self, host):
        self.server = await asyncio.start_server(self.serve, host, 0, limit=1 << 20)
        self.address = self.server.sockets[0].getsockname()[:2]
        return self

    async def serve(self, reader, writer):
        try:
            theirs = await asyncio.wait_for(reader.readexactly(96), 30)
            if theirs[:20] != b"\x13BitTorrent protocol":
                self.keys_seen += 1
                await self.answer(self, theirs, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError, asyncio.CancelledError, Failure):
            # A stream's handler that ends as cancelled would be reported by the loop.
            pass
        finally:
            writer.close()


def sends(data):
    """Sends that whatever comes, and waits for the end."""

    async def answer(responder, theirs, reader, writer):
        writer.write(data)
        while await reader.read(4096):
            pass

    return answer


def chooses(method=PLAINTEXT, vc=VC, pad_len=0, at_once=None):
    """Ends its handshake so, and waits for the end."""

    async def answer(responder, theirs, reader, writer):
        keys = Keys()
        writer.write(keys.public)
        secret = keys.secret(theirs)
        await read_mark(reader, sha1(b"req1", secret))
        _, ours = ciphers(secret, responder.torrent.info_hash)
        await send(writer, ours.apply(vc + struct.pack(">IH", method, pad_len)), at_once)
        while await reader.read(4096):
            pass

    return answer


FALSE_RESPONDERS = [
    sends(b""),
    sends(os.urandom(95)),
    sends(os.urandom(96)),
    sends(b"\x80" + os.urandom(1 << 20)),
    sends(encoded(0)),
    sends(encoded(1) + bytes(600)),
    sends(encoded(PRIME - 1) + bytes(600)),
    chooses(method=0),
    chooses(method=BOTH),
    chooses(method=1 << 31),
    chooses(vc=b"12345678"),
    chooses(pad_len=LONGEST_PAD),
    chooses(pad_len=65535),
    chooses(at_once=1),
]


async def false_responders(world):
    """A download that prefers encryption meets peers that answer its handshakes with all kinds of
    nonsense, and one honest seed."""
    torrent = Torrent("content.bin", world.content(4 * MIB), 64 << 10)
    tracker = await ListedPeers().listen(HOST)
    slow, prefer = world.path("slow.toml"), world.path("prefer.toml")
    for path, line in ((slow, 'upload_limit = "256KiB"'), (prefer, 'encryption = "prefer"')):
        with open(path, "w") as out:
            out.write(f"[peer]\n{line}\n")
    _, honest = await world.share(torrent, tracker, "--config", slow)
    hostile = [
        await FalseResponder(torrent, answer).listen(f"10.99.8.{number + 1}")
        for number, answer in enumerate(FALSE_RESPONDERS)
    ]
    tracker.peers = [*(responder.address for responder in hostile), honest]
    took = await world.get(torrent, tracker, 60, "--config", prefer, "--exit")
    asked = sum(responder.keys_seen > 0 for responder in hostile)
    world.say(f"{asked} of {len(hostile)} false responders were asked; the download took {took and round(took, 1)} s")
    if asked < len(hostile):
        raise Failure("not every false responder was asked")
    if took is None or took > 40:
        raise Failure("false responders keep an honest seed's content away")


CASES = [
    ("14", "half-open encrypted handshakes", half_open),
    ("14", "a flood of keys", key_flood),
    ("14", "wrong encrypted handshakes", nonsense),
    ("14", "false encrypted responders", false_responders),
]
