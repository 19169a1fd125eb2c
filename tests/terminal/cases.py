"""What must be so at a terminal of each width."""

import os
import re

from terminal import NAMES, check, columns, wait_for

WIDTHS = [60, 80, 120]


class Case:
    def __init__(self, name, run):
        self.name, self.run = name, run


def is_bar(line):
    """A line with a bar and per cents."""
    return re.search(r"[━╸─]{4,} +[0-9]+%", line) is not None


def bars(terminal):
    return [line for line in terminal.lines() if is_bar(line)]


def whole_bars(terminal, number, width):
    """Waits for a screen that has `number` bars, none as wide as the terminal, and nothing of others."""
    def seen():
        lines = terminal.lines()
        shown = [line for line in lines if is_bar(line)]
        ghosts = [line for line in lines if re.search(r"[━─]{3}", line) and not is_bar(line)]
        fits = all(columns(line) < width for line in shown)
        return shown if len(shown) == number and fits and not ghosts else None
    return wait_for(f"{number} whole bars in {width} columns", seen)


def sim(width):
    def run(place):
        # Slow enough to look at.
        command = place.program("torrent-sim", "--size", "8MiB", "--peers", 13, "--upload-limit", "8MiB",
                                "--temp", place.folder)
        terminal = place.terminal(command, width)
        shown = whole_bars(terminal, 15, width)
        names = [" ".join(line.split()[:2]) for line in shown]
        check(len(set(names)) == 15, f"each peer once: {names}")
        ends = {line.index("%") for line in shown}
        check(len(ends) == 1, f"bars are of one length: {shown}")
        check(terminal.ends(120) == 0, "it fails")
        wrapped = terminal.wrapped(but=["and a tracker on loopback", "SHA-256"])
        check(not wrapped, f"wrapped: {wrapped}")
        text = terminal.text()
        check(not [line for line in text.split("\n") if is_bar(line)], "a bar is left behind")
        heads = [line for line in text.split("\n") if line.startswith("PIECES FROM")]
        givers = " ".join(heads).split()
        for giver in ["S1", "S2"] + [f"L{n}" for n in range(1, 14)]:
            check(givers.count(giver) == 1, f"{giver} in {heads}")
        check(text.count("the same") == 13, "thirteen copies")
    return Case(f"sim at {width}", run)


def tab_at_the_console(place):
    """Tab puts in the command, and then the name of the only file that begins so."""
    tracker = place.tracker()
    place.start("torrent-peer", "share", place.file("Linux 7.iso"), tracker, "127.0.0.1:0", until="seeding")
    # A folder of its own: the other tracker has the user's.
    home = place.home("console")
    os.makedirs(os.path.join(home, "torrents"))
    console = place.terminal(place.program("torrent-tracker", "127.0.0.1:0"), 80, cwd=home)
    console.until("listening")
    console.type_part("file_l")
    console.keys("Tab")
    console.until("> file_logs")
    console.keys("C-u")
    console.type("quit")
    check(console.ends() == 0, "the tracker fails")
    menu = place.terminal(place.program("torrent-peer"), 80)
    menu.until("connect to a tracker")
    menu.type(f"c {tracker}")
    menu.until("Linux 7.iso")
    menu.type_part("d lin")
    menu.keys("Tab")
    menu.until("> d Linux 7.iso")
    menu.keys("C-u")
    menu.type("q")
    check(menu.ends() == 0, "the menu fails")


def pasted_at_the_console(place):
    """Lines that come together are all done, whether the terminal marks them as pasted or not."""
    for number, marked in enumerate([[], ["-p"]]):
        console = place.terminal(place.program("torrent-tracker", "127.0.0.1:0"), 100, cwd=place.home(f"paste{number}"))
        console.until("^>$")
        place.tmux("set-buffer", "stats\nnothing-like-it\nload\nquit\n")
        place.tmux("paste-buffer", *marked, "-t", console.name)
        if marked:
            console.keys("Enter")
        check(console.ends() == 0, "the tracker fails")
        check("there is no command `nothing-like-it`" in console.text(), "a line is lost")


def sim_resized(place):
    command = place.program("torrent-sim", "--size", "16MiB", "--peers", 3, "--seeders", 1,
                            "--upload-limit", "500KiB", "--temp", place.folder)
    terminal = place.terminal(command, 120)
    whole_bars(terminal, 4, 120)
    for width in [60, 100, 70, 120, 61]:
        terminal.resize(width)
        whole_bars(terminal, 4, width)
    terminal.keys("C-c")
    check(terminal.ends() == 130, "Ctrl-C ends it with 130")
    check(not bars(terminal), "a bar is left behind")
    left = [name for name in os.listdir(place.folder) if name.startswith("torrent-sim-")]
    check(not left, f"its files are left behind: {left}")


