#!/usr/bin/env python3
"""A download from several seeders, and whether its journal adds up: every piece verified once, all bytes,
and from each giver as much as that giver's own journal says it sent, what was thrown away included."""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time

from swarm import Failure, Program, ask, free_port, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = "content.bin"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text):
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return int(text[: -len(unit)]) * factor
    return int(text)


def fill(path, length):
    rng = random.Random(1)
    with open(path, "wb") as out:
        while length > 0:
            chunk = min(length, 1 << 20)
            out.write(rng.randbytes(chunk))
            length -= chunk


def received(journal):
    """By the port of who gave: blocks and bytes, whatever became of them."""
    rows = ask(journal, "SELECT peer, sum(block_count), sum(bytes) FROM pieces GROUP BY peer")
    return {int(peer.rsplit(":", 1)[1]): (blocks, count) for peer, blocks, count in rows}


def sent(journals):
    """By port: blocks and bytes that went out."""
    sums = {}
    for port, journal in journals.items():
        blocks, count = ask(journal, "SELECT sum(blocks), sum(bytes) FROM sent")[0]
        if count:
            sums[port] = (blocks, count)
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "..", "target", "debug"))
    parser.add_argument("--size", type=size, default=1 << 30, help="of the content, such as 1GiB")
    parser.add_argument("--piece-length", default="256KiB")
    parser.add_argument("--seeders", type=int, default=3)
    parser.add_argument("--folder", help="where it takes place; deleted afterwards")
    options = parser.parse_args()
    bin_dir = os.path.abspath(options.bin)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        data = os.path.join(folder, "data")
        os.makedirs(data)
        fill(os.path.join(data, NAME), options.size)
        tracker = "127.0.0.1:%d" % free_port()
        torrent = os.path.join(data, NAME + ".torrent")
        subprocess.run(
            [
                os.path.join(bin_dir, "torrent-create"), NAME, "--piece-length", options.piece_length,
                "--tracker", tracker,
            ],
            cwd=data, check=True, stdout=subprocess.DEVNULL,
        )
        programs = [Program(bin_dir, os.path.join(folder, "tracker"), "torrent-tracker", tracker)]
        try:
            programs[0].says("listening")
            journals = {}
            for number in range(options.seeders):
                port, home = free_port(), os.path.join(folder, "seeder%d" % number)
                programs.append(
                    Program(
                        bin_dir, home, "torrent-peer", "share", "--torrent", torrent, "--data", data,
                        tracker, "127.0.0.1:%d" % port,
                    )
                )
                journals[port] = os.path.join(home, "torrents", "journal.sqlite")
            for seeder in programs[1:]:
                seeder.says("seeding " + NAME, 600)
            home = os.path.join(folder, "leecher")
            begun = time.monotonic()
            programs.append(
                Program(
                    bin_dir, home, "torrent-peer", "get", torrent, tracker,
                    "127.0.0.1:%d" % free_port(),
                )
            )
            programs[-1].says("seeding " + NAME, 1200)
            took = time.monotonic() - begun
            journal = os.path.join(home, "torrents", "journal.sqlite")
            # What was asked for twice is answered within five seconds, and written within another.
            try:
                wait_for("both sides to agree", 30, lambda: received(journal) == sent(journals), 0.5)
            except Failure as failure:
                raise Failure("%s: received %s, sent %s" % (failure, received(journal), sent(journals))) from None
        finally:
            for program in reversed(programs):
                program.quit()
        check(journal, journals, options.size, took)


def check(journal, journals, length, took):
    ours, theirs = received(journal), sent(journals)
    if ours != theirs:
        raise Failure("received %s, but sent %s" % (ours, theirs))
    pieces, all_pieces, verified = ask(
        journal,
        "SELECT count(DISTINCT g.piece), t.pieces, sum(g.bytes) FROM given_rows g "
        "JOIN torrents t ON t.id = g.torrent WHERE g.verdict = 0",
    )[0]
    if (pieces, verified) != (all_pieces, length):
        raise Failure("%d of %d pieces, %d of %d bytes" % (pieces, all_pieces, verified, length))
    twice = ask(
        journal,
        "SELECT piece FROM pieces WHERE verdict = 'verified' GROUP BY piece HAVING count(DISTINCT time) > 1",
    )
    if twice:
        raise Failure("pieces %s were verified twice" % twice)
    dropped = [ask(path, "SELECT * FROM dropped") for path in [journal, *journals.values()]]
    if any(dropped):
        raise Failure("records were dropped: %s" % dropped)
    unused = ask(journal, "SELECT coalesce(sum(bytes), 0) FROM pieces WHERE verdict = 'unused'")[0][0]
    for port, (blocks, count) in sorted(ours.items()):
        print("port %5d  %8d blocks  %13d bytes: received as sent" % (port, blocks, count))
    print("%d pieces, each once; %d bytes in %.1f s, and %d unused" % (pieces, verified, took, unused))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit("FAILED: %s" % failure)
