// SPDX-License-Identifier: MIT OR Apache-2.0
//! As much JSON as realisations need: they travel as JSON texts in releases up to 2.34.

/// Longest JSON text that is read, in bytes. A value takes up to 24 times the bytes of its text while it is looked at.
pub(super) const MAX_LEN: usize = 64 << 10;

/// How deeply arrays and objects may be nested; realisations need three.
const MAX_DEPTH: usize = 8;

/// A JSON value; of numbers and the words `true`, `false`, `null` only that they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
    Scalar,
}

impl Json {
    /// Parses a whole text; `None` if it is not JSON in UTF-8, or nested too deeply.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parser = Parser {
            rest: str::from_utf8(text).ok()?,
        };
        let value = parser.value(MAX_DEPTH)?;
        parser.skip_blanks();
        parser.rest.is_empty().then_some(value)
    }

    /// Returns the first value of a key of an object.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Returns the text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

/// Appends a text as a JSON string.
pub(super) fn push_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes a character if it comes next.
    fn take(&mut self, character: char) -> bool {
        match self.rest.strip_prefix(character) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn take_after_blanks(&mut self, character: char) -> bool {
        self.skip_blanks();
        self.take(character)
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        self.skip_blanks();
        if self.take('"') {
            return self.string_end().map(Json::String);
        }
        let depth = depth.checked_sub(1)?;
        if self.take('[') {
            let mut elements = Vec::new();
            self.sequence(']', |parser| {
                elements.push(parser.value(depth)?);
                Some(())
            })?;
            return Some(Json::Array(elements));
        }
        if self.take('{') {
            let mut entries = Vec::new();
            self.sequence('}', |parser| {
                let key = parser.take_after_blanks('"').then(|| parser.string_end())??;
                let value = parser.take_after_blanks(':').then(|| parser.value(depth))??;
                entries.push((key, value));
                Some(())
            })?;
            return Some(Json::Object(entries));
        }
        self.scalar()
    }

    /// Elements with commas between them, up to the closing bracket.
    fn sequence(&mut self, close: char, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.take_after_blanks(close) {
            return Some(());
        }
        loop {
            element(self)?;
            if self.take_after_blanks(close) {
                return Some(());
            }
            if !self.take(',') {
                return None;
            }
        }
    }

    /// A number or a word; the spelling of numbers is not looked at closely, as none is used.
    fn scalar(&mut self) -> Option<Json> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let is_number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
        (is_number || matches!(word, "true" | "false" | "null")).then_some(Json::Scalar)
    }

    /// A string behind its opening quotation mark.
    fn string_end(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                '"' => return Some(text),
                '\\' => text.push(self.escaped()?),
                control if control < ' ' => return None,
                other => text.push(other),
            }
        }
    }

    fn escaped(&mut self) -> Option<char> {
        Some(match self.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.escaped_unit(),
            same @ ('"' | '\\' | '/') => same,
            _ => return None,
        })
    }

    /// What follows `\u`: four digits, or two such groups for a character beyond the first 65,536.
    fn escaped_unit(&mut self) -> Option<char> {
        let first = self.unit()?;
        if let Some(character) = char::from_u32(first.into()) {
            return Some(character);
        }
        let second = (self.take('\\') && self.take('u')).then(|| self.unit())??;
        char::decode_utf16([first, second]).next()?.ok()
    }

    fn unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u16::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> Json {
        Json::String(text.to_owned())
    }

    #[test]
    fn values_are_read() {
        let text = br#" {"a": ["x", -1.5e3, true, null, {}], "b" : "", "a":"later" } "#;
        let value = Json::parse(text).unwrap();
        assert_eq!(
            value.get("a"),
            Some(&Json::Array(vec![
                string("x"),
                Json::Scalar,
                Json::Scalar,
                Json::Scalar,
                Json::Object(Vec::new())
            ]))
        );
        assert_eq!(value.get("b").and_then(Json::as_str), Some(""));
        assert_eq!(value.get("c"), None);
        assert_eq!(Json::parse(b"[]"), Some(Json::Array(Vec::new())));
    }

    #[test]
    fn escapes_are_read() {
        let text = br#""\"\\\/\b\f\n\r\t\u0041\ud83d\ude00\u00e9""#;
        assert_eq!(
            Json::parse(text),
            Some(string("\"\\/\u{8}\u{c}\n\r\tA\u{1f600}\u{e9}"))
        );
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "[1",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud83d\"",
            "\"\\u+123\"",
            "\"\n\"",
            "nul",
            "[] []",
        ] {
            assert_eq!(Json::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::parse(nested(MAX_DEPTH).as_bytes()).is_some());
        assert!(Json::parse(nested(MAX_DEPTH + 1).as_bytes()).is_none());
        assert!(Json::parse("[".repeat(MAX_LEN).as_bytes()).is_none());
    }

    #[test]
    fn strings_are_written_so_that_they_are_read_back() {
        let text = "a\"\\\n\r\t\u{1}/\u{1f600}";
        let mut out = String::new();
        push_string(text, &mut out);
        assert_eq!(Json::parse(out.as_bytes()), Some(string(text)));
    }
}
