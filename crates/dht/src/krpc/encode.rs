//! Packets to bytes: bencode with sorted keys.

use piecework_core::SaturatingFrom;

use super::{Body, METHOD_UNKNOWN, Packet, Question, Response, Want};
use crate::address::{Contact, put_addr};
use crate::node_id::NodeId;

impl Packet<'_> {
    /// Returns the packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::with_capacity(128));
        out.open();
        match &self.body {
            Body::Query { id, question } => out.query(*id, question),
            Body::Error { code } => out.error(*code),
            Body::Response(_) => {}
        }
        if let Some(addr) = self.seen_at {
            let mut bytes = Vec::new();
            put_addr(addr, &mut bytes);
            out.pair(b"ip", &bytes);
        }
        if let Some(network) = self.network {
            out.pair(b"net", network);
        }
        let kind: &[u8] = match &self.body {
            Body::Query { question, .. } => {
                out.pair(b"q", method(question));
                b"q"
            }
            Body::Response(response) => {
                out.response(response);
                b"r"
            }
            Body::Error { .. } => b"e",
        };
        out.flag(b"ro", self.is_read_only);
        out.pair(b"t", self.transaction);
        if let Some(version) = self.version {
            out.pair(b"v", version);
        }
        out.pair(b"y", kind);
        out.close();
        out.0
    }
}

fn method(question: &Question<'_>) -> &'static [u8] {
    match question {
        Question::Ping => b"ping",
        Question::FindNode { .. } => b"find_node",
        Question::GetPeers { .. } => b"get_peers",
        Question::AnnouncePeer { .. } => b"announce_peer",
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn query(&mut self, id: NodeId, question: &Question<'_>) {
        self.text(b"a");
        self.open();
        self.pair(b"id", &id.0);
        match question {
            Question::Ping => {}
            Question::FindNode { target, want } => {
                self.pair(b"target", &target.0);
                self.want(*want);
            }
            Question::GetPeers { info_hash, want, without_seeds, scrape } => {
                self.pair(b"info_hash", &info_hash.0);
                self.flag(b"noseed", *without_seeds);
                self.flag(b"scrape", *scrape);
                self.want(*want);
            }
            Question::AnnouncePeer { info_hash, port, implied_port, token, is_seed } => {
                self.flag(b"implied_port", *implied_port);
                self.pair(b"info_hash", &info_hash.0);
                self.text(b"port");
                self.int(i64::from(*port));
                self.flag(b"seed", *is_seed);
                self.pair(b"token", token);
            }
        }
        self.close();
    }

    fn response(&mut self, response: &Response<'_>) {
        self.text(b"r");
        self.open();
        self.pair(b"id", &response.id.0);
        self.contacts(b"nodes", response.nodes.as_deref());
        self.contacts(b"nodes6", response.nodes6.as_deref());
        if let Some(token) = response.token {
            self.pair(b"token", token);
        }
        if !response.values.is_empty() {
            self.text(b"values");
            self.0.push(b'l');
            for addr in &response.values {
                let mut bytes = Vec::new();
                put_addr(*addr, &mut bytes);
                self.text(&bytes);
            }
            self.close();
        }
        self.close();
    }

    fn error(&mut self, code: i64) {
        self.text(b"e");
        self.0.push(b'l');
        self.int(code);
        self.text(if code == METHOD_UNKNOWN { b"unknown method" } else { b"protocol error" });
        self.close();
    }

    fn contacts(&mut self, key: &[u8], contacts: Option<&[Contact]>) {
        let Some(contacts) = contacts else { return };
        let mut bytes = Vec::with_capacity(contacts.len() * 38);
        for contact in contacts {
            bytes.extend(contact.id.0);
            put_addr(contact.addr, &mut bytes);
        }
        self.pair(key, &bytes);
    }

    fn want(&mut self, want: Want) {
        if want == Want::default() {
            return;
        }
        self.text(b"want");
        self.0.push(b'l');
        if want.v4 {
            self.text(b"n4");
        }
        if want.v6 {
            self.text(b"n6");
        }
        self.close();
    }

    fn open(&mut self) {
        self.0.push(b'd');
    }

    fn close(&mut self) {
        self.0.push(b'e');
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) {
        self.text(key);
        self.text(value);
    }

    fn flag(&mut self, key: &[u8], value: bool) {
        if value {
            self.text(key);
            self.int(1);
        }
    }

    fn text(&mut self, bytes: &[u8]) {
        self.number(i64::saturating_from(bytes.len()));
        self.0.push(b':');
        self.0.extend(bytes);
    }

    fn int(&mut self, value: i64) {
        self.0.push(b'i');
        self.number(value);
        self.0.push(b'e');
    }

    fn number(&mut self, value: i64) {
        self.0.extend(value.to_string().into_bytes());
    }
}
