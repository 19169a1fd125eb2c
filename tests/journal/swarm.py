"""A tracker and peers of ours in folders of their own, and what their journals say."""

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))


class Failure(Exception):
    """Something is not as it must be."""


def wait_for(what, seconds, condition, step=0.1):
    """The first true value of `condition`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure("waited %d s for %s" % (seconds, what))
        time.sleep(step)


class Program:
    """A program of ours in `folder`, its console at a pipe, what it says kept."""

    def __init__(self, bin_dir, folder, *argv):
        # They are used where they are there, and the user's own folders else.
        for own in ("torrents", "downloads"):
            os.makedirs(os.path.join(folder, own), exist_ok=True)
        self.folder = folder
        self.said = ""
        environment = {"PATH": os.environ["PATH"], "HOME": folder}
        command = [os.path.join(bin_dir, argv[0]), *argv[1:]]
        self.name = " ".join(argv[:2])
        self.child = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, errors="replace",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.child.stdout:
            self.said += line

    def says(self, text, seconds=120):
        """Waits until it has said `text`, and gives all that it has said."""

        def heard():
            if text in self.said:
                return True
            if self.child.poll() is not None:
                raise Failure("%s ended without `%s`: %s" % (self.name, text, self.said))
            return False

        wait_for("`%s` from %s" % (text, self.name), seconds, heard)
        return self.said

    def quit(self):
        """Has it leave, and waits until it has."""
        if self.child.poll() is None:
            try:
                self.child.stdin.write("quit\n")
                self.child.stdin.flush()
            except OSError:
                pass
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                raise Failure("%s did not leave" % self.name) from None
        self.reader.join(10)


def free_port():
    """A port of loopback that was free for TCP and UDP a moment ago."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]


def ask(journal, sql, *values):
    """The rows of a question to a journal, which may be in use."""
    connection = sqlite3.connect("file:%s?mode=ro" % journal, uri=True, timeout=30)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()
