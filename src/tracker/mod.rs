//! Layer 4: serves one registry over HTTP, UDP and the console.
