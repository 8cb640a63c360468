// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cannot be said in a dialect is refused before a byte is written, and what differs between them.

use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{HashAlgorithm, Name, StoreDir, hash_bytes};
use superpose_worker_protocol::*;

use crate::sources::{path, reader, version, with, written};

const C: &str = "0p6d6far7jx5ky739yfjf0d23nv1bbbm-c";
const DRV: &str = "wbq4h7cc23rj88yb2ax7pksa3qy5cdn6-c.drv";

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// The request is refused, and nothing of it was written.
fn refused(request: &Request, dialect: &Dialect) -> Error {
    let mut out = WireWriter::new(Vec::new());
    let error = request.write(&mut out, dialect).unwrap_err();
    assert_eq!(out.into_inner(), b"", "{error}");
    assert_eq!(error.cause(), Cause::Caller);
    error
}

#[test]
fn operations_of_later_versions_are_refused() {
    let flags = AddFlags::default();
    for (request, needs) in [
        (Request::QueryMissing(Vec::new()), 19),
        (Request::QueryDerivationOutputMap(path(DRV)), 22),
        (Request::AddBuildLog(path(DRV)), 25),
        (Request::AddMultipleToStore(flags), 32),
        (
            Request::BuildPathsWithResults {
                targets: Vec::new(),
                mode: BuildMode::Normal,
            },
            34,
        ),
    ] {
        let error = refused(&request, &version(needs - 1));
        let expected = format!(
            "{} needs protocol version 1.{needs}: this connection agreed on 1.{}",
            request.operation(),
            needs - 1
        );
        assert_eq!(error.to_string(), expected);
        request
            .write(&mut WireWriter::new(Vec::new()), &version(needs))
            .unwrap();
    }
}

#[test]
fn what_needs_a_feature_is_refused_without_it() {
    let request = Request::CollectGarbage(CollectGarbage {
        target: GcTarget::Paths {
            paths: [path(C)].into(),
            with_referrers: true,
        },
        ..CollectGarbage::delete(BTreeSet::new())
    });
    let error = refused(&request, &Dialect::default());
    assert!(
        error.to_string().contains("`delete-dead-specific-referrers`"),
        "{error}"
    );
    request
        .write(
            &mut WireWriter::new(Vec::new()),
            &with(Feature::DeleteSpecificReferrers),
        )
        .unwrap();

    let scan = Request::AddToStoreScanning {
        name: name("a"),
        method: b"r:sha256".to_vec(),
    };
    assert!(matches!(
        refused(&scan, &Dialect::default()),
        Error::NeedsFeature { .. }
    ));
}

#[test]
fn no_set_of_paths_turns_into_the_whole_store() {
    let nothing = CollectGarbage {
        action: GcAction::DeleteDead,
        ..CollectGarbage::delete(BTreeSet::new())
    };
    let error = refused(&Request::CollectGarbage(nothing), &Dialect::default());
    assert!(error.to_string().contains("the whole store"), "{error}");
    let everything = CollectGarbage::whole_store(GcAction::DeleteSpecific);
    refused(&Request::CollectGarbage(everything), &Dialect::default());
}

#[test]
fn realisations_of_the_other_generation_are_refused() {
    let hash = hash_bytes(HashAlgorithm::Sha256, b"");
    let old = DrvOutput::HashModulo {
        hash,
        output: name("out"),
    };
    let new = DrvOutput::Derivation {
        path: path(DRV),
        output: name("out"),
    };
    let with_path = with(Feature::RealisationWithPath);
    refused(&Request::QueryRealisation(old.clone()), &with_path);
    refused(&Request::QueryRealisation(new), &Dialect::default());
    let value = UnkeyedRealisation {
        path: path(C),
        signatures: BTreeSet::new(),
    };
    let realisation = Realisation {
        id: old,
        value: value.clone(),
        dependencies: BTreeMap::new(),
    };
    refused(&Request::RegisterDrvOutput(realisation.clone()), &with_path);

    for (answer, dialect) in [
        (RealisationAnswer::Keyed(vec![realisation]), with_path),
        (RealisationAnswer::Unkeyed(Some(value)), Dialect::default()),
    ] {
        let mut out = WireWriter::new(Vec::new());
        let written = write_reply(&mut out, Operation::QueryRealisation, &dialect, &answer);
        assert!(matches!(written, Err(Error::NotExpressible { .. })));
        assert_eq!(out.into_inner(), b"");
        assert_eq!(answer.path(), Some(&path(C)));
    }
}

