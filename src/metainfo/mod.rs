//! Layer 1: the bytes of a `.torrent` to a validated torrent, hashed over the received span.
