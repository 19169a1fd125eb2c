"""Folders as they really are, from our `share` to our `get`: directly, and through another client.

Two trees: the headers of Linux (Debian's linux-libc-dev), in which names differ in case only, and a
folder of every awkward name. With a client in between, our seed leaves once the client has everything;
then our `get` has it from that client alone. Every file is compared by its SHA-256 and its executable
bit. The client's own files are found through its own listing, because it may give them other names.
"""

import hashlib
import os
import random
import signal
import socket
import stat
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field

import clients
import libtorrent
import trackers
from harness import TRACKER_HOST, TRANSMISSION_HOST, Failure, digests, run, wait_for

HEADERS = "/usr/include/linux"

# Where our peer is that gets from another client what our first has given it.
LATER_HOST = "10.99.0.4"


@dataclass
class Name:
    """A file's path on the disk of who shares it, in the torrent, and on the disk of who gets it with
    our `get`; the later ones as the ones before if not given."""

    disk: bytes | str
    torrent: str | None = None
    written: str | None = None
    size: int = 2_000
    runs: bool = False

    def __post_init__(self):
        self.disk = os.fsdecode(self.disk)
        self.torrent = self.disk if self.torrent is None else self.torrent
        self.written = self.torrent if self.written is None else self.written


def cut(name, escaped):
    """What our `get` writes for a name that is too long once it is `escaped`."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{escaped[: 255 - 34]}%~{digest}"


AWKWARD = [
    # Names that differ in case or in Unicode's form only; a file beside a folder.
    *map(Name, ["README", "readme", "Z", "z/inside", "Caf\u00e9.txt", "Cafe\u0301.txt", "STRASSE", "stra\u00dfe"]),
    # Backslashes: letters on Linux, but for those that would lead somewhere on Windows.
    *map(Name, ["system-x\\x2dy.mount", "back\\slash.txt", "end\\"]),
    Name("..\\up", "..up"),
    Name("C:\\drive", "C:drive"),
    Name("\\root", "root"),
    # Not UTF-8: the name that is read from it must not take that of another file.
    Name(b"cr\xe8me br\xfbl\xe9e", "crème brûlée"),
    Name(b"d\xe9p\xf4t/\xfcber.txt", "dépôt/über.txt"),
    Name(b"Zo\xeb.txt", "Zoë.1.txt"),
    Name("Zoë.txt"),
    # A character that stands for a byte elsewhere.
    Name("mark\U0010ffe9", "mark_"),
    # What terminals, scripts and readers would obey.
    Name("bell\x07", written="bell%07"),
    Name("escape\x1b[2J.txt", written="escape%1B[2J.txt"),
    Name("line\nbreak", written="line%0Abreak"),
    Name("tab\there", written="tab%09here"),
    Name("delete\x7f", written="delete%7F"),
    Name("c1\u009b31m", written="c1%C2%9B31m"),
    Name("gpj.\u202eexe", written="gpj.%E2%80%AEexe"),
    Name("zero\u200bwidth", written="zero%E2%80%8Bwidth"),
    Name("folder\x1b/inside", written="folder%1B/inside"),
    Name("-rf", written="%2Drf"),
    Name("--help", written="%2D-help"),
    # What could be taken for such an escape.
    Name("%2Drf", written="%252Drf"),
    Name("%~x", written="%25~x"),
    *map(Name, ["100%", "50% off", "%zz"]),
    # Right to left, joined, beyond the first plane.
    *map(Name, ["مرحبا بالعالم.txt", "שלום/עולם.txt", "👨\u200d👩.jpg"]),
    # Dots, spaces, and letters of shells.
    *map(Name, [".hidden", "..two", "...three", ".folder/.inside", "tail ", "dot.", " lead", "a b/c d"]),
    *map(Name, ["$(reboot)", "`id`", "semi;colon", "it's", "~", "#x", "amp&", "star*"]),
    # What Windows forbids.
    *map(Name, ["CON", "aux.txt", "colon:x", 'quote"x', "pipe|x", "angle<x", "what?x"]),
    # As long as a name can be; no room for the ending of an unfinished file, or for an escape.
    *map(Name, ["n" * 251 + ".bin", "文" * 85, "d" * 255 + "/" + "f" * 255]),
    Name("\x1b" + "e" * 254, written=cut("\x1b" + "e" * 254, "%1B" + "e" * 254)),
    # One that has the name of the other while that is unfinished; what looks like padding.
    *map(Name, ["half", "half.part", ".pad/10"]),
    # Empty, one byte, and sizes around that of a block; executable.
    Name("empty", size=0),
    Name("empty folder no more/empty", size=0),
    Name("one", size=1),
    Name("block", size=16_384),
    Name("block and one", size=16_385),
    Name("large", size=1_500_001),
    Name("run.sh", runs=True),
    Name("run empty", size=0, runs=True),
]

# What is shared beside these with `--follow-links`, as the names of AWKWARD's files that they are.
FOLLOWED = {"link": "README", "link to z/inside": "z/inside", "link out": "../beside"}

# BitComet's name for padding: nobody would write a file of this name.
PADDING = "_____padding_file_0_if you see this file, please update____"

# Left out always, and what the notice says.
LEFT_OUT = {
    "pipe": "is neither a file nor a folder",
    "socket": "is neither a file nor a folder",
    PADDING: "has the name of padding",
    "link to nothing": "is a symbolic link",
    "link above": "is a symbolic link",
}


@dataclass
class Tree:
    """A folder to share."""

    path: str
    # By paths below `path` of all that is shared.
    names: dict
    # What is to be heard when it is shared.
    notices: list = field(default_factory=list)
    options: list = field(default_factory=list)


def headers(folder):
    """The headers of Linux where they are, else a tree of their shape."""
    if os.path.isdir(HEADERS):
        path = HEADERS
    else:
        print(f"there is no {HEADERS} (linux-libc-dev): a made tree of its shape is shared instead")
        path = os.path.join(folder, "linux")
        chance = random.Random(1)
        twins = [f"netfilter/xt_{name}.h" for name in ("DSCP", "MARK", "RATEEST", "TCPMSS", "CONNMARK")]
        plain = [f"{at}{number:03}.h" for at in ("", "netfilter/", "can/", "raid/") for number in range(140)]
        for name in [*twins, *map(str.lower, twins), *plain]:
            write(os.path.join(path, name), chance.randbytes(chance.randrange(0, 30_000)))
    return Tree(path, {name: Name(name) for name in shape(path)})


def awkward(folder, follow=False):
    """A folder of all of AWKWARD, and of what is left out."""
    path = os.path.join(folder, "awkward")
    chance = random.Random(2)
    for name in AWKWARD:
        write(os.path.join(path, name.disk), chance.randbytes(name.size), name.runs)
    write(os.path.join(folder, "beside"), chance.randbytes(3_000), True)
    write(os.path.join(path, PADDING), b"no zeros")
    os.mkdir(os.path.join(path, "hollow"))
    os.mkfifo(os.path.join(path, "pipe"))
    with socket.socket(socket.AF_UNIX) as bound:
        # A socket's path may have 108 bytes.
        at = os.open(path, os.O_PATH)
        bound.bind(f"/proc/self/fd/{at}/socket")
        os.close(at)
    for link, target in {
        "link": "README",
        "link to z": "z",
        "link out": "../beside",
        "link to nothing": "gone",
        "link above": "..",
    }.items():
        os.symlink(target, os.path.join(path, link))
    tree = Tree(path, {name.disk: name for name in AWKWARD})
    tree.notices = [f"/{name}` {why}" for name, why in LEFT_OUT.items()]
    if follow:
        tree.options = ["--follow-links"]
        tree.names.update({name: Name(name) for name in FOLLOWED})
    else:
        tree.notices += [f"/{name}` is a symbolic link" for name in ("link", "link to z", "link out")]
    return tree


def write(path, data, runs=False):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data)
    os.chmod(path, 0o755 if runs else 0o644)


def sums(path, names):
    """SHA-256 and executable bit of `names` below `path`."""
    found = {}
    for name in names:
        with open(os.path.join(path, name), "rb") as data:
            runs = bool(os.fstat(data.fileno()).st_mode & stat.S_IXUSR)
            found[name] = hashlib.file_digest(data, "sha256").hexdigest(), runs
    return found


def shape(path):
    """The paths below `path` of all that is no folder."""
    return [os.path.relpath(os.path.join(at, name), path) for at, _, names in os.walk(path) for name in names]


def share(tree, binaries, tracker, folder):
    """Our peer that shares `tree`, the torrent that it made, and the info-hash of that."""
    peer = clients.Ours(folder, binaries, "sharer")
    at = f"{tracker.host}:{tracker.port}"
    peer.spawn([peer.program, "share", tree.path, at, f"{peer.host}:{peer.port}", *tree.options])
    made = os.path.join(peer.folder, "torrents")

    def torrents():
        peer.process.must_run()
        return [os.path.join(made, name) for name in os.listdir(made) if name.endswith(".torrent")]

    try:
        (torrent,) = wait_for("a torrent", 60, torrents)
        wait_for("our peer to seed", 60, lambda: peer.process.must_run() or "\nseeding " in peer.process.output())
        said = peer.process.output()
        for notice in tree.notices:
            if notice not in said:
                raise Failure(f"share does not say {notice!r}")
        info_hash = clients.show(binaries, torrent, folder)["info_hash"]
        tracker.wait_for_seeders(info_hash, 1)
    except BaseException:
        peer.stop()
        raise
    return peer, torrent, info_hash


def leave(peer):
    """Tells our peer to leave, and waits until it has told the tracker."""
    peer.process.child.send_signal(signal.SIGTERM)
    code = peer.process.wait(30)
    if code != 0:
        raise Failure(f"our peer ended with exit code {code}")


def check_got(tree, got):
    """Fails unless `got` has what of `tree` is shared, and nothing else, under the names that our
    `get` gives."""
    wanted = {tree.names[disk].written: what for disk, what in sums(tree.path, tree.names).items()}
    compare(wanted, sums(got, shape(got)))


def compare(wanted, found):
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        shown = {name: (wanted.get(name), found.get(name)) for name in different[:5]}
        raise Failure(f"{len(different)} of {len(wanted)} files are not as shared: {shown}")


def check_theirs(tree, torrent, client, into, binaries, folder):
    """Fails unless what `client` has is what was shared, file by file of its own listing, which has the
    torrent's order."""
    ours = [file["path"] for file in clients.show(binaries, torrent, folder)["files"]]
    theirs = client.paths(torrent)
    if len(ours) != len(theirs):
        raise Failure(f"{client.name} lists {len(theirs)} files, we {len(ours)}")
    top = ours[0].split("/")[0]
    disk_of = {f"{top}/{name.torrent}": disk for disk, name in tree.names.items()}
    wanted = sums(tree.path, tree.names)
    size_of = {disk: os.path.getsize(os.path.join(tree.path, disk)) for disk in tree.names}
    for path, their_path in zip(ours, theirs):
        disk = disk_of[path]
        if not size_of[disk] and not client.makes_empty_files:
            continue
        (found,) = digests(os.path.join(into, their_path)).values()
        if found != wanted[disk][0]:
            raise Failure(f"{client.name} has {path!r} wrong, at {their_path!r}")


