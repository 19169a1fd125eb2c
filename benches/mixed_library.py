#!/usr/bin/env python3
"""What a library of torrents that get nothing costs the one that downloads beside it, in several programs.

    mixed_library.py --bin DIR [--before DIR] [--torrents N] [--mib N] [--rounds N] [CLIENT ...]

DIR holds `torrent-daemon` and `torrent-peer`; `--before` names those of an earlier state. Clients: `piecework`,
`before`, `transmission` (`transmission-daemon` on the path), `libtorrent` (this Python's module); by default all
that are there. Each runs twice: with nothing, and with N torrents, half of them whole, half of them such as
nobody has. Both then download the same torrent from the same seeder, in turns, and remove it again. The time is
that from the tracker's answer to when the client says that it is whole, processor time that of all its threads.
Medians of the rounds, and of the ratios within a round. Files lie in memory, everything in a network
namespace that has a loopback device only; needs root or user namespaces.
"""

import argparse
import base64
import hashlib
import http.server
import importlib.util
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests", "interop"), os.path.join(ROOT, "tests", "crash")]

import harness  # noqa: E402
from daemon import Daemon  # noqa: E402
from harness import HOST, TRANSMISSION_HOST, Failure, Process, free_port, wait_for  # noqa: E402

MIB = 1 << 20
# A torrent of the library: one file of so many pieces.
PIECE, PIECES = 64 << 10, 4


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(key) + bencode(value[key]) for key in sorted(value)) + b"e"


def torrent_of(name, length, piece, hashes, tracker=None):
    """A `.torrent`, and its info-hash."""
    info = {b"length": length, b"name": name.encode(), b"piece length": piece, b"pieces": hashes}
    whole = {b"info": info} | ({b"announce": tracker.encode()} if tracker else {})
    return bencode(whole), hashlib.sha1(bencode(info)).digest()


def make_library(folder, torrents):
    """The `.torrent`s; the files of every other one lie in `folder`."""
    chance, made = random.Random(12), []
    for number in range(torrents):
        if number % 2:
            hashes = chance.randbytes(20 * PIECES)
        else:
            content = chance.randbytes(PIECE * PIECES)
            hashes = b"".join(hashlib.sha1(content[at : at + PIECE]).digest() for at in range(0, len(content), PIECE))
            with open(os.path.join(folder, f"library-{number}"), "wb") as file:
                file.write(content)
        made.append(torrent_of(f"library-{number}", PIECE * PIECES, PIECE, hashes)[0])
    return made


class Tracker:
    """Gives the seeder's address to all others, and remembers when."""

    def __init__(self):
        tracker = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                query = urllib.parse.parse_qs(self.path.partition("?")[2], encoding="latin-1")
                body = b"d8:intervali1800e5:peers0:e"
                asker = int(query.get("port", ["0"])[0])
                if tracker.seed and asker != tracker.seed:
                    peer = bytes(map(int, HOST.split("."))) + tracker.seed.to_bytes(2, "big")
                    body = b"d8:intervali1800e5:peers6:" + peer + b"e"
                    if query.get("event") == ["started"]:
                        tracker.told_at = time.monotonic()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.seed = self.told_at = None
        server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{server.server_port}/announce"
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Ours:
    """`torrent-daemon`."""

    def __init__(self, folder, binaries):
        self.daemon = Daemon(binaries, folder, listen=f"{HOST}:0")
        self.downloads = self.daemon.downloads
        os.makedirs(self.downloads)

    def start(self):
        self.daemon.start()
        self.pid = self.daemon.process.pid
        # Earlier states have no token and ask for none.
        token = os.path.join(self.daemon.runtime, "piecework", f"control-{self.daemon.control.rpartition(':')[2]}.token")
        if not os.path.exists(token):
            os.makedirs(os.path.dirname(token), exist_ok=True)
            open(token, "w").close()

    def add(self, torrent, tracker=None):
        more = {"trackers": [tracker]} if tracker else {}
        self.last = self.daemon.leech(torrent, [], **more)["info_hash"]

    def ready(self, torrents):
        counts = self.daemon.ask("GET", "/status?limit=0")["counts"]
        return counts["seeding"] + counts["downloading"] == torrents

    def complete(self):
        torrent = self.daemon.ask("GET", f"/torrents/{self.last}")
        if torrent["state"] == "failed":
            raise Failure(torrent["error"])
        return torrent["state"] == "seeding"

    def remove(self):
        self.daemon.ask("DELETE", f"/torrents/{self.last}", {"delete_data": True})

    def stop(self):
        self.daemon.stop()


