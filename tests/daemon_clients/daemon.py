"""What the cases stand on: a daemon in a folder of its own, torrents, waiting."""

import hashlib
import os
import random
import re
import subprocess
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import Failure, check, wait_for  # noqa: E402


class Daemon:
    """A running torrent-daemon; its addresses are those it printed."""

    def __init__(self, bin_dir, folder):
        self.bin_dir, self.folder = bin_dir, folder
        self.downloads = os.path.join(folder, "downloads")
        os.makedirs(self.downloads, exist_ok=True)
        self.log = os.path.join(folder, "daemon.log")
        command = [
            os.path.join(bin_dir, "torrent-daemon"),
            "--port", "0", "--rpc-port", "0", "--listen", "127.0.0.1:0",
            "--downloads", self.downloads,
            "--torrents", os.path.join(folder, "torrents"),
            "--state", os.path.join(folder, "daemon.sqlite"),
            "--tracker", "127.0.0.1:1",
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PIECEWORK_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )
        line = self.process.stdout.readline()
        found = re.search(r"control on http://([0-9.]+):([0-9]+)", line)
        if not found:
            self.stop()
            raise Failure(f"the daemon printed `{line.strip()}`; its log: {open(self.log).read()[-2000:]}")
        self.host, self.port = found[1], int(found[2])
        self.url = f"http://{self.host}:{self.port}/transmission/"

    def stop(self):
        """Ends it; its status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self.process.stdout.close()


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    items = sorted((key.encode(), item) for key, item in value.items())
    return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"


class Content:
    """A folder of three files and its torrent."""

    PIECE = 16384
    SIZES = {"a.bin": 50_000, "b.bin": 40_000, "c.txt": 30_000}

    def __init__(self, folder, name):
        rng = random.Random(name)
        self.name = name
        self.files = {file: rng.randbytes(size) for file, size in self.SIZES.items()}
        self.size = sum(self.SIZES.values())
        whole = b"".join(self.files.values())
        pieces = [whole[at:at + self.PIECE] for at in range(0, len(whole), self.PIECE)]
        info = {
            "name": name,
            "piece length": self.PIECE,
            "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
            "files": [{"length": len(data), "path": [file]} for file, data in self.files.items()],
        }
        self.pieces = len(pieces)
        self.hash = hashlib.sha1(bencode(info)).hexdigest()
        self.torrent = os.path.join(folder, f"{name}.torrent")
        with open(self.torrent, "wb") as file:
            file.write(bencode({"info": info, "announce": "http://127.0.0.1:1/announce", "comment": "made here"}))

    def torrent_bytes(self):
        with open(self.torrent, "rb") as file:
            return file.read()

    def write(self, folder):
        """Puts the files where a download would have put them."""
        root = os.path.join(folder, self.name)
        os.makedirs(root, exist_ok=True)
        for name, data in self.files.items():
            with open(os.path.join(root, name), "wb") as file:
                file.write(data)

    def lies_in(self, folder):
        """Whether all of it is there."""
        try:
            return all(
                open(os.path.join(folder, self.name, name), "rb").read() == data
                for name, data in self.files.items()
            )
        except FileNotFoundError:
            return False
