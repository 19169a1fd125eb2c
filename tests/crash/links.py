"""A daemon that is killed while it has no more than the magnet link of a torrent."""

import os
import random
import time

from daemon import Daemon, Failure
from seeder import torrent_of


def killed(binaries, folder, seed):
    """Kills the daemon before, while and after the metadata comes. Gives a line that says how it went."""
    chance = random.Random(f"link {seed}")
    piece_length = 16 << 10
    content = chance.randbytes(chance.randrange(1, 3 << 20))
    cut = chance.randrange(len(content) + 1)
    parts = [cut, len(content) - cut]
    torrent, info_hash = torrent_of("linked", content, piece_length, parts)
    seeder = Daemon(binaries, os.path.join(folder, "seeder"))
    daemon = Daemon(binaries, os.path.join(folder, "leecher"))
    kills, found = chance.randint(1, 3), []
    given_after = chance.randrange(kills + 1)
    try:
        for one in (seeder, daemon):
            os.makedirs(one.downloads)
            one.start()
        peer = seeder.ask("GET", "/status?limit=0")["listen"][0]
        link = f"magnet:?xt=urn:btih:{info_hash.hex()}&dn=link&x.pe={peer}"
        if given_after == 0:
            give(seeder, torrent, content, parts)
        # The answer may take longer than the daemon lives.
        daemon.ask("POST", "/leech", {"source": {"url": link}, "paused": chance.random() < 0.3})
        daemon.ask("PATCH", f"/torrents/{info_hash.hex()}", {"labels": ["kept"]})
        for number in range(kills):
            time.sleep(chance.uniform(0, 0.5))
            daemon.kill()
            if given_after == number + 1:
                give(seeder, torrent, content, parts)
            daemon.start()
            seen = daemon.torrent(info_hash)
            found.append(seen["state"])
            if seen["settings"]["labels"] != ["kept"]:
                raise Failure(f"its labels are {seen['settings']['labels']}")
        daemon.ask("POST", f"/torrents/{info_hash.hex()}/resume", {})
        whole = daemon.wait(
            info_hash, "complete", lambda t: t["metadata_progress"] == 1 and t["pieces_have"] == t["pieces"] > 0
        )
        if whole["name"] != "linked" or whole["settings"]["labels"] != ["kept"]:
            raise Failure(f"it is {whole}")
        for number, start in enumerate((0, cut)):
            with open(os.path.join(daemon.downloads, "linked", f"part {number}"), "rb") as file:
                if file.read() != content[start : start + parts[number]]:
                    raise Failure(f"part {number} differs")
        if daemon.ask("GET", "/status?limit=0")["counts"]["all"] != 1:
            raise Failure("there is another torrent")
        daemon.stop()
        seeder.stop()
    finally:
        for one in (seeder, daemon):
            if one.process and one.process.poll() is None:
                one.kill()
    return f"killed {kills} times, came back as {', '.join(found)}"


def give(seeder, torrent, content, parts):
    """Puts the content where the seeder finds it."""
    root = os.path.join(seeder.downloads, "linked")
    os.makedirs(root)
    at = 0
    for number, length in enumerate(parts):
        with open(os.path.join(root, f"part {number}"), "wb") as file:
            file.write(content[at : at + length])
        at += length
    seeder.leech(torrent, [])
