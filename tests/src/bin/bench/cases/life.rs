// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a store goes through: objects are collected, deduplicated, verified, copied.
//!
//! Stock Nix collects nothing over a lower store with references unless all of it is needed: one root keeps it.
//! Whoever asks for that root first makes its closure known above; stock Nix does that in each collection that finds
//! the rows missing, and superpose in none.

use superpose_store_path::StoreDir;

use super::{Case, Copies, DESTINATION, Lower, Pace, Place, Roots, Sizes, Upper, words};
use crate::generate::Generated;
use crate::layers::Restore;
use crate::proof::{LayerProof, Proof};

pub(super) fn cases(sizes: Sizes, stores: &[Generated; 3]) -> Vec<Case> {
    let mut cases = collections(sizes);
    cases.extend(deduplications(sizes));
    cases.push(verification(sizes));
    cases.push(copying(sizes, &stores[1]));
    cases
}

fn collections(sizes: Sizes) -> Vec<Case> {
    let [few, many] = sizes.objects;
    let lower = sizes.stores[2];
    let dead = |name, count: u32, target| Case {
        name,
        title: format!("`gc` of {count} dead objects, {lower} below"),
        place: Place::Over(Lower::Large),
        upper: Upper::dead(count),
        restore: Restore::Layer,
        stock: ("nix-store", words(&["--gc"])),
        ours: words(&["gc"]),
        proof: Proof::Layer(LayerProof::collected(count)),
        target,
        pace: Pace::Slow,
    };
    let nothing = Case {
        name: "gc-nothing",
        title: format!("`gc` with nothing dead, {lower} below, all known above"),
        upper: Upper {
            known: lower,
            own: few,
            roots: Roots::Everything,
            ..Upper::EMPTY
        },
        // Nothing is dead in the second run either.
        restore: Restore::Nothing,
        proof: Proof::Layer(LayerProof {
            objects: few,
            own: few,
            deleted: Some(0),
            rows: Some(lower + few),
        }),
        target: 100.0,
        pace: Pace::Usual,
        ..dead("gc-nothing", few, 100.0)
    };
    vec![
        dead("gc-dead", few, 60.0),
        dead("gc-dead-many", many, 15.0),
        nothing,
    ]
}

fn deduplications(sizes: Sizes) -> Vec<Case> {
    let [few, many] = sizes.objects;
    let duplicates = |name, count: u32| Case {
        name,
        title: format!("`optimise` of {count} duplicates"),
        place: Place::Over(Lower::Middle),
        upper: Upper {
            copies: Copies::All,
            ..Upper::knowing(count)
        },
        restore: Restore::Layer,
        stock: ("nix-store", words(&["--optimise"])),
        ours: words(&["optimise"]),
        proof: Proof::Layer(LayerProof::deduplicated(count)),
        target: 3.0,
        pace: Pace::Usual,
    };
    let nothing = Case {
        title: format!("`optimise` with nothing to do, {} known above", sizes.known),
        place: Place::Over(Lower::Large),
        upper: Upper {
            own: few,
            ..Upper::knowing(sizes.known)
        },
        // The first run, which does not count, may link what is alike in the layer; then there is nothing to do.
        restore: Restore::Nothing,
        proof: Proof::Layer(LayerProof {
            objects: few,
            own: few,
            deleted: None,
            rows: Some(sizes.known + few),
        }),
        target: 10.0,
        ..duplicates("optimise-nothing", few)
    };
    vec![
        duplicates("optimise", few),
        duplicates("optimise-many", many),
        nothing,
    ]
}

fn verification(sizes: Sizes) -> Case {
    let rows = sizes.closure();
    Case {
        name: "verify",
        title: format!("`verify --check-contents` of {rows} small objects"),
        place: Place::Over(Lower::Middle),
        upper: Upper::knowing(rows),
        restore: Restore::Nothing,
        stock: ("nix-store", words(&["--verify", "--check-contents"])),
        ours: words(&["verify", "--check-contents"]),
        proof: Proof::Verified,
        target: 1.8,
        pace: Pace::Usual,
    }
}

fn copying(sizes: Sizes, store: &Generated) -> Case {
    let count = sizes.closure() / 10;
    let path = StoreDir::default().join(&store.root_of(count));
    Case {
        name: "copy",
        title: format!("`copy` of a closure of {count} to a new store in memory"),
        place: Place::Of(Lower::Middle),
        upper: Upper::EMPTY,
        restore: Restore::Destination,
        stock: (
            "nix",
            words(&["copy", "--no-check-sigs", "--to", DESTINATION, &path]),
        ),
        ours: words(&["copy", "--no-check-sigs", "--to", DESTINATION, &path]),
        proof: Proof::Copied(count),
        target: 3.0,
        pace: Pace::Usual,
    }
}
