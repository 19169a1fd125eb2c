#!/usr/bin/env python3
"""What a slow disk, and memory that is short, do to the torrents beside them.

    slow_disk.py [--bin DIR] [--rate MB/S] [--rounds N]

Needs root: a loop device that control groups throttle, and a memory control group (both version 1).
A seeder in memory gives two torrents to one daemon: `beside`, downloaded to memory, and `slow`,
downloaded to the throttled disk, or to a disk while the daemon may hold little memory, most of which
`beside` takes as files. For each case it says how long each took, the longest time in which not one
of its pieces came, the most the daemon itself held in memory, and the most that waited in memory to be
written; first with `beside` alone. Medians of the rounds, but pauses are the longest of all.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "crash"))

from daemon import Daemon, Failure  # noqa: E402
from disk import Disk  # noqa: E402

MIB = 1 << 20
BESIDE, SLOW = 512 * MIB, 1024 * MIB
MEMORY = "/sys/fs/cgroup/memory"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Watch(threading.Thread):
    """Looks at a torrent until it is whole: how long that took, and the longest pause on the way."""

    def __init__(self, daemon, info_hash):
        super().__init__(daemon=True)
        self.asked, self.info_hash = daemon, info_hash
        self.took = self.pause = 0.0
        self.fault = None
        self.start()

    def run(self):
        try:
            self.watch()
        except Exception as fault:  # For whoever waits.
            self.fault = fault

    def wait(self):
        self.join()
        if self.fault:
            raise self.fault

    def watch(self):
        began = last = time.monotonic()
        have = -1
        while True:
            torrent = self.asked.torrent(self.info_hash)
            now = time.monotonic()
            if torrent["pieces_have"] != have:
                have, last = torrent["pieces_have"], now
            self.pause = max(self.pause, now - last)
            if torrent["state"] == "failed":
                raise Failure(f"`{torrent['name']}` failed: {torrent['error']}")
            if have == torrent["pieces"]:
                self.took = now - began
                return
            time.sleep(0.02)


class Dirty(threading.Thread):
    """The most that waits in memory to be written to disks, MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.first = self.now()
        self.most = self.first
        self.start()

    def run(self):
        while not self.over.wait(0.05):
            self.most = max(self.most, self.now())

    def stop(self):
        self.over.set()
        self.join()
        return self.most - self.first

    @staticmethod
    def now():
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return sum(int(fields[name].split()[0]) for name in ("Dirty", "Writeback")) / 1024


def memory_of(process):
    """Most the process ever held of its own, MiB; files in memory are not counted."""
    with open(f"/proc/{process.pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM"].split()[0]) / 1024


def run(args, folder, port, torrents, slow_to=None, limit=None):
    place = tempfile.mkdtemp(dir=folder)
    roots = f'download_roots = ["{slow_to}"]\n' if slow_to else ""
    daemon = Daemon(args.bin, place, roots)
    group = None
    if limit:
        group = os.path.join(MEMORY, f"piecework-{os.getpid()}")
        os.mkdir(group)
        write(os.path.join(group, "memory.limit_in_bytes"), str(limit))
    daemon.start()
    os.sync()
    dirty = Dirty()
    try:
        if group:
            write(os.path.join(group, "cgroup.procs"), str(daemon.process.pid))
        peers = [f"127.0.0.1:{port}"]
        slow = None
        if slow_to:
            daemon.leech(torrents["slow"][0], peers, output=slow_to)
            slow = Watch(daemon, torrents["slow"][1])
            # It fills what memory the system gives to files that are to be written.
            time.sleep(3)
        daemon.leech(torrents["beside"][0], peers)
        beside = Watch(daemon, torrents["beside"][1])
        beside.wait()
        if slow:
            slow.wait()
        memory, waited = memory_of(daemon.process), dirty.stop()
        daemon.stop()
    except BaseException:
        daemon.kill()
        raise
    finally:
        if group:
            # The kernel empties it a moment after its last process has ended.
            for _ in range(100):
                try:
                    os.rmdir(group)
                    break
                except OSError:
                    time.sleep(0.05)
    shutil.rmtree(place)
    if slow_to:
        os.remove(os.path.join(slow_to, "slow"))
    return beside.took, beside.pause, slow.took if slow else 0.0, slow.pause if slow else 0.0, memory, waited


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "target", "release"))
    parser.add_argument("--rate", type=int, default=50, help="what the slow disk takes, MB/s")
    parser.add_argument("--limit", type=int, default=1024, help="memory of the last case, MiB")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    args.bin = os.path.abspath(args.bin)
    folder = tempfile.mkdtemp(prefix="piecework-slow-", dir="/dev/shm")
    seeder = disk = None
    try:
        source = os.path.join(folder, "source")
        os.makedirs(source)
        seeder = Daemon(args.bin, os.path.join(folder, "seeder"), f'download_roots = ["{source}"]\n')
        seeder.start()
        torrents = {}
        for name, size in (("beside", BESIDE), ("slow", SLOW)):
            write_random(os.path.join(source, name), size)
            added = seeder.ask("POST", "/seed", {"input": os.path.join(source, name), "piece_length": MIB})
            info_hash = bytes.fromhex(added["info_hash"])
            seeder.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
            with open(os.path.join(seeder.folder, "torrents", name + ".torrent"), "rb") as file:
                torrents[name] = file.read(), info_hash
        port = seeder.ask("GET", "/")["peer_port"]

        def case(name, **more):
            results = [run(args, folder, port, torrents, **more) for _ in range(args.rounds)]
            middle = [statistics.median(column) for column in zip(*results)]
            pauses = [max(result[at] for result in results) for at in (1, 3)]
            print(
                f"{name:<44} beside {middle[0]:6.1f} s, pause {pauses[0]:5.2f} s; "
                f"slow {middle[2]:6.1f} s, pause {pauses[1]:5.2f} s; "
                f"{middle[4]:4.0f} MiB; {middle[5]:5.0f} MiB dirty",
                flush=True,
            )

        case("alone")
        disk = Disk(folder, SLOW * 3 // 2)
        disk.throttle(args.rate * 1_000_000)
        case(f"slow: a disk of {args.rate} MB/s", slow_to=disk.mount)
        disk.throttle(0)
        case("slow: the same, not throttled", slow_to=disk.mount)
        case(f"the same, all in {args.limit} MiB of memory", slow_to=disk.mount, limit=args.limit * MIB)
    finally:
        if seeder and seeder.process:
            seeder.kill()
        if disk:
            disk.close()
        shutil.rmtree(folder, ignore_errors=True)


def write_random(path, size):
    chance = random.Random(path)
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(chance.randbytes(MIB))


if __name__ == "__main__":
    main()
