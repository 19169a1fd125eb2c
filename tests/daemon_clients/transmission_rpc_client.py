"""Cases: PyPI's transmission-rpc drives the daemon. Run by run.py with each version's own Python:

    transmission_rpc_client.py BIN_DIR FOLDER CASE
"""

import os
import sys

from daemon import Content, Daemon, check, wait_for


def client_of(daemon):
    import transmission_rpc

    return transmission_rpc.Client(host=daemon.host, port=daemon.port, path="/transmission/rpc", timeout=60)


def status_of(client, hash):
    return str(getattr(client.get_torrent(hash), "status", ""))


def adding_and_getting(daemon, folder):
    client, one = client_of(daemon), Content(folder, "one")
    with open(one.torrent, "rb") as file:
        added = client.add_torrent(file, paused=True, labels=["red"], download_dir=os.path.join(daemon.downloads, "sub"))
    check((added.id, added.name) == (1, "one"), f"{added} was added")
    torrent = client.get_torrent(1)
    check(torrent.info_hash == one.hash, "the hash is another")
    check(torrent.total_size == one.size, f"its size is {torrent.total_size}")
    check(torrent.download_dir == os.path.join(daemon.downloads, "sub"), f"it lies in {torrent.download_dir}")
    check(list(torrent.labels) == ["red"], f"its labels are {torrent.labels}")
    check(status_of(client, 1) == "stopped", f"it is {status_of(client, 1)}")
    check([file.size for file in torrent.get_files()] == list(one.SIZES.values()), f"its files are {torrent.get_files()}")
    check(torrent.percent_done == 0, f"{torrent.percent_done} of it is done")
    check([torrent.id for torrent in client.get_torrents()] == [1], "the list is another")
    active, removed = client.get_recently_active_torrents()
    check([torrent.id for torrent in active] == [1] and removed == [], f"active are {active}, gone {removed}")
    again = client.add_torrent(one.torrent_bytes())
    check(again.id == 1, "it was added twice")


def a_magnet_link_becomes_its_torrent(daemon, folder):
    client, one = client_of(daemon), Content(folder, "one")
    seeding = os.path.join(folder, "seeder")
    os.makedirs(seeding)
    seeder = Daemon(daemon.bin_dir, seeding)
    try:
        seed = client_of(seeder)
        one.write(seeder.downloads)
        link = f"magnet:?xt=urn:btih:{one.hash}&dn=linked&x.pe=127.0.0.1:{seed.get_session().peer_port}"
        added = client.add_torrent(link)
        check((added.id, added.name, added.hash_string if hasattr(added, "hash_string") else added.hashString) == (1, "linked", one.hash), f"{added} was added")
        torrent = client.get_torrent(1)
        check(torrent.metadata_percent_complete == 0, f"{torrent.metadata_percent_complete} of its metadata is here")
        check(status_of(client, 1) == "downloading", f"it is {status_of(client, 1)}")
        seed.add_torrent(one.torrent_bytes())
        client.stop_torrent(1)
        wait_for("the pause", lambda: status_of(client, 1) == "stopped")
        client.start_torrent(1)
        wait_for("the metadata", lambda: client.get_torrent(1).metadata_percent_complete == 1)
        wait_for("the content", lambda: client.get_torrent(1).percent_done == 1)
        check(client.get_torrent(1).name == "one", "it has another name")
        check(one.lies_in(daemon.downloads), "its files are others")
    finally:
        seeder.stop()


