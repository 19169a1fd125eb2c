#!/usr/bin/env python3
"""What libtorrent and aria2 do under the data faults of docs/reliability.md. By hand; for its table.

    others.py [--work FOLDER] [--list] [WORDS...]

Runs the cases whose names contain all of WORDS, each in a network namespace of its own, and prints
what happened. Nothing is required of these programs, so no case fails by what they do.
"""

import argparse
import asyncio
import hashlib
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "interop"))

from harness import HOST, Process, free_port  # noqa: E402
from runner import Runner, run_one  # noqa: E402
from wire import HAVE_NONE, INTERESTED, PIECE, Guest, ListedPeers, Seed, Torrent, handshake, request  # noqa: E402

PIECE_LENGTH = 64 << 10
SIZE = 16 << 20
# aria2 tries an encrypted handshake first, and waits long until it tries a plain one.
PATIENCE = 280


class Libtorrent:
    """One session in this process, at its defaults but for discovery and encryption."""

    name = "libtorrent"

    def __init__(self, folder):
        import libtorrent

        self.lib = libtorrent
        self.folder, self.port = folder, free_port(HOST)
        self.session = libtorrent.session(
            {
                "listen_interfaces": f"{HOST}:{self.port}",
                "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
                "enable_outgoing_utp": False, "in_enc_policy": 2, "out_enc_policy": 2,
                "allow_multiple_connections_per_ip": True,
            }
        )
        self.handles = {}

    def add(self, torrent, at):
        params = self.lib.add_torrent_params()
        params.ti = self.lib.torrent_info(at)
        params.save_path = self.folder
        self.handles[torrent] = self.session.add_torrent(params)

    def says(self, torrent):
        status = self.handles[torrent].status()
        if status.errc.value():
            return f"error: {status.errc.message()}"
        return "complete" if status.is_seeding else f"{status.state}"

    def stop(self):
        for handle in self.handles.values():
            self.session.remove_torrent(handle)
        self.handles.clear()


class Aria2:
    """One process for each torrent, at its defaults; seeds are checked, as who shares wants it."""

    name = "aria2"

    def __init__(self, folder):
        self.folder, self.processes, self.number = folder, {}, 0
        self.ports = {}

    def add(self, torrent, at, seeds=False):
        self.number += 1
        self.ports[torrent] = self.port = free_port(HOST)
        argv = [
            "aria2c", "--no-conf", f"--listen-port={self.port}", "--enable-dht=false", "--bt-enable-lpd=false",
            "--enable-peer-exchange=false", "--disable-ipv6=true", "--seed-ratio=0", "--async-dns=false",
            "--summary-interval=0", "--file-allocation=none", f"--dir={self.folder}",
            *["--check-integrity=true"] * seeds, at,
        ]
        self.processes[torrent] = Process(f"aria2-{self.number}", argv, os.path.dirname(at))

    def says(self, torrent):
        process = self.processes[torrent]
        output = process.output()
        if process.ended():
            told = [line for line in output.splitlines() if "error" in line.lower() or "Exception" in line]
            return f"error: exit code {process.child.returncode}; {told[:1]}"
        if "SEED(" in output.rsplit("\r", 1)[-1] or "Seeding" in output or "Download complete" in output:
            return "complete"
        return "downloading"

    def stop(self):
        for process in self.processes.values():
            process.stop()


