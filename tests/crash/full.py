"""Programs on a disk that is full: they start, say what they cannot write, and write it later."""

import errno
import os
import random
import subprocess

from daemon import Failure
from disk import Disk, MemoryDisk
from scene import PIECE, Scene, Tracker, refused, wait
from seeder import torrent_of


def fill(disk):
    """Takes all that is left of the disk: blocks, or names for files."""
    ballast = os.path.join(disk.mount, "ballast")
    with open(ballast, "ab", buffering=0) as file:
        for size in (1 << 20, 64 << 10, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    if disk.fills_names:
        try:
            for number in range(100_000):
                open(os.path.join(disk.mount, f"name-{number}"), "x").close()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def make_room(disk):
    for name in os.listdir(disk.mount):
        if name == "ballast" or name.startswith("name-"):
            os.remove(os.path.join(disk.mount, name))


def none_added(scene):
    """Adding fails with a sentence about room, and nothing is added."""
    refused(scene.leech, [": 507 "])
    refused(scene.leech, ["room", "No space"])
    if scene.daemon.ask("GET", "/status")["torrents"]:
        raise Failure("a torrent is there that was refused")


def all_written(scene):
    wait("told that all can be written", lambda: not scene.notices("room"))


def kinds(folder):
    """Disks that fill up in different ways."""
    return {
        "ext4": lambda: Disk(folder, 32 << 20),
        "memory": lambda: MemoryDisk(folder, 16 << 20),
        "names": lambda: MemoryDisk(folder, 64 << 20, names=60),
    }


def fresh_daemon(binaries, folder, kind):
    """A daemon that never ran starts on a full disk, and works as soon as there is room."""
    disk = kinds(folder)[kind]()
    with Scene(binaries, disk, os.path.join(disk.mount, "daemon")) as scene:
        fill(disk)
        scene.daemon.start()
        if not scene.notices("room"):
            raise Failure(f"nothing is said of the full disk: {scene.notices()}")
        none_added(scene)
        make_room(disk)
        all_written(scene)
        scene.leech()
        scene.seeding()
        scene.givers()
        scene.daemon.kill()
        scene.daemon.start()
        if len(scene.daemon.ask("GET", "/status")["torrents"]) != 1:
            raise Failure("the torrent is gone after a restart")
        givers = scene.givers()
        if not givers["givers"] or givers["lost"]:
            raise Failure(f"the journal has nothing of the download: {givers}")
        scene.daemon.stop()
        return "began with nothing, and kept what came when there was room"


def known_daemon(binaries, folder, kind):
    """A daemon that was killed starts again on a disk that has filled up since, and has lost nothing."""
    disk = kinds(folder)[kind]()
    with Scene(binaries, disk, os.path.join(disk.mount, "daemon")) as scene:
        daemon = scene.daemon
        scene.download()
        for end in (daemon.kill, daemon.stop):
            end()
            fill(disk)
            daemon.start()
            [seen] = daemon.ask("GET", "/status")["torrents"]
            if seen["info_hash"] != scene.info_hash.hex():
                raise Failure(f"another torrent: {seen}")
            scene.seeding()
            if not scene.givers()["givers"]:
                raise Failure("the journal cannot be read")
            make_room(disk)
            all_written(scene)
        daemon.stop()
        daemon.start()
        scene.seeding()
        if scene.notices("damaged"):
            raise Failure(f"something was damaged: {scene.notices()}")
        daemon.stop()
        return "started twice, after a kill and in order, and lost nothing"


def damaged_daemon(binaries, folder, kind):
    """A damaged state stays where it is until there is room for a new one; its torrents are there."""
    disk = kinds(folder)[kind]()
    with Scene(binaries, disk, os.path.join(disk.mount, "daemon")) as scene:
        daemon = scene.daemon
        scene.download()
        daemon.stop()
        state = os.path.join(daemon.folder, "daemon.sqlite")
        with open(state, "r+b") as file:
            file.write(b"x" * 4096)
        fill(disk)
        daemon.start()
        if not scene.notices("damaged"):
            raise Failure(f"nothing is said of the damage: {scene.notices()}")
        scene.seeding()
        aside = lambda: [name for name in os.listdir(daemon.folder) if ".damaged-" in name]
        if aside() or open(state, "rb").read(4) != b"xxxx":
            raise Failure("the damaged state was touched though there is no room for a new one")
        make_room(disk)
        wait("set aside", aside)
        daemon.kill()
        daemon.start()
        scene.seeding()
        daemon.stop()
        return "its torrents were there all the time"


def journal_without_room(binaries, folder, kind):
    """Who gave what while the journal's disk was full is there when there is room again."""
    disk = kinds(folder)[kind]()
    pieces = 1024
    extra = f'journal = "{disk.mount}/journal.sqlite"\n'
    home, downloads = os.path.join(folder, "daemon"), os.path.join(folder, "downloads")
    with Scene(binaries, disk, home, extra, downloads, pieces, rate=4 << 20) as scene:
        daemon = scene.daemon
        if kind != "ext4":
            # Full from the start.
            fill(disk)
        daemon.start()
        scene.leech()
        if kind == "ext4":
            daemon.wait(scene.info_hash, "begun", lambda t: t["pieces_have"] > 100)
            fill(disk)
        scene.seeding()
        told = wait("told of the journal", lambda: scene.notices("journal"))
        answer = scene.givers()
        if not answer["waiting"] or answer["lost"]:
            raise Failure(f"what waits is not told: {answer['waiting']} wait, {answer['lost']} lost; {told}")
        port = daemon.control.rsplit(":", 1)[1]
        log = subprocess.run(
            [os.path.join(binaries, "torrent-log"), "--port", port, scene.info_hash.hex()],
            capture_output=True, text=True, cwd=daemon.folder, timeout=30,
        ).stdout
        if "until the journal can be written" not in log:
            raise Failure(f"torrent-log does not say what waits:\n{log}")
        make_room(disk)
        answer = wait("written", lambda: (answer := scene.givers()) and not answer["waiting"] and answer)
        unknown = [piece for piece, giver in enumerate(answer["by_piece"]) if giver < 0]
        if unknown or answer["lost"] or scene.notices():
            raise Failure(f"{len(unknown)} pieces without a giver, {answer['lost']} lost, {scene.notices()}")
        daemon.stop()
        return f"all {pieces} pieces have a giver; {told[0]}"


def full_tracker(binaries, folder, kind):
    """A tracker starts on a full disk, answers, and registers torrents as soon as there is room."""
    disk = kinds(folder)[kind]()
    tracker = Tracker(binaries, folder, os.path.join(disk.mount, "tracker"))
    try:
        content = random.Random(6).randbytes(PIECE)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        fill(disk)
        tracker.start()
        quoted = "".join(f"%{byte:02x}" for byte in info_hash)
        announce = f"/announce?info_hash={quoted}&peer_id=-XX0001-abcdefghijkl&port=1&uploaded=0&downloaded=0&left=1"
        status, body = tracker.ask("GET", announce)
        if status != 200 or "interval" not in body:
            raise Failure(f"no answer to an announce: {status} {body}")
        status, body = tracker.ask("GET", "/stats")
        if "cannot write" not in body:
            raise Failure(f"nothing is said of the full disk: {body}")
        status, body = tracker.ask("POST", "/torrents", torrent)
        if status < 400:
            raise Failure(f"a torrent was registered that could not be kept: {status} {body}")
        make_room(disk)
        wait("told that all can be written", lambda: "cannot write" not in tracker.ask("GET", "/stats")[1])
        status, body = tracker.ask("POST", "/torrents", torrent)
        if status >= 300:
            raise Failure(f"not registered though there is room: {status} {body}")
        tracker.kill()
        fill(disk)
        tracker.start()
        if info_hash.hex() not in tracker.ask("GET", "/torrents")[1]:
            raise Failure("the torrent is gone after a restart on a full disk")
        tracker.stop()
        return "answered, refused what it could not keep, and took it when there was room"
    finally:
        tracker.close()
        disk.close()


def deleted_state(binaries, folder, _):
    """A deleted state file is rebuilt from the .torrent files beside it, as a damaged one is."""
    with Scene(binaries, None, folder) as scene:
        scene.download()
        scene.daemon.stop()
        for name in os.listdir(folder):
            if name.startswith("daemon.sqlite"):
                os.remove(os.path.join(folder, name))
        scene.daemon.start()
        scene.seeding()
        told = scene.notices("found again")
        if not told:
            raise Failure(f"nothing is said of it: {scene.notices()}")
        scene.daemon.stop()
        return told[0]


CASES = [
    (f"{body.__name__.replace('_', ' ')} {kind}".strip(), body, kind)
    for body, some in [
        (fresh_daemon, ["ext4", "memory", "names"]),
        (known_daemon, ["ext4", "memory", "names"]),
        (damaged_daemon, ["ext4", "memory", "names"]),
        (journal_without_room, ["ext4", "memory", "names"]),
        (full_tracker, ["ext4", "memory", "names"]),
        (deleted_state, [""]),
    ]
    for kind in some
]
