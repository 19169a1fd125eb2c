"""One libtorrent peer: HOST PORT TORRENT FOLDER. Says `complete` when it has all, runs until it is
ended."""

import sys
import time

import libtorrent

host, port, torrent, folder = sys.argv[1:]
session = libtorrent.session(
    {
        "listen_interfaces": f"{host}:{port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": 2,
        "out_enc_policy": 2,
        # Every peer of the suite has the same address.
        "allow_multiple_connections_per_ip": True,
        "alert_mask": libtorrent.alert.category_t.status_notification
        | libtorrent.alert.category_t.tracker_notification
        | libtorrent.alert.category_t.error_notification,
    }
)
params = libtorrent.add_torrent_params()
params.ti = libtorrent.torrent_info(torrent)
params.save_path = folder
params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
params.flags |= libtorrent.torrent_flags.disable_pex
handle = session.add_torrent(params)
said = False
while True:
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
    if not said and handle.status().is_seeding:
        said = True
        print("complete", flush=True)
    time.sleep(0.1)