def changing(daemon, folder):
    client, one = client_of(daemon), Content(folder, "one")
    client.add_torrent(one.torrent_bytes(), paused=True)
    client.change_torrent(
        1, upload_limit=10, upload_limited=True, download_limit=20, download_limited=True,
        seed_ratio_limit=1.5, seed_ratio_mode=1, seed_idle_limit=3, seed_idle_mode=1, peer_limit=7,
        labels=["a", "b"], files_unwanted=[0], priority_high=[1], bandwidth_priority=1,
        tracker_list=[["http://127.0.0.1:5/announce"], ["http://127.0.0.1:6/announce"]],
    )
    torrent = client.get_torrent(1)
    check((torrent.upload_limit, torrent.download_limit) == (10, 20), "its limits are others")
    check((torrent.seed_ratio_limit, torrent.seed_idle_limit) == (1.5, 3), "its limits of seeding are others")
    check(torrent.peer_limit == 7, f"its peer limit is {torrent.peer_limit}")
    check(list(torrent.labels) == ["a", "b"], f"its labels are {torrent.labels}")
    files = torrent.get_files()
    check([file.selected for file in files] == [False, True, True], f"its files are {files}")
    tiers = [["http://127.0.0.1:5/announce"], ["http://127.0.0.1:6/announce"]]
    # Version 7 tells them without their tiers.
    check(torrent.tracker_list in (tiers, sum(tiers, [])), f"its trackers are {torrent.tracker_list}")
    check([tracker.tier for tracker in torrent.tracker_stats] == [0, 1], f"its trackers are {torrent.tracker_stats}")
    client.queue_top(1)
    client.start_torrent(1)
    wait_for("the start", lambda: status_of(client, 1) == "downloading")
    client.reannounce_torrent(1)
    client.stop_torrent(1)
    wait_for("the stop", lambda: status_of(client, 1) == "stopped")


def moving_renaming_removing(daemon, folder):
    client, one = client_of(daemon), Content(folder, "one")
    one.write(daemon.downloads)
    client.add_torrent(one.torrent_bytes())
    wait_for("the check", lambda: client.get_torrent(1).percent_done == 1)
    there = os.path.join(daemon.downloads, "there")
    client.move_torrent_data(1, there)
    wait_for("the move", lambda: client.get_torrent(1).download_dir == there and one.lies_in(there))
    client.move_torrent_data(1, there, move=False)
    path, name = client.rename_torrent_path(1, "one/c.txt", "d.txt")
    check((path, name) == ("one/c.txt", "d.txt"), f"it is {path}, {name}")
    check(os.path.exists(os.path.join(there, "one", "d.txt")), "the file has its old name")
    client.verify_torrent(1)
    wait_for("the check", lambda: client.get_torrent(1).percent_done == 1)
    client.remove_torrent(1, delete_data=True)
    check(client.get_torrents() == [], "it is still there")
    wait_for("the files to go", lambda: not os.path.exists(os.path.join(there, "one")))


def session(daemon, folder):
    client = client_of(daemon)
    told = client.get_session()
    check(told.download_dir == daemon.downloads, f"downloads go to {told.download_dir}")
    check(told.rpc_version == 18, f"the version is {told.rpc_version}")
    client.set_session(speed_limit_up=33, speed_limit_up_enabled=True, seed_ratio_limit=2.5, seed_ratio_limited=True)
    told = client.get_session()
    check((told.speed_limit_up, told.speed_limit_up_enabled) == (33, True), "the limit is another")
    check((told.seed_ratio_limit, told.seed_ratio_limited) == (2.5, True), "the ratio is another")
    stats = client.session_stats()
    check(stats.torrent_count == 0, f"there are {stats.torrent_count}")
    check(client.free_space(daemon.downloads) > 0, "there is no room")
    check(client.port_test(), "the port is not open")
    try:
        client.set_session(script_torrent_done_enabled=True, script_torrent_done_filename="/bin/true")
    except Exception as error:
        check("script_torrent_done" in str(error), f"the refusal is {error}")
    else:
        check(False, "a program could be set")
    client.set_group("slow", speed_limit_down=5)
    check(client.get_group("slow").speed_limit_down == 5, "the group is another")


CASES = [adding_and_getting, a_magnet_link_becomes_its_torrent, changing, moving_renaming_removing, session]


def main():
    bin_dir, folder, name = sys.argv[1:]
    case = next(case for case in CASES if case.__name__ == name)
    daemon = Daemon(bin_dir, folder)
    try:
        case(daemon, folder)
    finally:
        status = daemon.stop()
    check(status == 0, f"the daemon ended with {status}")


if __name__ == "__main__":
    main()
