// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which OverlayFS mount covers a directory, and is it the expected one?
#![forbid(unsafe_code)]

pub mod escape;
pub mod mountinfo;
pub mod options;

mod check;
mod covering;
mod describe;
mod error;
mod evidence;
mod handle;
mod mend;
mod object;
mod probe;
mod proof;
mod quote;
mod report;
mod text;
mod verdict;
mod warning;

pub use check::{Access, Expected, Options, Probe, check, check_with};
pub use describe::{MountDescription, MountKind, describe};
pub use error::{Error, Result};
pub use proof::VerifiedMount;
pub use report::{Aspect, Certainty, Difference, Evidence, Layer, Mend, Outcome, Reason, Report, Text};
pub use warning::Warning;
