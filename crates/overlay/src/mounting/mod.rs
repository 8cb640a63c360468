// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mount of an overlay store: made, refreshed after changes behind it, removed; and the user's hook.
//!
//! Nix mounts nothing: its users write the `mount` command and a remount script themselves. Here all three are system
//! calls, so that they work without any program of the distribution, in a user namespace too.
//!
//! | function | does |
//! |---|---|
//! | [`mount_overlay`] | checks the directories of a [`MountPlan`], then mounts them so that stock Nix accepts the mount where it can |
//! | [`refresh`] | makes the kernel forget what it remembers of the layers, without changing the mount |
//! | [`RemountHook::run`] | runs the user's own program in place of [`refresh`] |
//! | [`Claim`] | keeps an upper layer to one mount at a time |
//! | [`unmount`] | removes exactly the overlay mounted at a directory |
//!
//! Whether a mount that exists already is the wanted one is the question of `superpose-mount-check`.

mod claim;
mod directory;
mod holders;
mod hook;
mod make;
mod options;
mod preflight;
mod problem;
mod remount;
mod unmount;

pub use claim::Claim;
pub(crate) use holders::describe as describe_holders;
pub use holders::{Holder, HoldsBy};
pub use hook::{HOOK_TIME_LIMIT, HookFailure, RemountHook};
pub use make::{MountInterface, mount_overlay, mount_overlay_through};
pub use options::{DATA_LIMIT, FSCONFIG_STRING_LIMIT, LOWER_LIMIT, LayerRole, MountPlan, OverlayAttributes};
pub use problem::MountProblem;
pub use remount::{RemountInterface, refresh, refresh_directory, refresh_through, require_refreshable};
pub use unmount::{Detach, unmount};
