// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes about builds that Nix wrote, or would: read, and written the same.

use std::collections::{BTreeMap, BTreeSet};

use superpose_store_path::{ContentAddress, ContentMethod, DerivationOutput, Hash, HashAlgorithm, Signature};
use superpose_worker_protocol::*;

use crate::golden::golden;
use crate::sources::{path, reader, version, with, written};
use crate::vectors::{B, C, DRV, check_body, check_request, name, sha256};

fn signature(text: &str) -> BTreeSet<Signature> {
    [Signature::parse(text.as_bytes()).unwrap()].into()
}

fn keyed(hash: Option<Hash>) -> Reply {
    let mut result = BuildResult::new(BuildStatus::AlreadyValid);
    let output = BuiltOutput {
        derivation_hash: hash,
        path: path(C),
        signatures: BTreeSet::new(),
    };
    result.outputs.insert(name("out"), output);
    Reply::BuildResults(vec![KeyedBuildResult {
        target: DerivedPath::Built {
            drv: SingleDerivedPath::Opaque(path(DRV)),
            outputs: OutputsSpec::Names(vec![name("out")]),
        },
        result,
    }])
}

#[test]
fn build_results_of_both_generations() {
    let operation = Operation::BuildPathsWithResults;
    let hash = sha256("67cd3e5f5174cb24d45be80ad0e08e4a50e1843140efce293a0b3db374b5b466");
    check_body(
        "build-results",
        operation,
        &Dialect::default(),
        &keyed(Some(hash)),
    );
    let dialect = with(Feature::RealisationWithPath);
    check_body("build-results-with-path", operation, &dialect, &keyed(None));
}

#[test]
fn newer_servers_leave_out_the_hash_and_two_keys() {
    let bytes = golden("build-result-newer-server");
    let dialect = Dialect::default();
    let reply = Reply::read(&mut reader(&bytes), Operation::BuildDerivation, &dialect).unwrap();
    let mut expected = BuildResult::new(BuildStatus::Built);
    expected.times_built = 1;
    expected.start_time = 30;
    expected.stop_time = 50;
    expected.cpu_user = Some(500_000_000);
    let output = BuiltOutput {
        derivation_hash: None,
        path: path(C),
        signatures: BTreeSet::new(),
    };
    expected.outputs.insert(name("out"), output);
    assert_eq!(reply, Reply::BuildResult(expected));
    // We write all four keys, as servers up to 2.34 do.
    let again = written(|out| reply.write(out, &dialect));
    let text = String::from_utf8_lossy(&again);
    assert!(
        text.contains("{\"dependentRealisations\":{},\"id\":\"sha256:0000"),
        "{text}"
    );
    assert_eq!(
        Reply::read(&mut reader(&again), Operation::BuildDerivation, &dialect).unwrap(),
        reply
    );
}

#[test]
fn build_results_of_older_versions() {
    let operation = Operation::BuildDerivation;
    let result = |status, error: &str| {
        let mut result = BuildResult::new(status);
        result.error = error.as_bytes().to_vec();
        result
    };
    let failed = Reply::BuildResult(result(BuildStatus::PermanentFailure, "builder failed"));
    check_body("build-result-1.28", operation, &version(28), &failed);
    let mut differs = result(BuildStatus::NotDeterministic, "differs");
    differs.times_built = 3;
    differs.is_non_deterministic = true;
    differs.start_time = 30;
    differs.stop_time = 50;
    let differs = Reply::BuildResult(differs);
    for minor in [29, 36] {
        check_body("build-result-1.29", operation, &version(minor), &differs);
    }
    let late = Reply::BuildResult(result(BuildStatus::TimedOut, "timed out"));
    check_body("build-result-1.27", operation, &version(27), &late);
}

#[test]
fn derived_paths_of_every_form() {
    let built = |outputs| DerivedPath::Built {
        drv: SingleDerivedPath::Opaque(path(DRV)),
        outputs,
    };
    let nested = DerivedPath::Built {
        drv: SingleDerivedPath::Built {
            drv: Box::new(SingleDerivedPath::Opaque(path(DRV))),
            output: name("out"),
        },
        outputs: OutputsSpec::Names(vec![name("dev")]),
    };
    let request = Request::QueryMissing(vec![
        DerivedPath::Opaque(path(C)),
        DerivedPath::Opaque(path(DRV)),
        built(OutputsSpec::All),
        built(OutputsSpec::Names(vec![name("x"), name("y")])),
        nested,
    ]);
    check_request("derived-paths", &Dialect::default(), &request);
}

#[test]
fn a_derivation_to_build() {
    let hash = sha256("1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13");
    let derivation = BasicDerivation {
        outputs: [
            (name("out"), DerivationOutput::InputAddressed { path: path(C) }),
            (
                name("fixed"),
                DerivationOutput::Fixed {
                    path: path(B),
                    ca: ContentAddress {
                        method: ContentMethod::Nar,
                        hash,
                    },
                },
            ),
            (
                name("floating"),
                DerivationOutput::Floating {
                    method: ContentMethod::Text,
                    algorithm: HashAlgorithm::Sha256,
                },
            ),
            (name("deferred"), DerivationOutput::Deferred),
            (
                name("impure"),
                DerivationOutput::Impure {
                    method: ContentMethod::Flat,
                    algorithm: HashAlgorithm::Sha256,
                },
            ),
        ]
        .into(),
        input_srcs: [path(B)].into(),
        platform: b"x86_64-linux".to_vec(),
        builder: b"/bin/sh".to_vec(),
        args: vec![b"-c".to_vec(), b"echo".to_vec()],
        env: [
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), b"\xff\n".to_vec()),
        ]
        .into(),
    };
    let request = Request::BuildDerivation {
        path: path(DRV),
        derivation,
        mode: BuildMode::Repair,
    };
    check_request("build-derivation", &Dialect::default(), &request);
}

#[test]
fn realisations_of_both_generations() {
    let value = UnkeyedRealisation {
        path: path(C),
        signatures: signature("foo:AAAA"),
    };
    let request = Request::RegisterDrvOutput(Realisation {
        id: DrvOutput::Derivation {
            path: path(DRV),
            output: name("out"),
        },
        value: value.clone(),
        dependencies: BTreeMap::new(),
    });
    check_request(
        "realisation-with-path",
        &with(Feature::RealisationWithPath),
        &request,
    );
    let request = Request::RegisterDrvOutput(Realisation {
        id: DrvOutput::HashModulo {
            hash: sha256("67cd3e5f5174cb24d45be80ad0e08e4a50e1843140efce293a0b3db374b5b466"),
            output: name("out"),
        },
        value,
        dependencies: [(format!("sha256:{}!dev", "1".repeat(64)), path(B))].into(),
    });
    check_request("realisation-json", &Dialect::default(), &request);
}
