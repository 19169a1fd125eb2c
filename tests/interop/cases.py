"""The cases: who gives what to whom through which tracker, and what others say of our torrents."""

import os
import shutil
import subprocess
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable

import clients
import first_byte
import holdings
import readme
import round_trips
import trackers
from harness import HOST, Failure, check_same, copy_of, free_port, listening, make_content, run, wait_for

# libtorrent calls the old way to make a torrent deprecated; both still do the same.
warnings.simplefilter("ignore", DeprecationWarning)
import libtorrent  # noqa: E402


@dataclass
class Case:
    name: str
    run: Callable


def prepare(folder):
    """Makes what the cases share, anew; `contents` tells where."""
    shutil.rmtree(folder, ignore_errors=True)
    make_content(folder)


def driver(client):
    return {**clients.FOREIGN, **clients.DEFAULT, **clients.DEMANDING}[client]


def they_get(client, scheme, kind, encryption=None):
    """A client downloads from our peer, through our tracker. `encryption` is our peer's setting."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder)
            stack.callback(tracker.stop)
            url = tracker.url(scheme)
            torrent, info_hash = clients.create(binaries, content[kind], url, folder)
            peer = clients.Ours(folder, binaries)
            peer.encryption = encryption
            stack.callback(peer.stop)
            peer.share(torrent, os.path.dirname(content[kind]), url)
            tracker.wait_for_seeders(info_hash, 1)
            leecher = driver(client)(folder)
            stack.callback(leecher.stop)
            into = os.path.join(folder, "got")
            leecher.add(torrent, into)
            leecher.wait_until_complete()
            got = os.path.join(into, os.path.basename(content[kind]))
            check_same(content[kind], got, leecher.makes_empty_files)

    return Case(f"{client} gets {kind} from us over {scheme}{said_of(encryption)}", case)


def they_seed(client, scheme, kind, encryption=None):
    """Our peer downloads from a client, through our tracker. `encryption` is our peer's setting."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder)
            stack.callback(tracker.stop)
            url = tracker.url(scheme)
            torrent, info_hash = clients.create(binaries, content[kind], url, folder)
            seeder = driver(client)(folder)
            stack.callback(seeder.stop)
            seeder.add(torrent, copy_of(content[kind], os.path.join(folder, "seed")))
            seeder.wait_until_complete()
            tracker.wait_for_seeders(info_hash, 1)
            peer = clients.Ours(folder, binaries)
            peer.encryption = encryption
            stack.callback(peer.stop)
            into = os.path.join(folder, "got")
            peer.get(torrent, into, url)
            peer.wait_until_complete()
            check_same(content[kind], os.path.join(into, os.path.basename(content[kind])))

    return Case(f"{client} seeds {kind} to us over {scheme}{said_of(encryption)}", case)


def magnet_of(binaries, torrent):
    """The link that torrent-show prints: only the info-hash, the name and the trackers."""
    shown = subprocess.run(
        [os.path.join(binaries, "torrent-show"), "--magnet", torrent], capture_output=True, text=True, check=True
    )
    return shown.stdout.strip()


def libtorrent_gets_by_magnet(scheme, kind):
    """libtorrent has only the magnet link, and gets the metadata and the content from us."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder)
            stack.callback(tracker.stop)
            url = tracker.url(scheme)
            torrent, info_hash = clients.create(binaries, content[kind], url, folder)
            peer = clients.Ours(folder, binaries)
            stack.callback(peer.stop)
            peer.share(torrent, os.path.dirname(content[kind]), url)
            tracker.wait_for_seeders(info_hash, 1)
            leecher = clients.Libtorrent(folder)
            stack.callback(leecher.stop)
            into = os.path.join(folder, "got")
            leecher.add(magnet_of(binaries, torrent), into)
            leecher.wait_until_complete()
            check_same(content[kind], os.path.join(into, os.path.basename(content[kind])), leecher.makes_empty_files)

    return Case(f"libtorrent gets {kind} from us by a magnet link over {scheme}", case)


def we_get_by_magnet(client, scheme, kind):
    """We have only the magnet link, and a client has the rest. No catalogue has the torrent."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            tracker = trackers.ours(binaries, folder)
            stack.callback(tracker.stop)
            url = tracker.url(scheme)
            torrent, info_hash = clients.create(binaries, content[kind], url, folder)
            seeder = driver(client)(folder)
            stack.callback(seeder.stop)
            seeder.add(torrent, copy_of(content[kind], os.path.join(folder, "seed")))
            seeder.wait_until_complete()
            tracker.wait_for_seeders(info_hash, 1)
            peer = clients.Ours(folder, binaries)
            stack.callback(peer.stop)
            into = os.path.join(folder, "got")
            peer.get(magnet_of(binaries, torrent), into, url)
            peer.wait_until_complete()
            check_same(content[kind], os.path.join(into, os.path.basename(content[kind])))

    return Case(f"{client} seeds {kind} to us by a magnet link over {scheme}", case)


