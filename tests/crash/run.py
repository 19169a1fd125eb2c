#!/usr/bin/env python3
"""What survives: the daemon killed at random moments, also while it has no more than a magnet link, files that
others harm, odd file systems, a disk that fills up, and disks that are full, read-only or gone.

    run.py [--bin DIR] [--runs N] [--jobs N] [--seed N] [--no-disk] [--only WORD]

Each run downloads from a seeder that remembers what it was asked and told, kills the daemon with
SIGKILL once to three times on the way, and starts it again. Then holds: the copy is byte-identical;
no piece that the daemon had told it holds (HAVE, bitfield) was asked for again; every piece it said
it holds right after a restart has the right hash on disk. So it does when the file was overwritten
between the kill and the start, or cut short in mid-download. Under a system call filter that answers
like exFAT by FUSE (no rename flags, no links) a download gets its final name and can be renamed and
moved. The disk that fills up is a small file
system of its own, which needs root. The last line is the result.
"""

import argparse
import concurrent.futures
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from daemon import Daemon, Failure
from disk import Disk
import full
import links
import readonly
from seeder import Seeder, torrent_of


def killed(binaries, folder, seed):
    """One download that is killed on its way. Gives a line that says how it went."""
    chance = random.Random(seed)
    piece_length = chance.choice([16 << 10, 64 << 10, 256 << 10, 1 << 20])
    size = chance.randrange(2 << 20, 24 << 20)
    rate = chance.choice([4 << 20, 8 << 20, 16 << 20])
    cut = sorted(chance.randrange(size) for _ in range(3))
    parts = [end - start for start, end in zip([0] + cut, cut + [size])]
    content = chance.randbytes(size)
    torrent, info_hash = torrent_of("content", content, piece_length, parts)
    seeder = Seeder(info_hash, content, piece_length, rate)
    daemon = Daemon(binaries, folder)
    kills = chance.randint(1, 3)
    resumed = []
    try:
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        for _ in range(kills):
            time.sleep(chance.uniform(0, 1.2 * size / rate / kills))
            daemon.kill()
            daemon.start()
            seen = daemon.wait(info_hash, "looked at", lambda t: t["state"] not in ("checking", "queued-check"))
            resumed.append(seen["pieces_have"])
            check_held(daemon, info_hash, content, piece_length, parts)
            daemon.ask("POST", f"/torrents/{info_hash.hex()}/peers", {"peers": [seeder.address]})
        daemon.wait(info_hash, "complete", lambda t: t["pieces_have"] == t["pieces"])
        daemon.stop()
    except BaseException:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        raise
    finally:
        seeder.close()
    held = set()
    for number, connection in enumerate(seeder.connections):
        again = connection.asked & held
        if again:
            raise Failure(f"connection {number} asked again for pieces it had told it holds: {sorted(again)[:10]}")
        lost = held - connection.told
        if connection.bitfield and lost:
            raise Failure(f"connection {number} began without pieces held before: {sorted(lost)[:10]}")
        held |= connection.told
    for path, part in files_of(daemon, content, parts):
        with open(path, "rb") as file:
            if file.read() != part:
                raise Failure(f"`{path}` differs")
    left = [name for name in os.listdir(os.path.join(daemon.downloads, "content")) if not name.startswith("part ") or name.endswith(".part")]
    if left:
        raise Failure(f"left behind: {left}")
    pieces = -(-size // piece_length)
    return f"{pieces} pieces of {piece_length >> 10} KiB, killed {kills} times, came back with {resumed}"


def files_of(daemon, content, parts):
    at = 0
    for number, length in enumerate(parts):
        yield os.path.join(daemon.downloads, "content", f"part {number}"), content[at : at + length]
        at += length


def check_held(daemon, info_hash, content, piece_length, parts):
    """Every piece the daemon says it holds has its bytes on disk."""
    answer = daemon.ask("GET", f"/torrents/{info_hash.hex()}/pieces")
    bits = bytes.fromhex(answer["have"])
    held = [i for i in range(answer["pieces"]) if bits[i // 8] >> (7 - i % 8) & 1]
    on_disk = bytearray()
    for path, part in files_of(daemon, content, parts):
        data = b""
        for candidate in (path, path + ".part"):
            if os.path.exists(candidate):
                with open(candidate, "rb") as file:
                    data = file.read()
                break
        on_disk += data.ljust(len(part), b"\0")
    for piece in held:
        span = slice(piece * piece_length, (piece + 1) * piece_length)
        if hashlib.sha1(on_disk[span]).digest() != hashlib.sha1(content[span]).digest():
            raise Failure(f"piece {piece} is held and wrong on disk")


def harmed(binaries, folder, kind):
    """A download whose file somebody else writes to, in its middle or right after a kill."""
    chance = random.Random(kind)
    piece_length, size, rate = 128 << 10, 24 << 20, 6 << 20
    content = chance.randbytes(size)
    torrent, info_hash = torrent_of("content", content, piece_length, [size])
    seeder = Seeder(info_hash, content, piece_length, rate)
    daemon = Daemon(binaries, folder)
    path = os.path.join(daemon.downloads, "content", "part 0")
    try:
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        half = daemon.wait(info_hash, "half there", lambda t: t["pieces_have"] >= t["pieces"] // 2)
        if kind == "cut short":
            os.truncate(path + ".part", 1000)
        else:
            daemon.kill()
            length = os.path.getsize(path + ".part")
            start = 0 if kind == "overwritten" else length // 4
            with open(path + ".part", "r+b") as file:
                file.seek(start)
                file.write(chance.randbytes(length // 8 if start else length))
            daemon.start()
            daemon.wait(info_hash, "looked at", lambda t: t["state"] not in ("checking", "queued-check"))
            check_held(daemon, info_hash, content, piece_length, [size])
        deadline = time.monotonic() + 60
        while (seen := daemon.torrent(info_hash))["state"] != "seeding":
            if time.monotonic() > deadline:
                raise Failure(f"not complete: {seen['state']}, {seen['pieces_have']}, {seen['error']}")
            daemon.ask("POST", f"/torrents/{info_hash.hex()}/peers", {"peers": [seeder.address]})
            time.sleep(0.2)
        check_held(daemon, info_hash, content, piece_length, [size])
        with open(path, "rb") as file:
            if file.read() != content:
                raise Failure("it says that it seeds, and its file is wrong")
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        seeder.close()
    return f"{half['pieces_have']} pieces were held, all were right in the end"


def no_links(binaries, folder):
    """A file system that knows neither rename flags nor links."""
    content = random.Random(2).randbytes(4 << 20)
    parts = [1 << 20, 3 << 20]
    torrent, info_hash = torrent_of("content", content, 64 << 10, parts)
    seeder = Seeder(info_hash, content, 64 << 10, 64 << 20)
    daemon = Daemon(binaries, folder, filtered=True)
    try:
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        daemon.wait(info_hash, "complete", lambda t: t["state"] == "seeding")
        for path, part in files_of(daemon, content, parts):
            with open(path, "rb") as file:
                if file.read() != part:
                    raise Failure(f"`{path}` differs")
        there = os.path.join(daemon.downloads, "there")
        os.makedirs(there)
        daemon.ask("POST", f"/torrents/{info_hash.hex()}/rename", {"path": "content/part 0", "name": "other"})
        daemon.ask("POST", f"/torrents/{info_hash.hex()}/move", {"folder": there})
        moved = os.path.join(there, "content", "other")
        deadline = time.monotonic() + 30
        while not os.path.exists(moved):
            if time.monotonic() > deadline:
                raise Failure(f"not moved: {daemon.torrent(info_hash)['error']}")
            time.sleep(0.05)
        daemon.wait(info_hash, "moved", lambda t: t["state"] == "seeding")
        daemon.stop()
        daemon.start()
        daemon.wait(info_hash, "back", lambda t: t["pieces_have"] == t["pieces"])
        daemon.stop()
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()
        seeder.close()
    return "named, renamed, moved and resumed"


def full_disk(binaries, folder):
    """A 200 MiB file system fills up during a download; after making room, resuming completes."""
    disk = Disk(folder, 200 << 20)
    daemon, mount = None, disk.mount
    try:
        ballast = os.path.join(mount, "ballast")
        with open(ballast, "wb") as file:
            file.write(os.urandom(120 << 20))
        content = random.Random(1).randbytes(100 << 20)
        parts = [60 << 20, 40 << 20]
        torrent, info_hash = torrent_of("content", content, 256 << 10, parts)
        seeder = Seeder(info_hash, content, 256 << 10, 64 << 20)
        daemon = Daemon(binaries, os.path.join(folder, "daemon"), f'download_roots = ["{mount}"]\n')
        daemon.start()
        daemon.leech(torrent, [seeder.address], output=mount)
        failed = daemon.wait(info_hash, "stopped by the full disk", lambda t: t["state"] == "failed")
        if "no room" not in (failed["error"] or ""):
            raise Failure(f"the error does not speak of room: {failed['error']!r}")
        port = daemon.control.rsplit(":", 1)[1]
        shown = subprocess.run(
            [os.path.join(binaries, "torrent-status"), "--port", port],
            capture_output=True, text=True, cwd=daemon.folder, timeout=30,
        ).stdout
        if "no room" not in shown:
            raise Failure(f"torrent-status does not say why it stopped:\n{shown}")
        os.remove(ballast)
        daemon.ask("POST", f"/torrents/{info_hash.hex()}/resume", {})
        daemon.ask("POST", f"/torrents/{info_hash.hex()}/peers", {"peers": [seeder.address]})
        daemon.wait(info_hash, "complete", lambda t: t["pieces_have"] == t["pieces"])
        with open(daemon.log) as log:
            if "banned" in log.read():
                raise Failure("a peer was banned for our own full disk")
        daemon.stop()
        at = 0
        for number, length in enumerate(parts):
            with open(os.path.join(mount, "content", f"part {number}"), "rb") as file:
                if file.read() != content[at : at + length]:
                    raise Failure(f"part {number} differs")
            at += length
        return f"stopped at {failed['pieces_have']} of {failed['pieces']} pieces: {failed['error']}"
    finally:
        if daemon and daemon.process.poll() is None:
            daemon.kill()
        disk.close()


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
    parser.add_argument("--runs", type=int, default=20, help="downloads that are killed")
    parser.add_argument("--jobs", type=int, default=4, help="how many at a time")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    parser.add_argument("--no-disk", action="store_true", help="leave out the disk that fills up")
    parser.add_argument("--only", default="", help="only cases whose names have this word")
    args = parser.parse_args()
    binaries = os.path.abspath(args.bin)
    work = tempfile.mkdtemp(prefix="piecework-crash-")
    cases = [(f"killed {seed}", killed, seed) for seed in range(args.seed, args.seed + args.runs)]
    cases += [(f"link killed {seed}", links.killed, seed) for seed in range(args.seed, args.seed + args.runs)]
    cases += [(kind, harmed, kind) for kind in ("cut short", "overwritten", "overwritten in part")]
    cases += [("no links", no_links)]
    is_meant = lambda case: args.only in case[0]
    cases = list(filter(is_meant, cases))
    passed = failed = 0

    def run(case):
        name, body, *more = case
        folder = os.path.join(work, name.replace(" ", "-"))
        os.makedirs(folder)
        try:
            told = body(binaries, folder, *more)
        except Failure as failure:
            return f"FAILED {name}: {failure}\n    {folder}", False
        except Exception:
            return f"FAILED {name}: {traceback.format_exc()}\n    {folder}", False
        shutil.rmtree(folder)
        return f"ok     {name}: {told}", True

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as jobs:
        for line, fine in jobs.map(run, cases):
            passed, failed = passed + fine, failed + (not fine)
            print(line, flush=True)
    if not args.no_disk:
        for case in filter(is_meant, [("full disk", full_disk), *full.CASES, *readonly.CASES]):
            line, fine = run(case)
            passed, failed = passed + fine, failed + (not fine)
            print(line, flush=True)
    if not failed:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
