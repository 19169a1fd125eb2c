#!/usr/bin/env python3
"""How long clients at their default settings wait for the first byte from a seed of ours, and from one
of their own.

    first_byte.py [--bin DIR] [--work DIR] [--times N] [CLIENT...]

The seed has announced to our tracker before the client is given the torrent; what is measured is the
time from there until the client counts its first byte. Prints a table, the median and the longest time
of each pair. Each run has namespaces of its own, as in run.py.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack

import clients
import harness
import namespace
import trackers

LONGEST = 240


def seconds_of(binaries, client, seed, folder, longest=LONGEST, scheme="http"):
    """One run: seconds until the first byte, which must come within `longest`, through our tracker over
    `scheme`."""
    with ExitStack() as stack:
        # The leecher has an address of its own, as Transmission needs.
        tracker = trackers.ours(binaries, folder, harness.TRACKER_HOST)
        stack.callback(tracker.stop)
        content = os.path.join(folder, "content.bin")
        with open(content, "wb") as out:
            out.write(os.urandom(4 << 20))
        url = tracker.url(scheme)
        torrent, info_hash = clients.create(binaries, content, url, folder)
        if seed == "ours":
            seeder = clients.Ours(folder, binaries)
            stack.callback(seeder.stop)
            seeder.share(torrent, folder, url)
        else:
            seeder = clients.FOREIGN[client](os.path.join(folder, "seeder"))
            stack.callback(seeder.stop)
            seeder.as_it_comes = True
            if client == "transmission":
                # Two at one address would each be itself to the other.
                seeder.host = harness.HOST
            seeder.add(torrent, harness.copy_of(content, os.path.join(folder, "seed")))
            seeder.wait_until_complete()
        tracker.wait_for_seeders(info_hash, 1)
        leecher = clients.FOREIGN[client](folder)
        leecher.as_it_comes = True
        stack.callback(leecher.stop)
        leecher.add(torrent, os.path.join(folder, "got"))
        begun = time.monotonic()
        harness.wait_for("a first byte", longest, lambda: leecher.process.must_run() or leecher.received(), 0.02)
        return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="target/release")
    parser.add_argument("--work", default=tempfile.gettempdir())
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("clients", nargs="*", default=[])
    args = parser.parse_args()
    binaries = os.path.abspath(args.bin)
    if args.one:
        client, seed, folder = args.one.split(",")
        print(f"seconds {seconds_of(binaries, client, seed, folder)}")
        return 0
    print("| client | seed | median | longest |\n|---|---|---|---|", flush=True)
    for client in args.clients or clients.FOREIGN:
        for seed in ("ours", "its own"):
            times = []
            for _ in range(args.times):
                folder = tempfile.mkdtemp(prefix="first-byte-", dir=args.work)
                os.chmod(folder, 0o755)
                program = [sys.executable, __file__, "--bin", binaries, "--one", f"{client},{seed},{folder}"]
                fault, output, _ = namespace.run_alone(program, {})
                if fault:
                    print(f"| {client} | {seed} | {fault.splitlines()[-1]} | logs in {folder} |", flush=True)
                    continue
                shutil.rmtree(folder)
                times.append(float(output.split("seconds ")[1]))
            if times:
                shown = f"{statistics.median(times):.1f} s | {max(times):.1f} s"
                print(f"| {client} | {seed} | {shown} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
