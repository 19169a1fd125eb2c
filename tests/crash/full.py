"""Programs on a disk that is full: they start, say what they cannot write, and write it later."""

import errno
import os
import random
import re
import subprocess
import time
import urllib.error
import urllib.request

from daemon import Daemon, Failure
from disk import Disk, MemoryDisk
from seeder import Seeder, torrent_of

PIECE = 16 << 10


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


def wait(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"not {what} within {seconds} s: {found!r}")
        time.sleep(0.1)


def notices(daemon):
    return daemon.ask("GET", "/status")["notices"]


def refused(daemon, torrent):
    """Adding fails with a sentence about room, and nothing is added."""
    try:
        daemon.leech(torrent, [])
    except Failure as failure:
        if "room" not in str(failure) and "No space" not in str(failure):
            raise Failure(f"the refusal does not speak of room: {failure}") from None
    else:
        raise Failure("a torrent was added that could not be kept")
    if daemon.ask("GET", "/status")["torrents"]:
        raise Failure("a torrent is there that was refused")


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
    daemon = None
    try:
        content = random.Random(3).randbytes(PIECE * 8)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        seeder = Seeder(info_hash, content, PIECE, 64 << 20)
        daemon = Daemon(binaries, os.path.join(disk.mount, "daemon"))
        open(daemon.log, "w").close()
        fill(disk)
        daemon.start()
        if not any("room" in notice for notice in notices(daemon)):
            raise Failure(f"nothing is said of the full disk: {notices(daemon)}")
        refused(daemon, torrent)
        make_room(disk)
        wait("told that all can be written", lambda: not any("room left" in text for text in notices(daemon)))
        daemon.leech(torrent, [seeder.address])
        daemon.wait(info_hash, "complete", lambda t: t["pieces_have"] == t["pieces"])
        # A kill may cost the last second of the journal: whoever asks has it written.
        daemon.ask("GET", f"/torrents/{info_hash.hex()}/givers")
        daemon.kill()
        daemon.start()
        if len(daemon.ask("GET", "/status")["torrents"]) != 1:
            raise Failure("the torrent is gone after a restart")
        givers = daemon.ask("GET", f"/torrents/{info_hash.hex()}/givers")
        if not givers["givers"] or givers["lost"]:
            raise Failure(f"the journal has nothing of the download: {givers}")
        daemon.stop()
        seeder.close()
        return "began with nothing, and kept what came when there was room"
    finally:
        if daemon and daemon.process and daemon.process.poll() is None:
            daemon.kill()
        disk.close()


def known_daemon(binaries, folder, kind):
    """A daemon that was killed starts again on a disk that has filled up since, and has lost nothing."""
    disk = kinds(folder)[kind]()
    daemon = None
    try:
        content = random.Random(4).randbytes(PIECE * 8)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        seeder = Seeder(info_hash, content, PIECE, 64 << 20)
        daemon = Daemon(binaries, os.path.join(disk.mount, "daemon"))
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        daemon.wait(info_hash, "complete", lambda t: t["state"] == "seeding")
        daemon.ask("GET", f"/torrents/{info_hash.hex()}/givers")
        for end in (daemon.kill, daemon.stop):
            end()
            fill(disk)
            daemon.start()
            [seen] = daemon.ask("GET", "/status")["torrents"]
            if seen["info_hash"] != info_hash.hex():
                raise Failure(f"another torrent: {seen}")
            daemon.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
            givers = daemon.ask("GET", f"/torrents/{info_hash.hex()}/givers")
            if not givers["givers"]:
                raise Failure("the journal cannot be read")
            make_room(disk)
            wait("told that all can be written", lambda: not any("room" in text for text in notices(daemon)))
        daemon.stop()
        daemon.start()
        daemon.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
        if any("damaged" in text for text in notices(daemon)):
            raise Failure(f"something was damaged: {notices(daemon)}")
        daemon.stop()
        seeder.close()
        return "started twice, after a kill and in order, and lost nothing"
    finally:
        if daemon and daemon.process and daemon.process.poll() is None:
            daemon.kill()
        disk.close()


def damaged_daemon(binaries, folder, kind):
    """A damaged state stays where it is until there is room for a new one; its torrents are there."""
    disk = kinds(folder)[kind]()
    daemon = None
    try:
        content = random.Random(8).randbytes(PIECE * 8)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        seeder = Seeder(info_hash, content, PIECE, 64 << 20)
        daemon = Daemon(binaries, os.path.join(disk.mount, "daemon"))
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        daemon.wait(info_hash, "complete", lambda t: t["state"] == "seeding")
        daemon.stop()
        state = os.path.join(daemon.folder, "daemon.sqlite")
        with open(state, "r+b") as file:
            file.write(b"x" * 4096)
        fill(disk)
        daemon.start()
        if not any("damaged" in text for text in notices(daemon)):
            raise Failure(f"nothing is said of the damage: {notices(daemon)}")
        daemon.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
        aside = lambda: [name for name in os.listdir(daemon.folder) if ".damaged-" in name]
        if aside() or open(state, "rb").read(4) != b"xxxx":
            raise Failure("the damaged state was touched though there is no room for a new one")
        make_room(disk)
        wait("set aside", aside)
        daemon.kill()
        daemon.start()
        daemon.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
        daemon.stop()
        seeder.close()
        return "its torrents were there all the time"
    finally:
        if daemon and daemon.process and daemon.process.poll() is None:
            daemon.kill()
        disk.close()


