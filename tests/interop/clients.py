"""Drivers, one a client: each runs the real program and gives it one torrent.

A driver has `add(torrent, folder)`, which also checks what is in the folder already, and
`complete()`. Discovery by DHT, LSD and PEX, uTP, port mapping and encryption are off, so that peers are
found through the tracker alone; but for the drivers in `DEFAULT`, whose clients have them as they come, and
for those in `DEMANDING`, whose clients refuse connections that are not encrypted.
"""

import base64
import json
import os
import re
import signal
import socket
import sys

import libtorrent

from harness import HOST, TRANSMISSION_HOST, Failure, Process, free_port, http, listening, run, wait_for


class Client:
    name = "?"
    host = HOST
    makes_empty_files = True
    # KiB a second that it downloads at most; 0 is no limit.
    limit = 0
    # Discovery, transports and encryption are as the client has them by itself.
    as_it_comes = False
    # Only connections that are encrypted as a whole are made or taken.
    demands_encryption = False
    # It exchanges peers with others.
    exchanges = False
    # Peers that it connects to, HOST:PORT (libtorrent alone).
    peers = ()

    def __init__(self, folder):
        self.folder = os.path.join(folder, self.name)
        self.port = free_port(self.host)
        self.process = None

    def spawn(self, argv):
        self.process = Process(self.name, argv, self.folder)

    def wait_until_complete(self, seconds=240):
        wait_for(f"{self.name} to be complete", seconds, lambda: self.process.must_run() or self.complete(), 0.2)

    def stop(self):
        if self.process:
            self.process.stop()

    def kill(self):
        """As a power cut does: it tells nobody."""
        os.killpg(self.process.child.pid, signal.SIGKILL)


class Transmission(Client):
    name = "transmission"
    host = TRANSMISSION_HOST
    # Transmission 3.00 leaves files of no bytes out.
    makes_empty_files = False

    def add(self, torrent, folder):
        self.control = free_port(self.host)
        self.session = ""
        config = os.path.join(self.folder, "config")
        os.makedirs(config)
        settings = {
            "bind-address-ipv4": self.host,
            "dht-enabled": False,
            "download-dir": folder,
            # Tolerated or required.
            "encryption": 2 if self.demands_encryption else 0,
            "lpd-enabled": False,
            "peer-port": self.port,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "rename-partial-files": False,
            "rpc-bind-address": self.host,
            "rpc-host-whitelist-enabled": False,
            "rpc-port": self.control,
            "rpc-whitelist-enabled": False,
            "speed-limit-down": self.limit,
            "speed-limit-down-enabled": self.limit > 0,
            "utp-enabled": False,
        }
        if self.as_it_comes:
            # Encryption is preferred then.
            for key in ("dht-enabled", "encryption", "lpd-enabled", "pex-enabled", "port-forwarding-enabled", "utp-enabled"):
                del settings[key]
        with open(os.path.join(config, "settings.json"), "w") as out:
            json.dump(settings, out)
        self.spawn(["transmission-daemon", "--foreground", "--config-dir", config, "--log-debug"])
        wait_for("transmission to answer", 30, lambda: self.process.must_run() or self.call("session-get"))
        with open(torrent, "rb") as data:
            metainfo = base64.b64encode(data.read()).decode()
        self.call("torrent-add", metainfo=metainfo, **{"download-dir": folder})

    def received(self):
        """Bytes that it has downloaded."""
        (torrent,) = self.call("torrent-get", fields=["downloadedEver"])["torrents"]
        return torrent["downloadedEver"]

    def complete(self):
        fields = ["status", "leftUntilDone", "haveValid", "sizeWhenDone", "errorString"]
        (torrent,) = self.call("torrent-get", fields=fields)["torrents"]
        # 6 is seeding; while it still checks, nothing is left either.
        return torrent["status"] == 6 and torrent["haveValid"] == torrent["sizeWhenDone"]

    def paths(self, _torrent):
        """The paths of its files below the folder, in the torrent's order."""
        (torrent,) = self.call("torrent-get", fields=["files"])["torrents"]
        # Its JSON has letters beyond the first plane as `\u` and five digits.
        mended = lambda name: re.sub("([\u1f00-\u1fff])([0-9a-f])", lambda it: chr(ord(it[1]) << 4 | int(it[2], 16)), name)
        return [mended(file["name"]) for file in torrent["files"]]

    def pieces(self):
        """The pieces it holds, by its own account."""
        (torrent,) = self.call("torrent-get", fields=["pieces"])["torrents"]
        return bits(base64.b64decode(torrent["pieces"]))

    def call(self, method, **arguments):
        url = f"http://{self.host}:{self.control}/transmission/rpc"
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        for _ in range(2):
            status, headers, answer = http("POST", url, body, {"X-Transmission-Session-Id": self.session})
            if status != 409:
                break
            self.session = headers["X-Transmission-Session-Id"]
        answer = json.loads(answer)
        if answer["result"] != "success":
            raise Failure(f"transmission refused {method}: {answer['result']}")
        return answer["arguments"] or True


