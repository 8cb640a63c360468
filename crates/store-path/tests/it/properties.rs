// SPDX-License-Identifier: MIT OR Apache-2.0
//! Properties of every parser: what is written is read back, and no input makes it panic.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use superpose_store_path::{
    ContentAddress, ContentMethod, Defaults, Derivation, DerivationOutput, Hash, HashAlgorithm, HashEncoding,
    HashPart, Name, Signature, StoreDir, StorePath, StoreReference, hash_bytes, nix32,
};

/// Any bytes, often such that a parser gets somewhere with them.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..80),
        "[0-9a-z]{32}-[a-z.]{0,8}".prop_map(String::into_bytes),
        "(/nix/store/)?(0y839a054fcnhjcd2w1pb6a4k4fl38iw-[a-z./]{0,9}|[./a]{0,9})"
            .prop_map(String::into_bytes),
        "(fixed:|text:)?(r:|git:)?(md5|sha1|sha256)[:-][0-9a-f]{0,64}".prop_map(String::into_bytes),
    ]
}

fn algorithm() -> impl Strategy<Value = HashAlgorithm> {
    prop_oneof![
        Just(HashAlgorithm::Md5),
        Just(HashAlgorithm::Sha1),
        Just(HashAlgorithm::Sha256),
        Just(HashAlgorithm::Sha512),
    ]
}

fn hash() -> impl Strategy<Value = Hash> {
    (algorithm(), any::<u64>()).prop_map(|(algorithm, seed)| hash_bytes(algorithm, &seed.to_le_bytes()))
}

fn method() -> impl Strategy<Value = ContentMethod> {
    prop_oneof![
        Just(ContentMethod::Text),
        Just(ContentMethod::Flat),
        Just(ContentMethod::Nar),
        Just(ContentMethod::Git),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    "[0-9A-Za-z+_?=][0-9A-Za-z+._?=-]{0,20}".prop_map(|text| Name::new(text.as_bytes()).unwrap())
}

fn path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), name()).prop_map(|(hash, name)| StorePath::from_parts(HashPart::new(hash), &name))
}

fn drv_path() -> impl Strategy<Value = StorePath> {
    path().prop_map(|path| format!("{path}.drv").parse().unwrap())
}

fn output() -> impl Strategy<Value = DerivationOutput> {
    prop_oneof![
        path().prop_map(|path| DerivationOutput::InputAddressed { path }),
        (path(), method(), hash()).prop_map(|(path, method, hash)| DerivationOutput::Fixed {
            path,
            ca: ContentAddress { method, hash }
        }),
        (method(), algorithm())
            .prop_map(|(method, algorithm)| DerivationOutput::Floating { method, algorithm }),
        Just(DerivationOutput::Deferred),
        (method(), algorithm())
            .prop_map(|(method, algorithm)| DerivationOutput::Impure { method, algorithm }),
    ]
}

fn derivation() -> impl Strategy<Value = Derivation> {
    let text = || {
        vec(
            prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), Just(b'\n')],
            0..12,
        )
    };
    let output_name = || "[a-z]{1,4}";
    (
        name(),
        btree_map(output_name(), output(), 0..4),
        btree_map(drv_path(), btree_set(output_name(), 0..3), 0..3),
        btree_set(path(), 0..3),
        (text(), text()),
        vec(text(), 0..3),
        btree_map(text(), text(), 0..4),
    )
        .prop_map(
            |(name, outputs, input_drvs, input_srcs, (platform, builder), args, env)| Derivation {
                name,
                outputs,
                input_drvs,
                input_srcs,
                platform,
                builder,
                args,
                env,
            },
        )
}

fn url() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        bytes(),
        "(local|unix|local-overlay|auto|x)?(:|://)?[a/.%#?]{0,6}[?]?([a-c%=&#]|root=|lower-store=|%[0-9a-f]{2}){0,12}"
            .prop_map(String::into_bytes),
    ]
}

