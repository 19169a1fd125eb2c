-- Apart from the other views: version 2 of the tables made it anew.
CREATE VIEW requests AS
SELECT r.id, strftime('%Y-%m-%dT%H:%M:%fZ', r.time / 1000.0, 'unixepoch') AS time,
    r.peer, r.client,
    CASE r.event WHEN 0 THEN 'announce' WHEN 1 THEN 'started' WHEN 2 THEN 'stopped'
        WHEN 3 THEN 'completed' WHEN 4 THEN 'scrape' WHEN 5 THEN 'holdings' WHEN 6 THEN 'lookup'
        WHEN 7 THEN 'fetch' WHEN 8 THEN 'register' ELSE 'remove' END AS event,
    lower(hex(t.info_hash)) AS torrent, coalesce(r.name, nullif(t.name, '')) AS name,
    r.returned AS peers_returned, r.complete AS complete_returned, r.handed AS peers_named,
    coalesce(r.error, 'ok') AS outcome,
    CASE r.via WHEN 0 THEN 'http' ELSE 'udp' END AS via, r.run, r.unlisted
FROM request_rows r LEFT JOIN torrents t ON t.id = r.torrent;
