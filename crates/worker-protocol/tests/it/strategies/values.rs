// SPDX-License-Identifier: MIT OR Apache-2.0
//! What requests and replies are made of.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use superpose_store_path::{
    ContentAddress, ContentMethod, DerivationOutput, Hash, HashAlgorithm, HashPart, Name, Signature,
    StoreDir, StorePath, hash_bytes,
};
use superpose_worker_protocol::*;

pub(crate) fn dialect() -> impl Strategy<Value = Dialect> {
    let features = btree_set(select(&Feature::ALL[..]), 0..4);
    let dir = select(&["/nix/store", "/s", "/srv/some where/store"][..]);
    (prop_oneof![18_u8..=38, Just(38)], features, dir).prop_map(|(minor, features, dir)| Dialect {
        store_dir: StoreDir::new(dir.as_bytes()).unwrap(),
        version: Version::new(1, minor),
        // Before 1.38 nobody could agree on one.
        features: features.into_iter().filter(|_| minor == 38).collect(),
    })
}

pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

pub(crate) fn name() -> impl Strategy<Value = Name> {
    "[0-9A-Za-z+_?=][0-9A-Za-z+._?=-]{0,12}".prop_map(|text| Name::new(text.as_bytes()).unwrap())
}

pub(crate) fn path() -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), name()).prop_map(|(hash, name)| StorePath::from_parts(HashPart::new(hash), &name))
}

pub(super) fn paths() -> impl Strategy<Value = BTreeSet<StorePath>> {
    btree_set(path(), 0..4)
}

pub(super) fn drv() -> impl Strategy<Value = StorePath> {
    path().prop_map(|path| format!("{path}.drv").parse().unwrap())
}

pub(super) fn hash(algorithm: HashAlgorithm) -> impl Strategy<Value = Hash> {
    any::<u64>().prop_map(move |seed| hash_bytes(algorithm, &seed.to_le_bytes()))
}

pub(super) fn algorithm() -> impl Strategy<Value = HashAlgorithm> {
    select(
        &[
            HashAlgorithm::Md5,
            HashAlgorithm::Sha1,
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha512,
        ][..],
    )
}

pub(super) fn method() -> impl Strategy<Value = ContentMethod> {
    select(
        &[
            ContentMethod::Text,
            ContentMethod::Flat,
            ContentMethod::Nar,
            ContentMethod::Git,
        ][..],
    )
}

pub(super) fn address() -> impl Strategy<Value = ContentAddress> {
    (method(), algorithm()).prop_flat_map(|(method, algorithm)| {
        hash(algorithm).prop_map(move |hash| ContentAddress { method, hash })
    })
}

pub(super) fn signatures() -> impl Strategy<Value = BTreeSet<Signature>> {
    let signature =
        "[a-z.-]{1,5}:[A-Za-z0-9+/]{4}".prop_map(|text| Signature::parse(text.as_bytes()).unwrap());
    btree_set(signature, 0..3)
}

pub(crate) fn info() -> impl Strategy<Value = UnkeyedValidPathInfo> {
    (
        option::of(path()),
        hash(HashAlgorithm::Sha256),
        paths(),
        any::<(i64, u64, bool)>(),
        signatures(),
        option::of(address()),
    )
        .prop_map(
            |(deriver, nar_hash, references, (registration_time, nar_size, ultimate), signatures, ca)| {
                UnkeyedValidPathInfo {
                    deriver,
                    nar_hash,
                    references,
                    registration_time,
                    nar_size,
                    ultimate,
                    signatures,
                    content_address: ca,
                }
            },
        )
}

pub(crate) fn keyed_info() -> impl Strategy<Value = ValidPathInfo> {
    (path(), info()).prop_map(|(path, info)| ValidPathInfo { path, info })
}

pub(super) fn substitutable() -> impl Strategy<Value = SubstitutablePathInfo> {
    (option::of(path()), paths(), any::<(u64, u64)>()).prop_map(
        |(deriver, references, (download_size, nar_size))| SubstitutablePathInfo {
            deriver,
            references,
            download_size,
            nar_size,
        },
    )
}

pub(super) fn outputs_spec() -> impl Strategy<Value = OutputsSpec> {
    prop_oneof![
        Just(OutputsSpec::All),
        vec(name(), 1..4).prop_map(OutputsSpec::Names)
    ]
}

pub(super) fn single() -> impl Strategy<Value = SingleDerivedPath> {
    (path(), vec(name(), 0..3)).prop_map(|(path, outputs)| {
        outputs
            .into_iter()
            .fold(SingleDerivedPath::Opaque(path), |drv, output| {
                SingleDerivedPath::Built {
                    drv: Box::new(drv),
                    output,
                }
            })
    })
}

pub(super) fn derived(dialect: &Dialect) -> BoxedStrategy<DerivedPath> {
    if dialect.version < Version::new(1, 30) {
        let opaque = path().prop_filter("is a derivation", |path| !path.is_derivation());
        let built = |(path, outputs)| DerivedPath::Built {
            drv: SingleDerivedPath::Opaque(path),
            outputs,
        };
        return prop_oneof![
            opaque.prop_map(DerivedPath::Opaque),
            (drv(), outputs_spec()).prop_map(built)
        ]
        .boxed();
    }
    prop_oneof![
        prop_oneof![path(), drv()].prop_map(DerivedPath::Opaque),
        (single(), outputs_spec()).prop_map(|(drv, outputs)| DerivedPath::Built { drv, outputs }),
    ]
    .boxed()
}

pub(super) fn targets(dialect: &Dialect) -> impl Strategy<Value = Vec<DerivedPath>> + use<> {
    vec(derived(dialect), 0..4)
}

pub(super) fn mode() -> impl Strategy<Value = BuildMode> {
    select(&[BuildMode::Normal, BuildMode::Repair, BuildMode::Check][..])
}

