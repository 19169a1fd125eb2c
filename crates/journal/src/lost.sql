-- Apart from the other tables and views: version 3 brought them.
CREATE TABLE clock (
    now INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    ahead INTEGER NOT NULL
) STRICT;
CREATE TABLE marks (
    at INTEGER PRIMARY KEY,
    given INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    bad INTEGER NOT NULL,
    request INTEGER NOT NULL,
    dropped INTEGER NOT NULL
) STRICT;
CREATE VIEW dropped AS
SELECT d.id, strftime('%Y-%m-%dT%H:%M:%fZ', d.time / 1000.0, 'unixepoch') AS time,
    d.what, d.count, t.name AS torrent, lower(hex(t.info_hash)) AS info_hash, d.run
FROM drop_rows d LEFT JOIN torrents t ON t.id = d.torrent;