class Scene:
    """A folder, a tracker, and honest seeds of 4 MiB/s, for one program."""

    def __init__(self, program, folder):
        self.folder = os.path.join(folder, "content")
        self.root = folder
        os.makedirs(self.folder)
        self.program = program(self.folder)
        self.torrents = 0

    async def torrent(self, content, name="content", rate=None, seeded=True):
        tracker = await ListedPeers().listen(HOST)
        torrent = Torrent(name, content, PIECE_LENGTH, tracker.url)
        if seeded:
            seed = await Seed(torrent, rate=rate).listen(HOST)
            tracker.peers.append(seed.address)
        self.torrents += 1
        torrent.at = torrent.write_to(os.path.join(self.root, f"{self.torrents}.torrent"))
        return torrent

    def add(self, torrent, **more):
        if isinstance(self.program, Libtorrent):
            more = {}
        self.program.add(torrent, torrent.at, **more)

    async def settles(self, torrent, seconds=60):
        """Waits until a torrent is complete or has failed; returns what the program says of it."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            said = self.program.says(torrent)
            if said == "complete" or said.startswith("error"):
                return said
            await asyncio.sleep(0.2)
        return self.program.says(torrent) + f" (after {seconds} s)"

    def path(self, torrent):
        return os.path.join(self.folder, torrent.name)

    def write(self, torrent, content):
        with open(self.path(torrent), "wb") as out:
            out.write(content)

    def wrong_pieces(self, torrent):
        """The number of pieces that are not right on the disk."""
        try:
            with open(self.path(torrent), "rb") as data:
                content = data.read()
        except FileNotFoundError:
            return torrent.pieces
        hashes = torrent.info["pieces"]
        return sum(
            hashlib.sha1(content[at * PIECE_LENGTH : (at + 1) * PIECE_LENGTH]).digest() != hashes[at * 20 : at * 20 + 20]
            for at in range(torrent.pieces)
        )


async def two_of_one_name(scene):
    first = await scene.torrent(os.urandom(SIZE), seeded=False)
    second = await scene.torrent(os.urandom(SIZE))
    scene.write(first, first.content)
    scene.add(first, seeds=True)
    before = await scene.settles(first)
    scene.add(second)
    after = await scene.settles(second)
    print(f"first: {before}; second: {after}; then first: {scene.program.says(first)}, "
          f"{scene.wrong_pieces(first)} of {first.pieces} pieces of the first wrong on the disk")


async def own_file(scene, size):
    torrent = await scene.torrent(os.urandom(SIZE))
    own = os.urandom(size)
    scene.write(torrent, own)
    scene.add(torrent)
    said = await scene.settles(torrent)
    with open(scene.path(torrent), "rb") as data:
        kept = data.read() == own
    print(f"{said}; the user's own file of {size} bytes is {'kept' if kept else 'overwritten'}")


async def modified_while_seeded(scene):
    torrent = await scene.torrent(os.urandom(SIZE), seeded=False)
    scene.write(torrent, torrent.content)
    scene.add(torrent, seeds=True)
    said = await scene.settles(torrent)
    with open(scene.path(torrent), "r+b") as out:
        out.write(bytes(SIZE))
    await asyncio.sleep(3)
    reader, writer = await asyncio.open_connection(HOST, scene.program.port)
    writer.write(handshake(torrent.info_hash, b"-XX0000-" + os.urandom(6).hex().encode()))
    guest = Guest(reader, writer)
    served = wrong = 0
    try:
        guest.theirs = await reader.readexactly(68)
        guest.send(HAVE_NONE)
        guest.send(INTERESTED)
        asked = False
        while served < 64:
            kind, payload = await asyncio.wait_for(guest.read(), 20)
            if guest.unchoked and not asked:
                asked = True
                for piece in range(64):
                    writer.write(request(piece, 0, 16 << 10))
            if kind == PIECE:
                served += 1
                piece = int.from_bytes(payload[:4], "big")
                wrong += payload[8:] != torrent.block(piece, 0, 16 << 10)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        print(f"({type(error).__name__})")
    print(f"{said}; 3 s after the change {wrong} wrong blocks of {served} served; it says {scene.program.says(torrent)}")


async def cut_in_mid_download(scene):
    torrent = await scene.torrent(os.urandom(SIZE), rate=4 << 20)
    scene.add(torrent)
    path = scene.path(torrent)
    while not (os.path.exists(path) and os.stat(path).st_blocks * 512 > SIZE // 2):
        await asyncio.sleep(0.02)
    os.truncate(path, 1000)
    said = await scene.settles(torrent)
    await asyncio.sleep(2)
    print(f"{said}; {scene.wrong_pieces(torrent)} of {torrent.pieces} pieces wrong on the disk")


async def overwritten_after_kill(scene):
    if isinstance(scene.program, Libtorrent):
        print("what is kept over a restart is left to the program around libtorrent")
        return
    torrent = await scene.torrent(os.urandom(SIZE), rate=4 << 20)
    scene.add(torrent)
    path = scene.path(torrent)
    control = path + ".aria2"
    while not (os.path.exists(path) and os.stat(path).st_blocks * 512 > SIZE // 2):
        await asyncio.sleep(0.02)
    process = scene.program.processes[torrent].child
    process.kill()
    process.wait()
    size = os.stat(path).st_size
    with open(path, "r+b") as out:
        out.write(bytes(size))
    scene.add(torrent)
    said = await scene.settles(torrent, PATIENCE)
    await asyncio.sleep(2)
    print(f"control file {'kept' if os.path.exists(control) or said == 'complete' else 'gone'}; {said}; "
          f"{scene.wrong_pieces(torrent)} of {torrent.pieces} pieces wrong on the disk")


async def does_not_fit(scene):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", scene.folder], check=True)
    try:
        torrent = await scene.torrent(os.urandom(SIZE), rate=4 << 20)
        started = time.monotonic()
        scene.add(torrent)
        said = await scene.settles(torrent, PATIENCE)
        print(f"{said} after {time.monotonic() - started:.1f} s, with {os.stat(scene.path(torrent)).st_blocks * 512 >> 20} MiB written")
        scene.program.stop()
    finally:
        subprocess.run(["umount", "-l", scene.folder], check=False)


FAULTS = [
    ("1 two torrents of one name", two_of_one_name),
    ("2 a user's own file of the same length", lambda scene: own_file(scene, SIZE)),
    ("2 a user's own longer file", lambda scene: own_file(scene, SIZE + 1000)),
    ("4 a file modified while it is seeded", modified_while_seeded),
    ("9 a file cut in mid-download", cut_in_mid_download),
    ("9 a file overwritten after a kill", overwritten_after_kill),
    ("10 a download larger than its disk", does_not_fit),
]


class Case:
    def __init__(self, program, name, run):
        self.name, self.program, self.fault = f"{name} {program.name}", program, run

    def run(self, folder):
        scene = Scene(self.program, folder)
        try:
            asyncio.run(self.fault(scene))
        finally:
            scene.program.stop()


CASES = [Case(program, name, run) for name, run in FAULTS for program in (Libtorrent, Aria2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    Runner.add_arguments(parser, jobs=2)
    args = parser.parse_args()
    runner = Runner(__file__, "others", CASES, args)
    if args.list:
        return runner.list()
    if case := runner.inside():
        folder = runner.folder_of(case)
        os.makedirs(folder, exist_ok=True)
        return run_one(lambda: case.run(folder))
    runner.begin()
    return runner.run_all()


if __name__ == "__main__":
    sys.exit(main())