def verify(binaries, torrent, data, folder, what):
    """Our torrent-verify must find all of it where it lies."""
    code, said = run(f"verify-{what}", [os.path.join(binaries, "torrent-verify"), torrent, "--data", data], folder)
    if code != 0:
        raise Failure(f"torrent-verify does not find {what} whole: {said}")


def direct(make):
    """From `share` to `get`, which asks the catalogue; then everything is found by `torrent-verify`,
    and by a `share --torrent` of the same folder and another `get`."""

    def case(binaries, _content, folder):
        tree = make(folder)
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder)
            stack.callback(tracker.stop)
            sharer, torrent, info_hash = share(tree, binaries, tracker, folder)
            stack.callback(sharer.stop)
            top = os.path.basename(tree.path)
            at = f"{tracker.host}:{tracker.port}"

            def get(name, what):
                peer = clients.Ours(folder, binaries, name)
                stack.callback(peer.stop)
                into = os.path.join(folder, f"got-{name}")
                peer.get(what, into, at)
                peer.wait_until_complete()
                check_got(tree, os.path.join(into, top))
                return into

            into = get("first", top)
            leave(sharer)
            verify(binaries, torrent, into, folder, "the copy")
            if tree.options:
                # Where links led to cannot be read from the torrent.
                return
            verify(binaries, torrent, os.path.dirname(tree.path), folder, "what was shared")
            again = clients.Ours(folder, binaries, "again")
            stack.callback(again.stop)
            again.share(torrent, os.path.dirname(tree.path), at)
            tracker.wait_for_seeders(info_hash, 1)
            get("second", torrent)

    return case


