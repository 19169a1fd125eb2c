//! Layer 2: the state of a tracker in domain types: peers, expiry, selection, holdings. No I/O.
