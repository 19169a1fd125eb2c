//! Layer 2: when to announce to which tracker: tiers, intervals, back-off. No I/O.
