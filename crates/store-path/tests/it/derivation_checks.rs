// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashes of derivations, and the check before they are registered.

use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{
    Derivation, DerivationOutput, Error, HashAlgorithm, HashEncoding, ModuloMemo, Name, StoreDir, StorePath,
    hash_bytes,
};

use crate::derivation_files::{Files, ReadResult, filled};

#[test]
fn files_of_nix_are_read_written_and_checked() {
    let files = Files::of_nix();
    let mut memo = ModuloMemo::new();
    for (path, text) in &files.texts {
        let derivation = Derivation::parse_object(text, &StoreDir::default(), path).unwrap();
        assert_eq!(derivation.render(&StoreDir::default()), *text, "{path}");
        assert_eq!(derivation.path(&StoreDir::default()).unwrap(), *path);
        files.check(path, &derivation, &mut memo).unwrap();
        files.check(path, &derivation, &mut ModuloMemo::new()).unwrap();
    }
}

#[test]
fn hash_modulo_of_plain() {
    let dir = StoreDir::default();
    let masked = concat!(
        r#"Derive([("out","","","")],[],[],"x86_64-linux","/bin/sh",["-c","echo abc > $out"],"#,
        r#"[("builder","/bin/sh"),("name","plain"),("out",""),("system","x86_64-linux")])"#
    );
    let full = masked
        .replace(
            r#"("out","","","")"#,
            r#"("out","/nix/store/41wslayvc1qc6k125c861vd2dlkmaq0v-plain","","")"#,
        )
        .replace(
            r#"("out","")"#,
            r#"("out","/nix/store/41wslayvc1qc6k125c861vd2dlkmaq0v-plain")"#,
        );
    let hex =
        |text: &str| hash_bytes(HashAlgorithm::Sha256, text.as_bytes()).render_bare(HashEncoding::Base16);
    assert_eq!(
        hex(masked),
        "74224e4aff069cae2f6dcc5569ffd05c182eb5cd7846c5461b2528fa7362cf34"
    );
    assert_eq!(
        hex(&full),
        "67a52d533676d32c3bd790cbdddc33a347cf846f98d06fef7c4e2cf2fbbe0958"
    );

    let derivation = Derivation::parse(full.as_bytes(), &dir, &Name::new(b"plain").unwrap()).unwrap();
    let mut none = |_: &StorePath| -> ReadResult { Err("has no inputs".into()) };
    let hash = derivation
        .hash_modulo(&dir, &mut ModuloMemo::new(), &mut none)
        .unwrap()
        .unwrap();
    assert_eq!(hash.render_bare(HashEncoding::Base16), hex(masked));
    let path = dir.output_path(&hash, &derivation.name, "out").unwrap();
    assert_eq!(path.base_name(), "41wslayvc1qc6k125c861vd2dlkmaq0v-plain");
    let path = derivation.path(&dir).unwrap();
    assert_eq!(path.base_name(), "akj8mbqjx8nzkql9142nb7103vwn0wa2-plain.drv");
    derivation
        .check(&path, &dir, &mut ModuloMemo::new(), &mut none)
        .unwrap();

    // What it counts as when another one needs it.
    let mut files = Files::default();
    assert_eq!(files.add(&derivation), path);
    let user = filled("user", std::slice::from_ref(&path), &files);
    let text = String::from_utf8(user.render(&dir)).unwrap();
    let masked = text
        .replace(&dir.join(&path), &hex(&full))
        .replace(&dir.join(&user.static_outputs()[0].1), "");
    let expected = dir.output_path(
        &hash_bytes(HashAlgorithm::Sha256, masked.as_bytes()),
        &user.name,
        "out",
    );
    assert_eq!(expected.unwrap(), user.static_outputs()[0].1);
}

#[test]
fn each_input_is_read_once_and_fixed_ones_without_theirs() {
    let files = Files::of_nix();
    let mut memo = ModuloMemo::new();
    let (path, last) = files.named("last.drv");
    files.check(&path, &last, &mut memo).unwrap();
    let (path, top) = files.named("top.drv");
    files.check(&path, &top, &mut memo).unwrap();
    let reads = files.reads.borrow();
    assert!(reads.values().all(|&count| count == 1), "{reads:?}");
    assert_eq!(reads.len(), 5, "top, multi, and the three fixed ones");
    assert_eq!(memo.len(), 6, "and last itself");
}