# Names of what is shared itself, and what our `get` writes.
TOPS = [
    (b"d\xe9p\xf4t", "dépôt"),
    ("-rf", "%2Drf"),
    ("escape\x1b[2J", "escape%1B[2J"),
    ("..\\up", "..up"),
    (" quoted 'name' ", " quoted 'name' "),
    ("n" * 255, "n" * 255),
    ("%2Drf", "%252Drf"),
    ("_", "_"),
]


def tops(binaries, _content, folder):
    """Files and folders whose own names are awkward: shared, got by their info-hash, and found again beside
    their torrent."""
    with ExitStack() as stack:
        tracker = trackers.ours(binaries, folder)
        stack.callback(tracker.stop)
        at = f"{tracker.host}:{tracker.port}"
        for number, (disk, written) in enumerate(TOPS):
            for kind in ("file", "folder"):
                own = os.path.join(folder, f"{number}-{kind}")
                path = os.path.join(own, os.fsdecode(disk))
                inside = ["", "a/b"][kind == "folder"]
                write(os.path.join(path, inside) if inside else path, os.urandom(20_000))
                sharer, torrent, info_hash = share(Tree(path, {}), binaries, tracker, own)
                stack.callback(sharer.stop)
                getter = clients.Ours(own, binaries, "getter")
                stack.callback(getter.stop)
                into = os.path.join(own, "got")
                getter.get(info_hash, into, at)
                getter.wait_until_complete()
                leave(sharer)
                if os.listdir(into) != [written]:
                    raise Failure(f"{disk!r} came as {os.listdir(into)}")
                if digests(path) != digests(os.path.join(into, written)):
                    raise Failure(f"{disk!r} is not what was shared")
                # Made alone it lies in the working folder, under a name that can be used.
                code, said = run("create", [os.path.join(binaries, "torrent-create"), path], own)
                made = [name for name in os.listdir(own) if name.endswith(".torrent")]
                if code != 0 or len(made) != 1 or not made[0].isprintable() or made[0].startswith("-"):
                    raise Failure(f"torrent-create made {made}: {said}")
                # The content itself, and the folder it lies in.
                for data in (path, own, os.path.join(into, written), into):
                    verify(binaries, torrent, data, own, "it")