# Nobody listens there: whoever is found is found otherwise.
NO_TRACKER = f"http://{HOST}:9/announce"


def by_exchange(middle, getter):
    """`getter` knows only `middle`, which downloads so slowly that it has next to nothing, and finds the seed
    by peer exchange with it. One of the two is ours."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            torrent, _ = clients.create(binaries, content["single"], NO_TRACKER, folder)

            def client(name, role):
                within = os.path.join(folder, role)
                os.makedirs(within)
                made = clients.Ours(within, binaries) if name == "piecework" else driver(name)(within)
                made.exchanges = True
                stack.callback(made.stop)
                return made

            seeder = client("libtorrent", "seed")
            seeder.add(torrent, copy_of(content["single"], os.path.join(folder, "whole")))
            seeder.wait_until_complete()
            slow, fast = client(middle, "middle"), client(getter, "getter")
            seed, into = f"{seeder.host}:{seeder.port}", os.path.join(folder, "got")
            known = f"{slow.host}:{slow.port}"
            if middle == "piecework":
                slow.settings = ['download_limit = "2KiB"']
                slow.get_from(torrent, os.path.join(folder, "little"), seed)
                wait_for("our peer to listen", 30, lambda: slow.process.must_run() or listening(slow.port))
            else:
                slow.limit, slow.peers = 2, [seed]
                slow.add(torrent, os.path.join(folder, "little"))
            if getter == "libtorrent":
                fast.peers = [known]
                fast.add(torrent, into)
            elif getter == "piecework":
                fast.get_from(torrent, into, known)
            fast.wait_until_complete()
            check_same(content["single"], os.path.join(into, os.path.basename(content["single"])), fast.makes_empty_files)

    return Case(f"{getter} finds a seed by exchange with {middle} alone", case)


def said_of(encryption):
    return f", our encryption `{encryption}`" if encryption else ""


def through_opentracker(scheme, kind):
    """Two peers of ours, through a tracker that is not ours."""

    def case(binaries, content, folder):
        with ExitStack() as stack:
            port = free_port()
            url = f"{scheme}://{HOST}:{port}/announce"
            torrent, info_hash = clients.create(binaries, content[kind], url, folder)
            tracker = trackers.opentracker(port, [info_hash], folder)
            stack.callback(tracker.stop)
            seeder = clients.Ours(folder, binaries, "piecework-seeder")
            stack.callback(seeder.stop)
            seeder.share(torrent, os.path.dirname(content[kind]), url)
            tracker.wait_for_seeders(info_hash, 1)
            leecher = clients.Ours(folder, binaries, "piecework-leecher")
            stack.callback(leecher.stop)
            into = os.path.join(folder, "got")
            leecher.get(torrent, into, url)
            leecher.wait_until_complete()
            check_same(content[kind], os.path.join(into, os.path.basename(content[kind])))

    return Case(f"our peers share {kind} through opentracker over {scheme}", case)


def btcheck_accepts(kind):
    """btcheck reads our torrent, names our info-hash, and finds the content whole."""

    def case(binaries, content, folder):
        torrent, info_hash = clients.create(binaries, content[kind], "http://t.example/announce", folder)
        code, said = run("btcheck-info", ["btcheck", "-n", "-i", torrent], folder)
        if code != 0 or info_hash not in said.lower():
            raise Failure(f"btcheck -i ended with {code} and did not name {info_hash}")
        # btcheck looks for the content in its working folder.
        copy = copy_of(content[kind], os.path.join(folder, "data"))
        code, _ = run("btcheck", ["btcheck", "-q", torrent], copy)
        if code != 0:
            raise Failure(f"btcheck found the content damaged, exit code {code}")

    return Case(f"btcheck accepts our {kind} torrent", case)


def libtorrent_agrees(kind):
    """libtorrent reads our torrent, computes our info-hash, and hashes the pieces as we do."""

    def case(binaries, content, folder):
        url = "http://t.example/announce"
        torrent, info_hash = clients.create(binaries, content[kind], url, folder)
        read = libtorrent.torrent_info(torrent)
        if str(read.info_hashes().v1) != info_hash:
            raise Failure(f"libtorrent computes {read.info_hashes().v1}, we say {info_hash}")
        if [tracker.url for tracker in read.trackers()] != [url]:
            raise Failure("libtorrent reads other trackers than we wrote")
        # In the order of our files: the order of files in a folder is the maker's choice.
        files = libtorrent.file_storage()
        for index in range(read.files().num_files()):
            files.add_file(read.files().file_path(index), read.files().file_size(index))
        made = libtorrent.create_torrent(
            files, read.piece_length(), flags=libtorrent.create_torrent.v1_only
        )
        libtorrent.set_piece_hashes(made, os.path.dirname(content[kind]))
        theirs = made.generate()[b"info"][b"pieces"]
        with open(torrent, "rb") as data:
            info = libtorrent.bdecode(data.read())[b"info"]
        if info[b"pieces"] != theirs:
            raise Failure("our piece hashes are not libtorrent's")
        if libtorrent.bencode(info) not in open(torrent, "rb").read():
            raise Failure("libtorrent would write our info dictionary in another way")

    return Case(f"libtorrent agrees with our {kind} torrent", case)


def we_read_theirs(kind):
    """Our programs read libtorrent's torrent, name its info-hash, and verify the content."""

    def case(binaries, content, folder):
        files = libtorrent.file_storage()
        libtorrent.add_files(files, content[kind])
        made = libtorrent.create_torrent(files, 1 << 16, flags=libtorrent.create_torrent.v1_only)
        made.add_tracker("http://a.example/announce", 0)
        made.add_tracker("udp://b.example:80/announce", 1)
        made.set_priv(True)
        libtorrent.set_piece_hashes(made, os.path.dirname(content[kind]))
        torrent = os.path.join(folder, "theirs.torrent")
        with open(torrent, "wb") as out:
            out.write(libtorrent.bencode(made.generate()))
        shown = clients.show(binaries, torrent, folder)
        wanted = {
            "info_hash": str(libtorrent.torrent_info(torrent).info_hashes().v1),
            "private": True,
            "trackers": [["http://a.example/announce"], ["udp://b.example:80/announce"]],
        }
        for key, value in wanted.items():
            if shown.get(key) != value:
                raise Failure(f"torrent-show says {key} {shown.get(key)!r}, libtorrent {value!r}")
        verify = [os.path.join(binaries, "torrent-verify"), torrent, "--data"]
        copy = copy_of(content[kind], os.path.join(folder, "data"))
        code, said = run("verify-whole", [*verify, copy], folder)
        if code != 0:
            raise Failure(f"torrent-verify does not find the content whole: {said}")
        damaged = os.path.join(copy, "single.bin" if kind == "single" else "multi/z-large.bin")
        with open(damaged, "r+b") as data:
            data.seek(1_000_000)
            byte = data.read(1)[0]
            data.seek(1_000_000)
            data.write(bytes([byte ^ 1]))
        code, said = run("verify-damaged", [*verify, copy], folder)
        if code == 0:
            raise Failure("torrent-verify finds damaged content whole")

    return Case(f"we read libtorrent's {kind} torrent", case)


