// SPDX-License-Identifier: MIT OR Apache-2.0
//! Harness of the black-box suites: what a trial may need of the machine, scratch directories, the built
//! program, stock Nix, and real mounts.
//!
//! A suite is one binary per tier (`tests/host`, `tests/root`, `tests/stock`). Each of its modules has a
//! `register` function that hands its trials over with [`trials!`], together with what they need. A trial whose
//! need is missing is counted as skipped, with the reason; where `SUPERPOSE_REQUIRE` names the need, it fails.
//!
//! It deliberately holds no assertions about stores: those belong to the suites.
//!
//! ```
//! use superpose_tests::Scratch;
//!
//! let scratch = Scratch::new().expect("the target directory is writable");
//! std::fs::create_dir(scratch.path().join("store")).expect("it was empty");
//! ```
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test harness is configured by its environment"
)]

mod invocation;
mod need;
mod overlay_mount;
mod private_mounts;
mod program;
mod scratch;
mod stock_nix;
mod suite;

pub use invocation::{Finished, Invocation};
pub use need::{Machine, Need};
pub use overlay_mount::OverlayMount;
pub use program::superpose;
pub use scratch::Scratch;
pub use stock_nix::StockNix;
pub use suite::{Suite, Tier};
