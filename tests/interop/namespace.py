"""Runs a program where there is nothing but a loopback device.

Each case of a suite gets a network namespace with addresses of its own, so that nothing can leave
it, and a process namespace, so that nothing stays behind. Needs root or user namespaces.
"""

import os
import subprocess
import time

import harness


def run_alone(program, environment, addresses=()):
    """Runs `program` in new namespaces. Returns what is wrong (`None` if nothing is), what it printed,
    and how many seconds it took. `addresses` are further ones of the loopback device, as `IP/BITS`."""
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
    further = "\n".join(f"ip address add {address} dev lo" for address in addresses)
    setup = f"""
        set -e
        ip link set lo up
        ip address add {harness.HOST}/32 dev lo
        ip address add {harness.TRANSMISSION_HOST}/32 dev lo
        ip address add {harness.TRACKER_HOST}/32 dev lo
        # Or else whoever dials an address of the machine would come from that same address.
        ip route replace local {harness.TRANSMISSION_HOST} dev lo table local src {harness.HOST}
        ip route replace local {harness.TRACKER_HOST} dev lo table local src {harness.HOST}
        {further}
        exec "$@"
    """
    started = time.monotonic()
    done = subprocess.run(
        [*unshare, "sh", "-c", setup, "sh", *program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.monotonic() - started
    if done.returncode == 0:
        return None, done.stdout, seconds
    return done.stdout.strip() or f"it ended with exit code {done.returncode}", done.stdout, seconds


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