#[test]
fn a_checked_derivation_is_not_read_again() {
    let files = Files::of_nix();
    let mut memo = ModuloMemo::new();
    for name in ["fixed.drv", "fixedr.drv", "multi.drv", "top.drv", "last.drv"] {
        for (path, text) in files.texts.iter().filter(|(path, _)| path.name() == name) {
            let derivation = Derivation::parse_object(text, &StoreDir::default(), path).unwrap();
            files.check(path, &derivation, &mut memo).unwrap();
        }
    }
    let reads = files.reads.borrow();
    assert!(
        reads.keys().all(|path| path.name().starts_with("fixed")),
        "{reads:?}"
    );
}

#[test]
fn inconsistent_derivations_are_refused() {
    fn check(name: &str, change: impl FnOnce(&mut StorePath, &mut Derivation), expected: &str) {
        let files = Files::of_nix();
        let (mut path, mut derivation) = files.named(name);
        change(&mut path, &mut derivation);
        let error = files
            .check(&path, &derivation, &mut ModuloMemo::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let other: StorePath = "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".parse().unwrap();
    let text = format!("/nix/store/{other}").into_bytes();
    let out = b"out".to_vec();
    let input = |path: &StorePath| DerivationOutput::InputAddressed { path: path.clone() };

    check("top.drv", |path, _| *path = other.clone(), "the name of its path");
    check(
        "top.drv",
        |_, drv| drv.name = Name::new(b"pot").unwrap(),
        "the name of its path",
    );
    check(
        "top.drv",
        |_, drv| drv.builder.push(b'x'),
        "the path of output `out`",
    );
    check(
        "top.drv",
        |_, drv| drop(drv.input_drvs.pop_first()),
        "the path of output `out`",
    );
    check(
        "top.drv",
        |_, drv| drop(drv.outputs.insert("out".into(), input(&other))),
        "the path of output `out`",
    );
    check(
        "multi.drv",
        |_, drv| drop(drv.outputs.remove("dev")),
        "the path of output `out`",
    );
    check(
        "fixed.drv",
        |_, drv| drop(drv.env.insert(out.clone(), text.clone())),
        "the environment entry `out`",
    );
    check(
        "fixed.drv",
        |_, drv| drop(drv.env.remove(&out)),
        "the environment entry `out`",
    );
    check("fixed.drv", |_, drv| drv.outputs.clear(), "found `none`");
    check(
        "fixed.drv",
        |_, drv| {
            let Some(DerivationOutput::Fixed { path, .. }) = drv.outputs.get_mut("out") else {
                unreachable!()
            };
            *path = other.clone();
        },
        "the path of output `out`",
    );
    check(
        "fixed.drv",
        |_, drv| drop(drv.outputs.insert("dev".into(), drv.outputs["out"].clone())),
        "a fixed output with another name",
    );
    check(
        "multi.drv",
        |_, drv| drop(drv.outputs.insert("doc".into(), DerivationOutput::Deferred)),
        "outputs that differ",
    );
    check(
        "deferred.drv",
        |_, drv| drop(drv.outputs.insert("out".into(), input(&other))),
        "deferred, since",
    );
}

#[test]
fn only_fixed_outputs_have_to_be_in_the_environment() {
    let files = Files::of_nix();
    for (name, output) in [("top.drv", "out"), ("multi.drv", "dev"), ("multi.drv", "out")] {
        let (path, derivation) = files.named(name);
        for value in [None, Some(&b""[..]), Some(b"/nix/store"), Some(b"elsewhere")] {
            let mut derivation = derivation.clone();
            let modulo = |derivation: &Derivation| {
                let dir = StoreDir::default();
                let mut read = |path: &StorePath| files.read(path);
                derivation
                    .hash_modulo(&dir, &mut ModuloMemo::new(), &mut read)
                    .unwrap()
            };
            let before = modulo(&derivation);
            match value {
                Some(value) => drop(derivation.env.insert(output.into(), value.to_vec())),
                None => drop(derivation.env.remove(output.as_bytes())),
            }
            // Whether there is an entry decides on the paths, but not what is in it.
            if value.is_some() {
                assert_eq!(modulo(&derivation), before);
                files.check(&path, &derivation, &mut ModuloMemo::new()).unwrap();
            } else {
                assert_ne!(modulo(&derivation), before);
            }
        }
    }
}

#[test]
fn missing_and_broken_inputs_are_named() {
    fn check(text: Option<&[u8]>, expected: fn(&Error) -> bool) {
        let mut files = Files::of_nix();
        let (path, last) = files.named("last.drv");
        let (input, _) = files.named("multi.drv");
        match text {
            Some(text) => files.texts.insert(input.clone(), text.to_vec()),
            None => files.texts.remove(&input),
        };
        let mut memo = ModuloMemo::new();
        let error = files.check(&path, &last, &mut memo).unwrap_err();
        assert!(
            expected(&error) && error.to_string().contains(input.base_name()),
            "{error:?}"
        );
        // Nothing half-known stays behind.
        let again = files.check(&path, &last, &mut memo).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        let files = Files::of_nix();
        files.check(&path, &last, &mut memo).unwrap();
    }
    let moved = concat!(
        r#"Derive([("out","/nix/store/0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc","sha256","#,
        r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")],[],[],"","",[],[])"#
    );
    check(None, |error| matches!(error, Error::ReadDerivation { .. }));
    check(Some(moved.as_bytes()), |error| {
        matches!(error, Error::InputDerivation { .. })
    });
    check(Some(b""), |error| matches!(error, Error::InputDerivation { .. }));
    check(Some(b"Derive([],[],[],\"\",\"\",[],[])"), |error| {
        matches!(error, Error::InputDerivation { .. })
    });
}

#[test]
fn cycles_are_refused() {
    let mut files = Files::default();
    let path = |digit: &str| -> StorePath { format!("{}-a.drv", digit.repeat(32)).parse().unwrap() };
    let text = |input: &StorePath| {
        let out = format!("/nix/store/{}-a", "0".repeat(32));
        format!(
            r#"Derive([("out","{out}","","")],[("/nix/store/{input}",["out"])],[],"","",[],[("out","{out}")])"#
        )
    };
    let (a, b, c) = (path("a"), path("b"), path("c"));
    files.texts.insert(a.clone(), text(&b).into_bytes());
    files.texts.insert(b.clone(), text(&c).into_bytes());
    files.texts.insert(c, text(&b).into_bytes());
    let derivation = Derivation::parse_object(text(&a).as_bytes(), &StoreDir::default(), &a).unwrap();
    let mut memo = ModuloMemo::new();
    let error = files.check(&a, &derivation, &mut memo).unwrap_err();
    assert!(error.to_string().contains("free of cycles"), "{error}");
    assert!(memo.is_empty());
}

/// Recursion would need some ten megabytes of stack here; a test has two.
#[test]
fn deep_chains_do_not_overflow_the_stack() {
    const DEPTH: usize = 9_000;
    let template = Derivation {
        name: Name::new(b"chain").unwrap(),
        outputs: BTreeMap::from([(
            "out".to_owned(),
            DerivationOutput::InputAddressed {
                path: "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".parse().unwrap(),
            },
        )]),
        input_drvs: BTreeMap::new(),
        input_srcs: BTreeSet::new(),
        platform: vec![],
        builder: vec![],
        args: vec![],
        env: BTreeMap::new(),
    };
    // The paths need not be right for the walk: a number stands for the hash part.
    let path = |level: usize| -> StorePath {
        let digits: String = format!("{level:032}");
        format!("{digits}-chain.drv").parse().unwrap()
    };
    let out = BTreeSet::from(["out".to_owned()]);
    let dir = StoreDir::default();
    let mut read = |at: &StorePath| -> ReadResult {
        let level: usize = at.hash_part_str().parse()?;
        let mut derivation = template.clone();
        if level > 0 {
            derivation.input_drvs.insert(path(level - 1), out.clone());
        }
        Ok(derivation.render(&dir))
    };
    let mut memo = ModuloMemo::new();
    let mut top = template.clone();
    top.input_drvs.insert(path(DEPTH), out.clone());
    assert!(top.hash_modulo(&dir, &mut memo, &mut read).unwrap().is_some());
    assert_eq!(memo.len(), DEPTH + 1);

    let mut endless = template.clone();
    endless.input_drvs.insert(path(10_000_000), out.clone());
    let error = endless
        .hash_modulo(&dir, &mut ModuloMemo::new(), &mut read)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLarge {
                unit: "derivations",
                ..
            }
        ),
        "{error}"
    );
}

