#!/usr/bin/env python3
"""Interoperation: our programs among Transmission, aria2, libtorrent, opentracker and btcheck.

    run.py [--bin DIR] [--work DIR] [--jobs N] [--list] [WORDS...]

Runs the cases whose names contain all of WORDS (every case without any), several at a time: most
of them mostly wait for Transmission's timers. Each happens on the loopback device of a network
namespace of its own, which has no other device, and in a process namespace that ends with it:
nothing can leave, and nothing stays behind. Needs root or user namespaces. The logs of failed
cases are kept. The last line is the result.
"""

import argparse
import os
import shutil
import sys

import harness
from runner import Runner, run_one


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    Runner.add_arguments(parser, jobs=4)
    args = parser.parse_args()

    import cases

    runner = Runner(__file__, "interop", cases.ALL, args)
    if args.list:
        return runner.list()
    if case := runner.inside():
        content = harness.contents(os.path.join(runner.work, "content"))
        return run_one(lambda: case.run(os.path.abspath(args.bin), content, runner.folder_of(case)))

    content = os.path.join(runner.begin(), "content")
    # opentracker gives up root, and must still reach its folder.
    os.chmod(runner.work, 0o755)
    cases.prepare(content)
    failed = runner.run_all()
    shutil.rmtree(content, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
