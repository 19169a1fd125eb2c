"""Cases: Debian's transmission-remote 3.00 drives the daemon."""

import os
import re
import subprocess

from daemon import Content, Daemon, check, wait_for


class Remote:
    """transmission-remote at a daemon."""

    def __init__(self, daemon):
        self.daemon = daemon

    def run(self, *arguments, ok=True):
        """What it printed."""
        command = ["transmission-remote", self.daemon.url, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        output = done.stdout + done.stderr
        check((done.returncode == 0) == ok, f"{' '.join(command)} ended with {done.returncode}: {output}")
        return output

    def say(self, *arguments):
        """Runs what only answers that it was done."""
        output = self.run(*arguments)
        check('responded: "success"' in output, f"{arguments} answered: {output}")

    def refuse(self, *arguments, word):
        output = self.run(*arguments, ok=False)
        check(word in output, f"`{word}` is not in what {arguments} answered: {output}")

    def info(self, torrent, key):
        """A line of --info."""
        output = self.run("-t", torrent, "-i")
        found = re.search(rf"^  {re.escape(key)}: +(.*)$", output, re.M)
        check(found, f"there is no `{key}` in: {output}")
        return found[1].strip()

    def session(self, key):
        """A line of --session-info."""
        output = self.run("-si")
        found = re.search(rf"^  {re.escape(key)}: +(.*)$", output, re.M)
        check(found, f"there is no `{key}` in: {output}")
        return found[1].strip()

    def expect(self, torrent, key, value):
        wait_for(f"`{key}` to be `{value}`, it is `{self.info(torrent, key)}`", lambda: self.info(torrent, key) == value)


def rows(listing):
    """Columns of a list, by the torrent's number."""
    found = {}
    for line in listing.splitlines():
        columns = re.split(r" {2,}", line.strip())
        if columns[0].rstrip("*").isdigit():
            found[int(columns[0].rstrip("*"))] = columns
    return found


def adding_and_listing(daemon, folder):
    remote, one, two = Remote(daemon), Content(folder, "one"), Content(folder, "two")
    sub = os.path.join(daemon.downloads, "sub")
    remote.say("--start-paused")
    # Before -a the folder would be the session's.
    remote.say("-a", one.torrent, "-w", sub)
    check(remote.info(1, "Location") == sub, "it lies elsewhere")
    remote.say("-a", two.torrent)
    listed = rows(remote.run("-l"))
    check([listed[id][-1] for id in (1, 2)] == ["one", "two"], f"the list is {listed}")
    check(listed[1][-2] == "Stopped", f"the first is {listed[1]}")
    check(remote.info(1, "Hash") == one.hash, "the hash is another")
    check(remote.info(one.hash, "Name") == "one", "it is not found by its hash")
    # Again: nothing changes, and that is a success.
    remote.say("-a", one.torrent)
    check(len(rows(remote.run("-l"))) == 2, "it was added twice")
    active = rows(remote.run("-t", "active", "-l"))
    check(set(active) == {1, 2}, f"active are {active}")


def adding_what_cannot_be_added(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    remote.refuse("-a", "magnet:?xt=urn:btih:" + one.hash, word="magnet")
    remote.refuse("-a", one.torrent, "-w", "/etc", word="/etc")
    broken = os.path.join(folder, "broken.torrent")
    with open(broken, "wb") as file:
        file.write(b"d4:infodee")
    remote.refuse("-a", broken, word="invalid or corrupt torrent file")
    check(not rows(remote.run("-l")), "something was added")


def a_magnet_link_becomes_its_torrent(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    seeding = os.path.join(folder, "seeder")
    os.makedirs(seeding)
    seeder = Daemon(daemon.bin_dir, seeding)
    try:
        seed = Remote(seeder)
        link = f"magnet:?xt=urn:btih:{one.hash}&dn=linked&x.pe=127.0.0.1:{seed.session('Listenport')}"
        remote.say("-a", link)
        check(remote.info(1, "Name") == "linked", "it has another name")
        check(remote.info(1, "Magnet") == link, f"its link is {remote.info(1, 'Magnet')}")
    
        remote.say("-t", 1, "-S")
        remote.expect(1, "State", "Stopped")
        one.write(seeder.downloads)
        seed.say("-a", one.torrent)
        seed.expect(1, "Percent Done", "100%")
        remote.say("-t", 1, "-s")
        wait_for("the metadata", lambda: remote.info(1, "Name") == "one")
        remote.expect(1, "Percent Done", "100%")
        check(one.lies_in(daemon.downloads), "its files are others")
        # Another link is gone when it is removed.
        remote.say("-a", link.replace(one.hash, "ab" * 20))
        remote.say("-t", 2, "--remove-and-delete")
        check(len(rows(remote.run("-l"))) == 1, "the link stays")
    finally:
        seeder.stop()


def starting_stopping_verifying(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    one.write(daemon.downloads)
    remote.say("--start-paused")
    remote.say("-a", one.torrent)
    remote.say("-t", 1, "-v")
    remote.expect(1, "Percent Done", "100%")
    check(remote.info(1, "State") == "Stopped", "it runs")
    remote.say("-t", 1, "-s")
    wait_for("the start", lambda: remote.info(1, "State") in ("Idle", "Seeding"))
    remote.say("-t", 1, "--reannounce")
    remote.say("-t", 1, "-S")
    remote.expect(1, "State", "Stopped")
    # Damage is found.
    with open(os.path.join(daemon.downloads, "one", "b.bin"), "r+b") as file:
        file.write(b"damaged")
    remote.say("-t", one.hash, "-v")
    wait_for("the damage", lambda: remote.info(1, "Percent Done") != "100%")


def choosing_files(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    remote.say("--start-paused")
    remote.say("-a", one.torrent)

    def files():
        output = remote.run("-t", 1, "-if")
        check("one (3 files):" in output, f"the files are: {output}")
        lines = [line.split() for line in output.splitlines()[2:]]
        check([line[-1] for line in lines] == ["one/a.bin", "one/b.bin", "one/c.txt"], output)
        return [(line[2], line[3]) for line in lines]

    check(files() == [("Normal", "Yes")] * 3, f"they begin as {files()}")
    remote.say("-t", 1, "-G", "1,2")
    check([get for _, get in files()] == ["Yes", "No", "No"], f"they are {files()}")
    remote.say("-t", 1, "-g", "2")
    remote.say("-t", 1, "-ph", "0")
    remote.say("-t", 1, "-pl", "2")
    check(files() == [("High", "Yes"), ("Normal", "No"), ("Low", "Yes")], f"they are {files()}")
    remote.say("-t", 1, "-pn", "all")
    remote.say("-t", 1, "-g", "all")
    check(files() == [("Normal", "Yes")] * 3, f"they end as {files()}")
    remote.refuse("-t", 1, "-g", "7", word="file index out of range")


def limits_of_a_torrent(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    remote.say("--start-paused")
    remote.say("-a", one.torrent)
    check(remote.info(1, "Download Limit") == "Unlimited", "it begins limited")
    remote.say("-t", 1, "-d", 50, "-u", 20)
    check(remote.info(1, "Download Limit") == "50 kB/s", remote.info(1, "Download Limit"))
    check(remote.info(1, "Upload Limit") == "20 kB/s", remote.info(1, "Upload Limit"))
    remote.say("-t", 1, "-D", "-U")
    check(remote.info(1, "Download Limit") == "Unlimited", "it is still limited")
    check(remote.info(1, "Upload Limit") == "Unlimited", "it is still limited")
    check(remote.info(1, "Ratio Limit") == "Default", "it begins with a ratio")
    remote.say("-t", 1, "-sr", "1.5")
    check(remote.info(1, "Ratio Limit").startswith("1.5"), remote.info(1, "Ratio Limit"))
    remote.say("-t", 1, "-SR")
    check(remote.info(1, "Ratio Limit") == "Unlimited", remote.info(1, "Ratio Limit"))
    remote.say("-t", 1, "-srd")
    check(remote.info(1, "Ratio Limit") == "Default", remote.info(1, "Ratio Limit"))
    remote.say("-t", 1, "-pr", 13)
    check(remote.info(1, "Peer limit") == "13", remote.info(1, "Peer limit"))
    remote.say("-t", 1, "-Bh")
    check(remote.info(1, "Bandwidth Priority") == "High", remote.info(1, "Bandwidth Priority"))
    remote.say("-t", 1, "-Bl")
    check(remote.info(1, "Bandwidth Priority") == "Low", remote.info(1, "Bandwidth Priority"))
    remote.say("-t", 1, "-HL")
    check(remote.info(1, "Honors Session Limits") == "No", "it honors them")
    remote.say("-t", 1, "-hl")
    check(remote.info(1, "Honors Session Limits") == "Yes", "it does not honor them")
    remote.say("-t", 1, "-L", "red,green")
    check(remote.info(1, "Labels") == "red, green", remote.info(1, "Labels"))


def limits_of_the_session(daemon, folder):
    remote = Remote(daemon)
    remote.say("-d", 300, "-u", 200)
    check(remote.session("Download speed limit").startswith("300 kB/s"), remote.session("Download speed limit"))
    check(remote.session("Upload speed limit").startswith("200 kB/s"), remote.session("Upload speed limit"))
    remote.say("-D", "-U")
    check(remote.session("Download speed limit").startswith("Unlimited"), remote.session("Download speed limit"))
    remote.say("-asd", 30, "-asu", 20, "-as")
    check("30 kB/s" in remote.session("Download speed limit"), remote.session("Download speed limit"))
    remote.say("-AS")
    remote.say("-gsr", "2.5")
    check(remote.session("Default seed ratio limit").startswith("2.5"), remote.session("Default seed ratio limit"))
    remote.say("-GSR")
    check(remote.session("Default seed ratio limit") == "Unlimited", remote.session("Default seed ratio limit"))
    remote.say("-pr", 77)
    check(remote.session("Peer limit") == "77", remote.session("Peer limit"))


def session_and_statistics(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    check("(Piecework" in remote.session("Daemon version"), remote.session("Daemon version"))
    check(remote.session("RPC version") == "18", remote.session("RPC version"))
    check(remote.session("Download directory") == daemon.downloads, remote.session("Download directory"))
    check(remote.session("Distributed hash table enabled") == "No", "there is a DHT")
    check(remote.session("Encryption") == "tolerated", remote.session("Encryption"))
    remote.say("-a", one.torrent)
    stats = remote.run("-st")
    check("CURRENT SESSION" in stats and "Started 1 times" in stats, stats)
    check("Port is open: Yes" in remote.run("-pt"), "the port is not open")
    # What there is not is passed over, and stays as it is.
    for switch in ("-o", "-O", "-m", "-er", "-et"):
        remote.say(switch)
    check(remote.session("Distributed hash table enabled") == "No", "there is a DHT")
    check(remote.session("Encryption") == "tolerated", remote.session("Encryption"))
    remote.refuse("--torrent-done-script", "/bin/true", word="script_torrent_done")
    remote.refuse("-w", "/etc", word="/etc")
    new = os.path.join(daemon.downloads, "new")
    remote.say("-w", new)
    check(remote.session("Download directory") == new, remote.session("Download directory"))


def details(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    one.write(daemon.downloads)
    remote.say("-a", one.torrent)
    remote.expect(1, "Percent Done", "100%")
    check(remote.info(1, "Piece Count") == str(one.pieces), remote.info(1, "Piece Count"))
    check(remote.info(1, "Piece Size") == "16.00 KiB", remote.info(1, "Piece Size"))
    check(remote.info(1, "Total size") == "120.0 kB (120.0 kB wanted)", remote.info(1, "Total size"))
    check(remote.info(1, "Comment") == "made here", remote.info(1, "Comment"))
    check(remote.info(1, "Public torrent") == "Yes", remote.info(1, "Public torrent"))
    check(one.hash in remote.info(1, "Magnet"), remote.info(1, "Magnet"))
    check(remote.info(1, "Peers").startswith("connected to 0"), remote.info(1, "Peers"))
    pieces = remote.run("-t", 1, "-ic")
    check("".join(pieces.split()) == "1" * one.pieces, f"the pieces are {pieces!r}")
    peers = remote.run("-t", 1, "-ip")
    check(peers.startswith("Address"), f"the peers are {peers!r}")


def trackers(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    remote.say("--start-paused")
    remote.say("-a", one.torrent)

    def known():
        return dict(re.findall(r"Tracker (\d+): (\S+)", remote.run("-t", 1, "-it")))

    first = known()
    check(list(first.values()) == ["127.0.0.1:1"], f"the trackers are {first}")
    remote.say("-t", 1, "-td", "http://127.0.0.1:2/announce")
    check(sorted(known().values()) == ["127.0.0.1:1", "127.0.0.1:2"], f"the trackers are {known()}")
    remote.say("-t", 1, "-tr", next(iter(first)))
    check(list(known().values()) == ["127.0.0.1:2"], f"the trackers are {known()}")
    remote.refuse("-t", 1, "-tr", next(iter(first)), word="error setting announce list")


def moving_and_finding(daemon, folder):
    remote, one = Remote(daemon), Content(folder, "one")
    one.write(daemon.downloads)
    remote.say("-a", one.torrent)
    remote.expect(1, "Percent Done", "100%")
    there = os.path.join(daemon.downloads, "there")
    remote.say("-t", 1, "--move", there)
    remote.expect(1, "Location", there)
    wait_for("the files", lambda: one.lies_in(there))
    check(not one.lies_in(daemon.downloads), "they are where they were as well")
    # Somebody else moves them.
    elsewhere = os.path.join(daemon.downloads, "elsewhere")
    remote.say("-t", 1, "-S")
    remote.expect(1, "State", "Stopped")
    os.rename(there, elsewhere)
    remote.say("-t", 1, "--find", elsewhere)
    remote.expect(1, "Location", elsewhere)
    remote.say("-t", 1, "-v")
    remote.expect(1, "Percent Done", "100%")
    remote.refuse("-t", 1, "--move", "/etc", word="/etc")


def removing(daemon, folder):
    remote = Remote(daemon)
    one, two = Content(folder, "one"), Content(folder, "two")
    for content in (one, two):
        content.write(daemon.downloads)
        remote.say("-a", content.torrent)
    for id in (1, 2):
        remote.expect(id, "Percent Done", "100%")
    remote.say("-t", 1, "-r")
    check(set(rows(remote.run("-l"))) == {2}, "it is still there")
    check(one.lies_in(daemon.downloads), "its files are gone")
    remote.say("-t", 2, "-rad")
    check(not rows(remote.run("-l")), "it is still there")
    wait_for("the files to go", lambda: not os.path.exists(os.path.join(daemon.downloads, "two")))


def ending(daemon, folder):
    Remote(daemon).say("--exit")
    wait_for("the end", lambda: daemon.process.poll() is not None)
    check(daemon.process.returncode == 0, f"it ended with {daemon.process.returncode}")


CASES = [
    adding_and_listing, adding_what_cannot_be_added, a_magnet_link_becomes_its_torrent, starting_stopping_verifying, choosing_files,
    limits_of_a_torrent, limits_of_the_session, session_and_statistics, details, trackers,
    moving_and_finding, removing, ending,
]


def run(case, bin_dir, folder):
    """Runs a case with a daemon of its own."""
    daemon = Daemon(bin_dir, folder)
    try:
        case(daemon, folder)
    finally:
        status = daemon.stop()
    check(status == 0, f"the daemon ended with {status}")
