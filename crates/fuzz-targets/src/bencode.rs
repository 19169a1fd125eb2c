//! The target of the bencode scanner.

use piecework_core::bencode::{self, Kind, Limits, Node, Tolerance};

/// Scans strictly, as a prefix, and tolerantly, and compares the three results.
pub(crate) fn scan(bytes: &[u8]) {
    let limits = Limits { bytes: 1 << 20, depth: 20, tokens: 1_000 };
    let strict = bencode::scan(bytes, &limits);
    let prefix = bencode::scan_prefix(bytes, &limits);
    let all = Tolerance { numbers: true, duplicate_keys: true };
    let tolerant = bencode::scan_tolerant(bytes, &limits, all);
    if let Ok(scan) = &strict {
        let (same, end) = prefix.as_ref().expect("what is sound is a sound prefix");
        assert_eq!((*end, same.tokens()), (bytes.len(), scan.tokens()));
        assert!(scan.oddities().duplicate_keys.is_empty() && scan.oddities().numbers == 0);
    }
    if let Ok((scan, end)) = &prefix {
        let (same, same_end) = tolerant.as_ref().expect("tolerance takes what strictness takes");
        assert_eq!((end, scan.tokens()), (same_end, same.tokens()));
        assert!(scan.tokens() <= limits.tokens);
        let mut written = Vec::new();
        write(scan.root(), &mut written);
        assert_eq!(written, &bytes[..*end], "a value has one spelling");
    }
    if let Ok((scan, end)) = &tolerant {
        assert_eq!(scan.bytes(), &bytes[..*end]);
        assert_eq!(scan.root().span(), 0..*end);
        visit(scan.root(), 0, &limits);
    }
}

/// Calls every method of a node.
fn visit(node: Node<'_, '_>, depth: usize, limits: &Limits) {
    assert!(depth <= limits.depth, "nested deeper than the limit");
    assert_eq!(node.raw().len(), node.span().len());
    assert_eq!(node.as_bytes().is_some(), node.kind() == Kind::Bytes);
    assert_eq!(node.bytes_span().map(|span| span.len()), node.as_bytes().map(<[u8]>::len));
    assert!(node.as_str().is_none() || node.as_bytes().is_some());
    assert!(node.as_int().is_none() || node.kind() == Kind::Int);
    for item in node.items() {
        visit(item, depth + 1, limits);
    }
    for (key, value) in node.entries() {
        assert!(node.get(key).is_some());
        visit(value, depth + 1, limits);
    }
}

fn write(node: Node<'_, '_>, out: &mut Vec<u8>) {
    match node.kind() {
        Kind::Int => {
            let number = node.as_int().expect("strictly scanned integers have 64 bits");
            out.extend(format!("i{number}e").bytes());
        }
        Kind::Bytes => write_text(node.as_bytes().expect("its kind says so"), out),
        Kind::List => {
            out.push(b'l');
            node.items().for_each(|item| write(item, out));
            out.push(b'e');
        }
        Kind::Dict => {
            out.push(b'd');
            for (key, value) in node.entries() {
                write_text(key, out);
                write(value, out);
            }
            out.push(b'e');
        }
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{}:", text.len()).bytes());
    out.extend(text);
}
