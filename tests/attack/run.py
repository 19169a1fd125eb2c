#!/usr/bin/env python3
"""Attacks on our programs over real sockets, each with a bound that must hold.

    run.py [--bin DIR] [--seed N] [--long] [--compare] [--jobs N] [--list] [WORDS...]

Runs the attacks whose names contain all of WORDS (every one without any). A name begins with the
line of docs/reliability.md that it belongs to. Each runs in a network namespace of its own.
`--long` takes the large sizes, for a run by hand; `--compare` also puts libtorrent under the same
attack where that can be done, for the table. The last line is the result.
"""

import argparse
import asyncio
import concurrent.futures
import os
import shutil
import signal
import sys
import tempfile
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(os.path.dirname(HERE), "interop"))

import harness
import namespace

# Set in the environment of a case in its namespace, to the case's name.
INSIDE = "PIECEWORK_ATTACK_INSIDE"

# One address of an attacker, a network of an attacker's, and one of honest peers, beside those of
# the harness.
ADDRESSES = ["10.99.7.1/32", "10.99.8.0/24", "10.99.9.0/24"]


def main():
    root = os.path.dirname(os.path.dirname(HERE))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--long", action="store_true", help="large sizes")
    parser.add_argument("--compare", action="store_true", help="attack libtorrent too")
    parser.add_argument("--jobs", type=int, default=3, help="attacks at a time")
    parser.add_argument("--work", help="folder for logs; temporary if not given")
    parser.add_argument("--list", action="store_true", help="print the names of the attacks")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()

    import attacks

    inside = os.environ.get(INSIDE)
    chosen = [case for case in attacks.ALL if all(word in case.name for word in args.words)]
    if args.list:
        print("\n".join(case.name for case in chosen))
        return 0
    work = os.path.abspath(args.work) if args.work else tempfile.mkdtemp(prefix="piecework-attack-")
    if inside:
        case = next(case for case in attacks.ALL if case.name == inside)
        return run_case(case, attacks.World(os.path.abspath(args.bin), folder_of(work, case), args))

    os.makedirs(work, exist_ok=True)
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as jobs:
        started = [(case, jobs.submit(in_namespace, case, args, work)) for case in chosen]
        for number, (case, done) in enumerate(started, 1):
            problem, printed, seconds = done.result()
            verdict = "FAILED" if problem else "ok    "
            print(f"[{number}/{len(chosen)}] {verdict} {case.name} ({seconds:.1f} s)", flush=True)
            for line in (problem or printed).splitlines():
                print(f"    {line}", flush=True)
            if problem:
                failed += 1
                print(f"    logs: {folder_of(work, case)}", flush=True)
                namespace.show_logs(folder_of(work, case))
            else:
                passed += 1
                shutil.rmtree(folder_of(work, case))
    if not failed and not args.work:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def folder_of(work, case):
    return os.path.join(work, case.name.replace(" ", "-"))


def run_case(case, world):
    """Runs one case, where nothing but it is running. Prints what it measured, or what is wrong."""
    # The first process of a namespace is spared every signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        asyncio.run(case.run(world))
        return 0
    except harness.Failure as failure:
        print(failure, flush=True)
    except Exception:
        traceback.print_exc(file=sys.stdout)
    finally:
        world.stop()
    return 1


def in_namespace(case, args, work):
    folder = folder_of(work, case)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    program = [sys.executable, os.path.abspath(__file__), "--bin", os.path.abspath(args.bin), "--work", work]
    program += ["--seed", str(args.seed)]
    program += ["--long"] * args.long + ["--compare"] * args.compare
    return namespace.run_alone(program, {INSIDE: case.name}, ADDRESSES)


if __name__ == "__main__":
    sys.exit(main())
