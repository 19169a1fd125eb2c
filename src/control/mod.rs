//! Layer 6: the ways into the daemon over HTTP: the native API (`docs/api.md`) and Transmission's
//! RPC, behind one guard.

mod transmission;

pub use transmission::router as transmission_rpc;