def names_of(place, size=6 << 20):
    return [place.file(name, size) for name in NAMES]


def get(width):
    def run(place):
        tracker = place.tracker()
        for number, path in enumerate(names_of(place)):
            place.start("torrent-peer", "share", path, tracker, "127.0.0.1:0", "--upload-limit", "300KiB",
                        until="seeding ", cwd=place.home(f"seed{number}"))
            home = place.home(f"get{number}")
            command = place.program("torrent-peer", "get", NAMES[number], tracker, "127.0.0.1:0")
            terminal = place.terminal(command, width, cwd=home)
            line = whole_bars(terminal, 1, width)[0]
            check("…" in line.split("━")[0].split("─")[0], f"its name is cut: {line}")
            check(line.startswith(NAMES[number][:2]), f"it begins with its name: {line}")
            check("iso" in line, f"its name ends as it does: {line}")
            check(re.search(r"[━─]{10}", line), f"its bar remains: {line}")
            # Each line of the console leaves one live line.
            terminal.type("status")
            terminal.until("info|state")
            whole_bars(terminal, 1, width)
            if number == 0:
                for other in [60, 110, 75, width]:
                    terminal.resize(other)
                    whole_bars(terminal, 1, other)
            terminal.type("quit")
            terminal.ends()
            check(not bars(terminal), "a bar is left behind")
    return Case(f"get at {width}", run)


def leech(width):
    def run(place):
        tracker = place.tracker()
        one = place.daemon("one", tracker)
        two = place.daemon("two", tracker)
        place.run("torrent-set", "--port", one, "--daemon", "upload_limit=200KiB")
        for number, path in enumerate(names_of(place)):
            answer = place.run("torrent-seed", "--port", one, "--input", path)
            info_hash = re.search("info-hash ([0-9a-f]{40})", answer)[1]
            command = place.program("torrent-leech", "--port", two, "--torrent", info_hash, "--wait")
            terminal = place.terminal(command, width)
            line = whole_bars(terminal, 1, width)[0]
            check("…" in line.split("━")[0].split("─")[0], f"its name is cut: {line}")
            check(re.search(r"[━─]{10}", line), f"its bar remains: {line}")
            if number == 1:
                for other in [60, 110, 75, width]:
                    terminal.resize(other)
                    whole_bars(terminal, 1, other)
            terminal.keys("C-c")
            check(terminal.ends() == 130, "Ctrl-C ends the waiting")
            check(not bars(terminal), "a bar is left behind")
        tables_of_daemon(place, one, two, tracker, width)
    return Case(f"leech and tables of a daemon at {width}", run)


def tables_of_daemon(place, one, two, tracker, width):
    place.run("torrent-set", "--port", one, "--daemon", "upload_limit=none")
    for name in NAMES:
        wait_for(f"`{name}` to be whole", lambda: re.search(
            re.escape(name) + " .*seeding|complete", place.run("torrent-leech", "--port", two, "--torrent", name,
                                                               "--wait")))
    first = place.program("torrent-status", "--port", two)
    commands = [
        first,
        f"{first} '{NAMES[0]}' --files --log",
        f"{first} '{NAMES[1]}' --files --log",
        place.program("torrent-fetch", "--port", two, "--list"),
        place.program("torrent-log", "--port", two),
        place.program("torrent-log", "--port", two, NAMES[2]),
        place.program("torrent-log", "--port", two, NAMES[3], "--piece", 3),
        place.program("torrent-log", "--tracker", tracker),
        place.program("torrent-show", place.path("two", "torrents", NAMES[1] + ".torrent")),
    ]
    for command in commands:
        terminal = place.terminal(command, width)
        check(terminal.ends() == 0, f"{command} fails")
        # One field a line is no table: there whole names and addresses matter more.
        fields = ("folder", "tracker", "name ", "trackers")
        wrapped = [line for line in terminal.wrapped() if not line.strip().startswith(fields)]
        wrapped = [line for line in wrapped if line not in NAMES]
        check(not wrapped, f"{command} wraps:\n" + "\n".join(wrapped))
    watch = place.terminal(f"{first} --watch", width)
    watch.until("SIZE")
    for other in [60, 110, 75]:
        watch.resize(other)
        wait_for(f"one table in {other} columns", lambda: one_table(watch, other))
    watch.keys("C-c")
    check(watch.ends() == 0, "Ctrl-C ends it")
    check(watch.text().count("torrent-daemon") == 1, "the last tables stay, once")
    menu = place.terminal(place.program("torrent-fetch", "--port", two), 120)
    menu.until("Which torrent")
    for other in [60, 110, 75]:
        menu.resize(other)
        menu.keys("Down")
        wait_for(f"one list in {other} columns", lambda: menu.text(whole=False).count("Which torrent") == 1)
    menu.keys("Escape")
    menu.ends()
    check("Which torrent" not in menu.text(whole=False), "the list is left behind")


