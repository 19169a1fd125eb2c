"""One libtorrent peer: HOST PORT TORRENT FOLDER CONTROL LIMIT SETTINGS [PEER...]. TORRENT is a file or a magnet link. Says `begun` when it has
downloaded something and `complete` when it has all, runs until it is ended. Whoever connects to port CONTROL gets the bitfield of the pieces it holds. It downloads LIMIT
KiB a second at most, 0 is no limit. SETTINGS is `plain` (neither discovery nor uTP nor encryption),
`exchange` (the same, but peers are exchanged), `encrypted` (as `plain`, but all connections must be encrypted as a whole) or `as-it-comes` (all of these,
encryption preferred). It connects to each PEER, HOST:PORT."""

import socket
import sys
import threading
import time

import libtorrent

host, port, torrent, folder, control, limit, settings, *peers = sys.argv[1:]
PLAIN = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
}
# Forced both ways; RC4 only.
ENCRYPTED = {**PLAIN, "in_enc_policy": 0, "out_enc_policy": 0, "allowed_enc_level": 2}
# RC4 before plain text wherever the other side knows it.
AS_IT_COMES = {"prefer_rc4": True}
session = libtorrent.session(
    {
        "listen_interfaces": f"{host}:{port}",
        "download_rate_limit": int(limit) << 10,
        **{"plain": PLAIN, "exchange": PLAIN, "encrypted": ENCRYPTED, "as-it-comes": AS_IT_COMES}[settings],
        # Every peer of the suite has the same address.
        "allow_multiple_connections_per_ip": True,
        "alert_mask": libtorrent.alert.category_t.status_notification
        | libtorrent.alert.category_t.tracker_notification
        | libtorrent.alert.category_t.error_notification,
    }
)
if torrent.startswith("magnet:"):
    params = libtorrent.parse_magnet_uri(torrent)
else:
    params = libtorrent.add_torrent_params()
    params.ti = libtorrent.torrent_info(torrent)
params.save_path = folder
params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
if settings not in ("as-it-comes", "exchange"):
    params.flags |= libtorrent.torrent_flags.disable_pex
handle = session.add_torrent(params)
for peer in peers:
    peer_host, _, peer_port = peer.rpartition(":")
    handle.connect_peer((peer_host, int(peer_port)))


def tell_pieces(listener):
    while True:
        asking, _ = listener.accept()
        held = handle.status(libtorrent.status_flags_t.query_pieces).pieces
        bitfield = bytearray((len(held) + 7) // 8)
        for piece, here in enumerate(held):
            if here:
                bitfield[piece // 8] |= 0x80 >> piece % 8
        with asking:
            asking.sendall(bitfield)


threading.Thread(target=tell_pieces, args=[socket.create_server((host, int(control)))], daemon=True).start()
said = begun = False
while True:
    for alert in session.pop_alerts():
        print(alert.message(), flush=True)
    if not begun and handle.status().total_payload_download > 0:
        begun = True
        print("begun", flush=True)
    if not said and handle.status().is_seeding:
        said = True
        print("complete", flush=True)
    time.sleep(0.1)
