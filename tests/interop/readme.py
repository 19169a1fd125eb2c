"""The commands of README and of docs/tutorial.md, word for word, with the addresses and ports that they name: here
nobody else has them.

Those that build are left out (`cargo …`): `.ci/run` runs the tests by README's own command. Every other
line of a block must be known here, so that one that is new is not passed over.
"""

import os
import re
import signal
import subprocess
from contextlib import ExitStack

from harness import Failure, digests, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# The address of the machine that shares, in README.
MACHINE = "192.0.2.7"


def blocks():
    """The commands of all `sh` blocks, a list a block, with the section they stand in."""
    pages = []
    for page in ("README.md", "docs/tutorial.md"):
        with open(os.path.join(ROOT, page)) as text:
            pages.append(text.read())
    readme = "\n".join(pages)
    found = []
    for section in re.split(r"^## ", readme, flags=re.MULTILINE):
        title = section.split("\n", 1)[0]
        for block in re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            found.append((title, block.replace("\\\n", " ").splitlines()))
    return found


class Terminal:
    """A command that runs on as in a terminal of its own, its standard input held open."""

    def __init__(self, machine, command, name):
        self.command = command
        self.log_path = os.path.join(machine.folder, f"{name}.log")
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(
                ["sh", "-c", f"exec {command}"],
                cwd=machine.folder,
                env=machine.env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def wait_for(self, text):
        def heard():
            if self.child.poll() is not None and text not in self.said():
                raise Failure(f"`{self.command}` ended, exit code {self.child.returncode}: {self.said()}")
            return text in self.said()

        wait_for(f"{text!r} of `{self.command}`", 120, heard)

    def interrupt(self, wanted=0):
        self.child.send_signal(signal.SIGINT)
        try:
            code = self.child.wait(30)
        except subprocess.TimeoutExpired:
            raise Failure(f"`{self.command}` does not heed Ctrl-C") from None
        if code != wanted:
            raise Failure(f"`{self.command}` ended with {code} at Ctrl-C: {self.said()}")

    def stop(self):
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()


class Machine:
    """A folder as home and working directory."""

    def __init__(self, folder, binaries):
        self.folder = folder
        os.makedirs(folder)
        self.env = {"HOME": folder, "PATH": f"{binaries}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
        self.runs = 0

    def run(self, command):
        """Runs `command`, which must end well, and gives what it printed."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=240,
        )
        if done.returncode != 0:
            raise Failure(f"`{command}` ended with {done.returncode}: {done.stdout}")
        return done.stdout

    def terminal(self, stack, command):
        self.runs += 1
        started = Terminal(self, command, f"terminal-{self.runs}")
        stack.callback(started.stop)
        return started

    def make(self, path, size):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as out:
            out.write(os.urandom(size))
        return path


def must_be_same(one, other):
    if digests(one) != digests(other):
        raise Failure(f"{other} is not {one}")


def intro(commands, new_machine, _stack, binaries):
    """The program that README names is built already: it is put where the command looks for it."""
    for command in commands:
        if command == "cargo test":
            continue
        name, arguments = re.fullmatch(r"cargo run --release --bin (\S+) -- (.*)", command).groups()
        machine = new_machine()
        os.makedirs(os.path.join(machine.folder, "target"))
        os.symlink(binaries, os.path.join(machine.folder, "target/release"))
        said = machine.run(f"{name} {arguments}")
        shown = [line for line in said.splitlines() if line.startswith("leecher ") and line.endswith("the same")]
        if "PIECES FROM" not in said or len(shown) != 4:
            raise Failure(f"{name} does not show what README shows: {said}")


def share_and_get(commands, new_machine, stack, _binaries):
    if commands[0] == "torrent-peer share linux.iso":
        sharing = new_machine()
        source = sharing.make("linux.iso", 5_000_000)
        share_and_get.first = sharing.terminal(stack, commands[0]), source
        share_and_get.first[0].wait_for("\nseeding linux.iso")
        return
    if len(commands) == 1:
        shared, source = share_and_get.first
        # README shows the command that `share` shows, but for the address.
        name_and_port = re.search(r"torrent-peer get linux\.iso \S+?(:\d+)", shared.said())
        if not name_and_port or not commands[0].endswith(f"{MACHINE}{name_and_port[1]}"):
            raise Failure(f"`share` shows another command than README's `{commands[0]}`: {shared.said()}")
        other = new_machine()
        got = other.terminal(stack, commands[0])
        got.wait_for("\nseeding linux.iso")
        must_be_same(source, os.path.join(other.folder, "Downloads/linux.iso"))
        got.interrupt()
        shared.interrupt()


def own_tracker(commands, new_machine, stack, _binaries):
    tracker, share, get = commands
    machine = new_machine()
    source = machine.make("linux.iso", 5_000_000)
    terminals = [machine.terminal(stack, tracker)]
    terminals[0].wait_for("http://127.0.0.1:6771")
    for command in (share, get):
        terminals.append(machine.terminal(stack, command))
        terminals[-1].wait_for("\nseeding linux.iso")
    must_be_same(source, os.path.join(machine.folder, "Downloads/linux.iso"))
    for terminal in reversed(terminals):
        terminal.interrupt()


def daemon(commands, new_machine, stack, _binaries):
    """What README puts into the background goes on until the namespace ends."""
    if commands[0] == "mkdir one two":
        daemon.machine = new_machine()
        script = "\n".join([*commands, "wait"])
        daemon.shell = daemon.machine.terminal(stack, f"sh -c '{script}'")
        for port, peers in ((5001, 52621), (5002, 52622)):
            daemon.shell.wait_for(f"control on http://127.0.0.1:{port}, peers on 127.0.0.1:{peers}")
        return
    for command in commands:
        daemon.machine.run(command)


def journal(commands, new_machine, stack, _binaries):
    """A daemon and a tracker at their usual ports, and a peer that has got the file from the daemon."""
    machine, other = new_machine(), new_machine()
    machine.terminal(stack, "torrent-tracker 127.0.0.1:8000").wait_for("http://127.0.0.1:8000")
    machine.terminal(stack, "torrent-daemon --tracker 127.0.0.1:8000").wait_for("control on http://127.0.0.1:5000")
    other.make("linux.iso", 5_000_000)
    sharing = other.terminal(stack, "torrent-peer share linux.iso 127.0.0.1:8000 127.0.0.1:52611")
    sharing.wait_for("\nseeding linux.iso")
    # Slowly at first, for the command that shows what comes.
    machine.run("torrent-leech --torrent linux.iso --download-limit 100KiB")
    for command in (command for command in commands if command.endswith("--follow")):
        following = machine.terminal(stack, command)
        following.wait_for("verified")
        following.interrupt()
    machine.run("torrent-set linux.iso --download-limit none")
    machine.run("torrent-leech --torrent linux.iso --wait")
    for command in (command for command in commands if not command.endswith("--follow")):
        said = machine.run(command)
        if command == commands[0] and "127.0.0.1:52611" not in said:
            raise Failure(f"`{command}` does not name who gave the pieces: {said}")


def tracker_console(commands, new_machine, stack, _binaries):
    (command,) = commands
    terminal = new_machine().terminal(stack, command)
    terminal.wait_for("http://127.0.0.1:8000")
    terminal.interrupt()


def tools(commands, new_machine, _stack, _binaries):
    machine = new_machine()
    for name in ("a.jpg", "b/c.jpg"):
        machine.make(f"photos/{name}", 3_000_000)
    for command in commands:
        machine.run(command)


SECTIONS = {
    "Share and get": share_and_get,
    "With a tracker of its own": own_tracker,
    "The daemon": daemon,
    "The journal": journal,
    "The tracker's console": tracker_console,
    "Tools": tools,
}


def case(binaries, _content, folder):
    found = blocks()
    if {title for title, _ in found} - {found[0][0], "Install"} != SECTIONS.keys():
        raise Failure("README or the tutorial has commands in other sections than are run here")
    subprocess.run(["ip", "address", "add", f"{MACHINE}/32", "dev", "lo"], check=True)
    # As in README's example, peers come from another machine.
    machines = iter(range(1, 100))

    def new_machine():
        return Machine(os.path.join(folder, f"machine-{next(machines)}"), binaries)

    for title in dict.fromkeys(title for title, _ in found):
        if title == "Install":
            continue
        # Sections may name the same ports.
        with ExitStack() as stack:
            for _, commands in (block for block in found if block[0] == title):
                SECTIONS.get(title, intro)(commands, new_machine, stack, binaries)
