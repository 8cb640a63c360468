// SPDX-License-Identifier: MIT OR Apache-2.0
//! The check itself: what is expected, what is found, and the verdict.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::covering::{self, Covering};
use crate::describe::MountKind;
use crate::error::{Error, Result};
use crate::evidence::LayerDirectory;
use crate::gather;
use crate::mend::Mender;
use crate::object::Object;
use crate::proof::Handles;
use crate::quote;
use crate::report::{Aspect, Difference, Layer, Outcome, Reason, Report};
use crate::text::FollowedOptions;
use crate::verdict;

/// The overlay mount that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected<'a> {
    /// The merged directory.
    pub mount_point: &'a Path,
    /// All lower directories, top-most first; without data-only ones, which show no names.
    pub lower: Vec<PathBuf>,
    /// The upper layer directory.
    pub upper: &'a Path,
}

/// How to check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// What the mount will be used for.
    pub access: Access,
    /// May the check write?
    pub probe: Probe,
    /// Is a right mount looked over for what endangers it?
    pub warnings: Warnings,
}

/// Is a right mount looked over for what endangers it?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Warnings {
    /// It is: options are read, also those that are on by default in this kernel.
    #[default]
    Gather,
    /// Only the verdict counts, as for a program that answers one question: about a tenth of the work less.
    Leave,
}

/// What a mount will be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing: a read-only mount is a difference.
    #[default]
    ReadWrite,
    /// Reading only: a read-only mount is only worth a warning.
    ReadOnly,
}

/// May a check write?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Probe {
    /// Never: only look.
    #[default]
    Passive,
    /// Where looking does not settle which directory is the upper layer, make a file with a random name
    /// through the mount, look for it in the upper layer, and remove it. The directory's modification time
    /// changes.
    Active,
}

/// Checks a mount that is to be read and written, only by looking.
///
/// The cost does not depend on how much the layers hold.
///
/// # Deviation
/// Nix (2.26 to 2.36) matches a regular expression against the text of `/proc/self/mounts`: it wants the
/// source to be called `overlay`, exactly one lower directory, and the settings' paths letter for letter.
/// Everything right that it accepts is accepted here, and so is every other way to make the same mount. What
/// it accepts wrongly is a difference here: another mount on top, a path that only matches as a regular
/// expression, a replaced layer, a read-only mount.
///
/// # Errors
/// When the mount cannot be looked at. A mount that is wrong, or not there, is an [`Outcome`].
pub fn check(expected: &Expected<'_>) -> Result<Report> {
    check_with(expected, Options::default())
}

/// Checks a mount, with a say in how.
///
/// # Errors
/// As [`check()`].
pub fn check_with(expected: &Expected<'_>, options: Options) -> Result<Report> {
    let directory = match covering::open_directory(expected.mount_point) {
        Ok(directory) => directory,
        Err(errno) => return without_mount_point(expected, errno),
    };
    let covering = Covering::of_open(directory, expected.mount_point)?;
    let mender = Mender::new(expected, &covering.description);

    let mut layers = Layers::default();
    layers.open(Layer::Upper, expected.upper);
    for (index, path) in expected.lower.iter().enumerate() {
        layers.open(Layer::Lower(index), path);
    }
    // First what is wrong with the mount as such: without an overlay there are no layers to compare.
    if let Some(difference) = wrong_mount(&covering, &layers, &mender) {
        return Ok(report(
            expected,
            Some(covering),
            Outcome::Different(vec![difference]),
        ));
    }
    let missing = layers.missing_differences(&mender);
    if !missing.is_empty() {
        return Ok(report(expected, Some(covering), Outcome::Different(missing)));
    }
    let (Some(upper), true) = (&layers.upper, layers.unreadable.is_empty()) else {
        return Ok(report(
            expected,
            Some(covering),
            Outcome::CannotTell(layers.unreadable),
        ));
    };
    if covering
        .description
        .overlay
        .as_ref()
        .is_some_and(|overlay| overlay.upper.is_none())
    {
        let difference = Difference {
            what: Aspect::Upper,
            expected: quote::path(expected.upper),
            found: "an overlay without an upper layer".to_owned(),
            mend: mender.mount_again(),
        };
        return Ok(report(
            expected,
            Some(covering),
            Outcome::Different(vec![difference]),
        ));
    }

    let scene = gather::scene(&covering, upper, &layers.lower);
    let below = covering.path_in_file_system();
    let followed = match (&covering.description.overlay, &below) {
        (Some(overlay), Some(below)) => Some(FollowedOptions::follow(overlay, below, upper, expected.upper)),
        _ => None,
    };
    let (evidence, mut warnings) = gather::evidence(expected, &scene, followed.as_ref(), options.probe);
    if options.warnings == Warnings::Gather {
        warnings.extend(gather::mount_warnings(
            &covering,
            &scene,
            expected,
            options.access,
        ));
    }
    let findings = verdict::Findings {
        expected,
        covering: &covering,
        evidence: &evidence,
        followed: followed.as_ref(),
        lower: &layers.lower,
        access: options.access,
    };
    let outcome = findings.outcome(&mender);
    let lower = layers.lower.into_iter().map(|layer| layer.directory).collect();
    let handles = layers.upper.map(|upper| upper.directory);
    let Covering {
        directory,
        description,
        ..
    } = covering;
    Ok(Report {
        mount_point: expected.mount_point.to_owned(),
        outcome,
        mount: Some(description),
        warnings,
        evidence,
        handles: handles.map(|upper| Handles {
            mount_point: directory,
            upper,
            lower,
        }),
    })
}

