// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the options of an OverlayFS mount say about its layers.
//!
//! The strings are the mounter's own: relative, unnormalised, of another root directory or namespace, and
//! unchanged when a layer is renamed. They are evidence for messages and for looking things up, never a
//! proof.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::escape::unescape;
use crate::mountinfo::MountOption;

/// The options of an OverlayFS mount, decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverlayOptions {
    /// The lower directories, top-most first, data-only ones included (they come last).
    pub lower: Vec<LayerText>,
    /// The upper layer directory; `None` for an overlay without one.
    pub upper: Option<LayerText>,
    /// The work directory.
    pub work: Option<LayerText>,
    /// Everything else but `rw` and `ro`, in order: `uuid=on`, `index=off`, `userxattr`, …
    pub features: Vec<MountOption>,
}

/// One directory as the options name it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerText {
    /// The text of the option, only octal escapes decoded.
    pub shown: Vec<u8>,
    /// The path it most likely means.
    pub path: PathBuf,
    /// A second reading, where the option does not tell whether the mounter escaped it.
    pub otherwise: Option<PathBuf>,
    /// Holds only file contents for other layers; none of its names is visible.
    pub data_only: bool,
}

impl OverlayOptions {
    /// Decodes the super options of an OverlayFS mount. Any order and any repetition is understood.
    #[must_use]
    pub fn decode(options: &[MountOption]) -> Self {
        let mut decoded = Self::default();
        let mut data = Vec::new();
        for option in options {
            match (option.key.as_slice(), &option.value) {
                (b"lowerdir", Some(value)) => {
                    let (data_only, lower) = split_lowerdir(value)
                        .into_iter()
                        .partition(|layer| layer.data_only);
                    decoded.lower.extend::<Vec<_>>(lower);
                    data.extend::<Vec<_>>(data_only);
                }
                (b"lowerdir+", Some(value)) => decoded.lower.push(LayerText::literal(value, Contents::Names)),
                (b"datadir+", Some(value)) => data.push(LayerText::literal(value, Contents::DataOnly)),
                (b"upperdir", Some(value)) => decoded.upper = Some(LayerText::either(value)),
                (b"workdir", Some(value)) => decoded.work = Some(LayerText::either(value)),
                (b"rw" | b"ro", None) => {}
                _ => decoded.features.push(option.clone()),
            }
        }
        decoded.lower.extend(data);
        decoded
    }

    /// The value of the last option with this key; a flag without value gives an empty one.
    #[must_use]
    pub fn feature(&self, key: &[u8]) -> Option<&[u8]> {
        let found = self.features.iter().rev().find(|option| option.key == key)?;
        Some(found.value.as_deref().unwrap_or_default())
    }

    /// The lower directories whose names are visible.
    pub fn named_lower(&self) -> impl Iterator<Item = &LayerText> {
        self.lower.iter().filter(|layer| !layer.data_only)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Contents {
    Names,
    DataOnly,
}

impl LayerText {
    fn escaped(shown: &[u8], contents: Contents) -> Self {
        Self {
            shown: shown.to_vec(),
            path: to_path(unescape(shown)),
            otherwise: None,
            data_only: contents == Contents::DataOnly,
        }
    }

    fn literal(shown: &[u8], contents: Contents) -> Self {
        Self {
            shown: shown.to_vec(),
            path: to_path(shown.to_vec()),
            otherwise: None,
            data_only: contents == Contents::DataOnly,
        }
    }

    /// `upperdir` and `workdir` hold the mounter's escaped text, but the bare path if it was given as a file
    /// descriptor.
    fn either(shown: &[u8]) -> Self {
        let mut layer = Self::escaped(shown, Contents::Names);
        let bare = to_path(shown.to_vec());
        layer.otherwise = (bare != layer.path).then_some(bare);
        layer
    }

    /// The paths this text can mean, the likelier first.
    pub fn readings(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.path).chain(&self.otherwise)
    }
}

/// Splits `a:b::c` on unescaped colons; what follows a double colon is data-only.
fn split_lowerdir(value: &[u8]) -> Vec<LayerText> {
    let mut layers = Vec::new();
    let mut contents = Contents::Names;
    let mut start = 0;
    let mut at = 0;
    let mut finish = |start: usize, end: usize, contents: Contents| {
        if let Some(piece @ [_, ..]) = value.get(start..end) {
            layers.push(LayerText::escaped(piece, contents));
        }
    };
    while let Some(&byte) = value.get(at) {
        match byte {
            b'\\' => at += 2,
            b':' => {
                finish(start, at, contents);
                if value.get(at + 1) == Some(&b':') {
                    contents = Contents::DataOnly;
                    at += 1;
                }
                at += 1;
                start = at;
            }
            _ => at += 1,
        }
    }
    finish(start, value.len(), contents);
    layers
}

fn to_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;