pub(super) fn built_output(dialect: &Dialect) -> impl Strategy<Value = BuiltOutput> + use<> {
    let has_hash = !dialect.features.contains(Feature::RealisationWithPath);
    (option::of(hash(HashAlgorithm::Sha256)), path(), signatures()).prop_map(
        move |(derivation_hash, path, signatures)| BuiltOutput {
            derivation_hash: derivation_hash.filter(|_| has_hash),
            path,
            signatures,
        },
    )
}

pub(super) fn build_result(dialect: &Dialect) -> impl Strategy<Value = BuildResult> + use<> {
    let version = dialect.version;
    let status = select(
        &[
            BuildStatus::Built,
            BuildStatus::AlreadyValid,
            BuildStatus::OutputRejected,
            BuildStatus::NotDeterministic,
            BuildStatus::NoSubstituters,
        ][..],
    );
    let outputs = btree_map(name(), built_output(dialect), 0..3);
    (
        status,
        bytes(),
        any::<(u64, bool, i64, i64, Option<u64>, Option<u64>)>(),
        outputs,
    )
        .prop_map(
            move |(status, error, (times, differs, start, stop, user, system), outputs)| {
                let mut result = BuildResult::new(status);
                result.error = error;
                if version >= Version::new(1, 28) {
                    result.outputs = outputs;
                }
                if version >= Version::new(1, 29) {
                    result.times_built = times;
                    result.is_non_deterministic = differs;
                    result.start_time = start;
                    result.stop_time = stop;
                }
                if version >= Version::new(1, 37) {
                    result.cpu_user = user;
                    result.cpu_system = system;
                }
                result
            },
        )
}

pub(super) fn unkeyed_realisation() -> impl Strategy<Value = UnkeyedRealisation> {
    (path(), signatures()).prop_map(|(path, signatures)| UnkeyedRealisation { path, signatures })
}

pub(super) fn drv_output(dialect: &Dialect) -> BoxedStrategy<DrvOutput> {
    if dialect.features.contains(Feature::RealisationWithPath) {
        return (path(), name())
            .prop_map(|(path, output)| DrvOutput::Derivation { path, output })
            .boxed();
    }
    (hash(HashAlgorithm::Sha256), name())
        .prop_map(|(hash, output)| DrvOutput::HashModulo { hash, output })
        .boxed()
}

pub(super) fn realisation(dialect: &Dialect) -> BoxedStrategy<Realisation> {
    let has_dependencies = !dialect.features.contains(Feature::RealisationWithPath);
    (
        drv_output(dialect),
        unkeyed_realisation(),
        btree_map("\\PC{0,6}[\"\\\\\n]?", path(), 0..3),
    )
        .prop_map(move |(id, value, dependencies)| Realisation {
            id,
            value,
            dependencies: if has_dependencies {
                dependencies
            } else {
                BTreeMap::new()
            },
        })
        .boxed()
}

pub(super) fn garbage(dialect: &Dialect) -> impl Strategy<Value = CollectGarbage> + use<> {
    let has_feature = dialect.features.contains(Feature::DeleteSpecificReferrers);
    let action = select(
        &[
            GcAction::ReturnLive,
            GcAction::ReturnDead,
            GcAction::DeleteDead,
            GcAction::DeleteSpecific,
        ][..],
    );
    (action, option::of(paths()), any::<(bool, bool, u64)>()).prop_map(
        move |(action, paths, (with_referrers, ignore_liveness, max_freed))| {
            let is_specific = action == GcAction::DeleteSpecific;
            let target = match paths {
                // Without the feature the whole store and an empty set are one and the same.
                None if has_feature || !is_specific => GcTarget::Store,
                Some(paths) if !has_feature && !is_specific && paths.is_empty() => GcTarget::Store,
                paths => GcTarget::Paths {
                    paths: paths.unwrap_or_default(),
                    with_referrers: with_referrers && has_feature,
                },
            };
            CollectGarbage {
                action,
                target,
                ignore_liveness,
                max_freed,
            }
        },
    )
}

pub(super) fn options() -> impl Strategy<Value = ClientOptions> {
    (any::<([bool; 5], [u64; 4])>(), btree_map(bytes(), bytes(), 0..3)).prop_map(
        |((flags, numbers), overrides)| ClientOptions {
            keep_failed: flags[0],
            keep_going: flags[1],
            try_fallback: flags[2],
            verbosity: Level::from_number(numbers[0]),
            max_build_jobs: numbers[1],
            max_silent_time: numbers[2],
            verbose_build: flags[3],
            build_cores: numbers[3],
            use_substitutes: flags[4],
            overrides,
        },
    )
}

pub(super) fn output() -> impl Strategy<Value = DerivationOutput> {
    prop_oneof![
        path().prop_map(|path| DerivationOutput::InputAddressed { path }),
        (path(), address()).prop_map(|(path, ca)| DerivationOutput::Fixed { path, ca }),
        (method(), algorithm())
            .prop_map(|(method, algorithm)| DerivationOutput::Floating { method, algorithm }),
        Just(DerivationOutput::Deferred),
        (method(), algorithm())
            .prop_map(|(method, algorithm)| DerivationOutput::Impure { method, algorithm }),
    ]
}

pub(super) fn derivation() -> impl Strategy<Value = BasicDerivation> {
    (
        btree_map(name(), output(), 0..4),
        paths(),
        (bytes(), bytes()),
        vec(bytes(), 0..3),
        btree_map(bytes(), bytes(), 0..3),
    )
        .prop_map(
            |(outputs, input_srcs, (platform, builder), args, env)| BasicDerivation {
                outputs,
                input_srcs,
                platform,
                builder,
                args,
                env,
            },
        )
}
