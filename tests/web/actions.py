"""What can be done on the daemon's page: each action by mouse and by keyboard."""

import base64
import json
import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import check, wait_for  # noqa: E402

ROWS = "[...document.querySelectorAll('.torrents .row')]"


class Actions:
    """The actions on one page; `swarm` has its daemon as `leecher`."""

    def __init__(self, page, swarm, accessible, shots):
        self.page, self.swarm, self.daemon = page, swarm, swarm.leecher
        self.accessible, self.shots = accessible, shots
        self.hashes = {}

    def steps(self):
        return [
            ("only the owner may, and logs in by a form", self.login),
            ("settings are changed, and the turtle", self.settings),
            ("a torrent is added by its address, with folder, files and paused", self.add_by_address),
            ("a magnet link and other links get the daemon's sentence", self.add_what_cannot_be),
            ("a magnet link without metadata is added, paused, copied and removed", self.add_link_that_waits),
            ("several are dropped at once", self.drop_several),
            ("filters and the search choose what is shown", self.filters),
            ("two of one name are told apart", self.twins),
            ("several are selected, and changed together", self.select),
            ("the menu has what can be done to a torrent", self.menu),
            ("a failure says why, and files in the way are replaced", self.failure),
            ("limits, priority and order are those of the torrent", self.limits),
            ("labels are changed", self.labels),
            ("trackers are edited", self.trackers),
            ("files are moved and renamed", self.move_and_rename),
            ("the queue is changed", self.queue),
            ("web seeds, nodes and the source of a torrent are told", self.sources),
            ("rates, totals and room are shown", self.overview),
            ("the .torrent is downloaded", self.download),
            ("a seed shows whom it gave what", self.seed_view),
            ("a file and a folder of the daemon's machine are shared, with progress", self.share),
            ("keys are listed, and lead everywhere", self.keys),
            ("several are removed", self.remove),
        ]

    # What the steps have in common.

    def torrent(self, name):
        return self.daemon.ask("GET", f"/torrents/{self.hashes[name]}")

    def until(self, what, condition, seconds=20):
        wait_for(what, condition, seconds)

    def small(self, name, files=("one.bin", "two.bin", "three.bin")):
        """A folder with some files that the seeder has; gives where its `.torrent` is served."""
        folder = os.path.join(self.swarm.folder, name)
        os.makedirs(folder, exist_ok=True)
        for file in files:
            with open(os.path.join(folder, file), "wb") as opened:
                opened.write(os.urandom(50_000))
        seeder = self.swarm.seeders[0]
        self.hashes[name] = self.swarm.seed(seeder, folder)["info_hash"]
        return f"http://{seeder.host}/torrents/{self.hashes[name]}/torrent"

    def leech(self, name, **more):
        """The same, added to the daemon without the page."""
        url = self.small(name)
        self.daemon.ask("POST", "/leech", {"source": {"url": url}, **more})

    def list(self):
        self.page.eval("location.hash = '#/'")
        self.page.wait("document.querySelector('.torrents .row')", "the list")

    def row(self, name):
        return f"{ROWS}.find((row) => row.querySelector('.name a').getAttribute('aria-label') === '{name}')"

    def choose(self, name):
        """Goes to a row by keys."""
        page = self.page
        self.list()
        page.wait(self.row(name), f"the row of {name}")
        page.eval("document.activeElement?.blur()")
        page.key("ArrowDown")
        for _ in range(40):
            if page.eval("document.activeElement?.getAttribute('aria-label')") == name:
                return
            page.key("ArrowDown")
        check(False, f"the arrows do not lead to {name}")

    def pick(self, label):
        """The entry of an open menu, by keys."""
        page = self.page
        page.wait("document.querySelector('.menu')", "the menu")
        for _ in range(30):
            if (page.eval("document.activeElement?.textContent") or "").startswith(label):
                page.key("Enter")
                return
            page.key("ArrowDown")
        check(False, f"the menu has no `{label}`: {page.text('.menu')}")

    def menu_by_mouse(self, name, label):
        page = self.page
        self.list()
        row = page.mark(f"{self.row(name)}.querySelector('.meter')", f"the row of {name}")
        page.click(row, button="right")
        page.click(page.mark(f"[...document.querySelectorAll('.menu [role^=menuitem]')].find((item) => item.textContent.startsWith('{label}'))", f"`{label}` in the menu"))

    def menu_by_keys(self, name, label):
        self.choose(name)
        self.page.key("m")
        self.pick(label)

    def gone(self):
        self.page.wait("!document.querySelector('dialog')", "the dialog to be closed")

    def confirm(self, by_keys):
        if by_keys:
            self.page.key("Enter")
        else:
            self.page.click("#dialog-yes")
        self.gone()

    # The steps.

    def login(self):
        page = self.page
        with open(os.path.join(self.daemon.folder, "state.token")) as file:
            token = file.read().strip()
        page.expect(401)
        page.click(".top nav a[href='#/settings']")
        page.click("#log-in")
        page.wait("document.querySelector('dialog #password')", "the form")
        self.accessible(page, "the login")
        page.write("wrong")
        page.click("#login-yes")
        page.wait("document.querySelector('dialog [role=alert]').innerText.includes('wrong')", "it to be refused")
        page.write(token) if page.eval("(document.getElementById('password').focus(), true)") else None
        page.click("#login-yes")
        page.wait("!document.querySelector('dialog') && document.getElementById('log-out')", "to be logged in")
        page.click("#log-out")
        page.wait("document.getElementById('log-in')", "to be logged out")
        # A guest who presses a key that only the owner may is asked, and then it is done.
        page.eval("document.activeElement?.blur()")
        page.key("t")
        page.wait("document.activeElement?.id === 'password'", "the form, by a key")
        page.write(token)
        page.key("Enter")
        page.wait("!document.querySelector('dialog') && document.getElementById('turtle').ariaPressed === 'true'", "the turtle after the login")
        page.key("t")
        page.wait("document.getElementById('turtle').ariaPressed === 'false'", "the turtle to be off")
        page.expect(None)

    def setting(self, name):
        return self.daemon.ask("GET", "/settings")[name]

    def settings(self):
        page = self.page
        self.list()
        page.click(".top nav a[href='#/settings']")
        field = page.mark("[...document.querySelectorAll('#speed .field')].find((field) => field.innerText.startsWith('Download at most')).querySelector('input')", "the limit")
        page.click(field)
        page.write("70000")
        page.wait("document.querySelector('#unsaved').innerText.includes('1 changed')", "it to be seen")
        self.accessible(page, "the settings")
        self.shots(page, "settings")
        page.click("#settings-save")
        self.until("the limit to be saved", lambda: self.setting("download_limit") == 70000 * 1024)
        page.click("#turtle")
        self.until("the turtle to be on", lambda: self.setting("alt")["on"])
        page.wait("document.getElementById('turtle').ariaPressed === 'true'", "the turtle to be seen")
        page.click("#turtle")
        self.until("the turtle to be off", lambda: not self.setting("alt")["on"])
        # By keys: to the settings, to the field, and Enter.
        self.list()
        page.eval("document.activeElement?.blur()")
        page.key("s")
        page.wait("document.querySelector('#speed input')", "the settings")
        page.tab_to("#speed input")
        page.write("")
        page.key("Enter")
        self.until("no limit", lambda: self.setting("download_limit") is None)
        # What makes no sense is said where it was written, and nothing is changed.
        page.wait("document.querySelector('#unsaved').innerText.includes('Nothing')", "it to be saved")
        page.tab_to("#speed input")
        page.write("fast")
        page.key("Enter")
        page.wait("document.querySelector('#save-bar [role=alert]').innerText.includes('fast')", "what is wrong")
        check(self.setting("download_limit") is None, "a wrong number changes the limit")
        page.click("#settings-undo")
        page.click("#test-port")
        page.wait("document.querySelector('#connections').innerText.includes('connections.')", "the test of the port")

    def add_by_address(self):
        page = self.page
        first, second = self.small("alpha"), self.small("beta")
        self.list()
        page.click("#add")
        page.click("#add-link")
        page.write(first)
        page.click("#add-next")
        page.wait("document.querySelector('#add-yes') && document.querySelectorAll('.choice .row').length === 3", "what is in it")
        self.accessible(page, "adding with options")
        self.shots(page, "add")
        page.click(page.mark("[...document.querySelectorAll('.choice .row')].find((row) => row.innerText.includes('two.bin')).querySelector('input')", "a file"))
        page.click("#add-start")
        page.click("#add-folder")
        folder = os.path.join(self.daemon.folder, "downloads", "elsewhere")
        page.write(folder)
        page.click("#add-labels")
        page.write("film, new")
        page.click("#add-yes")
        self.gone()
        self.until("alpha to be there", lambda: self.torrent("alpha")["state"] == "paused")
        torrent = self.torrent("alpha")
        check(torrent["folder"] == folder and torrent["settings"]["labels"] == ["film", "new"], f"not as it was wanted: {torrent}")
        check(sum(file["priority"] == "skip" for file in torrent["file_list"]) == 1, "the file is not left out")
        skipped = next(file["path"] for file in torrent["file_list"] if file["priority"] == "skip")
        check(skipped.endswith("two.bin"), f"{skipped} is left out")
        # By keys alone.
        page.eval("document.activeElement?.blur()")
        page.key("a")
        page.wait("document.activeElement?.id === 'add-link'", "the field")
        page.write(second)
        page.key("Enter")
        page.wait("document.querySelector('#add-yes')", "what is in it")
        page.tab_to("#files-none")
        page.key("Enter")
        page.tab_to(".choice input")
        page.key(" ")
        page.tab_to("#add-labels")
        page.write("new")
        page.tab_to("#add-start")
        page.key(" ")
        page.key("Enter")
        self.gone()
        self.until("beta to be there", lambda: self.torrent("beta")["state"] == "paused")
        wanted = [file["priority"] for file in self.torrent("beta")["file_list"]]
        check(sorted(wanted) == ["normal", "skip", "skip"], f"{wanted} instead of one file")
        # By magnet links, which the catalogue of their tracker resolves: by keys and by mouse.
        for name, by_keys in [("theta", True), ("iota", False)]:
            self.small(name)
            link = f"magnet:?xt=urn:btih:{self.hashes[name]}&dn={name}&tr=http://{self.swarm.tracker.host}/announce&x.pe=localhost:9"
            page.eval("document.activeElement?.blur()")
            page.key("a") if by_keys else page.click("#add")
            page.wait("document.activeElement?.id === 'add-link'", "the field")
            page.write(link)
            page.key("Enter") if by_keys else page.click("#add-next")
            page.wait(f"document.querySelector('#add-yes') && document.querySelector('dialog:last-of-type h2').innerText === '{name}'", "what is in it")
            page.key("Enter") if by_keys else page.click("#add-yes")
            self.gone()
            self.until(f"{name} to be whole", lambda: self.torrent(name)["state"] == "seeding", 40)
            self.daemon.ask("DELETE", f"/torrents/{self.hashes[name]}", {"delete_data": True})

    def add_what_cannot_be(self):
        page = self.page
        self.list()
        page.expect(400, 403, 404, 502)
        page.click("#add")
        for typed in ["magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=nothing", "ftp://127.0.0.1/x.torrent", "0123456789abcdef0123456789abcdef01234567"]:
            page.click("#add-link")
            page.write(typed)
            page.click("#add-next")
            page.wait("!document.getElementById('add-next').disabled && document.querySelector('dialog [role=alert]').innerText.length > 20", f"a sentence about {typed}", 60)
        page.key("Escape")
        self.gone()
        page.expect(None)

    def add_link_that_waits(self):
        page = self.page
        info_hash = "89abcdef0123456789abcdef0123456789abcdef"
        link = f"magnet:?xt=urn:btih:{info_hash}&dn=waits&tr=http://{self.swarm.tracker.host}/announce"
        self.list()
        page.expect(404)
        page.click("#add")
        page.click("#add-link")
        page.write(link)
        page.click("#add-next")
        page.wait("document.querySelector('#add-yes') && document.querySelector('dialog:last-of-type h2').innerText === 'waits'", "its options", 60)
        page.click("#add-yes")
        self.gone()
        state = lambda: self.daemon.ask("GET", f"/torrents/{info_hash}")["state"]
        self.until("it to be listed", lambda: state() == "metadata")
        page.eval(f"location.hash = '#/t/{info_hash}'")
        page.wait("document.querySelector('.state')?.innerText.includes('metadata')", "what it does")
        page.wait(f"document.body.innerText.includes({link[:60]!r})", "its link")
        page.eval("document.activeElement?.blur()")
        page.key("p")
        self.until("it to be paused", lambda: state() == "paused")
        # The page decides by what it shows what the key does.
        page.wait("document.querySelector('.state')?.innerText.includes('paused')", "the page to know it")
        page.key("p")
        self.until("it to be fetched", lambda: state() == "metadata")
        self.daemon.ask("DELETE", f"/torrents/{info_hash}")
        self.list()
        page.expect(None)

    def drop_several(self):
        page = self.page
        files = []
        for name in ("gamma", "delta"):
            self.small(name)
            file = os.path.join(self.swarm.folder, f"{name}.torrent")
            with open(file, "wb") as opened:
                opened.write(self.swarm.seeders[0].bytes(f"/torrents/{self.hashes[name]}/torrent"))
            files.append(file)
        self.list()
        page.drop("main", *files)
        page.wait("document.querySelectorAll('dialog .found li').length === 2", "both to be asked about")
        page.key("Enter")
        self.gone()
        for name in ("gamma", "delta"):
            self.until(f"{name} to be complete", lambda: self.torrent(name)["state"] == "seeding", 40)

    def shown(self):
        return set(self.page.eval(f"{ROWS}.map((row) => row.querySelector('.name a').getAttribute('aria-label'))"))

    def filters(self):
        page = self.page
        self.list()
        page.wait("document.querySelector('.chip[data-label=new] .count')?.innerText === '2'", "the count of a label")
        page.wait("document.querySelector('.chip[data-kind=paused] .count').innerText === '2'", "the count of the paused")
        page.click(".chip[data-label=film]")
        self.until("the label to choose", lambda: self.shown() == {"alpha"})
        page.click(".chip[data-label=film]")
        page.click(".chip[data-kind=paused]")
        self.until("the state to choose", lambda: self.shown() == {"alpha", "beta"})
        page.tab_to(".chip[data-kind=all]", back=True)
        page.key("Enter")
        self.until("all again", lambda: {"alpha", "gamma"} <= self.shown())
        page.eval("document.activeElement?.blur()")
        page.key("/")
        page.write("gam")
        self.until("the search to choose", lambda: self.shown() == {"gamma"})
        page.key("ArrowDown")
        check(page.eval("document.activeElement?.getAttribute('aria-label')") == "gamma", "the arrow does not lead into the list")
        page.key("/")
        page.write("")
        self.until("all again", lambda: {"alpha", "gamma"} <= self.shown())
        self.shots(page, "list")
        row = page.eval(f"{self.row('gamma')}.innerText")
        check("146 KiB" in row and "seeding" in row, f"size and state are missing: {row}")
        for column in ("Size", "Ratio", "Added"):
            page.click(page.mark(f"[...document.querySelectorAll('.list-head .sort')].find((one) => one.innerText === '{column}')", column))
            page.wait(f"[...document.querySelectorAll('.list-head [aria-sort]')].some((one) => one.innerText.startsWith('{column}'))", f"the order by {column}")
        page.click(page.mark("[...document.querySelectorAll('.list-head .sort')].find((one) => one.innerText === 'Name')", "Name"))

    def twins(self):
        page = self.page
        folder = os.path.join(self.swarm.folder, "again", "gamma")
        os.makedirs(folder)
        with open(os.path.join(folder, "other.bin"), "wb") as file:
            file.write(os.urandom(40_000))
        twin = self.swarm.seed(self.swarm.seeders[0], folder)["info_hash"]
        source = {"url": f"http://{self.swarm.seeders[0].host}/torrents/{twin}/torrent"}
        self.daemon.ask("POST", "/leech", {"source": source, "output": "twins", "paused": True})
        self.list()
        for info_hash in (twin, self.hashes["gamma"]):
            page.wait(f"{ROWS}.some((row) => row.innerText.includes('{info_hash[:8]} in '))", "both to say which they are")
        self.daemon.ask("DELETE", f"/torrents/{twin}")
        page.wait(f"!{ROWS}.some((row) => row.innerText.includes(' in /'))", "it to be said no more")

    def states(self, *names):
        return {self.torrent(name)["state"] for name in names}

    def select(self):
        page = self.page
        self.list()
        page.click(page.mark(f"{self.row('gamma')}.querySelector('input')", "a box"))
        page.click(page.mark(f"{self.row('delta')}.querySelector('.meter')", "a row"), ctrl=True)
        page.wait("document.querySelector('.bulk').innerText.includes('2 torrents selected')", "two to be selected")
        self.accessible(page, "a selection")
        page.click("#bulk-pause")
        self.until("both to be paused", lambda: self.states("gamma", "delta") == {"paused"})
        page.click("#bulk-resume")
        self.until("both to go on", lambda: self.states("gamma", "delta") == {"seeding"})
        page.click("#bulk-more")
        page.click(page.mark("[...document.querySelectorAll('.menu [role^=menuitem]')].find((item) => item.textContent.startsWith('Check files'))", "a check"))
        self.until("both to seed again", lambda: self.states("gamma", "delta") == {"seeding"})
        page.click("#bulk-none")
        page.wait("document.querySelector('.bulk').hidden", "nothing to be selected")
        # By keys: two neighbours, then all.
        self.choose("delta")
        page.key(" ")
        page.key("ArrowDown", shift=True)
        page.wait("document.querySelector('.bulk').innerText.includes('2 torrents selected')", "two to be selected by keys")
        page.key("p")
        self.until("both to be paused by a key", lambda: self.states("gamma", "delta") == {"paused"})
        page.wait(f"['gamma', 'delta'].every((name) => {ROWS}.find((row) => row.innerText.includes(name)).innerText.includes('paused'))", "the page to show it")
        page.key("p")
        self.until("both to go on by a key", lambda: self.states("gamma", "delta") == {"seeding"})
        page.key("a", ctrl=True)
        page.wait(f"document.querySelector('.bulk').innerText.includes(`${{{ROWS}.length}} torrents selected`)", "all to be selected")
        page.key("Escape")
        page.wait("document.querySelector('.bulk').hidden", "none to be selected")

    def menu(self):
        page = self.page
        self.list()
        page.click(page.mark(f"{self.row('gamma')}.querySelector('.plain-icon')", "the button of the menu"))
        page.wait("document.querySelector('.menu [role=menuitem]') === document.activeElement", "the menu, with its first entry")
        self.accessible(page, "a menu")
        page.key("Escape")
        page.wait("!document.querySelector('.menu')", "the menu to be closed")
        for by, label, state in [(self.menu_by_mouse, "Pause", "paused"), (self.menu_by_mouse, "Resume", "seeding"), (self.menu_by_keys, "Pause", "paused"), (self.menu_by_keys, "Start now", "seeding")]:
            by("gamma", label)
            self.until(f"gamma to be {state}", lambda: self.torrent("gamma")["state"] == state)
            page.wait(f"{self.row('gamma')}.innerText.includes('{state}')", "the page to show it")
        check(self.torrent("gamma")["settings"]["forced"], "it is not started whatever the queue says")
        for by in (self.menu_by_mouse, self.menu_by_keys):
            asked = lambda: sum(url.endswith("/reannounce") for url in page.requests)  # noqa: E731
            before = asked()
            by("gamma", "Ask trackers again")
            self.until("the trackers to be asked", lambda: asked() == before + 1)
            page.wait("document.getElementById('said').innerText.includes('trackers are asked')", "it to be said")

    def failure(self):
        page = self.page
        for by, name in [(self.menu_by_mouse, "epsilon"), (self.menu_by_keys, "zeta")]:
            in_the_way = os.path.join(self.daemon.folder, "downloads", name, "one.bin")
            os.makedirs(os.path.dirname(in_the_way))
            with open(in_the_way, "wb") as file:
                file.write(b"somebody's")
                file.truncate(60_000)
            self.leech(name)
            self.until(f"{name} to fail", lambda: self.torrent(name)["state"] == "failed")
            reason = self.torrent(name)["error"]
            self.list()
            page.wait(f"{self.row(name)}.querySelector('.about.bad').innerText.includes({json.dumps(reason[:40])})", "the reason in the list")
            page.wait("document.querySelector('.chip[data-kind=failed] .count').innerText === '1'", "the count of failures")
            self.accessible(page, "a failure in the list")
            page.eval(f"location.hash = '#/t/{self.hashes[name]}'")
            page.wait(f"document.querySelector('.trouble').innerText.includes({json.dumps(reason[:40])})", "the reason in its view")
            self.accessible(page, "the view of a failure")
            by(name, "Replace files")
            self.until(f"{name} to be whole", lambda: self.torrent(name)["state"] == "seeding", 40)
            self.daemon.ask("DELETE", f"/torrents/{self.hashes[name]}", {"delete_data": True})

    def limits(self):
        page = self.page
        limit = "[...document.querySelectorAll('dialog .field')].find((field) => field.innerText.startsWith('{}')).querySelector('input')"
        self.menu_by_mouse("gamma", "Limits")
        page.click(page.mark(limit.format("Download at most"), "the limit"))
        page.write("100")
        page.click(page.mark(limit.format("Upload at most"), "the limit"))
        page.write("1.5")
        page.eval("(() => { const unit = document.querySelectorAll('dialog .pair-field select')[1]; unit.value = 'MiB'; unit.dispatchEvent(new Event('change', { bubbles: true })); })()")
        ratio = page.mark("[...document.querySelectorAll('dialog .field')].find((field) => field.innerText.includes('at a ratio')).querySelector('select')", "the ratio")
        page.eval(f"(() => {{ const node = document.querySelector('{ratio}'); node.value = 'at'; node.dispatchEvent(new Event('change')); }})()")
        page.click(page.mark("[...document.querySelectorAll('dialog .field')].find((field) => field.innerText.includes('at a ratio')).querySelector('input')", "the ratio"))
        page.write("2.5")
        self.accessible(page, "the limits")
        self.confirm(False)
        settings = self.torrent("gamma")["settings"]
        check((settings["download_limit"], settings["upload_limit"], settings["seed_ratio"]) == (102400, 1572864, {"at": 2.5}), f"the limits are {settings}")

        def shown():
            self.menu_by_keys("gamma", "Limits")
            if page.wait("document.querySelector('dialog .pair-field input')", "the limits") and page.eval("document.querySelector('dialog .pair-field input').value") == "100":
                return True
            page.key("Escape")
            return False

        self.until("the dialog to show the limit", shown)
        page.tab_to("dialog .pair-field input")
        page.write("")
        self.confirm(True)
        self.until("the limit to be gone", lambda: self.torrent("gamma")["settings"]["download_limit"] is None)
        check(self.torrent("gamma")["settings"]["upload_limit"] == 1572864, "what was not touched is changed")
        for by, on in [(self.menu_by_mouse, True), (self.menu_by_keys, False)]:
            by("gamma", "Pieces in order")
            self.until("the order of pieces", lambda: self.torrent("gamma")["settings"]["sequential"] is on)
            self.until("the menu to show it", lambda: self.marked("gamma") is on)

    def marked(self, name):
        """Whether the menu has a mark at its only entry that can have one."""
        self.choose(name)
        self.page.key("m")
        found = self.page.eval("document.querySelector('.menu [role=menuitemcheckbox]').ariaChecked === 'true'")
        self.page.key("Escape")
        return found

    def labels(self):
        page = self.page
        for by, by_keys, labels in [(self.menu_by_mouse, False, ["a", "b"]), (self.menu_by_keys, True, ["new"])]:
            by("gamma", "Labels")
            page.wait("document.activeElement?.id === 'labels'", "the field")
            self.accessible(page, "labels")
            page.write(", ".join(labels))
            self.confirm(by_keys)
            self.until("the labels", lambda: self.torrent("gamma")["settings"]["labels"] == labels)

    def trackers(self):
        page, tracker = self.page, f"udp://{self.swarm.tracker.host}/announce"
        page.eval(f"location.hash = '#/t/{self.hashes['gamma']}'")
        page.wait(f"document.querySelector('.trackers .row')?.innerText.includes('{tracker}')", "the tracker")
        page.wait("document.querySelector('.trackers .row').innerText.includes('works')", "how it does")
        urls = lambda: [one["url"] for one in self.torrent("gamma")["trackers"]]  # noqa: E731
        page.click("#edit-trackers")
        page.wait("document.activeElement?.id === 'trackers-text'", "the addresses")
        page.write(f"{tracker}\n\nhttp://127.0.0.1:9/announce")
        self.accessible(page, "the trackers")
        page.click("#dialog-yes")
        self.gone()
        self.until("both trackers", lambda: urls() == [tracker, "http://127.0.0.1:9/announce"])
        page.wait("document.querySelectorAll('.trackers .row').length === 2", "both to be shown")
        self.menu_by_keys("gamma", "Trackers")
        page.wait("document.activeElement?.id === 'trackers-text'", "the addresses")
        page.write(tracker)
        page.tab_to("#dialog-yes")
        self.confirm(True)
        self.until("one tracker", lambda: urls() == [tracker])

    def move_and_rename(self):
        page = self.page
        roots = os.path.join(self.daemon.folder, "downloads")
        for by, by_keys, folder in [(self.menu_by_mouse, False, f"{roots}/moved"), (self.menu_by_keys, True, f"{roots}/moved again")]:
            by("delta", "Move files")
            page.wait("document.activeElement?.tagName === 'INPUT'", "the field")
            if by_keys:
                page.write(roots)
                os.makedirs(folder)
                self.browse_by_keys(os.path.basename(folder))
            else:
                page.write(folder)
            page.wait("document.querySelector('dialog [role=status]').innerText.includes('free')", "the room there")
            self.accessible(page, "moving")
            self.confirm(by_keys)
            self.until("it to be moved", lambda: self.torrent("delta")["folder"] == folder and self.torrent("delta")["state"] == "seeding")
            check(os.path.exists(f"{folder}/delta/one.bin"), "the files are not there")
        for by, by_keys, name in [(self.menu_by_mouse, False, "renamed"), (self.menu_by_keys, True, "delta")]:
            old = "delta" if name != "delta" else "renamed"
            self.hashes[name] = self.hashes[old]
            by(old, "Rename")
            page.wait("document.activeElement?.id === 'rename-name'", "the field")
            if not by_keys:
                page.write("a/b")
                page.click("#dialog-yes")
                page.wait("document.querySelector('dialog [role=alert]').innerText.includes('no /')", "what is wrong")
                self.accessible(page, "a dialog that says what is wrong")
                page.click("#rename-name")
            page.write(name)
            self.confirm(by_keys)
            self.until("the new name", lambda: self.torrent(name)["name"] == name)
            page.wait(self.row(name), "the new name in the list")
        # A file of it: the buttons of its own view.
        page.eval(f"location.hash = '#/t/{self.hashes['delta']}'")
        for by_keys, old, new in [(False, "one.bin", "uno.bin"), (True, "uno.bin", "eins.bin")]:
            button = page.mark(f"[...document.querySelectorAll('.files button')].find((one) => one.ariaLabel === 'Rename delta/{old}')", "the button")
            if by_keys:
                page.tab_to(button)
                page.key("Enter")
            else:
                page.click(button)
            page.wait("document.activeElement?.id === 'rename-name'", "the field")
            page.write(new)
            self.confirm(by_keys)
            self.until("the file's new name", lambda: os.path.exists(f"{roots}/moved again/delta/{new}"))

    def queue(self):
        names = lambda: [one["name"] for one in self.daemon.ask("GET", "/status")["torrents"]]  # noqa: E731
        for by, label, place in [(self.menu_by_mouse, "To the end", -1), (self.menu_by_mouse, "To the front", 0), (self.menu_by_keys, "Back in", 1), (self.menu_by_keys, "Forward in", 0)]:
            by("gamma", label)
            self.until(f"gamma at {place}", lambda: names()[place] == "gamma")

    def sources(self):
        page = self.page
        hashes = "a" * 20
        torrent = f"d8:announce14:wss://t.org/an4:infod6:lengthi1e4:name5:other12:piece lengthi16384e6:pieces20:{hashes}6:source3:ABCe5:nodesll7:dht.orgi6881eee8:url-list14:http://t.org/ae"
        source = {"torrent": base64.b64encode(torrent.encode()).decode()}
        added = self.daemon.ask("POST", "/leech", {"source": source, "paused": True})["info_hash"]
        page.eval(f"location.hash = '#/t/{added}'")
        for words in ("ABC", "http://t.org/a", "dht.org:6881", "wss://t.org/an"):
            page.wait(f"document.querySelector('.properties')?.innerText.includes('{words}')", f"`{words}` in the torrent's view")
        self.accessible(page, "a torrent with other sources")
        self.daemon.ask("DELETE", f"/torrents/{added}")
        self.list()

    def overview(self):
        page = self.page
        self.list()
        page.wait("/[KMGT]iB/.test(document.querySelector('.overview .facts').innerText)", "the totals")
        page.wait("[...document.querySelectorAll('.overview dt')].some((node) => node.innerText === 'Free' && /iB/.test(node.nextSibling.innerText))", "the room", 30)
        page.wait("document.querySelector('.overview canvas').ariaLabel.startsWith('Rates')", "the rates")
        page.click(".overview summary")
        page.wait("!document.getElementById('overview').open", "it to be closed")
        page.tab_to(".overview summary", back=True)
        page.key("Enter")
        page.wait("document.getElementById('overview').open", "it to be opened by a key")

    def download(self):
        folder = os.path.join(self.swarm.folder, "from the page")
        os.makedirs(folder)
        self.page.downloads(folder)
        right = self.daemon.bytes(f"/torrents/{self.hashes['gamma']}/torrent")

        def kept(name):
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    return file.read() == right
            except FileNotFoundError:
                return False

        self.menu_by_mouse("gamma", "Download the .torrent")
        self.until("the .torrent", lambda: kept("gamma.torrent"))
        os.remove(os.path.join(folder, "gamma.torrent"))
        self.menu_by_keys("gamma", "Download the .torrent")
        self.until("the .torrent by keys", lambda: kept("gamma.torrent"))

    def seed_view(self):
        """On the page of the seeder, which gave all there is."""
        seeder = self.swarm.seeders[0]
        page = self.page.browser.page(f"http://{seeder.host}/ui/#/t/{self.swarm.info_hash}")
        info = f"/torrents/{self.swarm.info_hash}"
        page.wait("document.querySelectorAll('.takers .row').length >= 1", "whom it gave something")
        # Others may be taking still, so that what is shown and what is so are asked for together.
        takers = lambda: {one["peer"] for one in seeder.ask("GET", f"{info}/givers")["takers"]}  # noqa: E731
        shown = lambda: set(page.eval("[...document.querySelectorAll('.takers .row button')].map((node) => node.innerText)"))  # noqa: E731
        self.until("all takers to be shown", lambda: shown() == takers())
        sent = lambda: seeder.ask("GET", f"{info}/sent")["pieces"]  # noqa: E731
        self.until("the number of pieces that went out", lambda: f"{len(sent())} of " in page.text("#sent .section-head"))
        check(page.eval("document.getElementById('map').closest('.pair').hidden"), "a seed shows an empty map")
        facts = page.text(".facts")
        check("Sent" in facts and "Ratio" in facts and "iB" in facts, f"rates and ratio are missing: {facts}")
        page.click(".takers .row button")
        page.wait("document.querySelector('.takers .row button').ariaPressed === 'true'", "one to be chosen")
        page.click(".takers .row button")
        page.tab_to("#sent [role=slider]")
        page.key("Home")
        for _ in range(sent()[0][0]):
            page.key("ArrowRight")
        last = f"last sent to {min(takers())}" if len(takers()) == 1 else "last sent to"
        page.wait(f"document.querySelector('#sent .story').innerText.includes('{last}')", "the story of a piece")
        about = page.text(".properties")
        check(self.swarm.info_hash in about and os.path.dirname(self.swarm.content) in about and "Added" in about, f"its properties are missing: {about}")
        self.accessible(page, "a seed's view")
        if page.errors:
            check(False, f"the console says: {page.errors}")
        self.seeds_page = page
        self.shots(page, "seed", 1240)
        page.close()

    def entry(self, name):
        """What is called so in the dialog that chooses a folder."""
        return self.page.mark(f"[...document.querySelectorAll('.entries button')].find((one) => one.innerText === '{name}')", f"`{name}`")

    def browse_by_keys(self, folder):
        """From the field before the button: into the folder, out of it, into it again, and that is it."""
        page = self.page
        page.tab_to("dialog[open] .browse")
        page.key("Enter")
        page.wait("document.activeElement?.id === 'choose-filter' && document.querySelector('.entries button')", "what can be chosen")
        outer = page.text("#choose-here")
        page.write(folder)
        named = f"[...document.querySelectorAll('.entries button')].some((one) => one.innerText === '{folder}/')"
        page.wait(f"{named} && document.querySelectorAll('.entries button').length <= 2", "the names that fit")
        page.key("ArrowDown")
        for _ in range(3):
            if page.eval("document.activeElement.innerText") == f"{folder}/":
                break
            page.key("ArrowDown")
        page.key("Enter")
        page.wait(f"document.querySelector('#choose-here').innerText.endsWith('/{folder}')", "the folder")
        page.wait("document.activeElement?.closest('.entries') || document.activeElement?.id === 'choose-filter'", "the focus to stay")
        page.key("ArrowDown") if page.eval("document.activeElement?.id") == "choose-filter" else None
        page.key("ArrowLeft")
        page.wait(f"document.querySelector('#choose-here').innerText === '{outer}'", "the folder above")
        for _ in range(40):
            if page.eval("document.activeElement.innerText") == f"{folder}/":
                break
            page.key("ArrowDown")
        page.key("ArrowRight")
        page.wait(f"document.querySelector('#choose-here').innerText.endsWith('/{folder}')", "the folder again")
        page.tab_to("#choose-yes")
        page.key("Enter")
        page.wait("!document.getElementById('choose-yes')", "it to be chosen")

    def share(self):
        page = self.page
        content = os.path.join(self.swarm.folder, "to share")
        os.makedirs(os.path.join(content, "folder"))
        for name in ("big.bin", "folder/one.bin", "folder/left out.tmp"):
            with open(os.path.join(content, name), "wb") as file:
                file.write(os.urandom(1 << 20))
                # Long enough that its hashing is seen; the rest is a hole.
                file.truncate(512 << 20 if name == "big.bin" else 1 << 20)
        self.list()
        page.eval("window.states = new Set(); new MutationObserver(() => { for (const row of document.querySelectorAll('.torrents .row')) if (row.innerText.includes('big.bin')) states.add(row.querySelector('.state').innerText.split(' ')[0]); }).observe(document.querySelector('main'), { subtree: true, childList: true, characterData: true })")
        page.click("#share")
        page.wait("document.activeElement?.id === 'share-input'", "the form")
        self.accessible(page, "sharing")
        page.write("not from the root")
        page.click("#share-yes")
        page.wait("document.querySelector('dialog [role=alert]').innerText.includes('whole path')", "what is wrong")
        # The file is chosen with the mouse: to its folder from the root of all, by what is shown.
        page.click("#share-input")
        page.write(content)
        page.click("dialog .browse")
        page.wait(f"document.querySelector('#choose-here')?.innerText === '{content}'", "the folder that was typed")
        self.accessible(page, "choosing what to share")
        self.shots(page, "browse")
        page.click(self.entry("folder/"))
        page.wait("document.querySelector('#choose-here').innerText.endsWith('/folder') && document.querySelector('.entries').innerText.includes('left out.tmp')", "what is in it")
        page.click(self.entry("↑ .."))
        page.wait(f"document.querySelector('#choose-here').innerText === '{content}'", "the folder above")
        page.click(self.entry("big.bin"))
        page.wait(f"!document.getElementById('choose-yes') && document.querySelector('#share-input').value === '{content}/big.bin'", "what was chosen")
        page.click("#share-labels")
        page.write("mine")
        page.click("#share-yes")
        self.gone()
        page.wait(self.row("big.bin"), "it in the list")
        page.wait(f"{self.row('big.bin')}.innerText.includes('seeding')", "it to be hashed", 60)
        check(page.eval("[...states].some((state) => /hash|waits/.test(state))"), f"its hashing is not shown: {page.eval('[...states]')}")
        by_name = lambda: {one["name"]: one for one in self.daemon.ask("GET", "/status")["torrents"]}  # noqa: E731
        check(by_name()["big.bin"]["settings"]["labels"] == ["mine"], "the label is lost")
        # By keys, a folder without some of its files.
        page.eval("document.activeElement?.blur()")
        page.key("h")
        page.wait("document.activeElement?.id === 'share-input'", "the form")
        page.write(content)
        self.browse_by_keys("folder")
        page.wait(f"document.querySelector('#share-input').value === '{content}/folder'", "what was chosen")
        page.tab_to("dialog summary")
        page.key("Enter")
        self.accessible(page, "all fields for sharing")
        page.tab_to("#share-exclude")
        page.write("*.tmp")
        page.key("Enter")
        self.gone()
        self.until("the folder to be shared", lambda: by_name().get("folder", {}).get("state") == "seeding", 60)
        check(by_name()["folder"]["bytes"] == 1 << 20, "what was to be left out is shared")
        for name in ("big.bin", "folder"):
            self.daemon.ask("DELETE", f"/torrents/{by_name()[name]['info_hash']}")

    def keys(self):
        page = self.page
        self.list()
        page.eval("document.activeElement?.blur()")
        page.key("?")
        page.wait("document.querySelector('dialog .keys')", "the keys")
        self.accessible(page, "the keys")
        page.key("Escape")
        self.gone()
        page.click("#keys")
        page.wait("document.querySelector('dialog .keys')", "the keys by mouse")
        page.key("Escape")
        self.gone()
        page.key("s")
        page.wait("location.hash === '#/settings'", "the settings")
        page.key("l")
        page.wait("document.querySelector('.torrents .row')", "the list")
        self.choose("gamma")
        page.key("Enter")
        page.wait("document.querySelector('h1').innerText === 'gamma'", "its own view")
        page.key("p")
        page.wait("document.querySelector('.title .state').innerText === 'paused'", "it to be paused")
        check(self.torrent("gamma")["state"] == "paused", "the daemon did not pause it")
        page.key("p")
        self.until("it to go on", lambda: self.torrent("gamma")["state"] == "seeding")
        page.key("Escape")
        page.wait("document.querySelector('.torrents .row')", "the list again")

    def remove(self):
        page = self.page
        self.list()
        page.click(page.mark(f"{self.row('alpha')}.querySelector('input')", "a box"))
        page.click(page.mark(f"{self.row('beta')}.querySelector('input')", "a box"))
        page.click("#bulk-remove")
        page.wait("document.querySelector('dialog').innerText.includes('2 torrents')", "the question")
        page.click("#remove-yes")
        self.gone()
        self.until("both to be gone", lambda: not {"alpha", "beta"} & {one["name"] for one in self.daemon.ask("GET", "/status")["torrents"]})
        for name in ("gamma", "delta"):
            self.choose(name)
            page.key("Delete")
            page.wait("document.querySelector('#delete-data')", "the question")
            page.tab_to("#delete-data")
            page.key(" ")
            page.tab_to("#remove-yes")
            page.key("Enter")
            self.gone()
        self.until("all to be gone", lambda: [one["name"] for one in self.daemon.ask("GET", "/status")["torrents"]] == ["linux-image.iso"])
        self.until("the files to be gone", lambda: not os.path.exists(os.path.join(self.daemon.folder, "downloads", "gamma")))
        page.wait(f"{ROWS}.length === 1", "one row")
