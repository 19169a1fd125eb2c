"""The attacks. Each case is a line of docs/reliability.md: it attacks, measures, and fails if the
bound does not hold. What it prints is what was measured."""

import asyncio
import dataclasses
import os
import random
import sys
import time
from collections.abc import Callable

from harness import HOST, Failure, Process, free_port

import access
import crowds
import encryption
import liars
import manners
import memory
import trackers
from waiting import holds

# An attacker with one address, and its network of addresses.
ATTACKER = "10.99.7.1"


@dataclasses.dataclass
class Case:
    name: str
    run: Callable
    # With `--compare` it is run once more, against libtorrent.
    compares: bool


class World:
    """What a case has: our programs, a folder, chance, and processes that end with it."""

    def __init__(self, binaries, folder, args):
        self.binaries, self.folder = binaries, folder
        self.long, self.compare = args.long, args.compare
        self.chance = random.Random(args.seed)
        self.processes = []
        self.number = 0
        self.kind = "ours"

    def attack_libtorrent(self):
        self.kind, self.processes = "libtorrent", []

    def say(self, text):
        print(text if self.kind == "ours" else f"{self.kind}: {text}", flush=True)

    def spawn(self, name, argv, folder=None):
        self.number += 1
        process = Process(f"{name}-{self.number}", argv, folder or os.path.join(self.folder, f"{name}-{self.number}"))
        self.processes.append(process)
        return process

    def program(self, name, *argv):
        return self.spawn(name, [os.path.join(self.binaries, name), *map(str, argv)])

    def stop(self):
        for process in self.processes:
            process.stop()

    def path(self, name):
        return os.path.join(self.folder, name)

    def content(self, size):
        return self.chance.randbytes(size)

    async def get(self, torrent, tracker, seconds, *more, kind=None):
        """Downloads `torrent` with a program; returns the seconds that took, or `None` if it was
        not complete after `seconds`."""
        self.number += 1
        at = torrent.write_to(self.path(f"get-{self.number}.torrent"))
        copy = os.path.join(self.folder, f"copy-{self.number}")
        os.makedirs(copy)
        port = free_port(HOST)
        kind = kind or self.kind
        if kind == "ours":
            argv = ("get", at, tracker.url, f"{HOST}:{port}", "--output", copy, *(more or ["--exit"]))
            process = self.program("torrent-peer", *argv)
            done = lambda: process.ended()
        else:
            # It is told of its tracker by the torrent alone.
            torrent.announce = tracker.url
            torrent.write_to(at)
            process = self.libtorrent(port, at, copy)
            done = lambda: process.must_run() or "complete\n" in process.output()
        started = time.monotonic()
        if not await holds(done, seconds):
            process.stop()
            return None
        took = time.monotonic() - started
        if kind == "ours" and process.child.returncode != 0:
            raise Failure(f"torrent-peer get ended with exit code {process.child.returncode}")
        process.stop()
        with open(os.path.join(copy, torrent.name), "rb") as data:
            if data.read() != torrent.content:
                raise Failure("the copy differs")
        return took

    def libtorrent(self, port, torrent, folder):
        script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "interop", "libtorrent_peer.py")
        return self.spawn("libtorrent", [sys.executable, script, HOST, str(port), torrent, folder, str(free_port(HOST)), "0", "plain"])

    async def share(self, torrent, tracker, *more):
        """A seeder, once it listens; returns its process and address."""
        self.number += 1
        at = torrent.write_to(self.path(f"share-{self.number}.torrent"))
        data = os.path.join(self.folder, f"data-{self.number}")
        os.makedirs(data)
        with open(os.path.join(data, torrent.name), "wb") as out:
            out.write(torrent.content)
        address = (HOST, free_port(HOST))
        if self.kind == "libtorrent":
            process = self.libtorrent(address[1], at, data)
            if not await holds(lambda: process.must_run() or "complete\n" in process.output(), 60):
                raise Failure("libtorrent does not seed")
            return process, address
        argv = ("share", "--torrent", at, "--data", data, tracker.url, "%s:%d" % address, *more)
        process = self.program("torrent-peer", *argv)
        if not await holds(lambda: process.must_run() or f"seeding {torrent.name}" in process.output(), 60):
            raise Failure("torrent-peer share does not seed")
        return process, address

    def peak_memory(self, process):
        """Most resident memory that a process has had, in MiB."""
        with open(f"/proc/{process.child.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024


ALL = [
    Case(f"{line} {name}", run, module in (crowds, memory))
    for module in (liars, crowds, encryption, memory, trackers, access, manners)
    for line, name, run in module.CASES
]
