// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suite that runs against every backend, from the crate that has them.

#[allow(dead_code, reason = "the crate's own tests use all of it")]
#[path = "../../../crates/metadata/tests/it/fixture.rs"]
pub(crate) mod fixture;
#[path = "../../../crates/metadata/tests/it/questions.rs"]
pub(crate) mod questions;
