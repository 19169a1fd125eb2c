#!/usr/bin/env python3
"""How smooth the pages are: time of each frame and memory, with swarms larger than any test makes.

    bench.py [--pieces 100000] [--peers 500] [--torrents 1000] [--rate 80] [--seconds 6]

A frame's time is all that the page's thread does for it: script, style, layout and paint, from the frame's
beginning to the first task after it. Memory is the script's heap after a collection, and what the page's
process holds for itself alone. The last line says whether the median is below 16 ms and heap and process
are below 150 MB.
"""

import argparse
import os
import statistics
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # noqa: E402
from mock import Mock  # noqa: E402

MEASURE = """(seconds) => new Promise((done) => {
    const frames = [], gaps = [];
    const channel = new MessageChannel();
    let begun = 0, before = 0;
    const end = performance.now() + 1000 * seconds;
    channel.port1.onmessage = () => {
        frames.push(performance.now() - begun);
        if (performance.now() > end) done({ frames, gaps });
    };
    const frame = (now) => {
        begun = performance.now();
        if (before) gaps.push(now - before);
        before = now;
        channel.port2.postMessage(0);
        if (begun <= end) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""


def private(pid):
    """Bytes that a process alone holds."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        lines = dict(line.split(":", 1) for line in file if ":" in line)
    return sum(int(lines[key].split()[0]) << 10 for key in ("Private_Clean", "Private_Dirty"))


def measure(browser, name, url, ready, act=None, seconds=6.0):
    page = browser.page(url)
    page.wait(ready, f"{name} to be there", 60)
    page.eval("new Promise((done) => setTimeout(done, 1500))")
    if act:
        page.eval(act)
    answer = page.eval(f"({MEASURE})({seconds})", seconds + 60)
    page.call("HeapProfiler.collectGarbage")
    heap = next(m["value"] for m in page.call("Performance.getMetrics")["metrics"] if m["name"] == "JSHeapUsedSize")
    renderers = [p["id"] for p in browser.call("SystemInfo.getProcessInfo")["processInfo"] if p["type"] == "renderer"]
    process = max(private(pid) for pid in renderers)
    frames = sorted(answer["frames"])
    median, late = statistics.median(frames), frames[int(0.95 * len(frames))]
    gap = statistics.median(answer["gaps"])
    print(f"{name:34} {median:7.2f} {late:7.2f} {frames[-1]:7.2f} {gap:7.2f} {heap / 1e6:8.1f} {process / 1e6:8.1f}", flush=True)
    errors = page.errors
    page.close()
    if errors:
        print(f"  errors: {errors[:3]}")
    return median < 16 and heap < 150e6 and process < 150e6 and not errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=100_000)
    parser.add_argument("--peers", type=int, default=500)
    parser.add_argument("--torrents", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    seconds = options.seconds
    mock = Mock(options.pieces, options.peers, options.torrents, options.rate)
    daemon, tracker = mock.url("daemon"), mock.url("tracker")
    print(f"{options.pieces} pieces, {options.peers} peers, {options.torrents} torrents, {options.rate} events a second")
    print(f"{'':34} {'median':>7} {'95 %':>7} {'most':>7} {'between':>7} {'heap':>8} {'process':>8}")
    print(f"{'':34} {'ms':>7} {'ms':>7} {'ms':>7} {'ms':>7} {'MB':>8} {'MB':>8}")
    scroll = "(() => { let y = 0; setInterval(() => scrollTo(0, y = (y + 60) % 20000), 16); })()"
    cases = [
        ("daemon: list", daemon, "document.querySelectorAll('.torrents .row').length > 5", None),
        ("daemon: list, scrolling", daemon, "document.querySelectorAll('.torrents .row').length > 5", scroll),
        ("daemon: piece map", f"{daemon}#/t/{mock.torrent}", "document.querySelectorAll('.givers .row').length > 5", None),
        ("tracker: catalogue", tracker, "document.querySelectorAll('.catalogue .row').length > 5", None),
        ("tracker: heat map", f"{tracker}#/t/{mock.torrent}", "document.querySelectorAll('.heat-row').length > 5", None),
        ("tracker: heat map, whole swarm", f"{tracker}#/t/{mock.torrent}", "document.querySelectorAll('.heat-row').length > 5", "document.getElementById('overview').click()"),
        ("tracker: requests", f"{tracker}#/requests", "document.querySelectorAll('.requests .row').length > 5", None),
    ]
    good = True
    for name, url, ready, act in cases:
        # One at a time, each in a process of its own.
        browser = Browser()
        try:
            good &= measure(browser, name, url, ready, act, seconds)
        finally:
            browser.close()
    print("within bounds" if good else "NOT WITHIN BOUNDS")
    return 0 if good else 1


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"took {time.monotonic() - started:.0f} s")
    sys.exit(status)
