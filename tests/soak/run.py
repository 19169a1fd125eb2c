#!/usr/bin/env python3
"""A network that lives: a tracker and three daemons for minutes or hours, whose torrents are added,
paused, moved, renamed, checked and removed at random, and which are stopped, killed and started again.

    run.py [--bin DIR] [--minutes N] [--seed N] [--keep]

The time is divided among rounds of two kinds. In a calm round nobody stops or dies; then no daemon and
no tracker warns of anything, and the tracker refuses no request. In a rough round daemons are killed,
and daemons and tracker are stopped and started again. In both holds: every piece that a daemon says it
holds has its SHA-1 on the disk; when the round is over, every torrent that somebody holds whole is
whole everywhere it was added; once all torrents are removed, memory is what it was after the first
calm round. The last line is the result.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "crash"))
from daemon import Daemon, Failure  # noqa: E402

HOST = "127.0.0.1"
# What the tracker's log says of a download that it could give nobody.
FOUND_NOBODY = "nobody else has any of it"
# Torrents that exist at a time.
MOST = 12
# What a daemon may take more than after the first calm round, in MiB: its caches, and the allocator's
# fragments.
MEMORY_SLACK = 24
WHOLE_WITHIN = 120


class Tracker:
    def __init__(self, binaries, folder, port):
        self.program, self.folder, self.port = os.path.join(binaries, "torrent-tracker"), folder, port
        self.log = os.path.join(folder, "tracker.log")
        self.process = None
        # It is used where it is there, and the user's own folders else.
        os.makedirs(os.path.join(folder, "torrents"))

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, f"{HOST}:{self.port}"],
                cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                return self.ask("/stats")
            except OSError:
                if time.monotonic() > deadline:
                    raise Failure(f"the tracker does not answer; see {self.log}") from None
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        if self.process.wait(20) != 0:
            raise Failure(f"the tracker ended with {self.process.returncode}; see {self.log}")
        self.process.stdin.close()

    def ask(self, path):
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=20) as answer:
            return json.loads(answer.read())

    def refused(self):
        """Requests of its log that were refused, with why. Who comes while every holder of a torrent is
        paused or away was answered: that nobody was found is no refusal."""
        requests = self.ask("/logs/requests?limit=100000")["requests"]
        refused = [request for request in requests if not request["ok"] and not request["error"].startswith(FOUND_NOBODY)]
        return [f"{request['event']} of {request['name']}: {request['error']}" for request in refused]


class Content:
    """What a torrent consists of: its files, in the order of the torrent."""

    def __init__(self, chance, name):
        self.name = name
        count = chance.choice([1, 1, 1, 3, 20])
        largest = (6 << 20) // count
        sizes = [chance.randrange(1, largest) for _ in range(count)]
        self.files = {f"{number:02}.bin" if count > 1 else "": chance.randbytes(size) for number, size in enumerate(sizes)}
        self.bytes = b"".join(self.files.values())

    def write(self, folder):
        root = os.path.join(folder, self.name)
        for path, data in self.files.items():
            at = os.path.join(root, path) if path else root
            os.makedirs(os.path.dirname(at), exist_ok=True)
            with open(at, "wb") as out:
                out.write(data)
        return root


class Soak:
    def __init__(self, binaries, folder, seed):
        self.chance = random.Random(seed)
        self.folder = folder
        self.tracker = Tracker(binaries, os.path.join(folder, "tracker"), free_port())
        self.daemons = []
        for number in range(3):
            daemon = Daemon(binaries, os.path.join(folder, f"daemon-{number}"), 'log_level = "warn"\n', listen=f"{HOST}:{free_port()}", tracker=f"{HOST}:{self.tracker.port}")
            # What is seeded lies here.
            os.makedirs(daemon.downloads)
            self.daemons.append(daemon)
        self.contents = {}
        # Who shared it from where its files are: they are never moved or renamed.
        self.shared_by = {}
        self.acts, self.pieces, self.made = {}, 0, 0
        self.rest = None

    def start(self):
        self.tracker.start()
        for daemon in self.daemons:
            daemon.start()

    # What may happen.

    def add(self):
        """A daemon shares something new."""
        if len(self.contents) >= MOST:
            return False
        self.made += 1
        content = Content(self.chance, f"thing {self.made}")
        daemon = self.chance.choice(self.daemons)
        answer = daemon.ask("POST", "/seed", {"input": content.write(daemon.downloads), "name": content.name})
        self.contents[answer["info_hash"]] = content
        self.shared_by[answer["info_hash"]] = daemon
        return True

    def get(self):
        """A daemon gets what it has not."""
        daemon = self.chance.choice(self.daemons)
        lacking = sorted(set(self.contents) - {torrent["info_hash"] for torrent in torrents(daemon)})
        shared = [info_hash for info_hash in lacking if self.whole(info_hash)]
        if not shared:
            return False
        info_hash = self.chance.choice(shared)
        daemon.ask("POST", "/leech", {"source": {"catalogue": {"name": info_hash, "tracker": None}}})
        return True

    def act_on_one(self, act):
        daemon = self.chance.choice(self.daemons)
        chosen = [torrent for torrent in torrents(daemon) if torrent["state"] != "moving"]
        if not chosen:
            return False
        torrent = self.chance.choice(chosen)
        return act(daemon, torrent, f"/torrents/{torrent['info_hash']}")

    def pause(self, daemon, torrent, at):
        daemon.ask("POST", at + "/pause", {})
        return True

    def resume(self, daemon, torrent, at):
        daemon.ask("POST", at + "/resume", {})
        return True

    def recheck(self, daemon, torrent, at):
        daemon.ask("POST", at + "/recheck", {})
        return True

    def move(self, daemon, torrent, at):
        folder = os.path.join(daemon.downloads, self.chance.choice(["one", "two", "three"]))
        if torrent["folder"] == folder or not self.may_change(daemon, torrent):
            return False
        daemon.ask("POST", at + "/move", {"folder": folder})
        return True

    def rename(self, daemon, torrent, at):
        name = f"{self.contents[torrent['info_hash']].name} called {self.chance.randrange(1000)}"
        if not self.may_change(daemon, torrent):
            return False
        daemon.ask("POST", at + "/rename", {"path": torrent["name"], "name": name})
        return True

    def may_change(self, daemon, torrent):
        is_shared = self.shared_by[torrent["info_hash"]] is daemon
        return not is_shared and torrent["state"] not in ("checking", "queued-check")

    def remove(self, daemon, torrent, at):
        """A torrent leaves a daemon, with its data; the last one that was whole takes it out of the world."""
        info_hash = torrent["info_hash"]
        if [other for other in self.whole(info_hash) if other is not daemon] or self.chance.random() < 0.1:
            daemon.ask("DELETE", at, {"delete_data": True})
            if not self.whole(info_hash):
                self.forget(info_hash)
            return True
        return False

    def forget(self, info_hash):
        for daemon in self.daemons:
            if info_hash in {torrent["info_hash"] for torrent in torrents(daemon)}:
                daemon.ask("DELETE", f"/torrents/{info_hash}", {"delete_data": True})
        self.contents.pop(info_hash)

    def restart_daemon(self):
        daemon = self.chance.choice(self.daemons)
        daemon.stop()
        time.sleep(self.chance.uniform(0, 1))
        daemon.start()
        return True

    def kill_daemon(self):
        daemon = self.chance.choice(self.daemons)
        daemon.kill()
        time.sleep(self.chance.uniform(0, 1))
        daemon.start()
        return True

    def restart_tracker(self):
        self.tracker.stop()
        time.sleep(self.chance.uniform(0, 2))
        self.tracker.start()
        return True

    # What must hold.

    def whole(self, info_hash):
        """Daemons that hold all of it."""
        return [daemon for daemon in self.daemons for torrent in torrents(daemon) if torrent["info_hash"] == info_hash and torrent["pieces_have"] == torrent["pieces"]]

    def check_claims(self):
        """Of one torrent of one daemon: what it says it holds is on the disk."""
        daemon = self.chance.choice(self.daemons)
        chosen = [torrent for torrent in torrents(daemon) if torrent["state"] != "moving"]
        if not chosen:
            return
        torrent = self.chance.choice(chosen)
        info_hash = torrent["info_hash"]
        content = self.contents[info_hash]
        claims = daemon.ask("GET", f"/torrents/{info_hash}/pieces")
        files = daemon.ask("GET", f"/torrents/{info_hash}/files")
        bits = bytes.fromhex(claims["have"])
        held = [piece for piece in range(claims["pieces"]) if bits[piece // 8] >> (7 - piece % 8) & 1]
        data = bytearray()
        for file in files:
            data += read_either(os.path.join(torrent["folder"], file["path"])).ljust(file["bytes"], b"\0")[: file["bytes"]]
        length = torrent["piece_length"]
        for piece in held:
            span = slice(piece * length, (piece + 1) * length)
            if hashlib.sha1(data[span]).digest() != hashlib.sha1(content.bytes[span]).digest():
                raise Failure(f"{daemon.folder}: `{content.name}` claims piece {piece}, and it is wrong on the disk")
        self.pieces += len(held)

    def settle(self):
        """Everything goes on, and gets whole where somebody holds it."""
        for daemon in self.daemons:
            for torrent in torrents(daemon):
                daemon.ask("POST", f"/torrents/{torrent['info_hash']}/resume", {})
        deadline = time.monotonic() + WHOLE_WITHIN
        while True:
            left = []
            for daemon in self.daemons:
                for torrent in torrents(daemon):
                    is_whole = torrent["state"] == "seeding" and torrent["pieces_have"] == torrent["pieces"]
                    if not is_whole and (self.whole(torrent["info_hash"]) or torrent["state"] in ("checking", "queued-check", "moving")):
                        left.append(f"{daemon.folder}: `{torrent['name']}` {torrent['state']}, {torrent['pieces_have']} of {torrent['pieces']}, {torrent['error']}")
            if not left:
                return
            if time.monotonic() > deadline:
                raise Failure(f"not whole within {WHOLE_WITHIN} s: {'; '.join(left)}")
            time.sleep(0.2)

    def clear(self):
        """All torrents leave; then memory is at rest."""
        for info_hash in list(self.contents):
            self.forget(info_hash)
        time.sleep(2)
        return [resident(daemon.process.pid) for daemon in self.daemons]

    def round(self, seconds, is_rough):
        acts = [(self.add, 3), (self.get, 8)]
        ones = [(self.pause, 2), (self.resume, 4), (self.recheck, 1), (self.move, 2), (self.rename, 1), (self.remove, 3)]
        rough = [(self.restart_daemon, 1), (self.kill_daemon, 1), (self.restart_tracker, 0.3)]
        names = [act for act, _ in acts + ones + rough * is_rough]
        weights = [weight for _, weight in acts + ones + rough * is_rough]
        single = {act for act, _ in ones}
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            act = self.chance.choices(names, weights)[0]
            done = self.act_on_one(act) if act in single else act()
            if done:
                self.acts[act.__name__] = self.acts.get(act.__name__, 0) + 1
            self.check_claims()
            for name, process in [("tracker", self.tracker.process)] + [(daemon.folder, daemon.process) for daemon in self.daemons]:
                if process.poll() is not None:
                    raise Failure(f"{name} ended with {process.returncode}")
            time.sleep(self.chance.uniform(0, 0.4))
        self.settle()

    def calm(self, seconds):
        before = {process.log: os.path.getsize(process.log) for process in [self.tracker, *self.daemons]}
        refused = len(self.tracker.refused())
        self.round(seconds, is_rough=False)
        memory = self.clear()
        for log, size in before.items():
            with open(log, errors="replace") as lines:
                lines.seek(size)
                warnings = [line.rstrip() for line in lines if " WARN" in line or " ERROR" in line]
            if warnings:
                raise Failure(f"{log}: {len(warnings)} warnings in a calm round, such as:\n" + "\n".join(warnings[:5]))
        if news := self.tracker.refused()[refused:]:
            raise Failure(f"the tracker refused {len(news)} requests in a calm round, such as: {'; '.join(news[:5])}")
        if self.rest is None:
            self.rest = memory
        for daemon, rest, now in zip(self.daemons, self.rest, memory):
            if now > rest + MEMORY_SLACK:
                raise Failure(f"{daemon.folder}: {now:.0f} MiB at rest, {rest:.0f} after the first calm round")
        return memory

    def rough(self, seconds):
        self.round(seconds, is_rough=True)
        return self.clear()

    def end(self):
        for daemon in self.daemons:
            if daemon.process and daemon.process.poll() is None:
                daemon.stop()
        if self.tracker.process and self.tracker.process.poll() is None:
            self.tracker.stop()


def torrents(daemon):
    return daemon.ask("GET", "/status")["torrents"]


def read_either(path):
    """A file under its final name, or the name it has while it is unfinished; it may get the former
    between two looks."""
    for at in (path, path + ".part", path):
        try:
            with open(at, "rb") as file:
                return file.read()
        except FileNotFoundError:
            pass
    return b""


def resident(pid):
    """Resident memory of a process, in MiB."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--keep", action="store_true", help="keep folders and logs")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="piecework-soak-")
    soak = Soak(os.path.abspath(args.bin), folder, args.seed)
    length = min(300, max(30, args.minutes * 60 / 4))
    started, number = time.monotonic(), 0
    try:
        soak.start()
        while time.monotonic() - started < args.minutes * 60:
            number += 1
            memory = soak.rough(length) if number % 2 == 0 else soak.calm(length)
            kind = "calm" if number % 2 else "rough"
            print(f"round {number}, {kind}: {sum(soak.acts.values())} acts, {soak.pieces} claims held, at rest {', '.join(f'{mib:.0f}' for mib in memory)} MiB", flush=True)
        soak.end()
        print(", ".join(f"{count} {name}" for name, count in sorted(soak.acts.items())))
        print("passed")
    except (Failure, OSError, KeyError) as failure:
        what = failure if isinstance(failure, Failure) else repr(failure)
        print(f"seed {args.seed}, {time.monotonic() - started:.0f} s: {what}\nlogs: {folder}\nFAILED")
        for process in [soak.tracker.process, *[daemon.process for daemon in soak.daemons]]:
            if process and process.poll() is None:
                process.kill()
        return 1
    if not args.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
