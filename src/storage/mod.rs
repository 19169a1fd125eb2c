//! Layer 3: a torrent on disk: layout, verify, write, read; and the hash service.
