//! Admission: which peer gets a place when connections are short, and whose connection is closed for it.
//!
//! Nothing here limits connections while there is room. When there is none, a newcomer is let in if another
//! peer makes way: a connection of no use, of the network that has the most of them. A network is what one
//! subscriber has: an IPv4 address or an IPv6 /64.
//!
//! [`who_makes_way`] decides about connections after their handshake, [`HalfOpen`] about those before it.

mod half_open;
mod places;

pub use half_open::{HalfOpen, Ticket};
pub use places::{Occupant, Shares, who_makes_way};
