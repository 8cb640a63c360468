// SPDX-License-Identifier: MIT OR Apache-2.0
//! The scenarios, one a file.

pub(crate) mod odd_layers;
pub(crate) mod power_cut_kill;
pub(crate) mod power_cut_replay;
pub(crate) mod shared_directory;
pub(crate) mod shared_image;
pub(crate) mod stock_nix;
pub(crate) mod suites;
pub(crate) mod worked_example;
