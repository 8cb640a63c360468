// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any value that a dialect has a form for.

mod frames;
mod replies;
mod requests;
mod values;

use proptest::sample::select;
use proptest::strategy::Strategy;
use superpose_worker_protocol::{Dialect, Operation};

pub(crate) use frames::frame;
pub(crate) use replies::reply;
pub(crate) use requests::request;
pub(crate) use values::{bytes, dialect, keyed_info, path};

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
