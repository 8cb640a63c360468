// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integration tests of superpose-nar.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod canonicalise;
mod compare;
mod copy;
mod dump;
mod files;
mod hostile;
mod model;
mod oracle;
mod reader;
mod remove;
mod restore;
mod round_trip;
mod scan;
mod vectors;