def through(client, make):
    """From `share` to a client at its default settings; our peer leaves, and `get` has it from the
    client."""

    def case(binaries, _content, folder):
        tree = make(folder)
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder, TRACKER_HOST)
            stack.callback(tracker.stop)
            sharer, torrent, info_hash = share(tree, binaries, tracker, folder)
            stack.callback(sharer.stop)
            other = clients.DEFAULT[f"default {client}"](folder)
            stack.callback(other.stop)
            into = os.path.join(folder, "theirs")
            other.add(torrent, into)
            other.wait_until_complete()
            check_theirs(tree, torrent, other, into, binaries, folder)
            leave(sharer)
            move_us()
            getter = clients.Ours(folder, binaries, "getter")
            getter.host = LATER_HOST
            stack.callback(getter.stop)
            got = os.path.join(folder, "got")
            getter.get(torrent, got, f"{tracker.host}:{tracker.port}")
            getter.wait_until_complete()
            check_got(tree, os.path.join(got, os.path.basename(tree.path)))

    return case


def move_us():
    """Has our peers come from another address from now on: Transmission takes whoever comes from the
    address of a seed for one, and gives it nothing."""
    subprocess.run(["ip", "address", "add", f"{LATER_HOST}/32", "dev", "lo"], check=True)
    route = ["ip", "route", "replace", "local", TRANSMISSION_HOST, "dev", "lo", "table", "local"]
    subprocess.run([*route, "src", LATER_HOST], check=True)


def all_cases():
    """Names and bodies."""
    yield "Linux's headers come back as they were shared", direct(headers)
    yield "a folder of awkward names comes back as it was shared", direct(awkward)
    yield "what links lead to comes back as it was shared", direct(lambda folder: awkward(folder, follow=True))
    yield "files and folders whose own names are awkward come back", tops
    for client in ("libtorrent", "transmission"):
        yield f"Linux's headers come back through {client}", through(client, headers)
        yield f"a folder of awkward names comes back through {client}", through(client, awkward)
