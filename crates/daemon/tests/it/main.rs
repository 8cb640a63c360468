// SPDX-License-Identifier: MIT OR Apache-2.0
//! Integration tests of superpose-daemon: a server and its clients in one process, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod asking;
mod changing;
mod hostile;
mod limits;
mod protecting;
mod recording;
mod remote;
mod served;
mod sockets;
mod stopping;
mod walking;
