// SPDX-License-Identifier: MIT OR Apache-2.0
//! Brings together what objects and texts say of each expected layer.

use std::cell::OnceCell;
use std::os::fd::AsFd as _;
use std::path::Path;

use crate::check::{Access, Expected, Probe};
use crate::covering::Covering;
use crate::evidence::{Care, Judgement, LayerDirectory, Scene};
use crate::options::OverlayOptions;
use crate::quote;
use crate::report::{Certainty, Evidence, Layer, Text};
use crate::text::FollowedOptions;
use crate::warning::{self, Warning};

/// Sets up what there is to compare.
pub(crate) fn scene<'a>(
    covering: &'a Covering,
    upper: &'a LayerDirectory,
    lower: &'a [LayerDirectory],
) -> Scene<'a> {
    let description = &covering.description;
    // With more layers than expected, another file system may be among them, and inode numbers are not passed
    // on.
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
        handles: OnceCell::new(),
        merged: covering.directory.as_fd(),
        is_overlay_root,
        same_file_system,
        upper,
        lower,
    }
}

/// Collects what objects and texts say of each layer.
pub(crate) fn evidence(
    expected: &Expected<'_>,
    scene: &Scene<'_>,
    followed: Option<&FollowedOptions>,
    probe: Probe,
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

    let upper_text = followed.map_or(Text::Unusable, |followed| followed.upper(scene.upper));
    let upper = judge_upper(scene, upper_text, probe);
    let upper_known = matches!(upper.certainty, Certainty::Proven | Certainty::Consistent);
    push(Layer::Upper, expected.upper, upper, upper_text);

    for (index, (path, layer)) in expected.lower.iter().zip(scene.lower).enumerate() {
        let text = match followed.map_or(Text::Unusable, |followed| followed.lower(layer)) {
            // If the upper layer is ours although its text leads elsewhere, the text was written under
            // another root directory.
            Text::NamesOther if upper_known && upper_text == Text::NamesOther => Text::Unusable,
            // A relative path was followed from where the upper layer's path starts, so that must be ours.
            Text::Resembles if !upper_known => Text::Unusable,
            text => text,
        };
        push(Layer::Lower(index), path, judge_lower(scene, index, text), text);
    }
    (evidence, warnings)
}

fn judge_upper(scene: &Scene<'_>, text: Text, probe: Probe) -> Judgement {
    let mut judgement = with_care(text, |care| scene.judge_upper(care));
    if probe == Probe::Active && matches!(judgement.certainty, Certainty::Unknown | Certainty::Consistent) {
        let probed = crate::probe::probe_upper(scene.merged, scene.upper.directory.as_fd());
        if probed.certainty != Certainty::Unknown || judgement.certainty == Certainty::Unknown {
            judgement = probed;
        }
    }
    judgement
}

fn judge_lower(scene: &Scene<'_>, index: usize, text: Text) -> Judgement {
    let judgement = with_care(text, |care| scene.judge_lower(index, care));
    if judgement.certainty == Certainty::Unknown
        && let Some(name) = scene.unexplained_name()
    {
        let name = quote::bytes(&name);
        return Judgement::new(
            Certainty::Refuted,
            format!("the mount shows {name}, which no expected layer has"),
        );
    }
    judgement
}

/// Looks quickly first. Agreeing times are enough beside a text that leads to the very same directory: it
/// cannot have been put there later without a change of its times. Without that, file handles are worth their
/// cost.
fn with_care(text: Text, judge: impl Fn(Care) -> Judgement) -> Judgement {
    let quick = judge(Care::Quick);
    if quick.certainty == Certainty::Consistent && text != Text::Names {
        return judge(Care::Thorough);
    }
    quick
}

/// Warnings that do not depend on the layers' objects.
pub(crate) fn mount_warnings(
    covering: &Covering,
    scene: &Scene<'_>,
    expected: &Expected<'_>,
    access: Access,
) -> Vec<Warning> {
    let description = &covering.description;
    let mut warnings = Vec::new();
    if let Some(overlay) = &description.overlay {
        warnings.extend(warning::from_options(overlay, &warning::module_default));
        // Handles with layer data are only given by overlays that may write trusted attributes.
        let has_layer_handle = || {
            let handle = scene
                .handles(Care::Thorough)
                .and_then(|handles| handles.read(scene.merged));
            handle.is_some_and(|handle| handle.as_overlay().is_some())
        };
        if overlay.feature(b"userxattr").is_none() && warning::in_user_namespace() && !has_layer_handle() {
            warnings.push(Warning::MissingUserxattr);
        }
        let data_only = overlay.lower.iter().filter(|layer| layer.data_only).count();
        if data_only > 0 && overlay.lower.len() > expected.lower.len() {
            warnings.push(Warning::DataOnlyLayers(data_only));
        }
    }
    if description.is_read_only && access == Access::ReadOnly {
        warnings.push(Warning::ReadOnly);
    }
    if !description.hidden.is_empty() {
        warnings.push(Warning::HidesAnother);
    }
    warnings
}
