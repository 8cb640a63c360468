// SPDX-License-Identifier: MIT OR Apache-2.0
//! The built program, run on stores in a scratch directory; nothing here mounts anything.

mod data;
mod errors;
mod help;
mod moving;
mod objects;
mod overlay;
mod questions;
mod stand;
