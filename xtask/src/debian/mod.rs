// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packages of Debian without installing them: apt gets a configuration of its own, packages are only unpacked, and
//! their programs start through the dynamic loader that came with them.

mod archive;
mod mirrors;
mod unpacked;

pub(crate) use archive::with_archive;
pub(crate) use mirrors::hosts_of_this_machine as package_hosts;
pub(crate) use unpacked::Unpacked;