def menu(width):
    """The list to choose from: it fits, it is taken away however it ends, and without a terminal there is none."""
    def run(place):
        tracker = place.tracker()
        for number, path in enumerate(names_of(place, 64 << 10)):
            place.start("torrent-peer", "share", path, tracker, "127.0.0.1:0", until="seeding",
                        cwd=place.home(f"seed{number}"))
        command = place.program("torrent-fetch", "--tracker", tracker)

        def list_at(height):
            terminal = place.terminal(command, width, height=height, cwd=place.home("fetch"))
            terminal.until("Esc leaves")
            wide = [line for line in terminal.lines() if columns(line) >= width]
            check(not wide and not terminal.wrapped(), f"the list does not fit: {wide}")
            return terminal

        def ends(terminal, code, said):
            check(terminal.ends() == code, f"the exit code is not {code}")
            text = terminal.text(whole=False)
            check("Which torrent" not in text and "Esc leaves" not in text, f"the list is left behind: {text}")
            # A low terminal has scrolled a part of the answer away.
            check(said in "".join(terminal.lines(whole=True, joined=True)), f"`{said}` is not said: {text}")

        terminal = list_at(30)
        check(sum(".iso" in line for line in terminal.lines()) == len(NAMES), "every torrent is listed")
        for other in [60, 110, 75, 40]:
            terminal.resize(other)
            terminal.keys("Down")
            wait_for(f"one list in {other} columns", lambda: terminal.text(whole=False).count("Which torrent") == 1)
        terminal.keys("C-c")
        ends(terminal, 130, "")
        terminal = list_at(30)
        terminal.type_part("x86")
        terminal.until("1 of 5")
        # The first Esc clears what was typed, the second leaves.
        terminal.keys("Escape")
        terminal.until("type a part of its name")
        terminal.keys("Escape")
        ends(terminal, 1, "nothing was chosen")
        terminal = list_at(5)
        for marked in range(2, len(NAMES) + 1):
            terminal.keys("Down")
            # Of a low terminal only some rows are for names, and the marked one is among them.
            wait_for(f"the mark at the name {marked}", lambda: sum(line.startswith("❯") for line in terminal.lines()) == 1)
            check(terminal.lines()[0].startswith("Which torrent"), "the question scrolls away")
        terminal.type_part("x86")
        terminal.until("1 of 5")
        terminal.keys("Enter")
        ends(terminal, 0, "saved a-file-with-quite-a-long-name")
        piped = place.terminal(f"{command} </dev/null", width, cwd=place.home("fetch"))
        check(piped.ends() == 0, "without input it fails")
        check("Which torrent" not in piped.text() and piped.text().count("iso") >= len(NAMES), "it lists the catalogue")
        check("Which torrent" not in place.run("torrent-fetch", "--tracker", tracker), "a pipe is asked")
    return Case(f"menu at {width}", run)


def one_table(terminal, width):
    lines = terminal.lines()
    heads = [line for line in lines if line.startswith("NAME")]
    return len(heads) == 1 and all(columns(line) < width for line in lines) and \
        sum(line.startswith("torrent-daemon") for line in lines) == 1


