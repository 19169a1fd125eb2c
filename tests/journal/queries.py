#!/usr/bin/env python3
"""Runs every query of docs/journal.md with `sqlite3` on journals that our own programs have just made:
a tracker's, and that of a peer that shares, a peer that gets, and one that sends wrong blocks."""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile

from swarm import Failure, Program, ask, free_port, wait_for

import seeder as hostile

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = 64 * 1024
NAME = "linux.iso"


def queries():
    """The documented ones: the sentence above each, and the SQL."""
    with open(os.path.join(HERE, "..", "..", "docs", "journal.md"), encoding="utf-8") as page:
        text = page.read()
    return re.findall(r"\n([^\n]+\?)\n\n```sql\n(.*?)```", text, re.S)


def make(bin_dir, folder):
    """The journals of a peer and of a tracker."""
    content = random.Random(4).randbytes(6 * 1024 * 1024 + 5)
    with open(os.path.join(folder, NAME), "wb") as out:
        out.write(content)
    tracker = "127.0.0.1:%d" % free_port()
    subprocess.run(
        [os.path.join(bin_dir, "torrent-create"), NAME, "--piece-length", "64KiB", "--tracker", tracker],
        cwd=folder, check=True, stdout=subprocess.DEVNULL,
    )
    shown = subprocess.run(
        [os.path.join(bin_dir, "torrent-show"), NAME + ".torrent", "--json"],
        cwd=folder, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout
    info_hash = bytes.fromhex(re.search(r'"info_hash":\s*"([0-9a-f]{40})"', shown)[1])
    # In each piece the second block is wrong.
    wrong = bytearray(content)
    for at in range(16384 + 7, len(wrong), PIECE):
        wrong[at] ^= 0x20
    bad = hostile.Seeder(info_hash, bytes(wrong), PIECE, 50 << 20)
    running = [Program(bin_dir, folder, "torrent-tracker", tracker)]
    try:
        running[0].says("listening")
        running.append(
            Program(
                bin_dir, folder, "torrent-peer", "share", "--torrent", NAME + ".torrent", "--data", ".",
                "--upload-limit", "2MiB", tracker, "127.0.0.1:%d" % free_port(),
            )
        )
        running[1].says("seeding " + NAME)
        running.append(
            Program(
                bin_dir, folder, "torrent-peer", "get", NAME, tracker, "127.0.0.1:%d" % free_port(),
                "--peer", bad.address,
            )
        )
        running[2].says("seeding " + NAME)
        journal = os.path.join(folder, "torrents", "journal.sqlite")
        wait_for(
            "the wrong block to be in the journal", 30,
            lambda: ask(journal, "SELECT 1 FROM bad WHERE block_right IS NOT NULL"),
        )
    finally:
        for program in reversed(running):
            program.quit()
        bad.close()
    named = ask(journal, "SELECT DISTINCT peer FROM bad WHERE peer IS NOT NULL")
    if named != [(bad.address,)]:
        raise Failure("%s sent wrong blocks, but the journal names %s" % (bad.address, named))
    return [journal, os.path.join(folder, "torrents", "tracker-journal.sqlite")]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "..", "target", "debug"))
    options = parser.parse_args()
    documented = queries()
    if len(documented) != 10:
        raise Failure("docs/journal.md has %d queries instead of ten" % len(documented))
    with tempfile.TemporaryDirectory() as folder:
        journals = make(os.path.abspath(options.bin), folder)
        for question, sql in documented:
            rows = 0
            for journal in journals:
                answer = subprocess.run(
                    ["sqlite3", "-readonly", "-bail", journal, sql],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
                )
                if answer.returncode != 0 or answer.stderr:
                    raise Failure("`%s`: %s" % (question, answer.stderr.strip()))
                rows += len(answer.stdout.splitlines())
            if rows == 0:
                raise Failure("`%s` has no answer" % question)
            print("%4d rows  %s" % (rows, question))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit("FAILED: %s" % failure)
