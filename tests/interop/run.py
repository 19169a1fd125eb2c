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
import concurrent.futures
import os
import shutil
import signal
import sys
import tempfile
import traceback

import harness
import namespace

# Set in the environment of a case in its namespace, to the case's name.
INSIDE = "PIECEWORK_INTEROP_INSIDE"


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
    parser.add_argument("--work", help="folder for content and logs; temporary if not given")
    parser.add_argument("--jobs", type=int, default=4, help="cases at a time")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()

    import cases

    inside = os.environ.get(INSIDE)
    chosen = [case for case in cases.ALL if all(word in case.name for word in args.words)]
    if args.list:
        print("\n".join(case.name for case in chosen))
        return 0
    work = os.path.abspath(args.work) if args.work else tempfile.mkdtemp(prefix="piecework-interop-")
    content = os.path.join(work, "content")
    if inside:
        case = next(case for case in cases.ALL if case.name == inside)
        return run_case(case, os.path.abspath(args.bin), harness.contents(content), folder_of(work, case))

    os.makedirs(work, exist_ok=True)
    # opentracker gives up root, and must still reach its folder.
    os.chmod(work, 0o755)
    cases.prepare(content)
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as jobs:
        started = [(case, jobs.submit(in_namespace, case, args.bin, work)) for case in chosen]
        for number, (case, done) in enumerate(started, 1):
            problem, seconds = done.result()
            print(f"[{number}/{len(chosen)}] {'ok    ' if not problem else 'FAILED'} {case.name} ({seconds:.1f} s)", flush=True)
            if problem:
                failed += 1
                print(f"    {problem}\n    logs: {folder_of(work, case)}", flush=True)
                namespace.show_logs(folder_of(work, case))
            else:
                passed += 1
                shutil.rmtree(folder_of(work, case))
    shutil.rmtree(content)
    if not failed and not args.work:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def folder_of(work, case):
    return os.path.join(work, case.name.replace(" ", "-"))


def run_case(case, binaries, content, folder):
    """Runs one case, where nothing but it is running. Prints what is wrong."""
    # The first process of a namespace is spared every signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        case.run(binaries, content, folder)
        return 0
    except harness.Failure as failure:
        print(failure, flush=True)
    except Exception:
        traceback.print_exc(file=sys.stdout)
    return 1


def in_namespace(case, binaries, work):
    """Runs this program for one case where there is nothing but a loopback device. Gives what is
    wrong, if anything is, and how many seconds it took."""
    folder = folder_of(work, case)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    program = [sys.executable, os.path.abspath(__file__), "--bin", os.path.abspath(binaries), "--work", work]
    problem, _, seconds = namespace.run_alone(program, {INSIDE: case.name})
    return problem, seconds


if __name__ == "__main__":
    sys.exit(main())