def consoles(width):
    def run(place):
        command = place.program("torrent-tracker", "127.0.0.1:0")
        tracker = place.terminal(command, width, height=50, cwd=place.home("tracker"))
        address = tracker.until(r"http://([0-9.:]+)/")[1]
        for number, path in enumerate(names_of(place, 2 << 20)):
            place.start("torrent-peer", "share", path, address, "127.0.0.1:0", until="seeding",
                        cwd=place.home(f"seed{number}"))
        home = place.home("get")
        peer = place.terminal(place.program("torrent-peer", "get", NAMES[0], address, "127.0.0.1:0"),
                              width, cwd=home)
        peer.until("complete")
        for line in ["peers", "files", "request logs"]:
            peer.ask(line)
        peer.until("verified", 30)
        peer.ask("help")
        peer.until("^quit ")
        # What is typed stands there as it was typed, and a sentence is no table.
        check(not peer.wrapped(but=["getting", "complete", "seeding", "> "]), f"the peer wraps: {peer.wrapped()}")
        for line in ["file_logs -all", "peers", "load", "request logs", f"swarm {NAMES[0]}",
                     f"holders {NAMES[0]} 0"]:
            tracker.ask(line)
        tracker.ask("help")
        tracker.until("^stats ")
        wrapped = [line for line in tracker.wrapped(but=["> ", "listening", "observe", "without", " pieces", "whoever asks"])
                   if line not in NAMES and not line.startswith("piece 0 of")]
        check(not wrapped, "the tracker wraps:\n" + "\n".join(wrapped))
    return Case(f"consoles at {width}", run)


def hashing(program):
    def run(place):
        # Holes: hashing them takes as long as anything.
        path = place.file("文件" * 30 + "-of-many-gigabytes.img", 400 << 30)
        other = place.file("other.bin", 4096)
        commands = {
            "share": place.program("torrent-peer", "share", path, "127.0.0.1:1", "127.0.0.1:0"),
            "create": place.program("torrent-create", path),
            "sim": place.program("torrent-sim", path, "--peers", 1, "--temp", "/dev/shm"),
        }
        check(other, "made")
        for width in WIDTHS:
            terminal = place.terminal(commands[program], width)
            line = whole_bars(terminal, 1, width)[0]
            first = int(re.search(r"([0-9]+)%", line)[1])
            check(first < 50, f"the first frame says {first}%")
            check(line.startswith("hashing 文"), line)
            for other_width in [60, 100, width]:
                terminal.resize(other_width)
                whole_bars(terminal, 1, other_width)
            terminal.keys("C-c")
            check(terminal.ends() == 130 or program == "share", "Ctrl-C ends it")
            check(not bars(terminal), "a bar is left behind")
    return Case(f"hashing bar of {program}", run)


def seeding(place):
    # Holes: hashing them takes as long as anything.
    name = "文件" * 30 + "-of-many-gigabytes.img"
    path = place.file(name, 400 << 30)
    daemon = place.daemon("one", place.tracker())
    command = place.program("torrent-seed", "--port", daemon, "--input", path)
    for width in WIDTHS:
        terminal = place.terminal(command, width)
        line = whole_bars(terminal, 1, width)[0]
        check(line.startswith("hashing 文"), line)
        first = int(re.search(r"([0-9]+)%", line)[1])
        check(first < 50, f"the first frame says {first}%")
        for other_width in [60, 100, width]:
            terminal.resize(other_width)
            whole_bars(terminal, 1, other_width)
        terminal.keys("C-c")
        check(terminal.ends() == 130, "Ctrl-C ends the waiting")
        check(not bars(terminal), "a bar is left behind")
        said = terminal.text()
        check("the daemon continues to hash it" in said and "torrent-remove cancels it" in said, said)
        # It is still the same hashing, and each table says how far it is.
        status = place.terminal(place.program("torrent-status", "--port", daemon), width)
        check(status.ends() == 0, "torrent-status fails")
        rows = [line for line in status.text().split("\n") if re.search(r"hashing [0-9]+%", line)]
        check(len(rows) == 1 and columns(rows[0]) <= width, f"one row says so: {status.text()}")
    waiting = place.terminal(command, 80)
    whole_bars(waiting, 1, 80)
    place.run("torrent-remove", "--port", daemon, name)
    check(waiting.ends() == 1, "whoever waits is told")
    told = "\n".join(waiting.lines(whole=True, joined=True))
    check("was removed before it was hashed" in told, told)
    check("hashing" not in place.run("torrent-status", "--port", daemon), "it is gone")
    check(os.stat(path).st_size == 400 << 30, "its file stays")


ALL = [
    *(sim(width) for width in WIDTHS),
    Case("sim resized", sim_resized),
    Case("Tab at the console", tab_at_the_console), Case("lines pasted at the console", pasted_at_the_console),
    *(get(width) for width in WIDTHS),
    *(leech(width) for width in WIDTHS),
    *(menu(width) for width in WIDTHS),
    *(consoles(width) for width in WIDTHS),
    hashing("share"),
    hashing("create"),
    Case("hashing bar, Ctrl-C and cancelling of torrent-seed", seeding),
]