    fn decode(super_options: &str) -> OverlayOptions {
        let line = format!("1 2 0:3 / /m rw - overlay overlay {super_options}");
        OverlayOptions::decode(&mountinfo::parse(line.as_bytes()).unwrap()[0].super_options)
    }

    fn check_lower(super_options: &str, want: &[(&str, bool)]) {
        let decoded = decode(super_options);
        let got: Vec<_> = decoded
            .lower
            .iter()
            .map(|layer| (layer.path.to_str().unwrap(), layer.data_only))
            .collect();
        assert_eq!(got, want, "{super_options}");
    }

    #[test]
    fn every_way_to_name_lower_directories() {
        check_lower("rw,lowerdir=/a", &[("/a", false)]);
        check_lower("rw,lowerdir=/a:/b", &[("/a", false), ("/b", false)]);
        check_lower("rw,lowerdir=a::d", &[("a", false), ("d", true)]);
        check_lower(
            "rw,lowerdir=a:b::d::e",
            &[("a", false), ("b", false), ("d", true), ("e", true)],
        );
        check_lower(
            "rw,lowerdir+=/a,lowerdir+=/b:c,datadir+=/d",
            &[("/a", false), ("/b:c", false), ("/d", true)],
        );
        check_lower("rw,datadir+=/d,lowerdir+=/a", &[("/a", false), ("/d", true)]);
        check_lower("rw,lowerdir=/x\\134:y:/z", &[("/x:y", false), ("/z", false)]);
        check_lower("rw,lowerdir=/c\\134\\054d", &[("/c,d", false)]);
        check_lower("rw,lowerdir=/b\\134\\134s", &[("/b\\s", false)]);
        check_lower(
            "rw,lowerdir+=/b\\134s,lowerdir+=/c\\054d",
            &[("/b\\s", false), ("/c,d", false)],
        );
        check_lower("rw,lowerdir=/s\\040t\\011n\\012#", &[("/s t\tn\n#", false)]);
        check_lower("rw,lowerdir=", &[]);
        check_lower("rw,lowerdir=:::", &[]);
        check_lower("rw", &[]);
    }

    #[test]
    fn upper_and_work_in_any_order_with_both_readings() {
        let decoded = decode("rw,workdir=/w,upperdir=/u\\134\\134x,lowerdir=/l,uuid=on");
        let upper = decoded.upper.unwrap();
        let readings: Vec<_> = upper.readings().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(readings, ["/u\\x", "/u\\\\x"]);
        assert_eq!(decoded.work.unwrap().path, PathBuf::from("/w"));
        assert_eq!(decode("rw,lowerdir=a:b").upper, None);
    }

    #[test]
    fn features_keep_order_and_the_last_one_counts() {
        let decoded = decode("rw,lowerdir=a,index=off,userxattr,index=on");
        assert_eq!(decoded.feature(b"index"), Some(&b"on"[..]));
        assert_eq!(decoded.feature(b"userxattr"), Some(&b""[..]));
        assert_eq!(decoded.feature(b"metacopy"), None);
    }
}