/// A store URL that was put together, with overlay stores on top of each other.
fn reference() -> impl Strategy<Value = StoreReference> {
    let params = || btree_map(vec(any::<u8>(), 0..6), vec(any::<u8>(), 0..10), 0..4);
    let with = |reference: StoreReference, params: BTreeMap<Vec<u8>, Vec<u8>>| {
        params.into_iter().fold(reference, |reference, (key, value)| {
            reference.with_param(key, value)
        })
    };
    let simple = prop_oneof![
        Just(StoreReference::auto()),
        Just(StoreReference::default_local()),
        Just(StoreReference::daemon(None)),
        "/[a-z?#% ]{1,9}".prop_map(|path| StoreReference::daemon(Some(path.as_ref()))),
        "/[a-z?#% ]{0,9}".prop_map(StoreReference::local),
    ];
    let simple = (simple, params()).prop_map(move |(reference, params)| with(reference, params));
    simple.prop_recursive(3, 8, 1, move |inner| {
        (inner, params())
            .prop_map(move |(lower, params)| with(StoreReference::overlay(&lower, "/u", "/m"), params))
    })
}

proptest! {
    #[test]
    fn nix32_is_read_back(bytes in vec(any::<u8>(), 0..70)) {
        let text = nix32::encode(&bytes);
        prop_assert_eq!(text.len(), nix32::encoded_len(bytes.len()));
        prop_assert_eq!(nix32::decode(text.as_bytes(), bytes.len()).unwrap(), bytes);
    }

    /// By the definition, bit by bit.
    #[test]
    fn nix32_digits_are_what_they_are_defined_as(bytes in vec(any::<u8>(), 0..70)) {
        let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (at % 8) & 1);
        let digits = (bytes.len() * 8).div_ceil(5);
        let text: Vec<u8> = (0..digits)
            .rev()
            .map(|digit| nix32::ALPHABET[(0..5).map(|at| bit(digit * 5 + at) << at).sum::<u8>() as usize])
            .collect();
        prop_assert_eq!(nix32::encode(&bytes).into_bytes(), text);
    }

    #[test]
    fn nix32_has_one_text_for_each_value(text in "[0-9a-fx-z]{0,20}", len in 0..14_usize) {
        if let Ok(bytes) = nix32::decode(text.as_bytes(), len) {
            prop_assert_eq!(nix32::encode(&bytes), text);
        }
    }

    #[test]
    fn paths_are_read_back(path in path(), dir in "/[a-z/]{1,10}[a-z]") {
        let dir = StoreDir::new(dir.as_bytes()).unwrap();
        prop_assert_eq!(StorePath::from_base_name(path.base_name().as_bytes()).unwrap(), path.clone());
        prop_assert_eq!(dir.parse_path(dir.join(&path).as_bytes()).unwrap(), path);
    }

    #[test]
    fn hashes_are_read_back(hash in hash()) {
        for encoding in [HashEncoding::Base16, HashEncoding::Nix32, HashEncoding::Base64, HashEncoding::Sri] {
            prop_assert_eq!(Hash::parse(hash.render(encoding).as_bytes()).unwrap(), hash);
        }
    }

    #[test]
    fn content_addresses_are_read_back(method in method(), hash in hash()) {
        let ca = ContentAddress { method, hash };
        prop_assert_eq!(ContentAddress::parse(ca.to_string().as_bytes()).unwrap(), ca);
    }

    #[test]
    fn derivations_are_read_back(derivation in derivation()) {
        let dir = StoreDir::default();
        let text = derivation.render(&dir);
        prop_assert_eq!(Derivation::parse(&text, &dir, &derivation.name).unwrap(), derivation);
    }

    #[test]
    fn damaged_derivations_are_values_or_errors(
        derivation in derivation(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let dir = StoreDir::default();
        let mut text = derivation.render(&dir);
        let at = at.index(text.len());
        text[at] = with;
        if let Ok(parsed) = Derivation::parse(&text, &dir, &derivation.name) {
            let again = parsed.render(&dir);
            prop_assert_eq!(Derivation::parse(&again, &dir, &derivation.name).unwrap(), parsed);
        }
    }

    #[test]
    fn urls_that_were_put_together_are_read_back(reference in reference()) {
        let text = reference.to_string();
        prop_assert!(text.is_ascii());
        let (parsed, warnings) = StoreReference::parse(text.as_bytes(), b"/").unwrap();
        prop_assert_eq!(warnings, []);
        prop_assert_eq!(parsed.to_string(), text);
        prop_assert_eq!(parsed, reference);
    }

    #[test]
    fn what_a_url_says_is_read_back(text in url()) {
        if let Ok((reference, _)) = StoreReference::parse(&text, b"/w") {
            let full = reference.to_string();
            let (again, warnings) = StoreReference::parse(full.as_bytes(), b"/elsewhere").unwrap();
            prop_assert_eq!(warnings, []);
            prop_assert_eq!(again.to_string(), full);
            prop_assert_eq!(again, reference);
        }
    }

    #[test]
    fn settings_are_values_or_errors(
        keys in btree_set(
            prop::sample::select(vec![
                "root", "state", "real", "store", "read-only", "priority", "lower-store", "upper-layer", "x",
            ]),
            0..6,
        ),
        values in vec(
            prop_oneof![url(), Just(b"/a".to_vec()), Just(b"true".to_vec()), Just(b"5K".to_vec())],
            6,
        ),
        overlay in any::<bool>(),
    ) {
        let base = if overlay { &b"local-overlay://"[..] } else { b"local" };
        let (mut reference, _) = StoreReference::parse(base, b"/").unwrap();
        for (key, value) in keys.into_iter().zip(values) {
            reference = reference.with_param(key, value);
        }
        if let Ok((settings, _)) = reference.settings(&Defaults::default()) {
            prop_assert!(settings.real_dir().is_absolute());
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(text in bytes()) {
        let dir = StoreDir::default();
        let name = Name::new(b"x").unwrap();
        if let Ok(path) = dir.parse_path(&text) {
            prop_assert_eq!(dir.parse_inside(&text).unwrap(), (path, vec![]));
        }
        if let Ok((path, rest)) = dir.parse_inside(&text) {
            prop_assert!(!rest.starts_with(b"/") && !rest.ends_with(b"/"));
            prop_assert_eq!(dir.parse_path(dir.join(&path).as_bytes()).unwrap(), path);
        }
        if let Ok(path) = StorePath::from_base_name(&text) {
            prop_assert_eq!(path.base_name().as_bytes(), &text);
        }
        if let Ok(name) = Name::new(&text) {
            prop_assert_eq!(name.as_str().as_bytes(), &text);
        }
        if let Ok(dir) = StoreDir::new(&text) {
            prop_assert_eq!(StoreDir::new(dir.as_str().as_bytes()).unwrap(), dir);
        }
        if let Ok(part) = HashPart::parse(&text) {
            prop_assert_eq!(part.to_string().into_bytes(), text.clone());
        }
        if let Ok(hash) = Hash::parse(&text) {
            prop_assert_eq!(Hash::parse(hash.to_string().as_bytes()).unwrap(), hash);
        }
        if let Ok(ca) = ContentAddress::parse(&text) {
            prop_assert_eq!(ContentAddress::parse(ca.to_string().as_bytes()).unwrap(), ca);
        }
        if let Ok(signature) = Signature::parse(&text) {
            prop_assert_eq!(signature.as_str().as_bytes(), &text);
        }
        prop_assert!(Derivation::parse(&text, &dir, &name).is_err());
    }

    #[test]
    fn streams_are_cut_anywhere(
        pieces in vec(prop_oneof![
            Just("cpv036s16plfxg66s29rvfz3bn0cd63k".to_owned()),
            "[c-s0-9]{0,40}",
            "cpv036s16plfxg66s29rvfz3bn0cd6[c-s0-9]{0,9}",
        ], 0..8),
        cuts in vec(0..50_usize, 0..12),
    ) {
        crate::modulo::check(pieces.concat().as_bytes(), &cuts);
    }

    #[test]
    fn references_do_not_depend_on_their_order(paths in vec(path(), 0..6)) {
        let forward: BTreeSet<_> = paths.iter().collect();
        let backward: BTreeSet<_> = paths.iter().rev().collect();
        let texts = |set: &BTreeSet<&StorePath>| set.iter().map(ToString::to_string).collect::<Vec<_>>();
        prop_assert_eq!(texts(&forward), texts(&backward));
        prop_assert!(texts(&forward).is_sorted());
    }
}
