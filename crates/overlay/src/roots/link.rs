// SPDX-License-Identifier: MIT OR Apache-2.0
//! Targets of symbolic links as paths: text only, no other link is followed.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use superpose_store_path::{StoreDir, StorePath};

/// Makes the text of a link absolute against the directory that the link is in, without `.`, `..` and double slashes.
///
/// The directory must be absolute.
pub(super) fn resolve(directory: &Path, text: &[u8]) -> PathBuf {
    let mut whole = Vec::new();
    if text.first() != Some(&b'/') {
        whole.extend_from_slice(directory.as_os_str().as_bytes());
        whole.push(b'/');
    }
    whole.extend_from_slice(text);
    canonical(&whole)
}

/// Removes `.`, `..` and double slashes from an absolute path.
pub(super) fn canonical(path: &[u8]) -> PathBuf {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    let mut result = Vec::with_capacity(path.len());
    for part in &parts {
        result.push(b'/');
        result.extend_from_slice(part);
    }
    if result.is_empty() {
        result.push(b'/');
    }
    PathBuf::from(std::ffi::OsString::from_vec(result))
}

/// Tells whether a canonical path is below the store directory.
pub(super) fn is_in_store(store_dir: &StoreDir, path: &Path) -> bool {
    path.strip_prefix(store_dir.as_str())
        .is_ok_and(|rest| !rest.as_os_str().is_empty())
}

/// Returns the object that a canonical path leads to or into.
pub(super) fn object(store_dir: &StoreDir, path: &Path) -> Option<StorePath> {
    store_dir
        .parse_inside(path.as_os_str().as_bytes())
        .ok()
        .map(|(path, _)| path)
}

/// Returns the object that a text names, if it is its base name.
pub(super) fn base_name(name: &OsStr) -> Option<StorePath> {
    StorePath::from_base_name(name.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_texts_start_at_the_directory_of_the_link() {
        for (directory, text, expected) in [
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "../c/./d", "/a/c/d"),
            ("/a/b", "../../../../c", "/c"),
            ("/a/b", "..", "/a"),
            ("/a/b", "/c//d/../e/", "/c/e"),
            ("/", "c", "/c"),
            ("/a", "../..", "/"),
            ("/a", "", "/a"),
        ] {
            assert_eq!(
                resolve(Path::new(directory), text.as_bytes()),
                Path::new(expected),
                "{directory} {text}"
            );
        }
    }

    #[test]
    fn objects_are_found_below_the_store_directory() {
        let store_dir = StoreDir::default();
        let base = "x6xcakh6pmsprh9372j47cndyciwzqqy-a";
        for (path, inside, found) in [
            (format!("/nix/store/{base}"), true, true),
            (format!("/nix/store/{base}/bin/sh"), true, true),
            ("/nix/store/.links/abc".to_owned(), true, false),
            ("/nix/store".to_owned(), false, false),
            (format!("/nix/store2/{base}"), false, false),
            (format!("/mnt/nix/store/{base}"), false, false),
            ("/".to_owned(), false, false),
        ] {
            assert_eq!(is_in_store(&store_dir, Path::new(&path)), inside, "{path}");
            assert_eq!(
                object(&store_dir, Path::new(&path)).map(|path| path.to_string()),
                found.then(|| base.to_owned()),
                "{path}"
            );
        }
    }
}