class Aria2(Client):
    name = "aria2"

    def add(self, torrent, folder):
        self.control = free_port()
        plain = [
            # aria2 asks UDP trackers only through its DHT's socket. It knows no node to talk to.
            "--enable-dht=true",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=false",
            "--disable-ipv6=true",
            "--file-allocation=none",
            "--async-dns=false",
        ]
        self.spawn(
            [
                "aria2c",
                "--no-conf",
                "--enable-rpc",
                f"--rpc-listen-port={self.control}",
                f"--listen-port={self.port}",
                f"--dht-listen-port={free_port()}",
                f"--dht-file-path={os.path.join(self.folder, 'dht.dat')}",
                *([] if self.as_it_comes else plain),
                *(["--bt-require-crypto=true", "--bt-min-crypto-level=arc4"] if self.demands_encryption else []),
                "--check-integrity=true",
                "--bt-hash-check-seed=true",
                "--seed-ratio=0",
                "--console-log-level=info",
                "--summary-interval=0",
                f"--max-download-limit={self.limit}K",
            ]
        )
        wait_for("aria2 to answer", 30, lambda: self.process.must_run() or self.call("aria2.getVersion"))
        with open(torrent, "rb") as data:
            metainfo = base64.b64encode(data.read()).decode()
        self.gid = self.call("aria2.addTorrent", metainfo, [], {"dir": folder})

    def received(self):
        return int(self.call("aria2.tellStatus", self.gid)["completedLength"])

    def complete(self):
        status = self.call("aria2.tellStatus", self.gid)
        if status["status"] == "error":
            raise Failure(f"aria2: {status.get('errorMessage')}")
        checking = "verifiedLength" in status or "verifyIntegrityPending" in status
        whole = status["completedLength"] == status["totalLength"]
        return whole and status.get("seeder") == "true" and not checking

    def pieces(self):
        status = self.call("aria2.tellStatus", self.gid, ["bitfield"])
        return bits(bytes.fromhex(status.get("bitfield", "")))

    def call(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": "1", "method": method, "params": params}).encode()
        _, _, answer = http("POST", f"http://127.0.0.1:{self.control}/jsonrpc", body)
        answer = json.loads(answer)
        if "error" in answer:
            raise Failure(f"aria2 refused {method}: {answer['error']}")
        return answer["result"]


class Libtorrent(Client):
    name = "libtorrent"

    def add(self, torrent, folder):
        worker = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libtorrent_peer.py")
        self.control = free_port()
        settings = (
            "as-it-comes" if self.as_it_comes else "encrypted" if self.demands_encryption
            else "exchange" if self.exchanges else "plain"
        )
        self.spawn([sys.executable, worker, HOST, str(self.port), torrent, folder, str(self.control), str(self.limit), settings, *self.peers])
        wait_for("libtorrent to answer", 30, lambda: self.process.must_run() or listening(self.control))

    def received(self):
        return 1 if "\nbegun\n" in self.process.output() else 0

    def complete(self):
        return "\ncomplete\n" in self.process.output()

    def paths(self, torrent):
        files = libtorrent.torrent_info(torrent).files()
        return [files.file_path(index) for index in range(files.num_files())]

    def pieces(self):
        with socket.create_connection((HOST, self.control), 10) as asked:
            with asked.makefile("rb") as answer:
                return bits(answer.read())


class Ours(Client):
    """Our peer is not told to leave by its driver but by its options: `get` with `--exit`."""

    name = "piecework"
    # What `config.toml` says of encryption; `None` is the default.
    encryption = None
    # Further lines of `config.toml`.
    settings = ()

    def __init__(self, folder, binaries, name="piecework"):
        self.name = name
        super().__init__(folder)
        self.program = os.path.join(binaries, "torrent-peer")

    def spawn(self, argv):
        settings = [*self.settings, *([f'encryption = "{self.encryption}"'] if self.encryption else [])]
        if settings:
            os.makedirs(self.folder, exist_ok=True)
            config = os.path.join(self.folder, "config.toml")
            with open(config, "w") as out:
                out.write("\n".join(["[peer]", *settings, ""]))
            argv = [*argv, "--config", config]
        super().spawn(argv)

    def share(self, torrent, folder, tracker, *more):
        self.spawn(
            [self.program, "share", "--torrent", torrent, "--data", folder, tracker, f"{HOST}:{self.port}", *more]
        )

    def get(self, torrent, folder, tracker):
        self.spawn(
            [self.program, "get", torrent, tracker, f"{HOST}:{self.port}", "--output", folder, "--wait", "--exit"]
        )

    def get_from(self, torrent, folder, *peers):
        """Downloads from these peers, HOST:PORT, and those that they lead to."""
        named = [part for peer in peers for part in ("--peer", peer)]
        listen = ["--listen", f"{HOST}:{self.port}"]
        self.spawn([self.program, "get", torrent, *listen, *named, "--output", folder, "--wait", "--exit"])

    def wait_until_complete(self, seconds=240):
        code = self.process.wait(seconds)
        if code != 0:
            raise Failure(f"torrent-peer get ended with exit code {code}")


def bits(bitfield):
    """The pieces of a bitfield as on the wire, as a set of numbers."""
    return {at * 8 + bit for at, byte in enumerate(bitfield) for bit in range(8) if byte & (0x80 >> bit)}


FOREIGN = {client.name: client for client in (Transmission, Aria2, Libtorrent)}

# The same at their default settings: encryption preferred, uTP, DHT, LSD and PEX on.
DEFAULT = {
    f"default {name}": type(f"Default{client.__name__}", (client,), {"name": f"default-{name}", "as_it_comes": True})
    for name, client in FOREIGN.items()
}

# The same with encryption required.
DEMANDING = {
    f"demanding {name}": type(f"Demanding{client.__name__}", (client,), {"name": f"demanding-{name}", "demands_encryption": True})
    for name, client in FOREIGN.items()
}


def create(binaries, content, tracker, folder, name="torrent"):
    """Our `.torrent` of `content`, and its info-hash as `torrent-show` says it."""
    torrent = os.path.join(folder, f"{name}.torrent")
    argv = [os.path.join(binaries, "torrent-create"), content, "--output", torrent, "--tracker", tracker]
    code, output = run(f"{name}-create", argv, folder)
    if code != 0:
        raise Failure(f"torrent-create ended with exit code {code}: {output}")
    return torrent, show(binaries, torrent, folder)["info_hash"]


def show(binaries, torrent, folder):
    argv = [os.path.join(binaries, "torrent-show"), torrent, "--json"]
    code, output = run("show", argv, folder)
    if code != 0:
        raise Failure(f"torrent-show ended with exit code {code}: {output}")
    # The log holds every run's command line in front of what it printed.
    return json.loads(output.rpartition("\n$ ")[2].partition("\n")[2])
