// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any value that a dialect has a form for.

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

fn paths() -> impl Strategy<Value = BTreeSet<StorePath>> {
    btree_set(path(), 0..4)
}

fn drv() -> impl Strategy<Value = StorePath> {
    path().prop_map(|path| format!("{path}.drv").parse().unwrap())
}

fn hash(algorithm: HashAlgorithm) -> impl Strategy<Value = Hash> {
    any::<u64>().prop_map(move |seed| hash_bytes(algorithm, &seed.to_le_bytes()))
}

fn algorithm() -> impl Strategy<Value = HashAlgorithm> {
    select(
        &[
            HashAlgorithm::Md5,
            HashAlgorithm::Sha1,
            HashAlgorithm::Sha256,
            HashAlgorithm::Sha512,
        ][..],
    )
}

fn method() -> impl Strategy<Value = ContentMethod> {
    select(
        &[
            ContentMethod::Text,
            ContentMethod::Flat,
            ContentMethod::Nar,
            ContentMethod::Git,
        ][..],
    )
}

fn address() -> impl Strategy<Value = ContentAddress> {
    (method(), algorithm()).prop_flat_map(|(method, algorithm)| {
        hash(algorithm).prop_map(move |hash| ContentAddress { method, hash })
    })
}

fn signatures() -> impl Strategy<Value = BTreeSet<Signature>> {
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

fn substitutable() -> impl Strategy<Value = SubstitutablePathInfo> {
    (option::of(path()), paths(), any::<(u64, u64)>()).prop_map(
        |(deriver, references, (download_size, nar_size))| SubstitutablePathInfo {
            deriver,
            references,
            download_size,
            nar_size,
        },
    )
}

fn outputs_spec() -> impl Strategy<Value = OutputsSpec> {
    prop_oneof![
        Just(OutputsSpec::All),
        vec(name(), 1..4).prop_map(OutputsSpec::Names)
    ]
}

fn single() -> impl Strategy<Value = SingleDerivedPath> {
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

fn derived(dialect: &Dialect) -> BoxedStrategy<DerivedPath> {
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

fn targets(dialect: &Dialect) -> impl Strategy<Value = Vec<DerivedPath>> + use<> {
    vec(derived(dialect), 0..4)
}

fn mode() -> impl Strategy<Value = BuildMode> {
    select(&[BuildMode::Normal, BuildMode::Repair, BuildMode::Check][..])
}

fn built_output(dialect: &Dialect) -> impl Strategy<Value = BuiltOutput> + use<> {
    let has_hash = !dialect.features.contains(Feature::RealisationWithPath);
    (option::of(hash(HashAlgorithm::Sha256)), path(), signatures()).prop_map(
        move |(derivation_hash, path, signatures)| BuiltOutput {
            derivation_hash: derivation_hash.filter(|_| has_hash),
            path,
            signatures,
        },
    )
}

fn build_result(dialect: &Dialect) -> impl Strategy<Value = BuildResult> + use<> {
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

fn unkeyed_realisation() -> impl Strategy<Value = UnkeyedRealisation> {
    (path(), signatures()).prop_map(|(path, signatures)| UnkeyedRealisation { path, signatures })
}

fn drv_output(dialect: &Dialect) -> BoxedStrategy<DrvOutput> {
    if dialect.features.contains(Feature::RealisationWithPath) {
        return (path(), name())
            .prop_map(|(path, output)| DrvOutput::Derivation { path, output })
            .boxed();
    }
    (hash(HashAlgorithm::Sha256), name())
        .prop_map(|(hash, output)| DrvOutput::HashModulo { hash, output })
        .boxed()
}

fn realisation(dialect: &Dialect) -> BoxedStrategy<Realisation> {
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

fn garbage(dialect: &Dialect) -> impl Strategy<Value = CollectGarbage> + use<> {
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

fn options() -> impl Strategy<Value = ClientOptions> {
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

fn output() -> impl Strategy<Value = DerivationOutput> {
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

fn derivation() -> impl Strategy<Value = BasicDerivation> {
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

fn add_flags() -> impl Strategy<Value = AddFlags> {
    any::<(bool, bool)>().prop_map(|(repair, without_signatures)| AddFlags {
        repair,
        without_signatures,
    })
}

/// A request of an operation, if the dialect has it.
fn request_of(operation: Operation, dialect: &Dialect) -> BoxedStrategy<Request> {
    let simple = |make: fn(StorePath) -> Request| path().prop_map(make).boxed();
    let version = dialect.version;
    match operation {
        Operation::IsValidPath => simple(Request::IsValidPath),
        Operation::QueryReferrers => simple(Request::QueryReferrers),
        Operation::EnsurePath => simple(Request::EnsurePath),
        Operation::AddTempRoot => simple(Request::AddTempRoot),
        Operation::QueryDeriver => simple(Request::QueryDeriver),
        Operation::QuerySubstitutablePathInfo => simple(Request::QuerySubstitutablePathInfo),
        Operation::QueryDerivationOutputs => simple(Request::QueryDerivationOutputs),
        Operation::QueryPathInfo => simple(Request::QueryPathInfo),
        Operation::QueryDerivationOutputNames => simple(Request::QueryDerivationOutputNames),
        Operation::QueryValidDerivers => simple(Request::QueryValidDerivers),
        Operation::NarFromPath => simple(Request::NarFromPath),
        Operation::QueryDerivationOutputMap => simple(Request::QueryDerivationOutputMap),
        Operation::AddBuildLog => simple(Request::AddBuildLog),
        Operation::SyncWithGC => Just(Request::SyncWithGC).boxed(),
        Operation::FindRoots => Just(Request::FindRoots).boxed(),
        Operation::QueryAllValidPaths => Just(Request::QueryAllValidPaths).boxed(),
        Operation::OptimiseStore => Just(Request::OptimiseStore).boxed(),
        Operation::AddToStore => (name(), method(), algorithm(), paths(), any::<bool>())
            .prop_map(|(name, method, algorithm, references, repair)| {
                Request::AddToStore(AddToStore {
                    name,
                    method: MethodAlgorithm { method, algorithm },
                    references,
                    repair,
                })
            })
            .boxed(),
        Operation::AddTextToStore => (name(), bytes(), paths())
            .prop_map(|(name, text, references)| Request::AddTextToStore {
                name,
                text,
                references,
            })
            .boxed(),
        Operation::BuildPaths => (targets(dialect), mode())
            .prop_map(|(targets, mode)| Request::BuildPaths { targets, mode })
            .boxed(),
        Operation::BuildPathsWithResults => (targets(dialect), mode())
            .prop_map(|(targets, mode)| Request::BuildPathsWithResults { targets, mode })
            .boxed(),
        Operation::AddIndirectRoot => bytes().prop_map(Request::AddIndirectRoot).boxed(),
        Operation::SetOptions => options().prop_map(Request::SetOptions).boxed(),
        Operation::CollectGarbage => garbage(dialect).prop_map(Request::CollectGarbage).boxed(),
        Operation::QueryPathFromHashPart => any::<[u8; 20]>()
            .prop_map(|part| Request::QueryPathFromHashPart(HashPart::new(part)))
            .boxed(),
        Operation::QuerySubstitutablePathInfos => btree_map(path(), option::of(address()), 0..3)
            .prop_map(move |mut paths| {
                if version < Version::new(1, 22) {
                    paths.values_mut().for_each(|address| *address = None);
                }
                Request::QuerySubstitutablePathInfos(paths)
            })
            .boxed(),
        Operation::QueryValidPaths => (paths(), any::<bool>())
            .prop_map(move |(paths, substitute)| Request::QueryValidPaths {
                paths,
                substitute: substitute && version >= Version::new(1, 27),
            })
            .boxed(),
        Operation::QuerySubstitutablePaths => paths().prop_map(Request::QuerySubstitutablePaths).boxed(),
        Operation::VerifyStore => any::<(bool, bool)>()
            .prop_map(|(check_contents, repair)| Request::VerifyStore {
                check_contents,
                repair,
            })
            .boxed(),
        Operation::BuildDerivation => (path(), derivation(), mode())
            .prop_map(|(path, derivation, mode)| Request::BuildDerivation {
                path,
                derivation,
                mode,
            })
            .boxed(),
        Operation::AddSignatures => (path(), signatures())
            .prop_map(|(path, signatures)| Request::AddSignatures { path, signatures })
            .boxed(),
        Operation::AddToStoreNar => (keyed_info(), add_flags())
            .prop_map(|(info, flags)| Request::AddToStoreNar { info, flags })
            .boxed(),
        Operation::QueryMissing => targets(dialect).prop_map(Request::QueryMissing).boxed(),
        Operation::RegisterDrvOutput => realisation(dialect).prop_map(Request::RegisterDrvOutput).boxed(),
        Operation::QueryRealisation => drv_output(dialect).prop_map(Request::QueryRealisation).boxed(),
        Operation::AddMultipleToStore => add_flags().prop_map(Request::AddMultipleToStore).boxed(),
        Operation::AddPermRoot => (path(), bytes())
            .prop_map(|(path, root)| Request::AddPermRoot { path, root })
            .boxed(),
        Operation::SubmitOutput => (single(), name())
            .prop_map(|(path, output)| Request::SubmitOutput { path, output })
            .boxed(),
        Operation::AddToStoreScanning => (name(), bytes())
            .prop_map(|(name, method)| Request::AddToStoreScanning { name, method })
            .boxed(),
        other => panic!("no strategy for {other}"),
    }
}

/// An operation that the dialect has.
fn operation(dialect: &Dialect) -> impl Strategy<Value = Operation> + use<> {
    let has = |operation: &&Operation| {
        dialect.version >= operation.since()
            && operation
                .feature()
                .is_none_or(|feature| dialect.features.contains(feature))
    };
    select(Operation::ALL.iter().filter(has).copied().collect::<Vec<_>>())
}

pub(crate) fn request() -> impl Strategy<Value = (Dialect, Request)> {
    dialect().prop_flat_map(|dialect| {
        operation(&dialect)
            .prop_flat_map(move |operation| (Just(dialect.clone()), request_of(operation, &dialect)))
    })
}

fn reply_of(operation: Operation, dialect: &Dialect) -> BoxedStrategy<Reply> {
    let keyed = || {
        (derived(dialect), build_result(dialect))
            .prop_map(|(target, result)| KeyedBuildResult { target, result })
    };
    match operation.shape() {
        Shape::Nothing => Just(Reply::Nothing(())).boxed(),
        Shape::Done => Just(Reply::Done(Done)).boxed(),
        Shape::RawNar => Just(Reply::RawNar(RawNar)).boxed(),
        Shape::Flag => any::<bool>().prop_map(Reply::Flag).boxed(),
        Shape::Path => path().prop_map(Reply::Path).boxed(),
        Shape::OptionalPath => option::of(path()).prop_map(Reply::OptionalPath).boxed(),
        Shape::Paths => paths().prop_map(Reply::Paths).boxed(),
        Shape::PathInfo => option::of(info()).prop_map(Reply::PathInfo).boxed(),
        Shape::AddedPath => keyed_info().prop_map(Reply::AddedPath).boxed(),
        Shape::Substitutable => option::of(substitutable()).prop_map(Reply::Substitutable).boxed(),
        Shape::Substitutables => btree_map(path(), substitutable(), 0..3)
            .prop_map(Reply::Substitutables)
            .boxed(),
        Shape::Roots => vec(
            (bytes(), path()).prop_map(|(link, path)| GcRoot { link, path }),
            0..3,
        )
        .prop_map(Reply::Roots)
        .boxed(),
        Shape::Collected => (btree_set(bytes(), 0..3), any::<u64>())
            .prop_map(|(paths, bytes_freed)| Reply::Collected(Collected { paths, bytes_freed }))
            .boxed(),
        Shape::OutputNames => vec(name(), 0..3)
            .prop_map(|names| Reply::OutputNames(OutputNames(names)))
            .boxed(),
        Shape::OutputMap => btree_map(name(), option::of(path()), 0..3)
            .prop_map(Reply::OutputMap)
            .boxed(),
        Shape::Missing => (paths(), paths(), paths(), any::<(u64, u64)>())
            .prop_map(
                |(will_build, will_substitute, unknown, (download_size, nar_size))| {
                    Reply::Missing(Missing {
                        will_build,
                        will_substitute,
                        unknown,
                        download_size,
                        nar_size,
                    })
                },
            )
            .boxed(),
        Shape::BuildResult => build_result(dialect).prop_map(Reply::BuildResult).boxed(),
        Shape::BuildResults => vec(keyed(), 0..3).prop_map(Reply::BuildResults).boxed(),
        Shape::Realisation if dialect.features.contains(Feature::RealisationWithPath) => {
            option::of(unkeyed_realisation())
                .prop_map(|value| Reply::Realisation(RealisationAnswer::Unkeyed(value)))
                .boxed()
        }
        Shape::Realisation => vec(realisation(dialect), 0..3)
            .prop_map(|list| Reply::Realisation(RealisationAnswer::Keyed(list)))
            .boxed(),
        Shape::RootPath => bytes().prop_map(|path| Reply::RootPath(RootPath(path))).boxed(),
        other => panic!("no strategy for {other:?}"),
    }
}

pub(crate) fn reply() -> impl Strategy<Value = (Dialect, Operation, Reply)> {
    dialect().prop_flat_map(|dialect| {
        operation(&dialect).prop_flat_map(move |operation| {
            (
                Just(dialect.clone()),
                Just(operation),
                reply_of(operation, &dialect),
            )
        })
    })
}

fn fields() -> impl Strategy<Value = Vec<Field>> {
    vec(
        prop_oneof![
            any::<u64>().prop_map(Field::Number),
            bytes().prop_map(Field::Text)
        ],
        0..4,
    )
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..120, any::<u64>()]
}

pub(crate) fn log_frame() -> impl Strategy<Value = LogFrame> {
    prop_oneof![
        bytes().prop_map(LogFrame::Next),
        (any::<(u64, u64)>(), number(), number(), bytes(), fields()).prop_map(
            |((id, parent), level, kind, text, fields)| LogFrame::StartActivity(Activity {
                id,
                level: Level::from_number(level),
                kind: ActivityType::from_number(kind),
                text,
                fields,
                parent,
            })
        ),
        any::<u64>().prop_map(LogFrame::StopActivity),
        (any::<u64>(), number(), fields()).prop_map(|(id, kind, fields)| LogFrame::Result(ActivityResult {
            id,
            kind: ResultType::from_number(kind),
            fields,
        })),
    ]
}

pub(crate) fn remote_error(version: Version) -> impl Strategy<Value = RemoteError> {
    (0_u64..8, bytes(), vec(bytes(), 0..3), any::<u64>()).prop_map(move |(level, message, traces, status)| {
        let mut report = RemoteError::new(message);
        if version >= Version::new(1, 26) {
            report.level = Level::from_number(level);
            report.traces = traces;
        } else {
            report.exit_status = status;
        }
        report
    })
}

/// A frame, and a version that has it.
pub(crate) fn frame() -> impl Strategy<Value = (Version, Frame)> {
    (18_u8..=38).prop_flat_map(|minor| {
        let version = Version::new(1, minor);
        let log = if minor >= 20 {
            log_frame().boxed()
        } else {
            bytes().prop_map(LogFrame::Next).boxed()
        };
        let frame = prop_oneof![
            8 => log.prop_map(Frame::Log),
            1 => Just(Frame::Last),
            2 => remote_error(version).prop_map(Frame::Error),
        ];
        (Just(version), frame)
    })
}
