#!/usr/bin/env python3
"""Interoperation: our programs among Transmission, aria2, libtorrent, opentracker and btcheck.

    run.py [--bin DIR] [--work DIR] [--list] [WORDS...]

Runs the cases whose names contain all of WORDS (every case without any), one after the other. All
happens on the loopback device of a network namespace of its own, which has no other device, and in
a process namespace that ends with this program: nothing can leave, and nothing stays behind.
Needs root or user namespaces. The logs of failed cases are kept. The last line is the result.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback

import harness

INSIDE = "PIECEWORK_INTEROP_INSIDE"


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(root, "target", "release"), help="our programs")
    parser.add_argument("--work", help="folder for content and logs; temporary if not given")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    if INSIDE not in os.environ and not args.list:
        enter_namespace()

    import cases

    chosen = [case for case in cases.ALL if all(word in case.name for word in args.words)]
    if args.list:
        print("\n".join(case.name for case in chosen))
        return 0
    work = os.path.abspath(args.work) if args.work else tempfile.mkdtemp(prefix="piecework-interop-")
    os.makedirs(work, exist_ok=True)
    # opentracker gives up root, and must still reach its folder.
    os.chmod(work, 0o755)
    passed = failed = 0
    content = cases.prepare(os.path.join(work, "content"))
    for number, case in enumerate(chosen, 1):
        folder = os.path.join(work, case.name.replace(" ", "-"))
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        started = time.monotonic()
        try:
            case.run(os.path.abspath(args.bin), content, folder)
            problem = None
        except harness.Failure as failure:
            problem = str(failure)
        except Exception:
            problem = traceback.format_exc()
        seconds = time.monotonic() - started
        print(f"[{number}/{len(chosen)}] {'ok    ' if not problem else 'FAILED'} {case.name} ({seconds:.1f} s)", flush=True)
        if problem:
            failed += 1
            print(f"    {problem}\n    logs: {folder}", flush=True)
            show_logs(folder)
        else:
            passed += 1
            shutil.rmtree(folder)
    shutil.rmtree(os.path.join(work, "content"))
    if not failed and not args.work:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def enter_namespace():
    """Runs this program again where there is nothing but a loopback device."""
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    setup = f"""
        set -e
        ip link set lo up
        ip address add {harness.HOST}/32 dev lo
        ip address add {harness.TRANSMISSION_HOST}/32 dev lo
        # Or else whoever dials an address of the machine would come from that same address.
        ip route replace local {harness.TRANSMISSION_HOST} dev lo table local src {harness.HOST}
        exec "$@"
    """
    argv = [*unshare, "sh", "-c", setup, "sh", sys.executable, *sys.argv]
    os.execvpe(argv[0], argv, {**os.environ, INSIDE: "1"})


def show_logs(folder):
    """The ends of a failed case's logs: where the run is only text, they are all that is left."""
    for at, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".log"):
                with open(os.path.join(at, name), errors="replace") as log:
                    lines = log.read().splitlines()[-15:]
                print(f"    --- {name}")
                for line in lines:
                    print(f"    | {line[:240]}")


if __name__ == "__main__":
    sys.exit(main())
