//! Layer 3: carries the wishes of an announcer to trackers over HTTP and UDP, and talks to our catalogue.
