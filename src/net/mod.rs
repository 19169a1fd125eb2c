//! Layer 3: sockets to peers: dial, accept, per-peer receive and send loops, rate limits.