#[test]
fn a_nar_hash_of_another_algorithm_is_refused() {
    let info = UnkeyedValidPathInfo::new(hash_bytes(HashAlgorithm::Sha1, b""), 0);
    let keyed = ValidPathInfo {
        path: path(C),
        info: info.clone(),
    };
    let request = Request::AddToStoreNar {
        info: keyed.clone(),
        flags: AddFlags::default(),
    };
    refused(&request, &Dialect::default());
    let mut out = WireWriter::new(Vec::new());
    let dialect = Dialect::default();
    assert!(write_reply(&mut out, Operation::QueryPathInfo, &dialect, &Some(info.clone())).is_err());
    assert!(Reply::PathInfo(Some(info)).write(&mut out, &dialect).is_err());
    assert!(write_reply(&mut out, Operation::AddToStore, &dialect, &keyed).is_err());
    assert!(
        AddMultipleWriter::new(std::io::sink(), 1, &dialect)
            .unwrap()
            .begin_object(&keyed)
            .is_err()
    );
    assert_eq!(out.into_inner(), b"");
}

#[test]
fn a_nar_hash_is_read_in_any_form_but_only_of_sha256() {
    let expected = hash_bytes(HashAlgorithm::Sha256, b"abc");
    let read = |text: &str| {
        let bytes = written(|out| {
            out.number(1)?;
            out.string(b"")?;
            out.string(text.as_bytes())?;
            (0..5).try_for_each(|_| out.number(0))?;
            out.string(b"")
        });
        match Reply::read(&mut reader(&bytes), Operation::QueryPathInfo, &Dialect::default())? {
            Reply::PathInfo(Some(info)) => Ok(info.nar_hash),
            other => panic!("{other:?}"),
        }
    };
    use superpose_store_path::HashEncoding;
    for encoding in [HashEncoding::Base16, HashEncoding::Nix32, HashEncoding::Base64] {
        assert_eq!(read(&expected.render_bare(encoding)).unwrap(), expected);
        assert_eq!(read(&expected.render(encoding)).unwrap(), expected);
    }
    assert_eq!(read(&expected.render(HashEncoding::Sri)).unwrap(), expected);
    let other = hash_bytes(HashAlgorithm::Sha512, b"abc");
    let error: Error = read(&other.render(HashEncoding::Base16)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the NAR hash is `sha512`: expected a sha256 hash"
    );
    assert!(matches!(
        read(""),
        Err(Error::Malformed {
            what: "the NAR hash",
            ..
        })
    ));
}

#[test]
fn before_1_30_a_derivation_means_its_outputs() {
    let all = DerivedPath::Built {
        drv: SingleDerivedPath::Opaque(path(DRV)),
        outputs: OutputsSpec::All,
    };
    let request = |target| Request::QueryMissing(vec![target]);
    let old = version(29);
    let bytes = written(|out| request(all.clone()).write(out, &old));
    let expected = written(|out| {
        out.number(40)?;
        out.number(1)?;
        out.store_path(&path(DRV), &StoreDir::default())
    });
    assert_eq!(bytes, expected);
    assert_eq!(
        Request::read(&mut reader(&bytes), &old).unwrap(),
        Some(request(all))
    );
    // From then on the same bytes mean the file.
    let file = DerivedPath::Opaque(path(DRV));
    assert_eq!(
        Request::read(&mut reader(&bytes), &Dialect::default()).unwrap(),
        Some(request(file.clone()))
    );
    refused(&request(file), &old);
}

