// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superpose program.
fn main() {}
