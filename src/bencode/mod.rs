//! Layer 1: a bounded, non-recursive scanner for bencode that keeps raw spans; serde on top.
