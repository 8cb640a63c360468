// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold when the power is cut: a workload on one overlay store, a model that says after each of its steps what must be
//! there, and a judge of what is found later.
//!
//! Everything follows from a seed ([`Plan`]), so that whoever judges need not have seen the work: a machine that was
//! switched off and started again, or one that got a crash image made of a log of writes. The virtual machines of
//! `cargo xtask integration` do that; a trial of the root tier kills only the program, and keeps the model honest.
//!
//! # What is acknowledged
//! When all programs of step `n` have ended well, and the running store has been looked at, the number `n` is written to
//! the end of the disk, behind the file system ([`mark`]): past all caches of the guest, and without a flush that could
//! hide one that is missing. So whatever step `n` promised to be durable is earlier on the disk than that number, and
//! nothing of step `n + 2` is there before the number `n + 1` is. A disk is judged with the number that was acknowledged; the
//! store must then be as it is after step `n`, after step `n + 1`, or within that one. What "within" allows is said in
//! `check.rs`, and is little.

mod check;
mod format;
mod live;
mod mark;
mod object;
mod place;
mod plan;
mod workload;

pub use check::{Depth, Expectation, Reached, check, expect_refused_unmounted, expect_sound};
pub use live::expect_live;
pub use mark::{acknowledged, mark};
pub use object::Object;
pub use place::Place;
pub use plan::{Plan, Step};
pub use workload::{Outcome, Workload};
