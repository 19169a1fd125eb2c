//! Base64 with the standard alphabet (RFC 4648, section 4).

use data_encoding::{BASE64, BASE64_NOPAD};

/// Returns the bytes that `text` encodes. White space is ignored, and the padding at the end is
/// optional. Returns `None` if `text` contains anything else, or surplus bits at its end.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let encoding = if digits.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
    encoding.decode(&digits).ok()
}

/// Returns `bytes` as padded text.
pub fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_standard_hold() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
            assert_eq!(decode(coded.trim_end_matches('=')).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for bad in ["Z", "Zg=", "Zg=a", "Zh==", "Zg===", "Z!==", "Zm9v=", "Zm8=="] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode("Zm9v\r\nYmFy").unwrap(), b"foobar");
    }

    proptest! {
        #[test]
        fn bytes_survive_the_way_there_and_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }
}
