"""A terminal that a program runs in, and what stands on its screen."""

import os
import re
import shlex
import subprocess
import sys
import unicodedata

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import Failure, check, wait_for  # noqa: E402

# As users have them: long, of characters two columns wide, written from right to left (with letters
# that some terminals join), and with marks above the letters.
NAMES = [
    "a-file-with-quite-a-long-name-as-releases-have-them-2026.11.30-x86_64-" + "x" * 60 + "-final.iso",
    "文件下载测试" * 9 + ".iso",
    "ملف-طويل-لا-إلا-" * 5 + ".iso",
    "קובץ ארוך מאוד " * 5 + ".iso",
    "e\u0301tude " * 12 + "fin.iso",
]


class Place:
    """A folder, and the terminals and programs that run there."""

    def __init__(self, bin_dir, folder):
        self.bin = bin_dir
        self.folder = folder
        self.socket = os.path.join(folder, "tmux")
        self.terminals = []
        self.processes = []
        # Tests of the user's settings are elsewhere.
        self.environment = {
            key: value for key, value in os.environ.items()
            if not key.startswith("PIECEWORK_") and key not in ("NO_COLOR", "TMUX", "TMUX_PANE")
        } | {"LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": folder, "TZ": "UTC"}

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def file(self, name, size=1 << 20):
        """A file in a folder of its own; it compresses well and takes no time to make."""
        folder = self.path("shared")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(name.encode()[:64])
            file.truncate(size)
        return path

    def program(self, name, *args):
        return shlex.join([os.path.join(self.bin, name), *map(str, args)])

    def tmux(self, *args):
        command = ["tmux", "-u", "-f", "/dev/null", "-S", self.socket, *map(str, args)]
        done = subprocess.run(command, env=self.environment, cwd=self.folder, capture_output=True, text=True)
        check(done.returncode == 0, f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def terminal(self, command, width, height=30, cwd=None):
        """A terminal that `command` runs in."""
        terminal = Terminal(self, f"t{len(self.terminals)}", command, width, height, cwd or self.folder)
        self.terminals.append(terminal)
        return terminal

    def run(self, name, *args, cwd=None):
        """What a program answers in a pipe."""
        command = [os.path.join(self.bin, name), *map(str, args)]
        done = subprocess.run(command, env=self.environment, cwd=cwd or self.folder, capture_output=True,
                              text=True, timeout=120, stdin=subprocess.DEVNULL)
        check(done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self, name, *args, until, cwd=None):
        """Starts a program in a pipe; the match of `until` in what it prints."""
        process = subprocess.Popen([os.path.join(self.bin, name), *map(str, args)], env=self.environment,
                                   cwd=cwd or self.folder, stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        for line in process.stdout:
            if found := re.search(until, line):
                return found
        raise Failure(f"{name} ended before it printed {until}")

    def tracker(self):
        found = self.start("torrent-tracker", "127.0.0.1:0", "--no-observe", until=r"http://([0-9.:]+)/",
                           cwd=self.home("tracker"))
        return found[1]

    def daemon(self, name, tracker, *args):
        """The port of a daemon's control."""
        home = self.home(name)
        found = self.start(
            "torrent-daemon", "--port", 0, "--rpc-port", 0, "--listen", "127.0.0.1:0", "--tracker", tracker,
            "--state", f"{home}/daemon.sqlite", "--torrents", f"{home}/torrents",
            "--downloads", f"{home}/downloads", *args, until=r"control on http://[0-9.]+:([0-9]+)",
        )
        return found[1]

    def home(self, name):
        home = self.path(name)
        os.makedirs(home, exist_ok=True)
        return home

    def screens(self):
        return "\n".join(f"--- {terminal.name}:\n{terminal.last}" for terminal in self.terminals)

    def stop(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], env=self.environment, capture_output=True)
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


class Terminal:
    """A terminal of a size, in which a command runs and, once that has ended, a shell waits."""

    def __init__(self, place, name, command, width, height, cwd):
        self.place, self.name, self.last = place, name, ""
        # What a shell shows when it is given the terminal back, and nothing that would reset it.
        script = f"{command}; printf 'ended:%s\\n' $?; exec sleep 1000"
        place.tmux("new-session", "-d", "-x", width, "-y", height, "-s", name, "-c", cwd, script)
        place.tmux("set-option", "-t", name, "history-limit", 5000)

    def lines(self, whole=False, joined=False):
        """The lines on the screen; those that scrolled away too if `whole`, wrapped ones as one if `joined`."""
        args = ["capture-pane", "-p", "-t", self.name]
        args += ["-S", "-"] if whole else []
        args += ["-J"] if joined else []
        text = self.place.tmux(*args)
        self.last = text
        return [line.rstrip() for line in text.rstrip("\n").split("\n")]

    def text(self, whole=True):
        return "\n".join(self.lines(whole))

    def until(self, pattern, seconds=60):
        """Waits until the screen has a match of `pattern`."""
        return wait_for(f"`{pattern}` on the screen",
                        lambda: re.search(pattern, self.text(), re.MULTILINE), seconds)

    def ends(self, seconds=60):
        """The exit code of the command."""
        return int(self.until(r"^ended:([0-9]+)$", seconds)[1])

    def type_part(self, text):
        """Types without Enter."""
        self.place.tmux("send-keys", "-t", self.name, "-l", text)

    def type(self, line):
        self.type_part(line)
        self.place.tmux("send-keys", "-t", self.name, "Enter")

    def ask(self, line):
        """Types a line at a console and waits for the next prompt: what is typed earlier would stand
        in the middle of the answer."""
        self.type(line)

        def answered():
            shown = [text.rstrip() for text in self.lines(whole=True, joined=True) if text.strip()]
            return shown[-1] == ">" and any(text.startswith(f"> {line[:20]}") for text in shown)

        wait_for(f"an answer to {line}", answered, 30)

    def keys(self, *keys):
        self.place.tmux("send-keys", "-t", self.name, *keys)

    def resize(self, width, height=30):
        self.place.tmux("resize-window", "-t", self.name, "-x", width, "-y", height)

    def wrapped(self, but=()):
        """Lines that the terminal wrapped, but those that have one of the words `but` in them."""
        shown, joined = self.lines(whole=True), self.lines(whole=True, joined=True)
        whole = set(shown)
        return [line for line in joined if line not in whole and not any(word in line for word in but)]


def columns(text):
    """Columns that tmux gives to `text`, for names as used here."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)
