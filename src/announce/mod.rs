//! Layer 1: announce and scrape in HTTP and UDP form, both directions, one model for client and server.