class Transmission:
    """`transmission-daemon`, without discovery, encryption, µTP and queue."""

    def __init__(self, folder, _):
        self.folder, self.downloads = folder, os.path.join(folder, "downloads")
        os.makedirs(self.downloads)

    def start(self):
        import clients

        self.rpc = clients.Transmission(self.folder)
        self.rpc.session = ""
        self.rpc.control = free_port(TRANSMISSION_HOST)
        config = os.path.join(self.folder, "config")
        os.makedirs(config)
        off = ["dht-enabled", "lpd-enabled", "pex-enabled", "utp-enabled", "port-forwarding-enabled"]
        off += ["rename-partial-files", "rpc-whitelist-enabled", "rpc-host-whitelist-enabled"]
        off += ["download-queue-enabled", "seed-queue-enabled"]
        settings = {name: False for name in off} | {
            "bind-address-ipv4": TRANSMISSION_HOST,
            "rpc-bind-address": TRANSMISSION_HOST,
            "rpc-port": self.rpc.control,
            "peer-port": free_port(TRANSMISSION_HOST),
            "download-dir": self.downloads,
            "encryption": 0,
        }
        with open(os.path.join(config, "settings.json"), "w") as file:
            json.dump(settings, file)
        self.process = Process(
            "transmission", ["transmission-daemon", "--foreground", "--config-dir", config], self.folder
        )
        self.pid = self.process.child.pid
        wait_for("transmission to answer", 30, lambda: self.rpc.call("session-get"))

    def add(self, torrent, _=None):
        added = self.rpc.call("torrent-add", metainfo=base64.b64encode(torrent).decode())
        self.last = added["torrent-added"]["id"]

    def ready(self, torrents):
        all_of_them = self.rpc.call("torrent-get", fields=["status"])["torrents"]
        # 4 and 6: it downloads, it seeds.
        return len(all_of_them) == torrents and all(it["status"] in (4, 6) for it in all_of_them)

    def complete(self):
        (it,) = self.rpc.call("torrent-get", ids=[self.last], fields=["leftUntilDone", "errorString", "haveValid"])[
            "torrents"
        ]
        if it["errorString"]:
            raise Failure(it["errorString"])
        return it["haveValid"] > 0 and it["leftUntilDone"] == 0

    def remove(self):
        self.rpc.call("torrent-remove", ids=[self.last], **{"delete-local-data": True})

    def stop(self):
        self.process.stop()