#[test]
fn a_target_without_outputs_is_refused() {
    let none = DerivedPath::Built {
        drv: SingleDerivedPath::Opaque(path(DRV)),
        outputs: OutputsSpec::Names(Vec::new()),
    };
    refused(&Request::QueryMissing(vec![none]), &Dialect::default());
}

#[test]
fn derived_paths_are_repeated_byte_for_byte() {
    let dialect = Dialect::default();
    for outputs in ["*", "out", "y,x", "x,x", "dev!out", "dev!*"] {
        let text = format!("/nix/store/{DRV}!{outputs}");
        assert_eq!(
            DerivedPath::parse(text.as_bytes(), &dialect)
                .unwrap()
                .render(&dialect),
            text
        );
    }
    for outputs in ["", "x,", ",x", "*,x", "x!", "!x"] {
        let text = format!("/nix/store/{DRV}!{outputs}");
        assert!(DerivedPath::parse(text.as_bytes(), &dialect).is_err(), "{text}");
    }
}

#[test]
fn the_store_directory_is_that_of_the_dialect() {
    let other = Dialect {
        store_dir: StoreDir::new(b"/srv/store").unwrap(),
        ..Dialect::default()
    };
    let request = Request::QueryPathInfo(path(C));
    let bytes = written(|out| request.write(out, &other));
    assert_eq!(Request::read(&mut reader(&bytes), &other).unwrap(), Some(request));
    assert!(matches!(
        Request::read(&mut reader(&bytes), &Dialect::default()),
        Err(Error::Malformed { what: "the path", .. })
    ));
}

#[test]
fn activities_mean_nothing_before_1_20() {
    let stop = LogFrame::StopActivity(7);
    assert_eq!(written(|out| stop.write(out, Version::new(1, 19))), b"");
    assert_ne!(written(|out| stop.write(out, Version::new(1, 20))), b"");
    let next = LogFrame::Next(b"x".to_vec());
    assert_ne!(written(|out| next.write(out, Version::new(1, 19))), b"");
}

#[test]
fn a_reply_of_another_kind_is_refused_before_anything_moves() {
    let dialect = Dialect::default();
    let mut out = WireWriter::new(Vec::new());
    let error = write_reply(&mut out, Operation::AddTempRoot, &dialect, &()).unwrap_err();
    assert_eq!(error.to_string(), "AddTempRoot is not answered with nothing");
    assert_eq!(out.into_inner(), b"");
    let mut input = reader(b"");
    let error = read_reply::<bool, _>(&mut input, Operation::QueryPathInfo, &dialect, |_| {}).unwrap_err();
    assert_eq!(error.cause(), Cause::Caller);
}

/// Trap for every implementation: which operations have a number after success, and which have nothing.
#[test]
fn operations_without_a_value_have_a_number_or_nothing() {
    let of = |shape| {
        let all = Operation::ALL
            .iter()
            .filter(move |operation| operation.shape() == shape);
        all.map(|operation| operation.number()).collect::<Vec<_>>()
    };
    assert_eq!(of(Shape::Nothing), [19, 39, 42, 44]);
    assert_eq!(of(Shape::Done), [9, 10, 11, 12, 13, 34, 37, 45, 1000]);
    let streams = Operation::ALL.iter().filter(|operation| operation.has_stream());
    assert_eq!(
        streams.map(|operation| operation.number()).collect::<Vec<_>>(),
        [7, 39, 44, 45, 1001]
    );
}

#[test]
fn signatures_are_read_leniently() {
    let request = written(|out| {
        out.number(37)?;
        out.store_path(&path(C), &StoreDir::default())?;
        out.number(2)?;
        out.string(b"b:AAAA")?;
        out.string(b"a:AB==")
    });
    let found = Request::read(&mut reader(&request), &Dialect::default()).unwrap();
    let Some(Request::AddSignatures { signatures, .. }) = found else {
        panic!("{found:?}");
    };
    let texts: Vec<_> = signatures.iter().map(|signature| signature.as_str()).collect();
    assert_eq!(texts, ["a:AA==", "b:AAAA"]);
}
