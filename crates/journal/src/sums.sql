-- Apart from the other tables and views: version 4 brought them.
CREATE TABLE minutes (
    minute INTEGER PRIMARY KEY,
    pieces INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
CREATE VIEW speed AS
SELECT strftime('%Y-%m-%dT%H:%M', minute * 60, 'unixepoch') AS minute, pieces, bytes,
    bytes / 60 AS bytes_a_second
FROM minutes;
CREATE VIEW givers AS
SELECT t.name AS torrent, lower(hex(t.info_hash)) AS info_hash, p.addr AS peer, p.client,
    s.pieces, s.blocks, s.bytes, s.failed, s.unused_blocks, s.unused_bytes,
    s.sent_blocks, s.sent_bytes, s.timed, s.took_ms, s.longest_ms,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.first_at / 1000.0, 'unixepoch') AS first_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.last_at / 1000.0, 'unixepoch') AS last_at
FROM totals s JOIN torrents t ON t.id = s.torrent JOIN peers p ON p.id = s.peer;