/// Text that waits is bounded; text that has been hashed no longer waits.
#[test]
fn big_inputs_may_lie_beside_but_not_below_each_other() {
    let path = |level: usize| -> StorePath { format!("{level:032}-big.drv").parse().unwrap() };
    let dir = StoreDir::default();
    let source = "0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".parse().unwrap();
    let out = BTreeSet::from(["out".to_owned()]);
    let small = Derivation {
        name: Name::new(b"big").unwrap(),
        outputs: BTreeMap::from([(
            "out".to_owned(),
            DerivationOutput::InputAddressed { path: source },
        )]),
        input_drvs: BTreeMap::new(),
        input_srcs: BTreeSet::new(),
        platform: vec![],
        builder: vec![],
        args: vec![],
        env: BTreeMap::new(),
    };
    let mut big = small.clone();
    big.args.push(vec![b'x'; 17 << 20]);

    let mut beside = small.clone();
    beside
        .input_drvs
        .extend((0..4).map(|level| (path(level), out.clone())));
    let (text, beside) = (big.render(&dir), beside.render(&dir));
    let mut read = |at: &StorePath| -> ReadResult {
        Ok(if *at == path(9) {
            beside.clone()
        } else {
            text.clone()
        })
    };
    let mut above = small.clone();
    above.input_drvs.insert(path(9), out.clone());
    assert!(
        above
            .hash_modulo(&dir, &mut ModuloMemo::new(), &mut read)
            .unwrap()
            .is_some()
    );

    let mut below = small;
    below.input_drvs.insert(path(4), out.clone());
    let mut read = |at: &StorePath| -> ReadResult {
        let mut derivation = big.clone();
        let level: usize = at.hash_part_str().parse()?;
        derivation.input_drvs.insert(path(level - 1), out.clone());
        Ok(derivation.render(&dir))
    };
    let error = below
        .hash_modulo(&dir, &mut ModuloMemo::new(), &mut read)
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { unit: "bytes", .. }), "{error}");
}

#[test]
fn an_input_without_outputs_does_not_count() {
    let files = Files::of_nix();
    let dir = StoreDir::default();
    let hash = |input: Option<&str>| {
        let mut derivation = filled("user", &[], &files);
        if let Some(name) = input {
            derivation.input_drvs.insert(files.named(name).0, BTreeSet::new());
        }
        derivation
            .hash_modulo(&dir, &mut ModuloMemo::new(), &mut |path| files.read(path))
            .unwrap()
    };
    assert_eq!(hash(Some("multi.drv")), hash(None));
    assert_eq!(hash(Some("fixed.drv")), hash(None));
    assert_eq!(hash(Some("floating.drv")), None);
}

#[test]
fn other_outputs_of_a_fixed_input_are_refused() {
    let files = Files::of_nix();
    let mut derivation = filled("user", &[files.named("fixed.drv").0], &files);
    for names in derivation.input_drvs.values_mut() {
        names.insert("dev".to_owned());
    }
    let path = derivation.path(&StoreDir::default()).unwrap();
    let error = files
        .check(&path, &derivation, &mut ModuloMemo::new())
        .unwrap_err();
    assert!(error.to_string().contains("`out` alone"), "{error}");
}
