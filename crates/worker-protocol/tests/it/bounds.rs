// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many there may be of what belongs to one path or one target.

use std::collections::BTreeSet;

use superpose_store_path::{Hash, Name, Signature};
use superpose_worker_protocol::{
    AddFlags, DerivedPath, Dialect, DrvOutput, Error, Feature, Limits, Realisation, Request,
    UnkeyedRealisation, UnkeyedValidPathInfo, ValidPathInfo, WireReader,
};

use crate::sources::{Counting, path, reader, with, written};

const NARROW: Limits = Limits {
    signatures: 10,
    ..Limits::for_requests()
};

#[test]
fn more_signatures_than_a_path_may_have_are_refused_before_any_is_read() {
    let dialect = Dialect::default();
    let with_path = with(Feature::RealisationWithPath);
    let path = path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c");
    let name = Name::new(b"out").unwrap();
    let signatures: BTreeSet<Signature> = (0..NARROW.signatures + 1)
        .map(|number| Signature::parse(format!("key-{number}:AAAA").as_bytes()).unwrap())
        .collect();
    let mut info = UnkeyedValidPathInfo::new(Hash::sha256([1; 32]), 120);
    info.signatures = signatures.clone();
    let realisation = |id| Realisation {
        id,
        value: UnkeyedRealisation {
            path: path.clone(),
            signatures: signatures.clone(),
        },
        dependencies: Default::default(),
    };
    let by_path = DrvOutput::Derivation {
        path: path.clone(),
        output: name.clone(),
    };
    let by_hash = DrvOutput::HashModulo {
        hash: Hash::sha256([1; 32]),
        output: name,
    };
    let by_path = Request::RegisterDrvOutput(realisation(by_path));
    let by_hash = Request::RegisterDrvOutput(realisation(by_hash));
    let add = Request::AddToStoreNar {
        info: ValidPathInfo {
            path: path.clone(),
            info,
        },
        flags: AddFlags::default(),
    };
    let sign = Request::AddSignatures { path, signatures };
    for (request, dialect, is_text) in [
        (sign, &dialect, false),
        (add, &dialect, false),
        (by_path, &with_path, false),
        (by_hash, &dialect, true),
    ] {
        let bytes = written(|out| request.write(out, dialect));
        let mut input = WireReader::new(Counting::new(&bytes[..]), NARROW);
        let error = Request::read(&mut input, dialect).unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLong {
                    what: "the signatures",
                    limit: 10,
                    found: 11
                }
            ),
            "{error}"
        );
        // A text comes as one; of the others none was read.
        let left = bytes.len() as u64 - input.get_ref().taken;
        assert!(is_text || left >= 11 * 24, "{left} bytes were left");
        let fine = Request::read(&mut reader(&bytes), dialect).unwrap();
        assert_eq!(fine, Some(request));
    }
}

#[test]
fn more_outputs_than_a_derivation_has_are_refused() {
    let dialect = Dialect::default();
    let target = |names: usize| {
        let outputs = vec!["a"; names].join(",");
        let text = format!("/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c.drv!{outputs}");
        DerivedPath::parse(text.as_bytes(), &dialect)
    };
    assert!(target(1024).is_ok());
    let error = target(500_000).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLong {
                what: "the list of outputs",
                limit: 1024,
                found: 500_000
            }
        ),
        "{error}"
    );
}