def journal_without_room(binaries, folder, kind):
    """Who gave what while the journal's disk was full is there when there is room again."""
    disk = kinds(folder)[kind]()
    daemon = None
    try:
        pieces = 1024
        content = random.Random(5).randbytes(PIECE * pieces)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        seeder = Seeder(info_hash, content, PIECE, 4 << 20)
        downloads = os.path.join(folder, "downloads")
        journal = f'journal = "{disk.mount}/journal.sqlite"\n'
        daemon = Daemon(binaries, os.path.join(folder, "daemon"), journal, downloads=downloads)
        if kind != "ext4":
            # Full from the start.
            fill(disk)
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        if kind == "ext4":
            daemon.wait(info_hash, "begun", lambda t: t["pieces_have"] > 100)
            fill(disk)
        daemon.wait(info_hash, "complete", lambda t: t["state"] == "seeding")
        path = f"/torrents/{info_hash.hex()}/givers"
        told = wait("told of the journal", lambda: [text for text in notices(daemon) if "journal" in text])
        answer = daemon.ask("GET", path)
        if not answer["waiting"] or answer["lost"]:
            raise Failure(f"what waits is not told: {answer['waiting']} wait, {answer['lost']} lost; {told}")
        port = daemon.control.rsplit(":", 1)[1]
        log = subprocess.run(
            [os.path.join(binaries, "torrent-log"), "--port", port, info_hash.hex()],
            capture_output=True, text=True, cwd=daemon.folder, timeout=30,
        ).stdout
        if "until the journal can be written" not in log:
            raise Failure(f"torrent-log does not say what waits:\n{log}")
        make_room(disk)
        answer = wait("written", lambda: (answer := daemon.ask("GET", path)) and not answer["waiting"] and answer)
        unknown = [piece for piece, giver in enumerate(answer["by_piece"]) if giver < 0]
        if unknown or answer["lost"] or notices(daemon):
            raise Failure(f"{len(unknown)} pieces without a giver, {answer['lost']} lost, {notices(daemon)}")
        daemon.stop()
        seeder.close()
        return f"all {pieces} pieces have a giver; {told[0]}"
    finally:
        if daemon and daemon.process and daemon.process.poll() is None:
            daemon.kill()
        disk.close()


def ask(address, method, path, body=None):
    request = urllib.request.Request(f"http://{address}{path}", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def full_tracker(binaries, folder, kind):
    """A tracker starts on a full disk, answers, and registers torrents as soon as there is room."""
    disk = kinds(folder)[kind]()
    process = None
    try:
        home = os.path.join(disk.mount, "tracker")
        os.mkdir(home)
        config = os.path.join(folder, "config.toml")
        with open(config, "w") as file:
            file.write(
                f'[tracker]\nlisten = "127.0.0.1:0"\nopen = true\ntorrents = "{home}/torrents"\n'
                f'state = "{home}/tracker.sqlite"\n'
            )

        def start():
            process = subprocess.Popen(
                [os.path.join(binaries, "torrent-tracker"), "--config", config],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            )
            line = process.stdout.readline()
            found = re.search(r"http://(\S+:\d+)/announce", line)
            if not found:
                process.kill()
                raise Failure(f"the tracker did not start: {line!r} {process.stderr.read()}")
            return process, found[1]

        content = random.Random(6).randbytes(PIECE)
        torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
        fill(disk)
        process, address = start()
        quoted = "".join(f"%{byte:02x}" for byte in info_hash)
        announce = f"/announce?info_hash={quoted}&peer_id=-XX0001-abcdefghijkl&port=1&uploaded=0&downloaded=0&left=1"
        status, body = ask(address, "GET", announce)
        if status != 200 or "interval" not in body:
            raise Failure(f"no answer to an announce: {status} {body}")
        status, body = ask(address, "GET", "/stats")
        if "cannot write" not in body:
            raise Failure(f"nothing is said of the full disk: {body}")
        status, body = ask(address, "POST", "/torrents", torrent)
        if status < 400:
            raise Failure(f"a torrent was registered that could not be kept: {status} {body}")
        make_room(disk)
        wait("told that all can be written", lambda: "cannot write" not in ask(address, "GET", "/stats")[1])
        status, body = ask(address, "POST", "/torrents", torrent)
        if status >= 300:
            raise Failure(f"not registered though there is room: {status} {body}")
        process.kill()
        process.wait()
        fill(disk)
        process, address = start()
        if info_hash.hex() not in ask(address, "GET", "/torrents")[1]:
            raise Failure("the torrent is gone after a restart on a full disk")
        process.terminate()
        if process.wait(20) != 0:
            raise Failure(f"the tracker ended with {process.returncode}")
        return "answered, refused what it could not keep, and took it when there was room"
    finally:
        if process and process.poll() is None:
            process.kill()
        disk.close()


def deleted_state(binaries, folder, _):
    """A deleted state file is rebuilt from the .torrent files beside it, as a damaged one is."""
    content = random.Random(7).randbytes(PIECE * 8)
    torrent, info_hash = torrent_of("content", content, PIECE, [len(content)])
    seeder = Seeder(info_hash, content, PIECE, 64 << 20)
    daemon = Daemon(binaries, folder)
    try:
        daemon.start()
        daemon.leech(torrent, [seeder.address])
        daemon.wait(info_hash, "complete", lambda t: t["state"] == "seeding")
        daemon.stop()
        for name in os.listdir(folder):
            if name.startswith("daemon.sqlite"):
                os.remove(os.path.join(folder, name))
        daemon.start()
        daemon.wait(info_hash, "seeding", lambda t: t["state"] == "seeding")
        told = [text for text in notices(daemon) if "found again" in text]
        if not told:
            raise Failure(f"nothing is said of it: {notices(daemon)}")
        daemon.stop()
        seeder.close()
        return told[0]
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.kill()


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
