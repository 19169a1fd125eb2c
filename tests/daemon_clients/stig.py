"""Cases: stig (PyPI) drives the daemon by its command line."""

import json
import os
import re
import subprocess
import urllib.request

from daemon import Content, check, wait_for

# What pip is asked for.
PACKAGE = "stig"


class Stig:
    """stig at a daemon."""

    def __init__(self, python, daemon, folder):
        self.program = os.path.join(os.path.dirname(python), "stig")
        self.daemon, self.folder = daemon, folder

    def run(self, *commands, ok=True):
        """What one run of it printed; commands are lists of words."""
        at = [["set", "connect.host", self.daemon.host], ["set", "connect.port", str(self.daemon.port)]]
        words = []
        for command in [*at, *commands]:
            words += [*map(str, command), ";"]
        environment = os.environ | {"HOME": self.folder, "LC_ALL": "C.UTF-8", "TERM": "dumb"}
        done = subprocess.run(
            [self.program, "--notui", "--norcfile", *words[:-1]], capture_output=True, text=True, timeout=60,
            env=environment, stdin=subprocess.DEVNULL,
        )
        output = done.stdout + done.stderr
        check(not ok or done.returncode == 0, f"{commands} ended with {done.returncode}: {output}")
        return done.stdout

    def row(self, name, columns):
        """The columns of a torrent, the last of which is its name; `None` if there is none of that name."""
        # Without a terminal there are tabs between them. An empty list is a failure.
        output = self.run(["ls", "all", "--columns", ",".join(columns)], ok=False)
        rows = [line.split("\t") for line in output.splitlines()]
        return next((row for row in rows if row[-1].strip() == name), None)


def torrents(stig, daemon, folder):
    one = Content(folder, "one")
    one.write(daemon.downloads)
    stig.run(["add", "--stopped", one.torrent])
    wait_for("the torrent", lambda: stig.row("one", ["size", "name"]) == [str(one.size), "one"])
    stig.run(["start", "one"])
    wait_for("the check", lambda: stig.row("one", ["%downloaded", "name"]) == ["100.0", "one"])
    stig.run(["ratelimit", "up", "100kB", "one"], ["label", "red,blue", "one"])
    told = stig.run(["details", "one"], ["lsf", "one"])
    for part in [one.hash, "upload rate\t100000", *one.files]:
        check(part in told, f"`{part}` is not in {told}")
    check(re.search(r"labels\t(red,blue|blue,red)", told), f"the labels are others: {told}")
    stig.run(["stop", "one"], ["remove", "--delete-files", "--force", "one"])
    wait_for("it to be gone", lambda: not stig.row("one", ["size", "name"]))
    wait_for("its files to be gone", lambda: not os.path.exists(os.path.join(daemon.downloads, "one")))


def settings(stig, daemon, folder):
    # Its units divide: what it sends may have a fraction. What there is not is passed over.
    stig.run(
        ["set", "srv.limit.rate.up", "333.3kB"], ["set", "srv.limit.rate.down", "1MiB"],
        ["set", "srv.autostart", "no"], ["set", "srv.files.part", "yes"], ["set", "srv.limit.peers.global", "77"],
        ["set", "srv.limit.peers.torrent", "33"], ["set", "srv.dht", "yes"], ["set", "srv.pex", "yes"],
        ["set", "srv.lpd", "yes"],
    )
    with urllib.request.urlopen(f"http://{daemon.host}:{daemon.port}/settings", timeout=20) as answer:
        told = json.loads(answer.read())
    # It rounds to whole kilobytes itself.
    check(abs(told["upload_limit"] - 333_300) < 1_000, f"the limit is {told['upload_limit']}")
    check(abs(told["download_limit"] - (1 << 20)) < 1_000, f"the limit is {told['download_limit']}")
    wanted = {"start_added": False, "max_connections": 77, "max_peers_per_torrent": 33}
    check(wanted.items() <= told.items(), f"the settings are {told}")


CASES = [torrents, settings]
