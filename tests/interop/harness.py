"""What every part of the suite stands on: child processes, waiting, ports, content, digests."""

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

# Where everything listens. Not 127.0.0.1: Transmission dials no peer in 127/8. And Transmission
# itself has an address of its own: it knows peers by address alone, so another peer at its own
# would be itself to it. All exist only inside the network namespace that run.py makes, on its
# loopback device.
HOST = "10.99.0.1"
TRANSMISSION_HOST = "10.99.0.2"
# So that a tracker that connects to Transmission does not take another peer's place.
TRACKER_HOST = "10.99.0.3"


class Failure(Exception):
    """What a case ends with when something is not as it must be."""


def wait_for(what, seconds, condition, step=0.05):
    """The first true value of `condition`, polled; errors of a server not yet up count as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = condition()
        except OSError:
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s for {what}")
        time.sleep(step)


def free_port(host=HOST):
    """A port of `host` on which both a stream and a datagram socket could be bound a moment ago."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
                return port
            except OSError:
                continue


def http(method, url, body=None, headers=None):
    """Status, headers and body of an answer, whatever its status."""
    request = urllib.request.Request(url, body, headers or {}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class Process:
    """A child in a session of its own, its output in a log, its standard input held open: a
    program with a console would take the end of its input for the word to leave."""

    def __init__(self, name, argv, folder):
        # Ours use these where they are there, and the user's own folders else.
        for own in ("torrents", "downloads"):
            os.makedirs(os.path.join(folder, own), exist_ok=True)
        self.name = name
        self.log_path = os.path.join(folder, f"{name}.log")
        self.log = open(self.log_path, "ab")
        self.log.write(os.fsencode(f"$ {' '.join(argv)}\n"))
        self.log.flush()
        env = dict(os.environ, HOME=folder, XDG_CONFIG_HOME=folder, XDG_DATA_HOME=folder)
        env.pop("http_proxy", None)
        self.child = subprocess.Popen(
            argv,
            cwd=folder,
            env=env,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended(self):
        return self.child.poll() is not None

    def must_run(self):
        if self.ended():
            raise Failure(f"{self.name} ended early, exit code {self.child.returncode}")

    def wait(self, seconds):
        """Waits for the end and gives the exit code."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} still runs after {seconds} s") from None

    def output(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def stop(self):
        """In an orderly way first, then by force."""
        for sign, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            if self.ended():
                break
            try:
                os.killpg(self.child.pid, sign)
                self.child.wait(seconds)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
        self.child.stdin.close()
        self.log.close()


def run(name, argv, folder, seconds=120):
    """Runs a program to its end: exit code and output."""
    process = Process(name, argv, folder)
    try:
        return process.wait(seconds), process.output()
    finally:
        process.stop()


def listening(port, host=HOST):
    """Whether something accepts connections at `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def make_content(folder):
    """The two contents of the suite: a file of 64 MiB, and a folder of many small files. The same
    bytes every time."""
    chance = random.Random(6881)
    os.makedirs(folder)
    content = contents(folder)
    single, multi = content["single"], content["multi"]
    with open(single, "wb") as out:
        for _ in range(64):
            out.write(chance.randbytes(1 << 20))
    files = {
        "a/empty": 0,
        "a/one-byte": 1,
        "a/b/c/block": 16384,
        "a/b/c/block-and-one": 16385,
        "a/b/c/block-less-one": 16383,
        "Füße und Hände.txt": 70_001,
        "文件/資料 💾.bin": 1_234_567,
        "z-large.bin": 20_000_003,
    }
    files.update({f"many/{number:03}.dat": chance.randrange(1, 60_000) for number in range(100)})
    for path, size in files.items():
        path = os.path.join(multi, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(chance.randbytes(size))


def contents(folder):
    """Where `make_content` puts each."""
    return {"single": os.path.join(folder, "single.bin"), "multi": os.path.join(folder, "multi")}


def digests(path):
    """SHA-256 of a file, or of every file of a folder by its path below it."""
    found = {}
    files = [path]
    if os.path.isdir(path):
        files = [os.path.join(at, name) for at, _, names in os.walk(path) for name in names]
    for file in files:
        with open(file, "rb") as data:
            name = os.path.relpath(file, path)
            found[name] = hashlib.file_digest(data, "sha256").hexdigest()
    return found


def check_same(source, copy, with_empty=True):
    """Fails unless `copy` has the files of `source`, byte for byte, and no others; empty files only
    if `with_empty`."""
    if not os.path.exists(copy):
        raise Failure(f"{copy} does not exist")
    wanted, got = digests(source), digests(copy)
    if not with_empty:
        nothing = hashlib.sha256().hexdigest()
        wanted = {name: digest for name, digest in wanted.items() if digest != nothing}
    different = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
    if different:
        raise Failure(f"{len(different)} of {len(wanted)} files differ, such as {different[:3]}")


def copy_of(source, folder):
    """A copy of a content in `folder`, for a client to seed from."""
    os.makedirs(folder)
    target = os.path.join(folder, os.path.basename(source))
    if os.path.isdir(source):
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return folder
