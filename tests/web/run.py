#!/usr/bin/env python3
"""Both web pages in a real browser, during a live transfer of our own programs.

    run.py [--bin DIR] [--axe FILE] [--screenshots DIR] [--keep]

A tracker, daemons that seed, and one that downloads, all on this machine, with limits so that it takes a
while; a headless Chromium opens the downloader's page and the tracker's. The maps on the canvases are held
against the API, pixel by pixel; torrents are dropped in, added, paused, resumed and removed with mouse and
keyboard; nothing may be logged as an error, no other host may be asked, and axe-core must find nothing. With
`--screenshots` more peers take part and pictures are kept. The last line is the result.
"""

import argparse
import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request

from browser import Browser

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from actions import Actions  # noqa: E402
from checks import Failure, check, wait_for  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIVE = "document.getElementById('link').dataset.state === 'live'"


class Program:
    """One of our programs in a folder of its own; it says where it listens."""

    def __init__(self, binary, folder, config, says, env=None, args=()):
        os.makedirs(folder, exist_ok=True)
        self.binary, self.folder, self.says, self.args = binary, folder, says, args
        self.config = os.path.join(folder, "config.toml")
        with open(self.config, "w") as file:
            file.write(config)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PIECEWORK_")} | (env or {})
        self.process = None

    def start(self):
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--config", self.config, *self.args], cwd=self.folder, env=self.env,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )
        line = self.process.stdout.readline()
        found = re.search(self.says, line)
        check(found, f"{self.binary} said `{line.strip()}`; see {self.folder}/log")
        self.host = found[1]
        return self

    def ask(self, method, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | (headers or {})
        # What shows a daemon that its owner asks.
        token = os.path.join(self.folder, "state.token")
        if os.path.exists(token):
            with open(token) as file:
                headers["Authorization"] = f"Bearer {file.read().strip()}"
        request = urllib.request.Request(f"http://{self.host}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Failure(f"{method} {path}: {error.code} {error.read().decode()[:300]}") from None
        return json.loads(text) if text.strip() else None

    def bytes(self, path):
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=20) as answer:
            return answer.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()


class Swarm:
    """The programs of one run."""

    def __init__(self, binaries, folder, seeders, others, pieces, piece):
        self.folder, self.binaries, self.programs, self.piece = folder, binaries, [], piece
        self.tracker = self.add("torrent-tracker", "tracker", f'[tracker]\nlisten = "127.0.0.1:0"\ntorrents = "{folder}/tracker/torrents"\nstate = "{folder}/tracker/state.sqlite"\n'
                                'min_interval = "1s"\ninterval = "2s"\n', r"http://([\d.]+:\d+)/announce")
        self.seeders = [self.daemon(f"seeder{n}") for n in range(seeders)]
        self.leecher = self.daemon("leecher")
        # Of some the tracker is not told what they hold: it looks itself.
        self.others = [self.daemon(f"other{n}", more="report_holdings = false\n" if n % 2 else "") for n in range(others)]
        self.pieces = pieces
        content = os.path.join(folder, "linux-image.iso")
        with open(content, "wb") as file:
            file.write(os.urandom(pieces * piece))
        self.content = content
        self.torrent_file = os.path.join(folder, "linux-image.torrent")
        answer = self.seed(self.seeders[0], content)
        self.info_hash = answer["info_hash"]
        with urllib.request.urlopen(f"http://{self.seeders[0].host}/torrents/{self.info_hash}/torrent") as torrent, open(self.torrent_file, "wb") as file:
            file.write(torrent.read())
        for other in self.seeders[1:]:
            self.seed(other, content, self.torrent_file)

    def add(self, name, folder, config, says, **more):
        program = Program(os.path.join(self.binaries, name), os.path.join(self.folder, folder), config, says, **more)
        self.programs.append(program)
        return program.start()

    def daemon(self, name, more="", **options):
        folder = os.path.join(self.folder, name)
        return self.add("torrent-daemon", name, f'[peer]\nlisten = "127.0.0.1:0"\ntracker = "{self.tracker.host}"\ntorrents = "{folder}/torrents"\ndownloads = "{folder}/downloads"\n{more}'
                        f'[daemon]\ncontrol = "127.0.0.1:0"\nrpc = ""\nstate = "{folder}/state.sqlite"\n'
                        # Run as root, a daemon shares from its own folders only unless told otherwise.
                        f'seed_roots = ["{self.folder}"]\n', r"control on http://([\d.]+:\d+)", **options)

    def seed(self, daemon, path, torrent=None):
        """One has it made; the others are given the made one."""
        request = {"input": path, "piece_length": self.piece}
        if torrent:
            with open(torrent, "rb") as file:
                request = {"input": path, "torrent": base64.b64encode(file.read()).decode()}
        return daemon.ask("POST", "/seed", request)

    def limit(self, rates):
        """Upload limits of the seeders, bytes a second; `None`: none."""
        for seeder, rate in zip(self.seeders, rates):
            seeder.ask("PATCH", "/settings", {"upload_limit": rate})

    def close(self):
        for program in self.programs:
            program.kill()


# What the piece map shows, read from its canvas: for each piece the colour in the middle of its cell.
CELLS = """(() => {
    const map = document.querySelector('#map [role=slider]');
    const { columns, cell, pieces } = map.dataset;
    const canvas = map.querySelector('canvas');
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colors = [];
    for (let i = 0; i < pieces; i += 1) {
        const x = (i % columns) * cell + Math.floor(cell / 3), y = Math.floor(i / columns) * cell + Math.floor(cell / 3);
        const at = 4 * (y * canvas.width + x);
        colors.push(`${data[at]},${data[at + 1]},${data[at + 2]}`);
    }
    const swatches = {};
    for (const row of document.querySelectorAll('.givers [role=row]:has(canvas.swatch:not(.kept))')) {
        const pixel = row.querySelector('canvas').getContext('2d').getImageData(4, 4, 1, 1).data;
        swatches[row.querySelector('button').innerText] = `${pixel[0]},${pixel[1]},${pixel[2]}`;
    }
    const hex = getComputedStyle(document.documentElement).getPropertyValue('--missing').trim().slice(1);
    const missing = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)).join(',');
    return { colors, swatches, missing };
})()"""

# What the heat map shows: for each peer in sight, the number of its pixels that are not the neutral colour.
ROWS = """(() => {
    const canvas = document.querySelector('.heat-map canvas');
    const hex = getComputedStyle(document.documentElement).getPropertyValue('--missing').trim().slice(1);
    const neutral = [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16));
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const rows = {};
    for (const node of document.querySelectorAll('.heat-row')) {
        const top = Math.round(new DOMMatrix(getComputedStyle(node).transform).f * canvas.height / canvas.clientHeight);
        let filled = 0;
        for (let x = 0; x < canvas.width; x += 1) {
            const at = 4 * ((top + 8) * canvas.width + x);
            if (neutral.some((value, i) => data[at + i] !== value)) filled += 1;
        }
        rows[node.querySelector('button').innerText] = filled / canvas.width;
    }
    return rows;
})()"""


class Run:
    def __init__(self, swarm, browser, axe, screenshots):
        self.swarm, self.browser, self.axe, self.screenshots = swarm, browser, axe, screenshots
        self.passed = 0
        self.hash = swarm.info_hash

    def shot(self, page, name):
        if self.screenshots:
            page.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            page.screenshot(os.path.join(self.screenshots, f"{name}.webp"))

    def shots(self, page, name, height=900):
        """A page in light, in dark, and on a phone."""
        if not self.screenshots:
            return
        # Notices of what was done before go by themselves within seconds.
        page.eval("document.getElementById('notices').replaceChildren()")
        for kind, dark, size in [("light", False, (1280, height)), ("dark", True, (1280, height)), ("phone", False, (390, 844, 1.5, True))]:
            page.dark(dark)
            page.size(*size)
            time.sleep(0.4)
            self.shot(page, f"daemon-{name}-{kind}")
        page.dark(False)
        page.size(1280, 860)

    def accessible(self, page, where):
        if self.axe is None:
            return
        for dark in (False, True):
            page.dark(dark)
            found = page.axe(self.axe)
            check(not found, f"axe-core, {where}{' in the dark' if dark else ''}: {json.dumps(found, indent=1)}")
        page.dark(False)

    def clean(self, page, host):
        """Nothing went wrong, and nobody else was asked."""
        check(not page.errors, f"the console says: {page.errors}")
        others = {url for url in page.requests if not url.startswith((f"http://{host}/", "data:"))}
        check(not others, f"other hosts were asked: {others}")

    def step(self, name, work, *args):
        started = time.monotonic()
        work(*args)
        self.passed += 1
        print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)

    def all(self):
        leecher, tracker = self.swarm.leecher, self.swarm.tracker
        self.page = self.browser.page(f"http://{leecher.host}/")
        self.theirs = self.browser.page()
        for name, work in [
            ("an empty daemon says what to do", self.empty),
            ("a dropped .torrent is downloaded", self.dropped),
            ("the piece map grows as the journal says", self.growing),
            ("the tracker's heat map grows as its API says", self.heat),
            ("a click pauses, a click resumes", self.pausing),
            ("keys tell a piece's story", self.keys),
            ("files have priorities", self.files),
            ("a small screen shows all of it", self.small),
            ("the tracker answers questions", self.questions),
            ("requests are found as they flow", self.requests),
            ("the whole map is right at the end", self.finished),
            ("the catalogue's torrents are added by name", self.by_name),
            ("a torrent and its files are removed", self.removing),
            *Actions(self.page, self.swarm, self.accessible, self.shots).steps(),
            ("a daemon that is gone is missed, and found again", self.lost),
            ("a password is asked for", self.password),
        ]:
            self.step(name, work)

    def empty(self):
        page, host = self.page, self.swarm.leecher.host
        check(page.eval("location.pathname") == "/ui/", "the address alone does not lead to the page")
        page.wait(LIVE, "the stream")
        page.wait("document.querySelector('.empty')?.innerText.includes('torrent-leech')", "what to type")
        self.accessible(page, "the empty list")
        # No number becomes one with an exponent, however it is rounded.
        said = page.eval("import('/ui/common/format.js').then((format) => [0, 999, 1000, 999.4 * 1024, 999.6 * 1024, 1023 * 1024, 1023.9 * 1024 ** 3].map(format.bytes))")
        check(said == ["0 B", "999 B", "0.977 KiB", "999 KiB", "0.976 MiB", "0.999 MiB", "1.00 TiB"], f"sizes are said as {said}")
        self.clean(page, host)

    def dropped(self):
        page = self.page
        self.swarm.limit([400_000, 250_000] if self.screenshots else [150_000, 150_000])
        self.company()
        page.drop("main", self.swarm.torrent_file)
        page.wait("document.querySelector('dialog h2').innerText === 'linux-image.iso'", "what is in it")
        page.click("#add-yes")
        page.wait("document.querySelector('.torrents .row .name a')?.innerText === 'linux-image.iso'", "the torrent in the list")
        page.wait("document.querySelector('.torrents .state').innerText.includes('downloading')", "it to download")
        self.accessible(page, "the list")
        page.click(".torrents .row .name a")
        page.wait("document.querySelector('h1').innerText === 'linux-image.iso'", "its own view")

    def company(self):
        """For pictures: others that are on their way already."""
        with open(self.swarm.torrent_file, "rb") as file:
            source = {"torrent": base64.b64encode(file.read()).decode()}
        for n, other in enumerate(self.swarm.others):
            rate = [240_000, 150_000, 200_000, 60_000, 100_000, 30_000][n % 6]
            other.ask("POST", "/leech", {"source": source, "download_limit": rate, "upload_limit": 20_000 + rate // 2})
        if self.swarm.others:
            first = self.swarm.others[0]
            wait_for("the others to be on their way", lambda: first.ask("GET", "/status")["torrents"][0]["pieces_have"] > 0.4 * self.swarm.pieces, 120)

    def givers(self):
        return self.swarm.leecher.ask("GET", f"/torrents/{self.hash}/givers")

    def differing(self, shown, answer, but=None):
        """Cells that are not as the API says; those that are `but`, there or here, are not looked at."""
        by_id = {giver["id"]: giver["peer"] for giver in answer["givers"]}
        owners, colors = answer["by_piece"], shown["colors"]
        check(len(colors) == len(owners), f"{len(colors)} cells for {len(owners)} pieces")
        right = [shown["missing"] if owner == -1 else shown["swatches"].get(by_id.get(owner), "?") for owner in owners]
        return [(i, a, b) for i, (a, b, owner) in enumerate(zip(colors, right, owners)) if a != b and (but is None or but not in (a, owner))]

    def compare(self):
        return self.differing(self.page.eval(CELLS), self.givers())

    def growing(self):
        page = self.page
        givers = len(self.swarm.seeders)
        wait_for("all seeders to give", lambda: len(self.givers()["givers"]) >= givers)
        page.wait(f"document.querySelectorAll('.givers .row').length >= {givers}", "the givers")
        wait_for("some pieces", lambda: sum(owner >= 0 for owner in self.givers()["by_piece"]) > 20)
        # It moves on between two looks: what the API said before is shown, and what is shown it says after.
        before = self.givers()
        wait_for("the map to show what the API said", lambda: not self.differing(page.eval(CELLS), before, -1))
        shown = page.eval(CELLS)
        wrong = self.differing(shown, self.givers(), shown["missing"])
        check(not wrong, f"the map shows what the API does not say: {wrong[:5]}")
        if self.screenshots:
            wait_for("most of it", lambda: self.swarm.leecher.ask("GET", f"/torrents/{self.hash}")["pieces_have"] > 0.5 * self.swarm.pieces, 240)
            page.wait("document.querySelectorAll('.peers .row').length > 1", "peers")
            page.click("#map [role=slider]")
            page.wait("document.querySelector('.story li time')", "a story")
            page.eval("scrollTo(0, 0)")
            self.shots(page, "leech", 1240)
        self.accessible(page, "one torrent")

    def heat(self):
        page, host = self.theirs, self.swarm.tracker.host
        page.goto(f"http://{host}/")
        check(page.eval("location.pathname") == "/ui/", "the address alone does not lead to the page")
        page.wait("document.querySelector('.catalogue .row .name a')?.innerText === 'linux-image.iso'", "the catalogue")
        self.accessible(page, "the catalogue")
        page.click(".catalogue .row .name a")
        peers = len(self.swarm.seeders) + len(self.swarm.others) + 1
        page.wait(f"document.querySelectorAll('.heat-row').length === {peers}", "all peers in the map")
        wait_for("the heat map to show what the API says", self.heat_is_right)
        self.accessible(page, "a heat map")
        if self.screenshots:
            page.size(1280, 1010)
            page.dark(True)
            self.shot(page, "tracker-dark")
            page.dark(False)
            page.click(".heat-row:nth-child(3) button")
            page.wait("document.querySelector('.answer').innerText.includes('Without it:')", "an answer")
            page.eval("scrollTo(0, 0)")
            self.shot(page, "tracker-light")
            page.click(".heat-row:nth-child(3) button")
            page.size(1280, 860)

    def heat_is_right(self):
        shown = self.theirs.eval(ROWS)
        answer = self.swarm.tracker.ask("GET", f"/torrents/{self.hash}/map")
        held = {row["peer"]: (row["held"] or 0) / answer["pieces"] for row in answer["peers"]}
        return held and set(shown) == set(held) and any(0 < part < 1 for part in held.values()) and all(abs(shown[peer] - part) < 0.02 for peer, part in held.items())

    def pausing(self):
        page = self.page
        page.click("#pause")
        page.wait("document.querySelector('.title .state').innerText.includes('paused') && document.querySelector('#pause').innerText === 'Resume'", "it to be paused")
        check(self.swarm.leecher.ask("GET", f"/torrents/{self.hash}")["state"] == "paused", "the daemon did not pause it")
        # Now nothing moves, so that nothing may differ.
        wait_for("the map at rest to be the API's", lambda: not self.compare(), 10)
        page.click("#pause")
        page.wait("document.querySelector('.title .state').innerText.includes('downloading')", "it to download again")

    def keys(self):
        page = self.page
        page.eval("document.querySelector('#map [role=slider]').focus()")
        held = next(i for i, owner in enumerate(self.givers()["by_piece"]) if owner >= 0)
        page.key("Home")
        for _ in range(held):
            page.key("ArrowRight")
        page.wait(f"document.querySelector('#map [role=slider]').ariaValueNow === '{held}'", "the cursor")
        # Of several who gave a part of it, the one that gave most has the cell.
        answer = self.givers()
        giver = next(giver["peer"] for giver in answer["givers"] if giver["id"] == answer["by_piece"][held])
        page.wait(f"document.querySelector('.story').innerText.includes('Piece {held}') && document.querySelector('.story ol').innerText.includes('{giver}')", "the story")
        check(giver in page.eval("document.querySelector('#map [role=slider]').ariaValueText"), "a screen reader is not told who gave it")
        # A giver chosen in the list is the only one that keeps its colour.
        before = len(set(page.eval(CELLS)["colors"]))
        page.click(".givers .row button")
        page.wait("document.querySelector('.givers .row button').ariaPressed === 'true'", "the giver to be chosen")
        check(len(set(page.eval(CELLS)["colors"])) >= before, "choosing a giver changes nothing")
        page.click(".givers .row button")

    def files(self):
        page = self.page
        page.wait("document.querySelector('.files select')", "the files")
        page.eval("(() => { const select = document.querySelector('.files select'); select.value = 'high'; select.dispatchEvent(new Event('change')); })()")
        priority = lambda: self.swarm.leecher.ask("GET", f"/torrents/{self.hash}/files")[0]["priority"]  # noqa: E731
        wait_for("the priority", lambda: priority() == "high")
        page.tab_to(".files select")
        page.key("l")
        wait_for("the priority by a key", lambda: priority() == "low")

    def small(self):
        for page, name in [(self.page, "daemon"), (self.theirs, "tracker-phone")]:
            page.size(390, 844, 2, True)
            page.eval("scrollTo(0, 0)")
            page.wait("document.scrollingElement.scrollWidth <= innerWidth", "it to fit the width")
            page.wait("document.querySelector('.map canvas').clientWidth <= innerWidth - 20", "the map to fit")
            self.accessible(page, f"a small screen ({name})")
            if self.screenshots and page is self.theirs:
                page.eval("document.querySelector('#map').scrollIntoView()")
                self.shot(page, name)
            page.size(1280, 860)
            page.wait("document.querySelector('.map canvas').clientWidth > 390", "the map to grow again")

    def questions(self):
        page, tracker = self.theirs, self.swarm.tracker
        page.type("#piece", "3")
        page.click("#questions button[type=submit]")
        page.wait("document.querySelector('.answer').innerText.includes('Who holds piece 3?') && document.querySelectorAll('.answer li').length > 0", "the holders")
        shown = page.eval("[...document.querySelectorAll('.answer li .mono')].map((node) => node.innerText)")
        held = {one["peer"] for one in tracker.ask("GET", f"/torrents/{self.hash}/pieces/3")["holders"]}
        check(set(shown) <= held and len(shown) >= len(self.swarm.seeders), f"{shown} instead of {held}")
        page.click(".heat-row button")
        page.wait("/Misses:.*Without it:/s.test(document.querySelector('.answer').innerText)", "what it misses")
        page.click(".heat-row button")
        # From the map it takes one click to say why, from the catalogue two.
        page.click(".heat-row button")
        page.wait("/As of:.*Why it is not faster:/s.test(document.querySelector('.answer').innerText)", "why it is not faster")
        page.click(".heat-row button")
        found = self.swarm.tracker.ask("GET", f"/torrents/{self.hash}/map")["peers"][0]["peer"]
        page.type("#find-peer", found)
        page.wait("document.querySelectorAll('.heat-row').length === 1", "the one peer that was looked for")
        page.eval("(() => { const field = document.getElementById('find-peer'); field.value = ''; field.dispatchEvent(new Event('input')); })()")
        page.wait("document.querySelectorAll('.heat-row').length > 1", "all peers again")
        check(not page.eval("[...document.querySelectorAll('.heat-row')].some((row) => row.className.includes('quiet'))"), "a peer that announces in time is called silent")
        page.eval("location.hash = '#/'")
        page.wait("document.querySelector('.catalogue .row .name a')", "the catalogue")
        page.type("#search", found)
        page.wait("document.querySelectorAll('#peers-found li').length === 1", "the peer to be found")
        self.accessible(page, "the peers that were found")
        page.click("#peers-found li a")
        page.wait("document.querySelector('.answer')?.innerText.includes('Why it is not faster:')", "its answer")
        over = page.eval("[...document.querySelectorAll('.heat-row > *')].filter((node) => node.getBoundingClientRect().right > document.querySelector('.heat-map').getBoundingClientRect().left).length")
        check(over == 0, f"{over} texts lie under the map")
        page.click("#at-risk")
        page.wait("document.querySelector('.answer h3').innerText.includes('one holder')", "what is at risk")
        page.click("#overview")
        page.wait("document.querySelector('#overview').ariaPressed === 'true'", "the whole swarm")
        page.click("#overview")
        self.clean(page, tracker.host)

    def requests(self):
        page, tracker = self.theirs, self.swarm.tracker
        page.click(".top nav a[href='#/requests']")
        page.wait("document.querySelectorAll('.requests .row').length > 2", "requests")
        self.accessible(page, "the requests")
        page.type("#search", "started")
        page.wait("[...document.querySelectorAll('.requests .row')].every((row) => row.innerText.includes('started'))", "the filter")
        page.eval("(() => { const field = document.getElementById('search'); field.value = ''; field.dispatchEvent(new Event('input')); })()")
        count = "Number(/([0-9,]+) request/.exec(document.querySelector('main').innerText)[1].replace(',', ''))"
        # What stands behind the address is the filter; written wrongly it is none, and no error.
        for part, filtered in [("star%74ed", "started"), ("%", ""), ("%E0%A4", "")]:
            page.eval(f"location.hash = '#/requests/{part}'")
            page.wait(f"location.hash.endsWith('/{part}') && document.getElementById('search')?.value === '{filtered}'", f"the filter of `{part}`")
            page.wait("document.querySelectorAll('.requests .row').length > 0", f"the requests for `{part}`")
        page.eval("location.hash = '#/requests'")
        page.wait("document.querySelectorAll('.requests .row').length > 2", "all requests again")
        before = page.eval(count)
        with urllib.request.urlopen(f"http://{tracker.host}/torrents?name=nothing-of-that-name") as answer:
            answer.read()
        page.wait(f"{count} > {before}", "a request to appear as it comes")
        page.click("#hold")
        page.wait("document.querySelector('main').innerText.includes('held')", "it to hold")
        page.click("#hold")
        self.clean(page, tracker.host)

    def finished(self):
        page = self.page
        self.swarm.limit([None] * len(self.swarm.seeders))
        page.wait("document.querySelector('.facts').innerText.includes('100 %')", "it to be complete", 60)
        wait_for("the whole map to be the API's", lambda: not self.compare(), 15)
        counts = {}
        answer = self.givers()
        for owner in answer["by_piece"]:
            counts[owner] = counts.get(owner, 0) + 1
        by_id = {giver["id"]: giver["peer"] for giver in answer["givers"]}
        # Those with colours of their own: a row's third cell is its number of pieces.
        def shown():
            return page.eval("Object.fromEntries([...document.querySelectorAll('.givers:not(.takers) .row')].map((row) => [row.children[1].querySelector('button').innerText, Number(row.children[2].innerText.replace(',', ''))]))")

        named = {by_id[owner]: count for owner, count in counts.items() if owner in by_id}
        # The table is drawn anew less often than the map.
        wait_for(f"the givers to be {named}", lambda: named.items() <= shown().items(), 15)
        page.wait("document.querySelector('.timeline canvas').ariaLabel.includes('from')", "the arrivals")
        self.clean(page, self.swarm.leecher.host)

    def by_name(self):
        page = self.page
        other = os.path.join(self.swarm.folder, "second release")
        os.makedirs(other)
        for name in ("one.bin", "two.bin"):
            with open(os.path.join(other, name), "wb") as file:
                file.write(os.urandom(200_000))
        self.other = self.swarm.seed(self.swarm.seeders[0], other)["info_hash"]
        page.click(".back")
        page.wait("document.getElementById('add')", "the list")
        page.click("#add")
        page.wait("document.querySelectorAll('.found li').length >= 2", "the catalogue")
        self.accessible(page, "adding")
        page.type("#catalogue-name", "second")
        page.wait("document.querySelectorAll('.found li').length === 1", "the one that is meant")
        page.click(".found button")
        page.click("#add-yes")
        page.wait("!document.querySelector('dialog') && document.querySelectorAll('.torrents .row').length === 2", "it in the list")
        wait_for("it to be complete", lambda: self.swarm.leecher.ask("GET", f"/torrents/{self.other}")["state"] == "seeding", 60)

    def removing(self):
        page = self.page
        page.click(".torrents .row a[href='#/t/" + self.other + "']")
        page.wait("document.querySelector('h1').innerText === 'second release'", "its own view")
        page.click("#remove")
        page.wait("document.querySelector('dialog[open]')", "the question")
        self.accessible(page, "removing")
        page.click("#delete-data")
        page.wait("document.querySelector('#remove-yes').innerText.includes('delete')", "the warning")
        page.click("#remove-yes")
        page.wait("!document.querySelector('dialog') && document.querySelectorAll('.torrents .row').length === 1", "it to be gone")
        wait_for("its files to be gone", lambda: not os.path.exists(os.path.join(self.swarm.leecher.folder, "downloads", "second release")))
        self.clean(page, self.swarm.leecher.host)

    def password(self):
        """Who has it sees everything; who had another one is told."""
        locked = self.swarm.daemon("locked", env={"PIECEWORK_PASSWORD": "sesame"})
        page = self.browser.page()
        page.refuse_passwords()
        page.expect(401)
        page.goto(f"http://{locked.host}/")
        page.wait("document.activeElement?.id === 'password'", "the form")
        self.accessible(page, "the form that asks for a password")
        page.key("Escape")
        page.wait("!document.querySelector('dialog') && document.querySelector('main').innerText.includes('A password is needed')", "what is missing to be said")
        asked = len(page.requests)
        page.click("#log-in")
        page.wait("document.activeElement?.id === 'password'", "the form again")
        check(len(page.requests) == asked, f"without a password it goes on asking: {page.requests[asked:]}")
        page.write("guess")
        page.key("Enter")
        page.wait("document.querySelector('dialog [role=alert]').innerText.includes('wrong')", "it to be refused")
        page.eval("document.getElementById('password').focus()")
        page.write("sesame")
        page.key("Enter")
        page.wait(LIVE, "the stream")
        page.wait("document.querySelector('.empty')?.innerText.includes('torrent-leech')", "what to type")
        # It is kept in this tab, and asked for again when it holds no more.
        page.goto(f"http://{locked.host}/ui/#/settings")
        page.eval("location.reload()")
        page.wait("document.querySelector('#speed input')", "the settings after a reload")
        page.wait(LIVE, "the stream after a reload")
        locked.env["PIECEWORK_PASSWORD"] = "another"
        self.again(locked)
        page.wait("document.getElementById('link').dataset.state === 'refused' && document.getElementById('link').innerText.includes('password')", "the password to be wanted", 60)
        page.eval("document.getElementById('password').focus()")
        page.write("another")
        page.click("#stay")
        page.click("#login-yes")
        page.wait(LIVE, "the stream with the new one")
        check(page.asked_for_password == 0, "the browser asked for a password besides")
        check(not [error for error in page.errors if "ERR_" not in error], f"the console says: {page.errors}")
        page.close()

    def again(self, program):
        """Kills it and starts it at the same address."""
        host = program.host
        program.kill()
        with open(program.config) as file:
            config = file.read()
        with open(program.config, "w") as file:
            file.write(config.replace('control = "127.0.0.1:0"', f'control = "{host}"'))
        program.start()
        check(program.host == host, f"it came back on {program.host}, not {host}")

    def lost(self):
        """Last, because the browser calls a refused connection an error."""
        page, leecher = self.page, self.swarm.leecher
        leecher.kill()
        page.wait("document.getElementById('link').dataset.state === 'lost' && document.getElementById('link').innerText.includes('trying again')", "it to be missed")
        self.accessible(page, "a daemon that is gone")
        self.again(leecher)
        page.wait(LIVE, "it to be found again", 30)
        page.wait("document.querySelectorAll('.torrents .row').length === 1", "all torrents again")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(ROOT, "target", "debug"), help="our programs")
    parser.add_argument("--axe", default=os.path.join(ROOT, "target", "ci-web", "node_modules", "axe-core", "axe.min.js"), help="axe-core")
    parser.add_argument("--screenshots", help="folder for pictures")
    parser.add_argument("--keep", action="store_true", help="keep the programs' folders")
    options = parser.parse_args()
    with open(options.axe) as file:
        axe = file.read()
    if options.screenshots:
        os.makedirs(options.screenshots, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="piecework-web-")
    started = time.monotonic()
    run = swarm = browser = None
    failed = 0
    try:
        swarm = Swarm(os.path.abspath(options.bin), folder, *((2, 6, 750, 65536) if options.screenshots else (2, 0, 400, 16384)))
        browser = Browser()
        run = Run(swarm, browser, axe, options.screenshots)
        run.all()
    except Failure as failure:
        failed = 1
        print(f"FAILED {failure}")
    except Exception:
        failed = 1
        traceback.print_exc()
    finally:
        if browser:
            browser.close()
        if swarm:
            swarm.close()
    if failed or options.keep:
        print(f"the programs' folders: {folder}")
    else:
        shutil.rmtree(folder)
    print(f"took {time.monotonic() - started:.0f} s")
    print(f"{run.passed if run else 0} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main())
