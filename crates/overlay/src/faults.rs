// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults that are built in on purpose, so that it can be shown that the tests would notice them.
//!
//! `cargo xtask integration --prove` builds with the feature `faults` and chooses one by `SUPERPOSE_FAULT`. Without the feature
//! all of this compiles to nothing.

/// A decision that keeps data, left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The intent is written and not synced.
    JournalNotSynced,
    /// The mount is never made fresh.
    NoRemount,
    /// Objects that lie below, too, are deleted through the merged view.
    DeleteThroughMount,
    /// A mount is trusted unseen.
    MountUnchecked,
    /// The database below is opened for writing.
    LowerWritable,
    /// Links that keep objects are made and not synced.
    RootNotSynced,
}

/// Whether the fault is chosen.
#[cfg(not(feature = "faults"))]
pub(crate) const fn is_on(_: Fault) -> bool {
    false
}

/// Whether the fault is chosen.
#[cfg(feature = "faults")]
#[expect(
    clippy::disallowed_methods,
    reason = "a build that is only ever run by its own tests; what else reads the environment is the program"
)]
pub(crate) fn is_on(fault: Fault) -> bool {
    let name = match fault {
        Fault::JournalNotSynced => "journal-not-synced",
        Fault::NoRemount => "no-remount",
        Fault::DeleteThroughMount => "delete-through-mount",
        Fault::MountUnchecked => "mount-unchecked",
        Fault::LowerWritable => "lower-writable",
        Fault::RootNotSynced => "root-not-synced",
    };
    std::env::var_os("SUPERPOSE_FAULT").is_some_and(|chosen| chosen == name)
}
