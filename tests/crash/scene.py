"""What the cases with disks of their own share: a daemon with a torrent on its disk, a tracker, and waiting."""

import os
import random
import re
import subprocess
import time
import urllib.error
import urllib.request

from daemon import Daemon, Failure
from seeder import Seeder, torrent_of

PIECE = 16 << 10


def wait(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"not {what} within {seconds} s: {found!r}")
        time.sleep(0.1)


class Scene:
    """A daemon whose home is `home`, on `disk` or elsewhere, and a torrent for it.

    Use it in a `with`: then the daemon, the seeder and the disk go with it.
    """

    def __init__(self, binaries, disk, home, extra="", downloads=None, pieces=8, parts=None, rate=64 << 20):
        self.disk = disk
        self.content = random.Random(pieces).randbytes(PIECE * pieces)
        self.parts = parts or [len(self.content)]
        self.torrent, self.info_hash = torrent_of("content", self.content, PIECE, self.parts)
        self.seeder = Seeder(self.info_hash, self.content, PIECE, rate)
        self.daemon = Daemon(binaries, home, extra, downloads=downloads)
        open(self.daemon.log, "w").close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.daemon.process and self.daemon.process.poll() is None:
            self.daemon.kill()
        self.seeder.close()
        if self.disk:
            self.disk.close()

    def leech(self):
        self.daemon.leech(self.torrent, [self.seeder.address])

    def download(self):
        """Starts the daemon and has it download everything."""
        self.daemon.start()
        self.leech()
        self.seeding()
        # A kill may cost the last second of the journal: whoever asks has it written.
        self.givers()

    def seeding(self):
        return self.daemon.wait(self.info_hash, "seeding", lambda t: t["state"] == "seeding")

    def givers(self):
        return self.daemon.ask("GET", f"/torrents/{self.info_hash.hex()}/givers")

    def notices(self, word=""):
        return [text for text in self.daemon.ask("GET", "/status")["notices"] if word in text]

    def act(self, what, body):
        return self.daemon.ask("POST", f"/torrents/{self.info_hash.hex()}/{what}", body)

    def check(self, folder, name="content"):
        """All is there, as it should be."""
        at = 0
        for number, length in enumerate(self.parts):
            with open(os.path.join(folder, name, f"part {number}"), "rb") as file:
                if file.read() != self.content[at : at + length]:
                    raise Failure(f"part {number} in `{folder}` differs")
            at += length


def refused(ask, words):
    """What `ask` does fails with a sentence that has one of these words."""
    try:
        ask()
    except Failure as failure:
        if not any(word in str(failure) for word in words):
            raise Failure(f"none of {words} is said: {failure}") from None
    else:
        raise Failure(f"something was done that should have been refused, with one of {words}")


class Tracker:
    """A tracker whose state and torrents lie in `home`; it keeps them over restarts."""

    def __init__(self, binaries, folder, home):
        self.program = os.path.join(binaries, "torrent-tracker")
        self.folder = folder
        self.process = self.address = None
        os.mkdir(home)
        self.config = os.path.join(folder, "config.toml")
        with open(self.config, "w") as file:
            file.write(
                f'[tracker]\nlisten = "127.0.0.1:0"\nopen = true\ntorrents = "{home}/torrents"\n'
                f'state = "{home}/tracker.sqlite"\n'
            )

    def start(self):
        self.process = subprocess.Popen(
            [self.program, "--config", self.config],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
        )
        line = self.process.stdout.readline()
        found = re.search(r"http://(\S+:\d+)/announce", line)
        if not found:
            self.process.kill()
            raise Failure(f"the tracker did not start: {line!r} {self.process.stderr.read()}")
        self.address = found[1]

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"http://{self.address}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait(20) != 0:
            raise Failure(f"the tracker ended with {self.process.returncode}")

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
