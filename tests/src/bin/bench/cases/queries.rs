// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions, and what is made known above.

use superpose_store_path::{StoreDir, StorePath};

use super::{Case, Lower, Pace, Place, Sizes, Upper, words};
use crate::generate::Generated;
use crate::layers::Restore;
use crate::proof::Proof;

pub(super) fn cases(sizes: Sizes, stores: &[Generated; 3]) -> Vec<Case> {
    let dir = StoreDir::default();
    let full = |path: StorePath| dir.join(&path);
    let closure = sizes.closure() as usize;
    let root = full(stores[1].root_of(sizes.closure()));
    let library = full(stores[1].library());
    let recursive = Case {
        name: "closure-empty",
        title: format!("`path-info -r` of {closure}, empty upper database"),
        place: Place::Over(Lower::Middle),
        upper: Upper::EMPTY,
        restore: Restore::Database,
        stock: ("nix", words(&["path-info", "-r", &root])),
        ours: words(&["path-info", "-r", &root]),
        proof: Proof::Lines(closure),
        target: 25.0,
        pace: Pace::Usual,
    };
    vec![
        Case {
            name: "start",
            title: "start, and one `path-info`".to_owned(),
            upper: Upper::knowing(sizes.closure()),
            restore: Restore::Nothing,
            stock: ("nix", words(&["path-info", &library])),
            ours: words(&["path-info", &library]),
            proof: Proof::Lines(1),
            target: 8.0,
            pace: Pace::Short,
            ..recursive.clone()
        },
        recursive.clone(),
        Case {
            name: "closure-full",
            title: format!("`path-info -r` of {closure}, full upper database"),
            upper: Upper::knowing(sizes.closure()),
            restore: Restore::Nothing,
            target: 6.0,
            ..recursive.clone()
        },
        Case {
            name: "closure-sizes",
            title: format!("`path-info -rS --json` of {closure}"),
            upper: Upper::knowing(sizes.closure()),
            restore: Restore::Nothing,
            stock: (
                "nix",
                words(&["path-info", "-rS", "--json", "--json-format", "2", &root]),
            ),
            ours: words(&["path-info", "-rS", "--json", "--json-format", "2", &root]),
            proof: Proof::ClosureSizes(closure),
            target: 200.0,
            ..recursive.clone()
        },
        Case {
            name: "ensure",
            title: format!("`ensure` of {closure} (`nix-store --check-validity`)"),
            stock: ("nix-store", words(&["--check-validity", &root])),
            ours: words(&["ensure", &root]),
            proof: Proof::Rows(u64::from(sizes.closure())),
            target: 15.0,
            ..recursive.clone()
        },
        Case {
            name: "referrers",
            title: format!("`query --referrers` among {}", sizes.stores[2]),
            place: Place::Over(Lower::Large),
            stock: ("nix-store", words(&["--query", "--referrers", &library])),
            ours: words(&["query", "--referrers", &library]),
            proof: Proof::Lines(0),
            target: 12.0,
            ..recursive.clone()
        },
        Case {
            name: "daemon-start",
            title: "start, and one `path-info` of a stock daemon, whose start is in both".to_owned(),
            place: Place::Served(Lower::Middle),
            restore: Restore::Nothing,
            stock: ("nix", words(&["path-info", &library])),
            ours: words(&["path-info", &library]),
            proof: Proof::Lines(1),
            // What the daemon takes to start a process and open the store alone is a fifth of what stock Nix takes in all.
            target: 3.0,
            pace: Pace::Short,
            ..recursive.clone()
        },
        Case {
            name: "daemon-closure",
            title: format!("`path-info -r` of {closure}, of a daemon (`max-connections=2`)"),
            place: Place::Served(Lower::Middle),
            restore: Restore::Nothing,
            target: 3.0,
            ..recursive
        },
    ]
}
