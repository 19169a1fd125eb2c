-- Times are milliseconds since 1970 (UTC). docs/journal.md describes all of it.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    program TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER
) STRICT;
CREATE TABLE torrents (
    id INTEGER PRIMARY KEY,
    info_hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    size INTEGER,
    pieces INTEGER,
    piece_length INTEGER
) STRICT;
CREATE TABLE peers (
    id INTEGER PRIMARY KEY,
    addr TEXT NOT NULL,
    client TEXT NOT NULL,
    UNIQUE (addr, client)
) STRICT;
CREATE TABLE given_rows (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    time INTEGER NOT NULL,
    torrent INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    ranges TEXT,
    requested INTEGER,
    received INTEGER
) STRICT;
CREATE TABLE spans (
    torrent INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (torrent, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE sent_rows (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    time INTEGER NOT NULL,
    torrent INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    pieces TEXT NOT NULL
) STRICT;
CREATE INDEX sent_by_torrent ON sent_rows (torrent);
CREATE TABLE bad_rows (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    time INTEGER NOT NULL,
    torrent INTEGER NOT NULL,
    piece INTEGER NOT NULL,
    givers INTEGER NOT NULL,
    expected BLOB NOT NULL,
    got BLOB NOT NULL,
    peer INTEGER,
    block INTEGER,
    sent BLOB,
    right BLOB
) STRICT;
CREATE TABLE totals (
    torrent INTEGER NOT NULL,
    peer INTEGER NOT NULL,
    pieces INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    unused_blocks INTEGER NOT NULL,
    unused_bytes INTEGER NOT NULL,
    sent_blocks INTEGER NOT NULL,
    sent_bytes INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    timed INTEGER NOT NULL DEFAULT 0,
    took_ms INTEGER NOT NULL DEFAULT 0,
    longest_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (torrent, peer)
) STRICT, WITHOUT ROWID;
CREATE TABLE request_rows (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    time INTEGER NOT NULL,
    event INTEGER NOT NULL,
    via INTEGER NOT NULL,
    torrent INTEGER,
    name TEXT,
    peer TEXT NOT NULL,
    peer_id BLOB,
    client TEXT,
    returned INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    handed TEXT,
    error TEXT,
    unlisted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE drop_rows (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    time INTEGER NOT NULL,
    what TEXT NOT NULL,
    count INTEGER NOT NULL,
    torrent INTEGER
) STRICT;

CREATE VIEW pieces AS
SELECT g.id, strftime('%Y-%m-%dT%H:%M:%fZ', g.time / 1000.0, 'unixepoch') AS time,
    t.name AS torrent, lower(hex(t.info_hash)) AS info_hash, g.piece, p.addr AS peer, p.client,
    g.ranges AS blocks, g.blocks AS block_count, g.bytes,
    strftime('%Y-%m-%dT%H:%M:%fZ', (g.time - g.requested) / 1000.0, 'unixepoch') AS requested_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', (g.time - g.received) / 1000.0, 'unixepoch') AS received_at,
    g.requested - g.received AS took_ms,
    CASE g.verdict WHEN 0 THEN 'verified' WHEN 1 THEN 'failed' ELSE 'unused' END AS verdict,
    g.run
FROM given_rows g JOIN torrents t ON t.id = g.torrent JOIN peers p ON p.id = g.peer;
CREATE VIEW sent AS
SELECT s.id, strftime('%Y-%m-%dT%H:%M:%fZ', s.time / 1000.0, 'unixepoch') AS time,
    t.name AS torrent, lower(hex(t.info_hash)) AS info_hash,
    CASE j.type WHEN 'array' THEN json_extract(j.value, '$[0]') ELSE j.value END AS piece,
    p.addr AS peer, p.client,
    CASE j.type WHEN 'array' THEN json_extract(j.value, '$[1]')
        ELSE (min(t.piece_length, t.size - j.value * t.piece_length) + 16383) / 16384 END AS blocks,
    CASE j.type WHEN 'array' THEN json_extract(j.value, '$[2]')
        ELSE min(t.piece_length, t.size - j.value * t.piece_length) END AS bytes,
    s.run
FROM sent_rows s JOIN torrents t ON t.id = s.torrent JOIN peers p ON p.id = s.peer,
    json_each(s.pieces) j;
CREATE VIEW bad AS
SELECT b.id, strftime('%Y-%m-%dT%H:%M:%fZ', b.time / 1000.0, 'unixepoch') AS time,
    t.name AS torrent, lower(hex(t.info_hash)) AS info_hash, b.piece, b.block, b.givers,
    p.addr AS peer, p.client, lower(hex(b.expected)) AS expected, lower(hex(b.got)) AS got,
    lower(hex(b.sent)) AS block_sent, lower(hex(b.right)) AS block_right, b.run
FROM bad_rows b JOIN torrents t ON t.id = b.torrent LEFT JOIN peers p ON p.id = b.peer;
