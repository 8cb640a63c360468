// SPDX-License-Identifier: MIT OR Apache-2.0
//! Base64 as leniently as Nix reads it.

use data_encoding::BASE64;

/// Decodes base64: what follows the first `=` does not count, nor do newlines and stray bits at the end. `None` if
/// there is any other character.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0_u32, 0);
    for &character in text {
        let digit = match character {
            b'=' => break,
            b'\n' => continue,
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Writes base64 with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_written_is_read() {
        for length in 0..70 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37) ^ 0xa5).collect();
            assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
    }

    #[test]
    fn sloppy_texts_are_read() {
        let check = |text: &[u8], expected: Option<&[u8]>| {
            assert_eq!(decode(text).as_deref(), expected, "{}", text.escape_ascii());
        };
        check(b"YQ==", Some(b"a"));
        check(b"YQ", Some(b"a"));
        check(b"YQ=", Some(b"a"));
        check(b"YR==", Some(b"a"));
        check(b"Y\nQ=\n=", Some(b"a"));
        check(b"YQ==YQ", Some(b"a"));
        check(b"YWJjY", Some(b"abc"));
        check(b"Y", Some(b""));
        check(b"", Some(b""));
        check(b"Y Q", None);
        check(b"YQ\r", None);
        check(b"Y-", None);
        check(b"\xff", None);
    }
}