def holdings_are_seen():
    """The tracker's map of who holds what, against what the clients say themselves."""
    return Case("the tracker sees what every client holds", holdings.case)


def first_byte_comes(client, scheme, seconds):
    """A client gets its first byte from a seed of ours that has been idle, within `seconds`: far more than
    the table in docs/performance.md has, far less than two minutes, which is how long it was once."""

    def case(binaries, _content, folder):
        took = first_byte.seconds_of(binaries, client, "ours", folder, seconds, scheme)
        print(f"{took:.1f} s")

    return Case(f"default {client} has a first byte from our idle seed within {seconds} s over {scheme}", case)


KINDS = ("single", "multi")
SCHEMES = ("http", "udp")
ALL = [
    holdings_are_seen(),
    # What users have, who change no settings. First, because Transmission tries uTP for two minutes.
    *(make(client, "http", "single") for client in clients.DEFAULT for make in (they_get, they_seed)),
    # Encryption required by them, by both, and by nobody and refused by us.
    *(
        make(client, "http", "single", encryption)
        for make in (they_get, they_seed)
        for encryption, drivers in ((None, clients.DEMANDING), ("require", clients.DEMANDING), ("plain", clients.DEFAULT))
        for client in drivers
    ),
    *(libtorrent_gets_by_magnet(scheme, kind) for scheme in SCHEMES for kind in KINDS),
    *(we_get_by_magnet(client, scheme, "single") for client in clients.FOREIGN for scheme in SCHEMES),
    we_get_by_magnet("demanding libtorrent", "http", "single"),
    by_exchange("libtorrent", "piecework"),
    by_exchange("piecework", "libtorrent"),
    *(first_byte_comes(client, scheme, 60) for client in clients.FOREIGN for scheme in SCHEMES),
    *(Case(name, body) for name, body in round_trips.all_cases()),
    Case("the commands of README and the tutorial run word for word", readme.case),
    *(make(kind) for make in (btcheck_accepts, libtorrent_agrees, we_read_theirs) for kind in KINDS),
    *(through_opentracker(scheme, kind) for scheme in SCHEMES for kind in KINDS),
    *(
        make(client, scheme, kind)
        for client in clients.FOREIGN
        for make in (they_get, they_seed)
        for scheme in SCHEMES
        for kind in KINDS
    ),
]
