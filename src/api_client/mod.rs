//! Layer 3: the native API as typed calls, and its events as a stream.

mod sse;