class Libtorrent:
    """A process of its own that does what it is told, a line at a time (`libtorrent_worker`)."""

    def __init__(self, folder, _):
        self.folder, self.downloads = folder, os.path.join(folder, "downloads")
        os.makedirs(self.downloads)

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), "--libtorrent-worker", self.downloads],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def call(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise Failure("libtorrent's process ended")
        return json.loads(answer)

    def add(self, torrent, _=None):
        self.call("add", base64.b64encode(torrent).decode())

    def ready(self, torrents):
        return self.call("ready") == torrents

    def complete(self):
        return self.call("complete")

    def remove(self):
        self.call("remove")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(20)


def libtorrent_worker(downloads):
    import libtorrent

    off = ["enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp", "enable_incoming_utp", "enable_outgoing_utp"]
    session = libtorrent.session(
        {name: False for name in off}
        | {"listen_interfaces": f"{HOST}:0", "in_enc_policy": 2, "out_enc_policy": 2, "alert_mask": 0}
    )
    last = None
    for line in sys.stdin:
        word, *rest = line.split()
        answer = True
        if word == "add":
            params = libtorrent.add_torrent_params()
            params.ti = libtorrent.torrent_info(libtorrent.bdecode(base64.b64decode(rest[0])))
            params.save_path = downloads
            params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
            last = session.add_torrent(params)
        elif word == "ready":
            states = libtorrent.torrent_status.states
            settled = (states.downloading, states.seeding, states.finished)
            answer = sum(handle.status().state in settled for handle in session.get_torrents())
        elif word == "complete":
            status = last.status()
            if status.errc.value():
                raise SystemExit(status.errc.message())
            answer = status.is_seeding
        elif word == "remove":
            session.remove_torrent(last, libtorrent.options_t.delete_files)
        print(json.dumps(answer), flush=True)


def cpu_time(pid):
    """User and system time of a process, seconds."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def download(client, tracker, torrent, mib):
    """MiB a second, and CPU seconds for each GiB."""
    tracker.told_at = None
    cpu = cpu_time(client.pid)
    client.add(torrent, tracker.url)
    wait_for("the tracker to be asked", 60, lambda: tracker.told_at, 0.005)
    wait_for("the download", 600, client.complete, 0.02)
    took = time.monotonic() - tracker.told_at
    cost = (cpu_time(client.pid) - cpu) * 1024 / mib
    client.remove()
    time.sleep(1)
    return mib / took, cost


def compare(name, make, binaries, folder, library, files, tracker, torrent, args):
    """Prints a client's line."""
    pair = []
    try:
        for which, torrents in (("alone", []), ("beside", library)):
            client = make(os.path.join(folder, f"{name}-{which}"), binaries)
            if torrents:
                shutil.copytree(files, client.downloads, dirs_exist_ok=True)
            client.start()
            pair.append(client)
            for one in torrents:
                client.add(one)
            wait_for(f"{name} to have its library", 120, lambda: client.ready(len(torrents)), 0.5)
        # Whatever is put off for half a minute is over.
        time.sleep(args.rest)
        cpu = cpu_time(pair[1].pid)
        time.sleep(10)
        idle = (cpu_time(pair[1].pid) - cpu) * 100
        held = resident(pair[1].pid) - resident(pair[0].pid)
        figures = ([], [])
        for turn in range(args.rounds):
            # Whoever is second finds other caches: each is, in turn.
            for which in ((0, 1), (1, 0))[turn % 2]:
                figures[which].append(download(pair[which], tracker, torrent, args.mib))
        rates, costs = ([[it[at] for it in which] for which in figures] for at in (0, 1))
        ratio = [statistics.median(b / a for a, b in zip(*both)) for both in (rates, costs)]
        middle = [statistics.median(it) for it in rates + costs]
        print(
            f"{name:13} {middle[0]:11.0f} {middle[1]:7.0f} {ratio[0]:6.2f}   {middle[2]:13.2f} {middle[3]:7.2f}"
            f" {ratio[1]:6.2f}   {idle:9.1f} {held * 1024 / max(len(library), 1):8.1f}",
            flush=True,
        )
    finally:
        for client in pair:
            client.stop()
        for which in ("alone", "beside"):
            shutil.rmtree(os.path.join(folder, f"{name}-{which}"), ignore_errors=True)


def measure(args):
    known = {"piecework": (Ours, args.bin), "before": (Ours, args.before)}
    known |= {"transmission": (Transmission, None), "libtorrent": (Libtorrent, None)}
    there = {
        "piecework": True,
        "before": args.before is not None,
        "transmission": shutil.which("transmission-daemon") is not None,
        "libtorrent": importlib.util.find_spec("libtorrent") is not None,
    }
    names = args.clients or [name for name in known if there[name]]
    folder = tempfile.mkdtemp(prefix="piecework-library-", dir="/dev/shm")
    seeder = None
    try:
        source, files = os.path.join(folder, "source"), os.path.join(folder, "files")
        for each in (source, files):
            os.mkdir(each)
        library = make_library(files, args.torrents)
        chance, hashes = random.Random(1), []
        with open(os.path.join(source, "content"), "wb") as file:
            for _ in range(args.mib):
                piece = chance.randbytes(MIB)
                hashes.append(hashlib.sha1(piece).digest())
                file.write(piece)
        tracker = Tracker()
        torrent, _ = torrent_of("content", args.mib * MIB, MIB, b"".join(hashes), tracker.url)
        path = os.path.join(folder, "content.torrent")
        with open(path, "wb") as file:
            file.write(torrent)
        port = free_port()
        share = [os.path.join(args.bin, "torrent-peer"), "share", "--torrent", path, "--data", source]
        seeder = Process("seeder", [*share, tracker.url, f"{HOST}:{port}"], folder)
        wait_for("the seeder", 60, lambda: harness.listening(port))
        time.sleep(3)
        tracker.seed = port
        print(f"{args.torrents} torrents, {args.mib} MiB, {args.rounds} rounds")
        print("client        MiB/s alone  beside  ratio   CPU-s/GiB alone  beside ratio   idle ms/s KiB each")
        for name in names:
            compare(name, *known[name], folder, library, files, tracker, torrent, args)
    finally:
        if seeder:
            seeder.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    if sys.argv[1:2] == ["--libtorrent-worker"]:
        return libtorrent_worker(sys.argv[2])
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--bin", required=True, type=os.path.abspath, help="folder of the programs")
    parser.add_argument("--before", type=os.path.abspath, help="folder of programs of an earlier state")
    parser.add_argument("--torrents", type=int, default=1000, help="in the library")
    parser.add_argument("--mib", type=int, default=1024, help="length of what is downloaded")
    parser.add_argument("--rounds", type=int, default=5, help="downloads of each kind")
    parser.add_argument("--rest", type=int, default=40, help="seconds before the first download")
    parser.add_argument("clients", nargs="*", help="which; all that are there by default")
    args = parser.parse_args()
    if os.environ.get("PIECEWORK_ALONE") != "yes":
        setup = f"""
            set -e
            ip link set lo up
            ip address add {HOST}/32 dev lo
            ip address add {TRANSMISSION_HOST}/32 dev lo
            ip route replace local {TRANSMISSION_HOST} dev lo table local src {HOST}
            exec "$@"
        """
        alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        alone += ["--map-root-user"] if os.geteuid() else []
        os.environ["PIECEWORK_ALONE"] = "yes"
        os.execvp(alone[0], [*alone, "sh", "-c", setup, "sh", sys.executable, os.path.abspath(__file__), *sys.argv[1:]])
    measure(args)


if __name__ == "__main__":
    main()
