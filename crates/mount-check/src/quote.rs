// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes and commands as text for people: nothing is lost, nothing breaks the line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A path in backquotes; bytes that are not printable text appear as `\xNN`, a backslash as `\\`.
pub(crate) fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_bytes())
}

/// The same for any bytes.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('`');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        push_hex(&mut out, chunk.invalid());
    }
    out.push('`');
    out
}

/// A command line that a POSIX shell (for unprintable bytes: bash, zsh, or any shell of POSIX.1-2024) splits
/// into exactly these words.
pub(crate) fn command(words: &[OsString]) -> String {
    words
        .iter()
        .map(|word| shell_word(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn shell_word(word: &OsStr) -> String {
    let bytes = word.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(plain) => text.to_owned(),
        Ok(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => dollar_quoted(bytes),
    }
}

fn dollar_quoted(bytes: &[u8]) -> String {
    let mut out = String::from("$'");
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\'' => out.push_str("\\'"),
            b'\n' => out.push_str("\\n"),
            // Octal, always three digits: a hexadecimal escape would swallow a following digit.
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:03o}")),
        }
    }
    out.push('\'');
    out
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        out.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn paths_stay_on_one_line_and_lose_nothing() {
        let check = |raw: &[u8], want: &str| assert_eq!(bytes(raw), want);
        check(b"/plain", "`/plain`");
        check("/gr\u{fc}n".as_bytes(), "`/gr\u{fc}n`");
        check(b"/a\nb\xff\\\x1b", "`/a\\nb\\xff\\\\\\u{1b}`");
    }

    #[test]
    fn words_survive_a_shell() {
        let check = |raw: &[u8], want: &str| {
            let words = [OsString::from_vec(raw.to_vec())];
            assert_eq!(command(&words), want);
        };
        check(b"lowerdir=/a,upperdir=/b", "lowerdir=/a,upperdir=/b");
        check(b"/it's here", "'/it'\\''s here'");
        check(b"", "''");
        check(b"/n\n\xff1'", "$'/n\\n\\3771\\''");
    }
}
