//! The network to simulate, as a TOML file describes it.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, de};

use piecework_core::Geometry;
use piecework_swarm::ChokePolicy;

/// A network and its task. The TOML form has exactly these fields as keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// The name of the scenario.
    pub name: String,
    /// The seed if the run is given none.
    #[serde(default = "one")]
    pub seed: u64,
    /// The size of the content in bytes.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// The piece length in bytes.
    #[serde(deserialize_with = "piece_length")]
    pub piece_length: u32,
    /// Whom peers serve.
    #[serde(default)]
    pub choke: Choke,
    /// Which addresses the peers have.
    #[serde(default)]
    pub addresses: Addresses,
    /// The virtual time after which the run ends in any case.
    #[serde(default = "one_hour", deserialize_with = "time")]
    pub limit: Duration,
    /// The one-way delay between the tracker and each peer.
    #[serde(default, deserialize_with = "time")]
    pub tracker_delay: Duration,
    /// How many bytes a second a peer hashes and writes.
    #[serde(default = "default_hash_rate", deserialize_with = "rate")]
    pub hash_rate: u64,
    /// How many bytes of blocks a connection accepts before they are sent, like a socket. These cannot be
    /// cancelled any more.
    #[serde(default = "default_send_buffer", deserialize_with = "size")]
    pub send_buffer: u64,
    /// The groups of peers.
    pub peers: Vec<PeerGroup>,
}

/// A group of peers with the same properties.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PeerGroup {
    /// The name of the group.
    pub name: String,
    /// The number of peers.
    #[serde(default = "one_peer")]
    pub count: u32,
    /// What they hold at first.
    #[serde(default)]
    pub content: Content,
    /// How many bytes a second each can send.
    #[serde(deserialize_with = "rate")]
    pub up: u64,
    /// How many bytes a second each can receive.
    #[serde(deserialize_with = "rate")]
    pub down: u64,
    /// The one-way delay between each peer and the middle of the network.
    #[serde(default = "default_delay", deserialize_with = "time")]
    pub delay: Duration,
    /// When the first of them arrives.
    #[serde(default, deserialize_with = "time")]
    pub arrive: Duration,
    /// The time over which the arrivals are spread at random.
    #[serde(default, deserialize_with = "time")]
    pub arrive_within: Duration,
    /// When they leave.
    #[serde(default)]
    pub leave: Leave,
    /// Whether they can be dialled.
    #[serde(default = "yes")]
    pub dialable: bool,
    /// How many of a thousand blocks that each sends are wrong.
    #[serde(default)]
    pub corrupt: u32,
    /// How many peers each serves at a time.
    #[serde(default = "default_slots")]
    pub upload_slots: usize,
    /// The maximum number of connections of each.
    #[serde(default = "default_max_peers")]
    pub max_peers: usize,
    /// The maximum number of bytes of unfinished pieces that each keeps in memory.
    #[serde(default = "default_memory", deserialize_with = "size")]
    pub memory: u64,
}

/// Whom peers serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choke {
    /// Tit for tat, as among strangers.
    #[default]
    TitForTat,
    /// Everybody, as among machines of one owner.
    Closed,
}

/// Which addresses peers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addresses {
    /// Consecutive addresses, as in a local network: 250 in each /24.
    #[default]
    Lan,
    /// Each peer in a separate /24.
    Scattered,
}

/// What a peer holds at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// It is a leecher.
    #[default]
    Nothing,
    /// It is a seed.
    Everything,
}

/// When a peer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leave {
    /// At the end of the run.
    #[default]
    Never,
    /// As soon as it holds everything.
    WhenComplete,
}

/// Why a text is not a valid scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is not TOML of the expected form.
    #[error("line {line}: {}", .source.message())]
    Toml {
        /// The line of the error, from 1.
        line: usize,
        /// What is wrong there.
        source: toml::de::Error,
    },
    /// A value is invalid.
    #[error("`{key}` {what}")]
    Value {
        /// The key of the value.
        key: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Scenario {
    /// Reads a scenario from TOML.
    ///
    /// # Errors
    /// If it is not TOML, a key is unknown, or a value is invalid.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|source| {
            let before = source.span().map_or(0, |span| span.start.min(text.len()));
            let ends = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n');
            ScenarioError::Toml { line: ends.count() + 1, source }
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Checks that the values are valid together.
    ///
    /// # Errors
    /// If a value is invalid.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let value = |key, what| Err(ScenarioError::Value { key, what });
        if self.size == 0 || self.geometry().is_none() {
            return value("size", "must be at least a byte, and at most 2^31 pieces");
        }
        if self.hash_rate == 0 {
            return value("hash-rate", "must not be 0");
        }
        let peers: u64 = self.peers.iter().map(|group| u64::from(group.count)).sum();
        if peers == 0 || peers > MAX_PEERS {
            return value("peers", "must be from 1 to 60,000 in all");
        }
        for group in &self.peers {
            if group.up == 0 || group.down == 0 {
                return value("up", "and `down` must not be 0");
            }
            if group.corrupt > 1_000 {
                return value("corrupt", "is a number out of 1,000");
            }
        }
        Ok(())
    }

    /// Returns how the content is divided into pieces. `None` if that is impossible.
    pub fn geometry(&self) -> Option<Geometry> {
        Geometry::new(self.size, self.piece_length).ok()
    }
}