/// The expected layers, opened.
#[derive(Debug, Default)]
struct Layers {
    upper: Option<LayerDirectory>,
    /// Complete if nothing is missing or unreadable.
    lower: Vec<LayerDirectory>,
    missing: Vec<(Layer, PathBuf, Errno)>,
    unreadable: Vec<Reason>,
}

impl Layers {
    fn open(&mut self, layer: Layer, path: &Path) {
        let opened = covering::open_directory(path)
            .and_then(|directory| Object::of(&directory).map(|object| LayerDirectory { directory, object }));
        match (opened, layer) {
            (Ok(directory), Layer::Upper) => self.upper = Some(directory),
            (Ok(directory), Layer::Lower(_)) => self.lower.push(directory),
            (Err(errno @ (Errno::NOENT | Errno::NOTDIR)), _) => {
                self.missing.push((layer, path.to_owned(), errno));
            }
            (Err(errno), _) => self.unreadable.push(Reason {
                why: format!("the {layer} {} cannot be opened: {errno}", quote::path(path)),
                remedy: "run as a user who may open it".to_owned(),
            }),
        }
    }

    fn missing_differences(&self, mender: &Mender<'_>) -> Vec<Difference> {
        let differences = self.missing.iter().map(|(layer, path, errno)| Difference {
            what: match layer {
                Layer::Upper => Aspect::Upper,
                Layer::Lower(index) => Aspect::Lower(*index),
            },
            expected: quote::path(path),
            found: match *errno {
                Errno::NOTDIR => "something that is not a directory".to_owned(),
                _ => "no such directory".to_owned(),
            },
            mend: match layer {
                Layer::Upper => mender.make_upper(),
                Layer::Lower(_) => mender.name_existing_lower(path),
            },
        });
        differences.collect()
    }
}

fn report(expected: &Expected<'_>, covering: Option<Covering>, outcome: Outcome) -> Report {
    Report {
        mount_point: expected.mount_point.to_owned(),
        outcome,
        mount: covering.map(|covering| covering.description),
        warnings: Vec::new(),
        evidence: Vec::new(),
        handles: None,
    }
}

fn without_mount_point(expected: &Expected<'_>, errno: Errno) -> Result<Report> {
    let found = match errno {
        Errno::NOENT => "no such directory",
        Errno::NOTDIR => "something that is not a directory",
        _ => {
            return Err(Error::Open {
                path: expected.mount_point.to_owned(),
                source: errno.into(),
            });
        }
    };
    let difference = Difference {
        what: Aspect::MountPoint,
        expected: quote::path(expected.mount_point),
        found: found.to_owned(),
        mend: Mender::without_mount(expected).make_mount_point(),
    };
    Ok(report(expected, None, Outcome::Different(vec![difference])))
}

/// Is there an overlay at all, and is it the one on top?
fn wrong_mount(covering: &Covering, layers: &Layers, mender: &Mender<'_>) -> Option<Difference> {
    let description = &covering.description;
    // As in a container whose root is an overlay: a mount that begins above the merged directory and holds a
    // layer of it as well is not the one that merges it.
    let inside = |layer: &LayerDirectory| layer.object.mount_id == covering.mount_id;
    let surrounds = !description.is_mount_point && layers.upper.iter().chain(&layers.lower).any(inside);
    let overlay = matches!(description.kind, MountKind::Overlay | MountKind::FuseOverlay) && !surrounds;
    if overlay {
        return None;
    }
    let expected = format!("an overlay mounted at {}", quote::path(&description.path));
    let found = mender.describe_covering();
    if let Some(hidden) = description.hidden.last() {
        return Some(Difference {
            what: Aspect::Hidden,
            expected,
            found: format!(
                "{found}, which hides the overlay mounted at {}",
                quote::bytes(&hidden.mount_point)
            ),
            mend: mender.uncover(),
        });
    }
    Some(Difference {
        what: if description.is_mount_point {
            Aspect::FileSystem
        } else {
            Aspect::NotMounted
        },
        expected,
        found,
        mend: if description.is_mount_point {
            mender.mount_again()
        } else {
            mender.mount()
        },
    })
}
