"""Cases: Flood (npm) drives the daemon through Transmission's RPC, and is driven by its own HTTP API, which
takes what its pages send."""

import base64
import http.cookiejar
import json
import os
import socket
import subprocess
import urllib.error
import urllib.request

from daemon import Content, Failure, check, wait_for

# What npm is asked for.
PACKAGE = "flood@4.16.2"


def install(folder):
    """Installs Flood into `folder` if it is not there; its program."""
    program = os.path.join(folder, "node_modules", ".bin", "flood")
    ready = os.path.join(folder, "ready")
    if not os.path.exists(ready):
        command = ["npm", "install", "--prefix", folder, "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise Failure(f"npm could not install {PACKAGE}: {done.stderr.strip()}")
        open(ready, "w").close()
    return program


class Flood:
    """A running Flood that has a daemon for its only client."""

    def __init__(self, program, daemon, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self.log = os.path.join(folder, "flood.log")
        command = [
            program, "--auth", "none", "--rundir", os.path.join(folder, "flood"), "--host", "127.0.0.1",
            "--port", str(port), "--trurl", daemon.url + "rpc", "--truser", "me", "--trpass", "any",
        ]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def __enter__(self):
        def answers():
            if self.process.poll() is not None:
                raise Failure(f"Flood ended with {self.process.returncode}: {open(self.log).read()[-2000:]}")
            try:
                # Gives the cookie that everything else needs.
                return self.ask("GET", "/auth/verify")
            except OSError:
                return None

        try:
            wait_for("Flood", answers)
            wait_for("Flood to reach the daemon", lambda: self.ask("GET", "/client/connection-test")["isConnected"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with self.opener.open(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failure(f"{method} {path}: {error.code} {error.read()[:500]!r}") from None
        return json.loads(text) if text.strip() else None

    def torrents(self):
        """Its list, by info-hash; Flood writes these in capitals."""
        return {hash.lower(): torrent for hash, torrent in self.ask("GET", "/torrents")["torrents"].items()}

    def add(self, content, daemon, start):
        files = [base64.b64encode(content.torrent_bytes()).decode()]
        self.ask("POST", "/torrents/add-files", {
            "files": files, "destination": daemon.downloads, "tags": ["red"], "isBasePath": False,
            "isCompleted": False, "isSequential": False, "isInitialSeeding": False, "start": start,
        })
        return wait_for("the torrent", lambda: self.torrents().get(content.hash))


def settings(program, daemon, folder):
    with Flood(program, daemon, folder) as flood:
        told = flood.ask("GET", "/client/settings")
        check(told["directoryDefault"] == daemon.downloads, f"downloads go to {told['directoryDefault']}")
        # 1,000,000 bytes are no whole number of its kilobytes.
        flood.ask("PATCH", "/client/settings", {"throttleGlobalDownSpeed": 1_000_000, "throttleGlobalUpSpeed": 50_000})
        told = flood.ask("GET", "/client/settings")
        check(abs(told["throttleGlobalDownSpeed"] - 1_000_000) < 1_024, f"the limit is {told['throttleGlobalDownSpeed']}")
        # Its dialog saves everything that it shows, with the new values.
        told |= {"throttleGlobalUpSpeed": 0, "dht": True, "protocolPex": True, "networkPortRandom": True}
        flood.ask("PATCH", "/client/settings", told)
        told = flood.ask("GET", "/client/settings")
        check((told["throttleGlobalUpSpeed"], told["dht"]) == (0, False), f"the settings are {told}")
        check(abs(told["throttleGlobalDownSpeed"] - 1_000_000) < 2_048, f"the limit is {told['throttleGlobalDownSpeed']}")


def torrents(program, daemon, folder):
    one = Content(folder, "one")
    one.write(daemon.downloads)
    with Flood(program, daemon, folder) as flood:
        added = flood.add(one, daemon, start=False)
        check((added["name"], added["sizeBytes"], added["tags"]) == ("one", one.size, ["red"]), f"it is {added}")
        shown = lambda: flood.torrents()[one.hash]  # noqa: E731
        wait_for("it to be stopped", lambda: "stopped" in shown()["status"])
        hashes = {"hashes": [added["hash"]]}
        flood.ask("POST", "/torrents/start", hashes)
        wait_for("it to seed", lambda: "seeding" in shown()["status"] and shown()["percentComplete"] == 100)
        contents = flood.ask("GET", f"/torrents/{added['hash']}/contents")
        check([file["sizeBytes"] for file in contents] == list(one.SIZES.values()), f"its files are {contents}")
        flood.ask("PATCH", "/torrents/tags", hashes | {"tags": ["blue", "green"]})
        check(shown()["tags"] == ["blue", "green"], f"its tags are {shown()['tags']}")
        there = os.path.join(daemon.downloads, "there")
        flood.ask("POST", "/torrents/move", hashes | {
            "destination": there, "moveFiles": True, "isBasePath": False, "isCheckHash": False,
        })
        wait_for("the move", lambda: shown()["directory"] == there and one.lies_in(there))
        flood.ask("POST", "/torrents/check-hash", hashes)
        wait_for("the check", lambda: "seeding" in shown()["status"] and shown()["percentComplete"] == 100)
        flood.ask("POST", "/torrents/stop", hashes)
        wait_for("the stop", lambda: "stopped" in shown()["status"])
        flood.ask("POST", "/torrents/delete", hashes | {"deleteData": True})
        wait_for("it to be gone", lambda: one.hash not in flood.torrents())
        wait_for("its files to be gone", lambda: not os.path.exists(os.path.join(there, "one")))


CASES = [settings, torrents]
