"""Trackers: ours, and opentracker as Debian builds it."""

import os
import re
import urllib.parse

from harness import HOST, Failure, Process, free_port, http, listening, wait_for


class Tracker:
    """A running tracker that answers HTTP and UDP at one port number."""

    def __init__(self, process, port, host=HOST):
        self.process = process
        self.port = port
        self.host = host
        try:
            wait_for(f"{process.name} to listen", 20, lambda: process.must_run() or listening(port, host))
        except Failure:
            process.stop()
            raise

    def url(self, scheme):
        return f"{scheme}://{self.host}:{self.port}/announce"

    def counts(self, info_hash):
        """Complete and incomplete peers, by scrape (BEP 48)."""
        query = "info_hash=" + urllib.parse.quote(bytes.fromhex(info_hash), safe="")
        status, _, body = http("GET", f"http://{self.host}:{self.port}/scrape?{query}")
        if status != 200:
            return 0, 0
        number = lambda key: int((re.search(rb"%d:%bi(\d+)e" % (len(key), key), body) or [0, 0])[1])
        return number(b"complete"), number(b"incomplete")

    def wait_for_seeders(self, info_hash, seeders):
        wait_for(
            f"{seeders} seeders at the tracker",
            60,
            lambda: self.process.must_run() or self.counts(info_hash)[0] >= seeders,
        )

    def stop(self):
        self.process.stop()


def ours(binaries, folder, host=HOST):
    port = free_port(host)
    argv = [os.path.join(binaries, "torrent-tracker"), f"{host}:{port}"]
    return Tracker(Process("our-tracker", argv, os.path.join(folder, "tracker")), port, host)


def opentracker(port, info_hashes, folder):
    """Debian's build serves only whitelisted info-hashes. It is told them at its start, so its
    port is chosen before it runs. It gives up root for `nobody` and is locked into its folder."""
    folder = os.path.join(folder, "opentracker")
    os.makedirs(folder)
    with open(os.path.join(folder, "whitelist"), "w") as out:
        out.writelines(f"{info_hash}\n" for info_hash in info_hashes)
    os.chmod(folder, 0o755)
    argv = ["opentracker", "-i", HOST, "-p", str(port), "-P", str(port), "-d", folder, "-w", "whitelist"]
    return Tracker(Process("opentracker", argv, folder), port)
