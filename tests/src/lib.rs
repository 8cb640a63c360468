// SPDX-License-Identifier: MIT OR Apache-2.0
//! Harness of the black-box suites: what a trial may need of the machine, scratch directories, the built
//! program, stock Nix, and real mounts.
//!
//! A suite is one binary per tier (`tests/host`, `tests/root`, `tests/stock`). Each of its modules has a
//! `register` function that hands its trials over with [`trials!`], together with what they need. A trial whose
//! need is missing is counted as skipped, with the reason; where `SUPERPOSE_REQUIRE` names the need, it fails.
//!
//! It deliberately holds no assertions about stores: those belong to the suites, but for [`stress`] and [`power`], which
//! several of them share.
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

mod daemon;
mod invocation;
mod layers;
mod model;
mod need;
mod ordinary_user;
mod overlay_mount;
pub mod power;
mod private_mounts;
mod program;
mod running;
mod scratch;
mod seeded;
mod small_disk;
mod stock_nix;
mod stress;
mod suite;
mod tree;

pub use daemon::{StockDaemon, SuperposeDaemon};
pub use invocation::{Finished, Invocation};
pub use layers::{Layers, encoded};
pub use model::{Model, References, base};
pub use need::{Machine, Need};
pub use ordinary_user::{
    as_ordinary_user, make_read_only, make_writable_directory, superpose_as_ordinary_user,
};
pub use overlay_mount::OverlayMount;
pub use program::{program_path, superpose, superpose_crashing_at};
pub use running::Running;
pub use scratch::Scratch;
pub use seeded::{Seeded, seed};
pub use small_disk::SmallDisk;
pub use stock_nix::StockNix;
pub use stress::{Company, stress};
pub use suite::{Suite, Tier};
pub use tree::Tree;
