//! Announce and scrape as query strings and bencoded answers (BEP 3, 7, 23, 24, 48).

mod query;
mod reply;

pub use query::{decode_query, decode_scrape_query, encode_query, encode_scrape_query};
pub use reply::{
    HttpReply, HttpScrapeReply, MAX_BODY_LEN, decode_reply, decode_scrape_reply, encode_failure,
    encode_reply, encode_scrape_reply,
};

/// Torrents in one scrape at most.
pub const MAX_SCRAPE_HASHES: usize = 100;
