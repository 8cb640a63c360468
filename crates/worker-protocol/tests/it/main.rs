// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integration tests of superpose-worker-protocol.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bounds;
mod build_vectors;
mod dialects;
mod golden;
mod handshake;
mod hostile;
mod peers;
mod round_trip;
mod sources;
mod strategies;
mod streams;
mod vectors;
