use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Dict(BTreeMap<Vec<u8>, Value>),
}

impl Value {
    fn write(&self, out: &mut Vec<u8>) {
        let string = |bytes: &[u8], out: &mut Vec<u8>| {
            out.extend(format!("{}:", bytes.len()).bytes());
            out.extend(bytes);
        };
        match self {
            Self::Int(value) => out.extend(format!("i{value}e").bytes()),
            Self::Bytes(bytes) => string(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    string(key, out);
                    value.write(out);
                }
                out.push(b'e');
            }
        }
    }

    fn read(node: Node<'_, '_>) -> Self {
        match node.kind() {
            Kind::Int => Self::Int(node.as_int().unwrap()),
            Kind::Bytes => Self::Bytes(node.as_bytes().unwrap().to_vec()),
            Kind::List => Self::List(node.items().map(Self::read).collect()),
            Kind::Dict => {
                Self::Dict(node.entries().map(|(k, v)| (k.to_vec(), Self::read(v))).collect())
            }
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..12);
    let leaf = prop_oneof![any::<i64>().prop_map(Value::Int), bytes().prop_map(Value::Bytes)];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(bytes(), inner, 0..6).prop_map(Value::Dict),
        ]
    })
}

fn refused(bytes: &[u8]) -> BencodeError {
    scan(bytes, &Limits::default()).unwrap_err()
}

