// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that are added, from memory to memory.

use std::path::Path;

use super::{Case, Inputs, Pace, Place, Sizes, Upper};
use crate::layers::Restore;
use crate::proof::Proof;

pub(super) fn cases(sizes: Sizes, inputs: &Inputs) -> Vec<Case> {
    let case = |name, title, input: &Path, target| Case {
        name,
        title,
        place: Place::Memory,
        upper: Upper::EMPTY,
        restore: Restore::Layer,
        stock: ("nix-store", vec!["--add".into(), input.into()]),
        ours: vec!["add".into(), input.into()],
        proof: Proof::Added,
        target,
        pace: Pace::Usual,
    };
    let mebibytes = sizes.large >> 20;
    vec![
        case(
            "add-large",
            format!("`add` of a file of {mebibytes} MiB, in memory"),
            &inputs.large,
            1.4,
        ),
        case(
            "add-many",
            format!("`add` of {} small files, in memory", sizes.many),
            &inputs.many,
            1.5,
        ),
    ]
}
