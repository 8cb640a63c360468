// SPDX-License-Identifier: MIT OR Apache-2.0
//! The base-32 notation of Nix: its own alphabet, least significant digit last.
//!
//! The bytes are one little-endian number; digit *k* covers its bits 5*k* to 5*k*+4, and digits are written
//! from the highest to the lowest. Five bytes are exactly eight digits, which is the unit worked in here.

use crate::error::{Error, Result, excerpt};

/// The 32 digits in the order of their values: no `e`, `o`, `t`, `u`.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Marks a byte that is no digit; every real digit is below 32.
const NO_DIGIT: u8 = 0x80;

/// The value of each byte as a digit.
const DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        table[ALPHABET[value] as usize] = value as u8;
        value += 1;
    }
    table
};

/// Returns how many digits `bytes` bytes take; more than memory holds if `bytes` is.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes / 5)
        .saturating_mul(8)
        .saturating_add((bytes % 5 * 8).div_ceil(5))
}

/// Tells whether every byte of `text` is a digit.
#[must_use]
pub fn is_alphabet(text: &[u8]) -> bool {
    text.iter().fold(0, |seen, &byte| seen | DIGITS[byte as usize]) & NO_DIGIT == 0
}

/// Encodes `bytes`.
///
/// ```
/// assert_eq!(superpose_store_path::nix32::encode(&[0xff]), "7z");
/// ```
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let mut digits = vec![0; encoded_len(bytes.len())];
    encode_to(bytes, &mut digits);
    String::from_utf8(digits).expect("digits are ASCII")
}

/// Encodes 20 bytes, the size of a store path's hash part, without allocating.
#[must_use]
pub fn encode20(bytes: &[u8; 20]) -> [u8; 32] {
    let mut digits = [0; 32];
    encode_to(bytes, &mut digits);
    digits
}

/// Appends the encoding of `bytes` to a text.
pub(crate) fn encode_append<const DIGITS: usize>(bytes: &[u8], text: &mut String) {
    let mut digits = [0; DIGITS];
    let digits = &mut digits[..encoded_len(bytes.len())];
    encode_to(bytes, digits);
    text.push_str(str::from_utf8(digits).expect("digits are ASCII"));
}

/// Fills `digits`, which is exactly as long as the encoding of `bytes`.
fn encode_to(bytes: &[u8], digits: &mut [u8]) {
    debug_assert_eq!(
        digits.len(),
        encoded_len(bytes.len()),
        "the caller sized the output"
    );
    // Whole groups first, of a size the compiler knows; the group at the end has the digits at the beginning.
    let (groups, rest) = bytes.as_chunks();
    let (rest_digits, group_digits) = digits.as_rchunks_mut::<8>();
    for (&[a, b, c, d, e], output) in groups.iter().zip(group_digits.iter_mut().rev()) {
        write_digits(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]), output);
    }
    let mut number = [0; 8];
    number[..rest.len()].copy_from_slice(rest);
    write_digits(u64::from_le_bytes(number), rest_digits);
}

/// Writes the lowest digits of `number`, as many as there is room for.
fn write_digits(number: u64, digits: &mut [u8]) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = ALPHABET[(number >> (5 * place)) as usize & 31];
    }
}

/// Decodes `text`, which must encode exactly `bytes` bytes.
///
/// # Errors
/// If the length is not [`encoded_len`] of `bytes`, if a character is not a digit (upper case is not), or if
/// a bit beyond the last byte is set.
pub fn decode(text: &[u8], bytes: usize) -> Result<Vec<u8>> {
    // The length is checked before anything is allocated by it.
    check_len(text, bytes)?;
    let mut output = vec![0; bytes];
    decode_to(text, &mut output)?;
    Ok(output)
}

/// Decodes `text`, which must encode exactly `N` bytes, without allocating.
///
/// # Errors
/// As [`decode`].
pub fn decode_array<const N: usize>(text: &[u8]) -> Result<[u8; N]> {
    let mut output = [0; N];
    decode_to(text, &mut output)?;
    Ok(output)
}

/// Decodes `text` into exactly `output`.
pub(crate) fn decode_to(text: &[u8], output: &mut [u8]) -> Result<()> {
    check_len(text, output.len())?;
    let bytes = output.len();
    let mut seen = 0;
    let (groups, rest) = output.as_chunks_mut::<5>();
    let (rest_digits, group_digits) = text.as_rchunks::<8>();
    for (group, digits) in groups.iter_mut().zip(group_digits.iter().rev()) {
        let [a, b, c, d, e, ..] = read_digits(digits, &mut seen).to_le_bytes();
        *group = [a, b, c, d, e];
    }
    let number = read_digits(rest_digits, &mut seen);
    rest.copy_from_slice(&number.to_le_bytes()[..rest.len()]);
    let overflow = number >> (8 * rest.len());
    let fail = |expected| Error::Nix32 {
        found: excerpt(text),
        bytes,
        expected,
    };
    if seen & NO_DIGIT != 0 {
        Err(fail(
            "only the digits 0-9 and a-z without e, o, t, u, in lower case",
        ))
    } else if overflow != 0 {
        Err(fail("no bit set beyond the last byte"))
    } else {
        Ok(())
    }
}

/// Reads at most eight digits; `seen` collects the values, to tell whether all of them were digits.
fn read_digits(digits: &[u8], seen: &mut u8) -> u64 {
    digits.iter().fold(0, |number, &digit| {
        let value = DIGITS[digit as usize];
        *seen |= value;
        number << 5 | u64::from(value & 31)
    })
}

fn check_len(text: &[u8], bytes: usize) -> Result<()> {
    if text.len() == encoded_len(bytes) {
        Ok(())
    } else {
        Err(Error::Nix32 {
            found: excerpt(text),
            bytes,
            expected: "five bits per digit, no digit more or less",
        })
    }
}