proptest! {
    #[test]
    fn every_value_scans_back_to_itself(value in any_value(), behind in any::<Vec<u8>>()) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        let whole = scan(&bytes, &Limits::default()).unwrap();
        prop_assert!(whole.is_canonical());
        prop_assert_eq!(Value::read(whole.root()), value.clone());
        prop_assert_eq!(whole.root().raw(), &bytes[..]);

        let len = bytes.len();
        bytes.extend(behind);
        let (prefix, end) = scan_prefix(&bytes, &Limits::default()).unwrap();
        prop_assert_eq!(end, len);
        prop_assert_eq!(Value::read(prefix.root()), value);
    }

    #[test]
    fn every_cut_of_a_value_is_refused(value in any_value(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        bytes.truncate(cut.index(bytes.len()));
        prop_assert!(scan(&bytes, &Limits::default()).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        let _ = scan(&bytes, &Limits::default());
    }

    /// Letters of the grammar get much further than arbitrary bytes.
    #[test]
    fn what_the_scanner_takes_serde_takes(text in "[ilde0-9:-]{0,40}") {
        if scan(text.as_bytes(), &Limits::default()).is_ok() {
            let value = serde_bencode::from_bytes::<serde_bencode::value::Value>(text.as_bytes());
            prop_assert!(value.is_ok());
        }
    }
}

#[test]
fn truncated_bencode_is_refused() {
    for cut in ["", "i", "i-", "i1", "l", "d", "d1:a", "1", "12", "li1e"] {
        assert!(
            matches!(refused(cut.as_bytes()), BencodeError::Truncated { offset } if offset == cut.len()),
            "{cut}"
        );
    }
    assert!(matches!(refused(b"3:ab"), BencodeError::StringTooLong { offset: 0, left: 2 }));
}

#[test]
fn trailing_bytes_are_refused() {
    assert!(matches!(refused(b"i1ei2e"), BencodeError::Trailing { offset: 3, extra: 3 }));
    assert!(matches!(refused(b"dee"), BencodeError::Trailing { offset: 2, extra: 1 }));
    let error = decode::<i64>(b"i1ex", &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the bencode ends at byte `3`, but `1` bytes follow");
}

#[test]
fn deep_bencode_of_ten_million_lists_is_refused_at_the_limit() {
    let limits = Limits { bytes: usize::MAX, ..Limits::default() };
    let deep = vec![b'l'; 10_000_000];
    let error = scan(&deep, &limits).unwrap_err();
    assert!(matches!(error, BencodeError::TooDeep { offset: 64, limit: 64 }));
    assert!(decode::<serde_bencode::value::Value>(&deep, &limits).is_err());

    let allowed = [vec![b'l'; 64], vec![b'e'; 64]].concat();
    assert_eq!(scan(&allowed, &limits).unwrap().tokens(), 64);
}

#[test]
fn huge_string_lengths_are_refused() {
    for huge in
        ["99999999999999999999999999:", "4294967295:a", "10000000000", "18446744073709551616:"]
    {
        assert!(matches!(refused(huge.as_bytes()), BencodeError::StringTooLong { .. }), "{huge}");
    }
    let endless = vec![b'9'; 1_000_000];
    assert!(matches!(refused(&endless), BencodeError::StringTooLong { offset: 0, .. }));
}

#[test]
fn huge_integers_are_refused() {
    for good in ["i9223372036854775807e", "i-9223372036854775808e", "i0e", "i-1e"] {
        let scan = scan(good.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(scan.root().as_int().unwrap().to_string(), good[1..good.len() - 1]);
    }
    let endless = ["i".to_owned(), "7".repeat(1_000_000)].concat();
    for huge in ["i9223372036854775808e", "i-9223372036854775809e", &endless] {
        assert!(matches!(refused(huge.as_bytes()), BencodeError::IntegerRange { offset: 0 }));
    }
}

#[test]
fn non_canonical_bencode_is_refused() {
    let endless = ["i".to_owned(), "0".repeat(1_000)].concat();
    for bad in
        ["i00e", "i03e", "i-0e", "i-03e", "ie", "i-e", "i+1e", "i1.5e", "i 1e", "i--1e", &endless]
    {
        assert!(matches!(refused(bad.as_bytes()), BencodeError::BadInteger { offset: 0 }), "{bad}");
    }
    for bad in ["00:", "03:abc", "1a:b", "1 :a", "1-:a"] {
        assert!(matches!(refused(bad.as_bytes()), BencodeError::BadLength { offset: 0 }), "{bad}");
    }
    for bad in ["e", "x", "-1:a", " i1e", "\n", ":"] {
        assert!(matches!(refused(bad.as_bytes()), BencodeError::UnexpectedByte { offset: 0, .. }));
    }
}

#[test]
fn dictionaries_of_the_wrong_shape_are_refused() {
    assert!(matches!(refused(b"di1ei2ee"), BencodeError::KeyNotString { offset: 1 }));
    assert!(matches!(refused(b"dlei2ee"), BencodeError::KeyNotString { offset: 1 }));
    assert!(matches!(refused(b"d1:ae"), BencodeError::MissingValue { offset: 4 }));
}

#[test]
fn duplicate_keys_are_refused_sorted_or_not() {
    assert!(matches!(refused(b"d1:ai1e1:ai2ee"), BencodeError::DuplicateKey { offset: 7 }));
    assert!(matches!(
        refused(b"d1:ai1e1:bd0:lee1:ai2ee"),
        BencodeError::DuplicateKey { offset: 16 }
    ));
    // The same key in different dictionaries is not a duplicate.
    assert!(scan(b"d1:ad1:ai1ee1:bd1:ai1eee", &Limits::default()).is_ok());
}

#[test]
fn unsorted_keys_are_taken_and_reported() {
    let sorted = scan(b"d1:ai1e2:aai2e1:bi3ee", &Limits::default()).unwrap();
    assert!(sorted.is_canonical());
    let unsorted = scan(b"ld1:bi1e1:ai2eee", &Limits::default()).unwrap();
    assert!(!unsorted.is_canonical());
    let dict = unsorted.root().items().next().unwrap();
    assert_eq!(dict.get(b"a").unwrap().as_int(), Some(2));
    assert_eq!(dict.get(b"b").unwrap().as_int(), Some(1));
}

#[test]
fn more_values_or_bytes_than_the_limits_are_refused() {
    let limits = Limits { tokens: 3, bytes: 8, ..Limits::default() };
    assert_eq!(scan(b"li1ei2ee", &limits).unwrap().tokens(), 3);
    assert!(matches!(
        scan(b"l0:0:0:e", &limits),
        Err(BencodeError::TooManyTokens { offset: 5, limit: 3 })
    ));
    assert!(matches!(scan(b"l0:0:0:0e", &limits), Err(BencodeError::TooLong { len: 9, limit: 8 })));
}

#[test]
fn spans_are_the_received_bytes() {
    let bytes = b"d4:infod4:name3:abce5:tailsi7ee";
    let scan = scan(bytes, &Limits::default()).unwrap();
    let info = scan.root().get(b"info").unwrap();
    assert_eq!(info.raw(), b"d4:name3:abce");
    assert_eq!(info.span(), 7..20);
    assert_eq!(info.get(b"name").unwrap().bytes_span(), Some(16..19));
    assert_eq!(scan.root().get(b"tails").unwrap().as_int(), Some(7));
    assert!(scan.root().get(b"none").is_none());
    assert!(info.items().next().is_none());
    assert!(info.as_int().is_none() && info.as_bytes().is_none());
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    #[serde(rename = "piece length")]
    piece_len: u64,
    #[serde(with = "serde_bytes")]
    name: Vec<u8>,
}

#[test]
fn typed_values_round_trip_with_sorted_keys() {
    let sample = Sample { piece_len: 5, name: b"\xff".to_vec() };
    let bytes = encode(&sample).unwrap();
    assert_eq!(bytes, b"d4:name1:\xff12:piece lengthi5ee");
    assert_eq!(decode::<Sample>(&bytes, &Limits::default()).unwrap(), sample);
}

#[test]
fn what_bencode_cannot_express_is_not_written() {
    assert!(encode(&Sample { piece_len: u64::MAX, name: Vec::new() }).is_err());
    assert!(encode(&1.5_f64).is_err());
}

#[test]
fn a_value_of_another_shape_is_refused() {
    let error = decode::<Sample>(b"d4:namei1e12:piece lengthi5ee", &Limits::default());
    assert!(matches!(error, Err(BencodeError::Decode { offset: 0, .. })));
}

#[test]
fn tolerated_faults_are_passed_over_and_reported() {
    let all = Tolerance { numbers: true, duplicate_keys: true };
    let bytes = b"d1:ai007e1:ai2e2:b\x00i-0e02:cci99999999999999999999ee tail";
    let (scan, end) = scan_tolerant(bytes, &Limits::default(), all).unwrap();
    assert_eq!(end, bytes.len() - 5);
    let root = scan.root();
    // Of two values the first counts.
    assert_eq!(root.get(b"a").unwrap().as_int(), Some(7));
    assert_eq!(root.get(b"b\0").unwrap().as_int(), Some(0));
    assert_eq!(root.get(b"cc").unwrap().as_int(), None);
    assert!(!scan.is_canonical());
    assert_eq!(scan.oddities().numbers, 4);
    assert!(scan.oddities().duplicate_keys.iter().eq([&(9..12)]));
    // Each is refused where only the other is tolerated.
    for (bytes, tolerance) in [
        (&b"d1:ai1e1:ai2ee"[..], Tolerance { numbers: true, duplicate_keys: false }),
        (b"d1:ai01ee", Tolerance { numbers: false, duplicate_keys: true }),
        (b"d1:ai1x", all),
        (b"d1:aiee", all),
        (b"d1:ai--1ee", all),
    ] {
        assert!(scan_tolerant(bytes, &Limits::default(), tolerance).is_err());
    }
}

#[test]
fn duplicate_keys_of_an_unsorted_dictionary_are_noted_once() {
    let tolerance = Tolerance { duplicate_keys: true, ..Tolerance::default() };
    let bytes = b"d1:bi1e1:ai2e1:ai3e1:bi4ee";
    let (scan, _) = scan_tolerant(bytes, &Limits::default(), tolerance).unwrap();
    assert_eq!(scan.oddities().duplicate_keys, [13..16, 19..22]);
    let many = [&b"d"[..], &b"1:a0:".repeat(10_000), b"e"].concat();
    let (scan, _) = scan_tolerant(&many, &Limits::default(), tolerance).unwrap();
    assert_eq!(scan.oddities().duplicate_keys.len(), 8);
}
