#!/usr/bin/env python3
"""Clients made for Transmission drive torrent-daemon: transmission-remote, PyPI's transmission-rpc and stig,
and npm's Flood.

    run.py [--bin DIR] [--work DIR] [--list] [WORDS...]

Runs the cases whose names contain all of WORDS (every case without any), one after the other, each
with a daemon of its own on ports that the system chooses. What pip and npm give is installed in the work
folder. The logs of failed cases are kept. The last line is the result.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import flood
import stig
import transmission_remote
import transmission_rpc_client
from daemon import Daemon, Failure, check

# What pip is asked for: the newest of the two generations that are in use, the newer of which has
# been out only ahead of its release.
VERSIONS = {"transmission-rpc 7": "transmission-rpc>=7,<8", "transmission-rpc 8": "transmission-rpc>=8.0.0a0,<9"}


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(root, "target", "debug"), help="our programs")
    parser.add_argument("--work", help="folder for environments and logs; temporary if not given")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    # So that the daemon of the case under way is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = os.path.abspath(args.work) if args.work else None
    bin_dir = os.path.abspath(args.bin)

    cases = []
    for case in transmission_remote.CASES:
        cases.append((name_of("transmission-remote", case), lambda folder, case=case: transmission_remote.run(case, bin_dir, folder)))
    for version in VERSIONS:
        for case in transmission_rpc_client.CASES:
            cases.append((name_of(version, case), lambda folder, version=version, case=case: run_client(version, case, bin_dir, folder)))
    for case in stig.CASES:
        cases.append((name_of("stig", case), lambda folder, case=case: run_stig(case, bin_dir, folder)))
    for case in flood.CASES:
        cases.append((name_of("Flood", case), lambda folder, case=case: run_flood(case, bin_dir, folder)))
    chosen = [(name, run) for name, run in cases if all(word in name for word in args.words)]
    if args.list:
        print("\n".join(name for name, _ in chosen))
        return 0

    work = work or tempfile.mkdtemp(prefix="piecework-clients-")
    os.makedirs(work, exist_ok=True)
    passed = failed = 0
    for number, (name, run) in enumerate(chosen, 1):
        folder = os.path.join(work, name.replace(" ", "-"))
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        started = time.monotonic()
        try:
            run(folder)
            problem = None
        except Failure as failure:
            problem = str(failure)
        except Exception:
            problem = traceback.format_exc()
        seconds = time.monotonic() - started
        print(f"[{number}/{len(chosen)}] {'ok    ' if not problem else 'FAILED'} {name} ({seconds:.1f} s)", flush=True)
        if problem:
            failed += 1
            print(f"    {problem}\n    logs: {folder}", flush=True)
        else:
            passed += 1
            shutil.rmtree(folder)
    if not failed and not args.work:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def name_of(client, case):
    return f"{client}: {case.__name__.replace('_', ' ')}"


def run_client(version, case, bin_dir, folder):
    """Runs a case of transmission_rpc_client.py in the version's environment."""
    python = environment(version, VERSIONS[version], os.path.dirname(folder))
    command = [python, transmission_rpc_client.__file__, bin_dir, folder, case.__name__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise Failure((done.stderr or done.stdout).strip())


def run_stig(case, bin_dir, folder):
    python = environment("stig", stig.PACKAGE, os.path.dirname(folder))
    with_daemon(bin_dir, folder, lambda daemon: case(stig.Stig(python, daemon, folder), daemon, folder))


def run_flood(case, bin_dir, folder):
    program = flood.install(os.path.join(os.path.dirname(folder), "environment-flood"))
    with_daemon(bin_dir, folder, lambda daemon: case(program, daemon, folder))


def with_daemon(bin_dir, folder, case):
    daemon = Daemon(bin_dir, folder)
    try:
        case(daemon)
    finally:
        status = daemon.stop()
    check(status == 0, f"the daemon ended with {status}")


def environment(name, package, work):
    """The Python that has this package, installed if it is not there."""
    folder = os.path.join(work, "environment-" + name.replace(" ", "-"))
    python = os.path.join(folder, "bin", "python")
    ready = os.path.join(folder, "ready")
    if not os.path.exists(ready):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        done = subprocess.run(install, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise Failure(f"pip could not install {package}: {done.stderr.strip()}")
        open(ready, "w").close()
    return python


if __name__ == "__main__":
    sys.exit(main())
