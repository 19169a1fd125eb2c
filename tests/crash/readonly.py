"""Disks that are read-only, too small or gone: programs stay up, and what cannot be done leaves all as it was."""

import os
import subprocess

from daemon import Daemon, Failure
from disk import Disk, MemoryDisk
from scene import PIECE, Scene, Tracker, refused, wait
from seeder import torrent_of

READ_ONLY = ["read-only", "Read-only"]
PARTS = [1 << 20, 1 << 20]


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", disk.mount], check=True)


def read_only_start(binaries, folder, how):
    """A daemon starts from a read-only disk, serves what is there, and writes when that is possible."""
    disk = Disk(folder, 32 << 20)
    with Scene(binaries, disk, os.path.join(disk.mount, "daemon")) as scene:
        daemon = scene.daemon
        # Its log is not the matter here.
        daemon.log = os.path.join(folder, "daemon.log")
        scene.download()
        getattr(daemon, how)()
        remount(disk, "ro")
        daemon.start()
        scene.seeding()
        told = scene.notices("read-only")
        if not told:
            raise Failure(f"nothing is said of the disk: {scene.notices()}")
        other, _ = torrent_of("other", bytes(PIECE), PIECE, [PIECE])
        refused(lambda: daemon.leech(other, []), READ_ONLY)
        refused(lambda: scene.act("pause", {}), READ_ONLY)
        refused(lambda: scene.act("rename", {"path": "content", "name": "new"}), READ_ONLY)
        [seen] = daemon.ask("GET", "/status")["torrents"]
        if seen["state"] != "seeding" or seen["name"] != "content":
            raise Failure(f"what was refused was done: {seen['state']}, {seen['name']}")
        if not scene.givers()["givers"]:
            raise Failure("the journal cannot be read")
        remount(disk, "rw")
        wait("told that all can be written", lambda: not scene.notices("read-only"))
        scene.act("pause", {})
        daemon.kill()
        daemon.start()
        daemon.wait(scene.info_hash, "paused", lambda t: t["state"] == "paused")
        daemon.stop()
        return told[0]


def read_only_meanwhile(binaries, folder, _):
    """The file system meets an error and turns read-only while the daemon runs: it goes on."""
    disk = Disk(folder, 32 << 20)
    with Scene(binaries, disk, os.path.join(disk.mount, "daemon")) as scene:
        daemon = scene.daemon
        daemon.log = os.path.join(folder, "daemon.log")
        scene.download()
        # As if its journal could not be written.
        subprocess.run(["mount", "-o", "remount,abort", disk.mount], capture_output=True, check=False)
        refused(lambda: scene.act("pause", {}), READ_ONLY)
        wait("told of the disk", lambda: scene.notices("read-only"))
        port = daemon.ask("GET", "/")["peer_port"]
        with Scene(binaries, None, os.path.join(folder, "reader")) as reader:
            reader.daemon.start()
            reader.daemon.leech(scene.torrent, [f"127.0.0.1:{port}"])
            reader.seeding()
            reader.daemon.stop()
        # The journal has more to write than fits into what it had mapped.
        scene.givers()
        scene.seeding()
        if daemon.process.poll() is not None:
            raise Failure(f"the daemon ended with {daemon.process.poll()}")
        told = scene.notices("read-only")
        daemon.stop()
        return told[0]


def read_only_tracker(binaries, folder, how):
    """A tracker starts from a read-only disk, answers, and registers when it can be written to."""
    disk = Disk(folder, 32 << 20)
    tracker = Tracker(binaries, folder, os.path.join(disk.mount, "tracker"))
    try:
        torrent, info_hash = torrent_of("content", bytes(PIECE), PIECE, [PIECE])
        other, _ = torrent_of("other", bytes(PIECE), PIECE, [PIECE])
        tracker.start()
        tracker.ask("POST", "/torrents", torrent)
        getattr(tracker, how)()
        remount(disk, "ro")
        tracker.start()
        if info_hash.hex() not in tracker.ask("GET", "/torrents")[1]:
            raise Failure("the torrent is gone")
        if "cannot write" not in tracker.ask("GET", "/stats")[1]:
            raise Failure("nothing is said of the disk")
        status, body = tracker.ask("POST", "/torrents", other)
        if status < 400 or "ead-only" not in body:
            raise Failure(f"registering what cannot be kept is answered so: {status} {body}")
        remount(disk, "rw")
        wait("told that all can be written", lambda: "cannot write" not in tracker.ask("GET", "/stats")[1])
        status, body = tracker.ask("POST", "/torrents", other)
        if status >= 300:
            raise Failure(f"not registered: {status} {body}")
        tracker.stop()
        return "answered, refused what it could not keep, and took it later"
    finally:
        tracker.close()
        disk.close()


