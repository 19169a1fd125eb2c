//! Whole nodes, in virtual time.

mod machine;
mod network;
mod world;
