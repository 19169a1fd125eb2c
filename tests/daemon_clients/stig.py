"""Cases: stig (PyPI) drives the daemon by its command line."""

import os
import re
import subprocess

from daemon import Content, check, wait_for

# What pip is asked for.
PACKAGE = "stig"


class Stig:
    """stig at a daemon."""

    def __init__(self, python, daemon, folder):
        self.program = os.path.join(os.path.dirname(python), "stig")
        self.daemon, self.folder = daemon, folder

    def run(self, *commands):
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
        check(done.returncode == 0, f"{commands} ended with {done.returncode}: {output}")
        return output

    def row(self, name, columns):
        """The columns of a torrent, without the spaces around them."""
        output = self.run(["ls", "all", "--columns", ",".join(columns)])
        # Without a terminal: values with tabs between them.
        rows = [line.split("\t") for line in output.splitlines()]
        return next((row for row in rows if row[-1].strip() == name), None)


def torrents(stig, daemon, folder):
    one = Content(folder, "one")
    one.write(daemon.downloads)
    stig.run(["add", "--stopped", one.torrent])
    wait_for("the torrent", lambda: stig.row("one", ["size", "name"]))
    stig.run(["start", "one"])
    wait_for("the check", lambda: "100" in str(stig.row("one", ["%downloaded", "name"])))
    files = stig.run(["lsf", "one"])
    check(all(name in files for name in one.files), f"its files are {files}")
    stig.run(["ratelimit", "up", "100kB", "one"])
    details = stig.run(["details", "one"])
    check(one.hash in details, f"the details are {details}")
    stig.run(["label", "red,blue", "one"])
    stig.run(["verify", "one"])
    stig.run(["stop", "one"])
    stig.run(["remove", "--delete-files", "--force", "one"])
    wait_for("it to be gone", lambda: not stig.row("one", ["size", "name"]))


def settings(stig, daemon, folder):
    # Its units divide: what is sent has a fraction.
    stig.run(["set", "srv.limit.rate.up", "333.3kB"])
    told = stig.run(["set", "srv.limit.rate.up"])
    check(re.search(r"333", told), f"the limit is {told}")
    stig.run(["set", "srv.autostart", "no"], ["set", "srv.files.part", "no"], ["set", "srv.limit.peers.global", "77"])
    # What there is not is passed over.
    stig.run(["set", "srv.dht", "yes"], ["set", "srv.pex", "yes"], ["set", "srv.limit.peers.torrent", "33"])


CASES = [torrents, settings]