def move_refused(binaries, folder, kind):
    """A move to a disk that is too small or read-only leaves everything where it was."""
    disk = MemoryDisk(folder, 64 << 20) if kind == "read-only" else MemoryDisk(folder, 1 << 20)
    home, downloads = os.path.join(folder, "daemon"), os.path.join(folder, "downloads")
    extra = f'download_roots = ["{disk.mount}"]\n'
    there = os.path.join(disk.mount, "there")
    with Scene(binaries, disk, home, extra, downloads, 128, PARTS) as scene:
        scene.download()
        os.mkdir(there)
        if kind == "read-only":
            remount(disk, "ro")
        for _ in range(2):
            scene.act("move", {"folder": there})
            told = scene.daemon.wait(scene.info_hash, "told", lambda t: t["state"] == "seeding" and t["error"])
            if not any(word in told["error"] for word in ["room", *READ_ONLY]):
                raise Failure(f"the sentence does not tell why: {told['error']}")
            if told["folder"] != downloads or os.listdir(there):
                raise Failure(f"left behind: {told['folder']}, {os.listdir(there)}")
            scene.check(downloads)
        remount(disk, "rw" if kind == "read-only" else "size=64m")
        scene.act("move", {"folder": there})
        scene.daemon.wait(scene.info_hash, "moved", lambda t: t["folder"] == there and not t["error"])
        scene.seeding()
        scene.check(there)
        scene.daemon.stop()
        return told["error"]


def move_away(binaries, folder, _):
    """From a disk that can only be read data is copied; what is there stays."""
    disk = MemoryDisk(folder, 64 << 20)
    home, downloads = os.path.join(folder, "daemon"), os.path.join(disk.mount, "downloads")
    there = os.path.join(folder, "there")
    with Scene(binaries, disk, home, f'download_roots = ["{folder}"]\n', downloads, 128, PARTS) as scene:
        scene.download()
        scene.daemon.stop()
        remount(disk, "ro")
        scene.daemon.start()
        scene.seeding()
        scene.act("move", {"folder": there})
        scene.daemon.wait(scene.info_hash, "moved", lambda t: t["folder"] == there and t["state"] == "seeding")
        scene.check(there)
        scene.check(downloads)
        scene.daemon.stop()
        return "was moved, and its old files stayed"


def rename_refused(binaries, folder, _):
    """A rename on a read-only disk changes nothing, and can be repeated."""
    disk = MemoryDisk(folder, 64 << 20)
    home, downloads = os.path.join(folder, "daemon"), os.path.join(disk.mount, "downloads")
    with Scene(binaries, disk, home, "", downloads, 128, PARTS) as scene:
        scene.download()
        scene.daemon.stop()
        remount(disk, "ro")
        scene.daemon.start()
        scene.seeding()
        rename = {"path": "content", "name": "new"}
        for _ in range(2):
            refused(lambda: scene.act("rename", rename), READ_ONLY)
            if (seen := scene.seeding())["name"] != "content":
                raise Failure(f"it is called `{seen['name']}`")
            scene.check(downloads)
        scene.daemon.stop()
        remount(disk, "rw")
        scene.daemon.start()
        scene.seeding()
        scene.act("rename", rename)
        scene.check(downloads, "new")
        scene.daemon.stop()
        return "was refused twice, and done when the disk could be written to"


def vanished_disk(binaries, folder, begun):
    """A disk is gone, and its bare mount point stands in for it: nothing is downloaded into that."""
    disk = MemoryDisk(folder, 64 << 20)
    home, downloads = os.path.join(folder, "daemon"), os.path.join(disk.mount, "downloads")
    with Scene(binaries, disk, home, "", downloads, 128, PARTS, rate=256 << 10) as scene:
        daemon = scene.daemon
        daemon.start()
        if begun == "begun":
            scene.leech()
            daemon.wait(scene.info_hash, "begun", lambda t: t["pieces_have"] > 4)
        else:
            daemon.leech(scene.torrent, [scene.seeder.address], paused=True)
            daemon.wait(scene.info_hash, "looked at", lambda t: t["state"] == "paused")
        daemon.stop()
        disk.close()
        scene.disk = None
        os.makedirs(downloads, exist_ok=True)
        daemon.start()
        for _ in range(2):
            scene.act("resume", {})
            told = daemon.wait(scene.info_hash, "told", lambda t: t["state"] == "failed")
            if downloads not in told["error"] or "mounted" not in told["error"]:
                raise Failure(f"the sentence does not name the folder: {told['error']}")
            if os.listdir(downloads):
                raise Failure(f"the bare mount point was filled: {os.listdir(downloads)}")
        # The disk is really another one now.
        scene.act("recheck", {})
        scene.act("resume", {})
        scene.act("peers", {"peers": [scene.seeder.address]})
        scene.seeding()
        scene.check(downloads)
        daemon.stop()
        daemon.start()
        scene.seeding()
        daemon.stop()
        return told["error"]


CASES = [
    (f"{body.__name__.replace('_', ' ')} {kind}".strip(), body, kind)
    for body, some in [
        (read_only_start, ["kill", "stop"]),
        (read_only_meanwhile, [""]),
        (read_only_tracker, ["kill", "stop"]),
        (move_refused, ["read-only", "full"]),
        (move_away, [""]),
        (rename_refused, [""]),
        (vanished_disk, ["begun", "not begun"]),
    ]
    for kind in some
]
