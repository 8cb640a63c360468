// SPDX-License-Identifier: MIT OR Apache-2.0
//! Comparison with another implementation, which knows names of UTF-8 only.

use std::io::Read;

use nix_nar::{Decoder, Encoder};
use proptest::prelude::*;
use superpose_nar::{RestoreOptions, restore};

use crate::files::Scratch;
use crate::model::{archive, make, trees};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_write_the_same(node in trees(true)) {
        let scratch = Scratch::new();
        make(&node, &scratch.path("x"));
        let mut theirs = Vec::new();
        Encoder::new(scratch.path("x")).unwrap().read_to_end(&mut theirs).unwrap();
        prop_assert!(scratch.dump("x") == theirs);
        let mut theirs = &theirs[..];
        restore(&mut theirs, &scratch.directory, "restored", &RestoreOptions::default()).unwrap();
        prop_assert!(scratch.dump("restored") == archive(&node));
    }

    #[test]
    fn each_unpacks_what_the_other_wrote(node in trees(true)) {
        let scratch = Scratch::new();
        make(&node, &scratch.path("x"));
        let ours = scratch.dump("x");
        Decoder::new(&ours[..]).unwrap().unpack(scratch.path("theirs")).unwrap();
        prop_assert!(scratch.dump("theirs") == ours);
    }
}
