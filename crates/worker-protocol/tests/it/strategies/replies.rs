// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies of every shape.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use superpose_worker_protocol::*;

use super::operation;
use super::values::*;

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
