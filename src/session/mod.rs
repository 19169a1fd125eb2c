//! Layer 4: owns the swarms, pumps their events and actions: the public API of the engine.
