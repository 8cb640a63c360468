// SPDX-License-Identifier: MIT OR Apache-2.0
//! Percent-encoding, on bytes. `+` is a plus sign everywhere.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_encode};

/// Everything in a query but what Nix leaves as it is: unreserved characters and `: @ / ?`.
const QUERY: &AsciiSet = &PATH.remove(b'?');

/// Everything in a path but unreserved characters and `: @ /`. A `?` would end the path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@')
    .remove(b'/');

pub(super) fn encode_query(bytes: &[u8]) -> PercentEncode<'_> {
    percent_encode(bytes, QUERY)
}

pub(super) fn encode_path(bytes: &[u8]) -> PercentEncode<'_> {
    percent_encode(bytes, PATH)
}

/// Decodes once; `None` if a `%` is not followed by two hexadecimal digits.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(*rest.next()?).to_digit(16);
            decoded.push((digit()? << 4 | digit()?) as u8);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}
