// SPDX-License-Identifier: MIT OR Apache-2.0
//! The check itself: what is expected, what is found, and the verdict.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::covering::{self, Covering};
use crate::describe::MountKind;
use crate::error::{Error, Result};
use crate::evidence::{Judgement, LayerDirectory, Scene};
use crate::handle::HandleReader;
use crate::mend::Mender;
use crate::object::Object;
use crate::options::OverlayOptions;
use crate::proof::Handles;
use crate::quote;
use crate::report::{Aspect, Certainty, Difference, Evidence, Layer, Outcome, Reason, Report, Text};
use crate::text::FollowedOptions;
use crate::verdict;
use crate::warning::{self, Warning};

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
    /// Where looking does not settle which directory is the upper layer, make a file with a random name through the mount,
    /// look for it in the upper layer, and remove it. The directory's modification time changes.
    Active,
}

/// Checks a mount that is to be read and written, only by looking.
///
/// The cost does not depend on how much the layers hold.
///
/// # Deviation
/// Nix (2.26 to 2.36) matches a regular expression against the text of `/proc/self/mounts`: it wants the source to be called `overlay`,
/// exactly one lower directory, and the settings' paths letter for letter. Everything right that it accepts is accepted here,
/// and so is every other way to make the same mount. What it accepts wrongly is a difference here: another mount on top, a path
/// that only matches as a regular expression, a replaced layer, a read-only mount.
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

    let scene = scene(&covering, upper, &layers.lower);
    let below = covering.path_in_file_system();
    let followed = match (&covering.description.overlay, &below) {
        (Some(overlay), Some(below)) => Some(FollowedOptions::follow(overlay, below, upper, expected.upper)),
        _ => None,
    };
    let (evidence, mut warnings) = gather(expected, &scene, followed.as_ref(), options);
    warnings.extend(mount_warnings(&covering, &scene, expected, options));
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
    // As in a container whose root is an overlay: a mount that begins above the merged directory and holds a layer of it as
    // well is not the one that merges it.
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

fn scene<'a>(covering: &'a Covering, upper: &'a LayerDirectory, lower: &'a [LayerDirectory]) -> Scene<'a> {
    let description = &covering.description;
    // With more layers than expected, another file system may be among them, and inode numbers are not passed on.
    let shown = description
        .overlay
        .as_ref()
        .map(|overlay: &OverlayOptions| overlay.lower.len());
    let same_file_system = lower
        .iter()
        .all(|layer| layer.object.device == upper.object.device)
        && shown.is_none_or(|shown| shown == lower.len());
    let is_overlay_root =
        description.is_mount_point && description.info.as_ref().is_some_and(|info| info.root == b"/");
    Scene {
        handles: HandleReader::new(),
        merged: covering.directory.as_fd(),
        is_overlay_root,
        same_file_system,
        upper,
        lower,
    }
}

/// Collects what objects and texts say of each layer.
fn gather(
    expected: &Expected<'_>,
    scene: &Scene<'_>,
    followed: Option<&FollowedOptions>,
    options: Options,
) -> (Vec<Evidence>, Vec<Warning>) {
    let mut evidence = Vec::with_capacity(scene.lower.len() + 1);
    let mut warnings = Vec::new();
    let mut push = |layer, path: &Path, judgement: Judgement, text| {
        warnings.extend(judgement.stale.as_deref().map(warning::stale_view));
        let Judgement { certainty, how, .. } = judgement;
        evidence.push(Evidence {
            layer,
            expected: path.to_owned(),
            certainty,
            how,
            text,
        });
    };

    let mut upper = scene.judge_upper();
    if options.probe == Probe::Active && matches!(upper.certainty, Certainty::Unknown | Certainty::Consistent)
    {
        let probed = crate::probe::probe_upper(scene.merged, scene.upper.directory.as_fd());
        if probed.certainty != Certainty::Unknown || upper.certainty == Certainty::Unknown {
            upper = probed;
        }
    }
    let upper_text = followed.map_or(Text::Unusable, |followed| followed.upper(scene.upper));
    let upper_known = matches!(upper.certainty, Certainty::Proven | Certainty::Consistent);
    push(Layer::Upper, expected.upper, upper, upper_text);
    // If the upper layer is ours although the text leads elsewhere, the text was written under another root directory.
    let foreign = upper_known && upper_text == Text::NamesOther;

    for (index, (path, layer)) in expected.lower.iter().zip(scene.lower).enumerate() {
        let mut judgement = scene.judge_lower(index);
        if judgement.certainty == Certainty::Unknown
            && let Some(name) = scene.unexplained_name()
        {
            let how = format!(
                "the mount shows {}, which no expected layer has",
                quote::bytes(&name)
            );
            judgement = Judgement::new(Certainty::Refuted, how);
        }
        let text = match followed.map_or(Text::Unusable, |followed| followed.lower(layer)) {
            Text::NamesOther if foreign => Text::Unusable,
            // A relative path was followed from where the upper layer's path starts, so that must be ours.
            Text::Resembles if !upper_known => Text::Unusable,
            text => text,
        };
        push(Layer::Lower(index), path, judgement, text);
    }
    (evidence, warnings)
}

fn mount_warnings(
    covering: &Covering,
    scene: &Scene<'_>,
    expected: &Expected<'_>,
    options: Options,
) -> Vec<Warning> {
    let description = &covering.description;
    let mut warnings = Vec::new();
    if let Some(overlay) = &description.overlay {
        warnings.extend(warning::from_options(overlay, &warning::module_default));
        // Handles with layer data are only given by overlays that may write trusted attributes.
        let has_layer_handle = || {
            scene
                .handles
                .read(scene.merged)
                .is_some_and(|handle| handle.as_overlay().is_some())
        };
        if overlay.feature(b"userxattr").is_none() && warning::in_user_namespace() && !has_layer_handle() {
            warnings.push(Warning::MissingUserxattr);
        }
        let data_only = overlay.lower.iter().filter(|layer| layer.data_only).count();
        if data_only > 0 && overlay.lower.len() > expected.lower.len() {
            warnings.push(Warning::DataOnlyLayers(data_only));
        }
    }
    if description.is_read_only && options.access == Access::ReadOnly {
        warnings.push(Warning::ReadOnly);
    }
    if !description.hidden.is_empty() {
        warnings.push(Warning::HidesAnother);
    }
    warnings
}
