// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lexical canonicalisation of absolute paths: text only, symbolic links are not looked at.

/// Removes duplicate and trailing slashes, `.` and `..` from an absolute path; `/..` is `/`.
///
/// `None` if the path is not absolute or holds a NUL byte, which no file system path can.
pub(crate) fn canonical(path: &[u8]) -> Option<Vec<u8>> {
    if path.first() != Some(&b'/') || path.contains(&0) {
        return None;
    }
    let mut result: Vec<u8> = Vec::with_capacity(path.len());
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                let parent = result.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                result.truncate(parent);
            }
            _ => {
                result.push(b'/');
                result.extend_from_slice(component);
            }
        }
    }
    if result.is_empty() {
        result.push(b'/');
    }
    Some(result)
}

/// Makes `path` absolute against the absolute directory `base`, and canonical.
///
/// `None` if the result is not absolute, or holds a NUL byte.
pub(crate) fn absolute(path: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    if path.first() == Some(&b'/') {
        canonical(path)
    } else if base.first() == Some(&b'/') {
        canonical(&[base, b"/", path].concat())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<&str>) {
        let found = canonical(path.as_bytes());
        assert_eq!(
            found.as_deref(),
            expected.map(str::as_bytes),
            "canonical form of {path:?}"
        );
    }

    #[test]
    fn canonicalises() {
        check("/", Some("/"));
        check("//", Some("/"));
        check("/..", Some("/"));
        check("/../../a", Some("/a"));
        check("/a/b/..", Some("/a"));
        check("/a/..", Some("/"));
        check("//a/./b//", Some("/a/b"));
        check("/a/.../b", Some("/a/.../b"));
        check("", None);
        check("a", None);
        check("/a\0", None);
    }

    #[test]
    fn makes_absolute() {
        assert_eq!(absolute(b"./x", b"/w").as_deref(), Some(&b"/w/x"[..]));
        assert_eq!(absolute(b"../x", b"/w/").as_deref(), Some(&b"/x"[..]));
        assert_eq!(absolute(b"/x", b"nowhere").as_deref(), Some(&b"/x"[..]));
        assert_eq!(absolute(b"x", b"/").as_deref(), Some(&b"/x"[..]));
        assert_eq!(absolute(b"x", b""), None);
        assert_eq!(absolute(b"x", b"w"), None);
    }
}
