#!/usr/bin/env python3
"""Reads torrents with libtorrent and with our torrent-show, and says where the two differ.

    compare_torrents.py [--bin DIR] FOLDER

For libtorrent's `test/test_torrents`, which docs/torrents.md is about, and for any folder of `.torrent`
files. Ends with 1 if there is one that libtorrent opens, that has hashes of version 1, and that we
refuse or give another info-hash.
"""

import argparse
import json
import os
import subprocess
import sys
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
import libtorrent  # noqa: E402


def theirs(path):
    """Info-hash, the paths and sizes of the files, and why it is refused, as libtorrent has it."""
    try:
        info = libtorrent.torrent_info(path)
    except RuntimeError as error:
        return None, [], str(error)
    hashes = info.info_hashes()
    if not hashes.has_v1():
        return None, [], "version 2 alone"
    files = info.files()
    skipped = libtorrent.file_flags_t.flag_pad_file | libtorrent.file_flags_t.flag_symlink
    listed = [
        (files.file_path(index), files.file_size(index))
        for index in range(files.num_files())
        if not files.file_flags(index) & skipped
    ]
    return str(hashes.v1), listed, None


def ours(binaries, path):
    """The same as torrent-show has it, and what it passed over or repaired."""
    done = subprocess.run(
        [os.path.join(binaries, "torrent-show"), path, "--json"], capture_output=True, text=True, timeout=60
    )
    if done.returncode != 0:
        return None, [], done.stderr.strip(), []
    shown = json.loads(done.stdout)
    listed = [(file["path"], file["size"]) for file in shown["files"]]
    return shown["info_hash"], listed, None, shown.get("notices", [])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="target/debug")
    parser.add_argument("folder")
    args = parser.parse_args()
    counts = dict.fromkeys(["the same", "other names", "refused by both", "we alone take", "WRONG"], 0)
    for name in sorted(os.listdir(args.folder)):
        if not name.endswith(".torrent"):
            continue
        path = os.path.join(args.folder, name)
        their_hash, their_files, why_not = theirs(path)
        our_hash, our_files, refusal, notices = ours(args.bin, path)
        if their_hash and their_hash != our_hash:
            kind, what = "WRONG", refusal or f"info-hash {our_hash}, libtorrent has {their_hash}"
        elif our_hash and not their_hash:
            kind, what = "we alone take", why_not
        elif not our_hash:
            kind, what = "refused by both", f"{why_not}; {refusal}"
        elif our_files != their_files:
            pairs = [(a, b) for a, b in zip(our_files, their_files) if a != b]
            more = f", and {len(pairs) - 2} more" if len(pairs) > 2 else ""
            if len(our_files) != len(their_files):
                more += f"; {len(our_files)} files and {len(their_files)}"
            shown = "; ".join(f"{a!r}, libtorrent {b!r}" for a, b in pairs[:2])
            kind, what = "other names", shown + more
        else:
            kind, what = "the same", "; ".join(notices)
        counts[kind] += 1
        if kind != "the same" or what:
            print(f"{kind}: {name}: {what}")
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return 1 if counts["WRONG"] else 0


if __name__ == "__main__":
    sys.exit(main())
