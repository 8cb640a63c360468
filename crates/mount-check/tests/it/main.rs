// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be tested without making a mount.
#![allow(clippy::unwrap_used, reason = "a failed set-up fails its test")]

mod fixtures;
mod listed;
mod properties;
mod unmounted;
