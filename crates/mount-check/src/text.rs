// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the paths of the mount options lead, and which expected layer that is.

use std::path::{Component, Path, PathBuf};

use crate::covering::open_directory;
use crate::evidence::LayerDirectory;
use crate::object::Object;
use crate::options::{LayerText, OverlayOptions};
use crate::report::Text;

/// The options of an overlay, followed as far as they can be.
#[derive(Debug)]
pub(crate) struct FollowedOptions {
    upper: Followed,
    /// The lower directories that show names, top-most first.
    lower: Vec<Followed>,
}

/// Where one option leads.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) text: PathBuf,
    pub(crate) end: End,
}

#[derive(Debug)]
pub(crate) enum End {
    /// An absolute path to these directories (several when the text can be read in several ways).
    Absolute(Vec<Object>),
    /// A relative path that leads here, if the mounter stood where `upperdir` says.
    Relative(Vec<Object>),
    /// The layer does not have the directory in question (the merged directory is below the root of the
    /// overlay).
    NotInLayer,
    /// Nowhere that can be seen from here.
    Lost,
}

impl FollowedOptions {
    /// Follows all layers to the directory `below` them.
    pub(crate) fn follow(
        options: &OverlayOptions,
        below: &Path,
        upper: &LayerDirectory,
        upper_path: &Path,
    ) -> Self {
        let base = options
            .upper
            .as_ref()
            .and_then(|text| mounters_directory(text, below, upper, upper_path));
        let follow = |layer: &LayerText| Followed {
            text: layer.path.clone(),
            end: follow(layer, below, base.as_deref()),
        };
        Self {
            upper: options.upper.as_ref().map_or(
                Followed {
                    text: PathBuf::new(),
                    end: End::Lost,
                },
                follow,
            ),
            lower: options.named_lower().map(follow).collect(),
        }
    }

    pub(crate) fn upper(&self, expected: &LayerDirectory) -> Text {
        self.upper.compare(expected)
    }

    /// The position of an expected directory among the lower ones.
    pub(crate) fn lower_position(&self, expected: &LayerDirectory) -> Option<usize> {
        self.lower
            .iter()
            .position(|lower| matches!(lower.compare(expected), Text::Names | Text::Resembles))
    }

    pub(crate) fn lower(&self, expected: &LayerDirectory) -> Text {
        match self.lower_position(expected) {
            Some(at) => self
                .lower
                .get(at)
                .map_or(Text::Unusable, |lower| lower.compare(expected)),
            // One that cannot be followed may be the expected one.
            None if self.lower.iter().any(|lower| matches!(lower.end, End::Lost)) => Text::Unusable,
            None => Text::NamesOther,
        }
    }

    /// The lower directories that hold something for the merged directory.
    pub(crate) fn contributing_lower(&self) -> impl Iterator<Item = &Followed> {
        self.lower
            .iter()
            .filter(|lower| !matches!(lower.end, End::NotInLayer))
    }
}

impl Followed {
    pub(crate) fn compare(&self, expected: &LayerDirectory) -> Text {
        let same = |objects: &[Object]| {
            objects
                .iter()
                .any(|object| object.is_same_inode(&expected.object))
        };
        match &self.end {
            End::Absolute(objects) if same(objects) => Text::Names,
            End::Absolute(_) | End::NotInLayer => Text::NamesOther,
            End::Relative(objects) if same(objects) => Text::Resembles,
            // The mounter's directory is an assumption, so another end proves nothing.
            End::Relative(_) | End::Lost => Text::Unusable,
        }
    }
}

fn follow(layer: &LayerText, below: &Path, base: Option<&Path>) -> End {
    let look = |path: &Path| Object::of(open_directory(path).ok()?).ok();
    if layer.path.is_absolute() {
        let ends: Vec<_> = layer
            .readings()
            .filter_map(|path| look(&path.join(below)))
            .collect();
        return match ends.is_empty() {
            false => End::Absolute(ends),
            true if layer.readings().any(|path| look(path).is_some()) => End::NotInLayer,
            true => End::Lost,
        };
    }
    let Some(base) = base else { return End::Lost };
    let ends: Vec<_> = layer
        .readings()
        .filter_map(|path| look(&base.join(path).join(below)))
        .collect();
    if ends.is_empty() {
        End::Lost
    } else {
        End::Relative(ends)
    }
}

/// If the upper layer is given as a relative path and the expected one ends like it, the mounter stood where
/// the rest of the expected one leads.
fn mounters_directory(
    text: &LayerText,
    below: &Path,
    upper: &LayerDirectory,
    upper_path: &Path,
) -> Option<PathBuf> {
    text.readings()
        .filter(|path| path.is_relative())
        .find_map(|relative| {
            let tail = relative.join(below);
            let names: Vec<_> = tail
                .components()
                .filter(|part| *part != Component::CurDir)
                .collect();
            // Where a path leads that climbs cannot be found by comparing its end.
            if !names.iter().all(|part| matches!(part, Component::Normal(_))) {
                return None;
            }
            let whole = std::fs::canonicalize(upper_path).ok()?;
            if !whole.ends_with(names.iter().collect::<PathBuf>()) {
                return None;
            }
            let base = whole.ancestors().nth(names.len())?;
            let found = Object::of(open_directory(&base.join(&tail)).ok()?).ok()?;
            found.is_same_inode(&upper.object).then(|| base.to_owned())
        })
}