impl PeerGroup {
    /// Creates a group of default peers whose lines have `rate` in both directions.
    pub fn new(name: &str, count: u32, content: Content, rate: u64) -> Self {
        Self {
            name: name.to_owned(),
            count,
            content,
            up: rate,
            down: rate,
            delay: default_delay(),
            arrive: Duration::ZERO,
            arrive_within: Duration::ZERO,
            leave: Leave::Never,
            dialable: true,
            corrupt: 0,
            upload_slots: default_slots(),
            max_peers: default_max_peers(),
            memory: default_memory(),
        }
    }
}

impl Scenario {
    /// Creates a broadcast from one seed to `leechers` peers in a local network. All lines have `rate` in
    /// both directions.
    pub fn broadcast(leechers: u32, size: u64, piece_length: u32, rate: u64) -> Self {
        Self {
            name: "broadcast".to_owned(),
            seed: one(),
            size,
            piece_length,
            choke: Choke::default(),
            addresses: Addresses::default(),
            limit: one_hour(),
            tracker_delay: Duration::ZERO,
            hash_rate: default_hash_rate(),
            send_buffer: default_send_buffer(),
            peers: vec![
                PeerGroup::new("seed", 1, Content::Everything, rate),
                PeerGroup::new("leechers", leechers, Content::Nothing, rate),
            ],
        }
    }
}

impl From<Choke> for ChokePolicy {
    fn from(choke: Choke) -> Self {
        match choke {
            Choke::TitForTat => Self::TitForTat,
            Choke::Closed => Self::Closed,
        }
    }
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64()).map_err(|_| {
        de::Error::custom(format!("`{text}` is not a size: write for instance 256KiB"))
    })
}

fn piece_length<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let size = size(from)?;
    let fits = size.is_power_of_two() && (1 << 14..=1 << 26).contains(&size);
    u32::try_from(size)
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| de::Error::custom("a piece length is a power of two from 16KiB to 64MiB"))
}

/// Reads bytes a second, such as `12.5MB` or `100Mbit`.
fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let bits = text.strip_suffix("bit");
    let size: Result<ByteSize, _> = bits.map_or(text.clone(), |bits| format!("{bits}B")).parse();
    let per = if bits.is_some() { 8 } else { 1 };
    size.map(|size| size.as_u64() / per).map_err(|_| {
        de::Error::custom(format!("`{text}` is not a rate: write for instance 10MiB or 100Mbit"))
    })
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|_| {
        de::Error::custom(format!("`{text}` is not a time: write for instance 200us, 90s or 1h"))
    })
}

fn one() -> u64 {
    1
}

fn one_peer() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn one_hour() -> Duration {
    Duration::from_secs(3_600)
}

/// Returns the delay of a switch and two network stacks.
fn default_delay() -> Duration {
    Duration::from_micros(200)
}

/// Returns the rate of one core with SHA instructions, and a disk that keeps up.
fn default_hash_rate() -> u64 {
    500 << 20
}

fn default_send_buffer() -> u64 {
    64 << 10
}

fn default_slots() -> usize {
    8
}

fn default_max_peers() -> usize {
    80
}

fn default_memory() -> u64 {
    64 << 20
}

/// Maximum number of peers: each in a separate /24 of 10.0.0.0/8.
const MAX_PEERS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        name = "small"
        size = "1MiB"
        piece-length = "64KiB"
        [[peers]]
        name = "seed"
        content = "everything"
        up = "100Mbit"
        down = "12.5MB"
    "#;

    #[test]
    fn values_have_units_and_defaults() {
        let scenario = Scenario::parse(SMALL).unwrap();
        assert_eq!(scenario.size, 1 << 20);
        assert_eq!((scenario.peers[0].up, scenario.peers[0].down), (12_500_000, 12_500_000));
        assert_eq!(scenario.peers[0].content, Content::Everything);
        assert_eq!(scenario.limit, Duration::from_secs(3_600));
    }

    #[test]
    fn unknown_keys_and_senseless_values_are_refused() {
        let faulty = [
            ("piece-length = \"64KiB\"", "piece-lenght = \"64KiB\"", "piece-lenght"),
            ("up =", "uplink =", "uplink"),
            ("100Mbit", "fast", "not a rate"),
            ("1MiB", "a lot", "not a size"),
            ("64KiB", "65KiB", "power of two"),
            ("100Mbit", "0", "must not be 0"),
            ("size = \"1MiB\"", "size = \"0\"", "at least a byte"),
        ];
        for (right, wrong, said) in faulty {
            let text = SMALL.replacen(right, wrong, 1);
            assert_ne!(text, SMALL);
            let error = Scenario::parse(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{wrong}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let typo = SMALL.replacen("up =", "uplink =", 1);
        let said = Scenario::parse(&typo).unwrap_err().to_string();
        assert!(said.starts_with("line "), "{said}");
    }
}
