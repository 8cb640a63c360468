// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the other side says, as text that cannot do anything to a terminal.

/// Longest text that is passed on, in bytes.
const MAX_LEN: usize = 4096;

/// Makes text for people of what the other side says: at most 4 KiB, without colours, control characters, and blanks at its end.
#[must_use]
pub fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_LEN)]);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.trim_end().chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' if characters.next_if_eq(&'[').is_some() => {
                // Up to the letter that says what the sequence does.
                for inside in characters.by_ref() {
                    if ('@'..='~').contains(&inside) {
                        break;
                    }
                }
            }
            '\n' => plain.push('\n'),
            '\t' => plain.push(' '),
            other if other.is_control() => plain.push('\u{fffd}'),
            other => plain.push(other),
        }
    }
    if bytes.len() > MAX_LEN {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn colours_and_control_characters_are_left_out() {
        let check = |said: &[u8], expected: &str| assert_eq!(plain(said), expected);
        check(
            b"path '\x1b[35;1m/nix/store/x\x1b[0m' is not valid\n",
            "path '/nix/store/x' is not valid",
        );
        check(b"two\nlines\ttab\n\n", "two\nlines tab");
        check(b"\x1b]0;title\x07\x1b[", "\u{fffd}]0;title\u{fffd}");
        check(b"\xff", "\u{fffd}");
        check(b"", "");
    }

    #[test]
    fn texts_are_of_bounded_length() {
        assert_eq!(plain(&[b'x'; 5000]).len(), 4096 + '…'.len_utf8());
    }
}
