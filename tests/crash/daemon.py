"""One `torrent-daemon`, started and killed at will."""

import atexit
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


class Failure(Exception):
    """Something is not as it should be."""


class Daemon:
    """The daemon whose state and downloads lie beneath `folder`; it keeps them over restarts."""

    def __init__(self, binaries, folder, extra="", downloads=None, filtered=False, listen="127.0.0.1:0", tracker=None):
        self.program = [os.path.join(binaries, "torrent-daemon")]
        if filtered:
            here = os.path.dirname(os.path.abspath(__file__))
            self.program = [sys.executable, os.path.join(here, "no_links.py")] + self.program
        self.folder = folder
        self.downloads = downloads or os.path.join(folder, "downloads")
        self.log = os.path.join(folder, "daemon.log")
        self.process = None
        self.control = None
        os.makedirs(folder, exist_ok=True)
        # For the owner's token: not on a disk that may be full.
        self.runtime = tempfile.mkdtemp(prefix="piecework-run-")
        atexit.register(shutil.rmtree, self.runtime, ignore_errors=True)
        self.config = os.path.join(folder, "config.toml")
        with open(self.config, "w") as file:
            file.write(
                "[peer]\n"
                f'listen = "{listen}"\n' + (f'tracker = "{tracker}"\n' if tracker else "") +
                f'torrents = "{folder}/torrents"\n'
                f'downloads = "{self.downloads}"\n'
                "[daemon]\n"
                'control = "127.0.0.1:0"\n'
                'rpc = ""\n'
                f'state = "{folder}/daemon.sqlite"\n' + extra
            )

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.program, "--config", self.config],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env={**os.environ, "XDG_RUNTIME_DIR": self.runtime},
            )
        line = self.process.stdout.readline().decode()
        found = re.search(r"http://(\S+:\d+)", line)
        if not found:
            raise Failure(f"the daemon did not start: {line!r}; see {self.log}")
        self.control = found[1]

    def kill(self):
        """SIGKILL: it has no time for anything."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure("the daemon did not end within 20 seconds of SIGTERM")
        self.process.stdout.close()
        if code != 0:
            raise Failure(f"the daemon ended with {code}")

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        # What shows a daemon that its owner asks.
        port = self.control.rsplit(":", 1)[1]
        with open(os.path.join(self.runtime, "piecework", f"control-{port}.token")) as file:
            headers["Authorization"] = "Bearer " + file.read().strip()
        request = urllib.request.Request(f"http://{self.control}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failure(f"{method} {path}: {error.code} {error.read().decode()}") from None
        return json.loads(text) if text.strip() else None

    def leech(self, torrent, peers, **more):
        source = {"torrent": base64.b64encode(torrent).decode()}
        return self.ask("POST", "/leech", {"source": source, "peers": peers, **more})

    def torrent(self, info_hash):
        return self.ask("GET", "/torrents/" + info_hash.hex())

    def wait(self, info_hash, what, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            torrent = self.torrent(info_hash)
            if condition(torrent):
                return torrent
            if time.monotonic() > deadline:
                raise Failure(
                    f"not {what} within {seconds} s: {torrent['state']}, "
                    f"{torrent['pieces_have']} of {torrent['pieces']} pieces, {torrent['error']}"
                )
            time.sleep(0.05)
