#!/usr/bin/env python3
"""Our programs at a real terminal: what tmux shows at 60, 80 and 120 columns, and while it is resized.

    run.py [--bin DIR] [--jobs N] [--list] [WORDS...]

Runs the cases whose names contain all of WORDS (every one without any). The last line is the result.
"""

import argparse
import concurrent.futures
import os
import shutil
import sys
import tempfile
import time
import traceback

import cases
from terminal import Failure, Place

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(ROOT, "target/debug"), help="where our programs are")
    parser.add_argument("--jobs", type=int, default=3, help="cases at a time")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    chosen = [case for case in cases.ALL if all(word in case.name for word in args.words)]
    if args.list:
        print(*(case.name for case in chosen), sep="\n")
        return 0
    if not shutil.which("tmux"):
        print("tmux is missing")
        return 1
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for name, seconds, fault in pool.map(lambda case: run(case, os.path.abspath(args.bin)), chosen):
            print(f"{'ok' if fault is None else 'FAILED':<7} {name} ({seconds:.1f} s)", flush=True)
            if fault is not None:
                failed += 1
                print(fault, flush=True)
    print(f"terminal: {len(chosen) - failed} of {len(chosen)} cases passed")
    return 1 if failed or not chosen else 0


def run(case, bin_dir):
    begun = time.monotonic()
    fault = None
    folder = tempfile.mkdtemp(prefix="terminal-")
    place = Place(bin_dir, folder)
    try:
        case.run(place)
    except Failure as failure:
        fault = f"{failure}\n{place.screens()}"
    except Exception:
        fault = f"{traceback.format_exc()}\n{place.screens()}"
    finally:
        place.stop()
        remove(folder)
    return case.name, time.monotonic() - begun, fault


def remove(folder):
    """What ran in a terminal may still be writing down how it ended."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
