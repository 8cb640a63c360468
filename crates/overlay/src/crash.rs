// SPDX-License-Identifier: MIT OR Apache-2.0
//! Named points at which a test may kill the process.
//!
//! Without the feature `crash-points` all of this compiles to nothing, so that no release build can be made to abort.

/// A point between two effects that reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// An addition chose its scratch names; nothing is there yet.
    ScratchMade,
    /// One of the objects of a batch is complete under its scratch name.
    ObjectUnpacked,
    /// All scratch objects are complete, and as durable as they have to be.
    ScratchFilled,
    /// One of the objects has its final name and no row yet.
    ObjectPlaced,
    /// The final names of all objects are on the disk.
    NamesSynced,
    /// The rows of the objects are committed; their lock files are still there.
    ObjectRegistered,
    /// The intent is on the disk, and nothing else is done.
    IntentWritten,
    /// One of the objects was moved out of the layer.
    ObjectMoved,
    /// The rows are deleted; the objects are still in the layer.
    RowsDeleted,
    /// Unused links were unlinked behind the mount, which is not fresh yet.
    LinksUnlinked,
    /// The mount is fresh; the journal is still open.
    Remounted,
    /// The journal is closed; the moved trees are still there.
    JournalClosed,
    /// One of the moved trees was unlinked.
    TreeUnlinked,
    /// A file has a name in the farm of links, too.
    FileEntered,
    /// There is another link to a file of the farm, under a scratch name.
    LinkMade,
    /// A file was replaced by that link; its directory has a time of its own, and may be writable.
    FileReplaced,
    /// The directory looks like one of a store object again.
    DirectoryMended,
    /// A file of the farm that nothing is a link to was removed.
    UnusedLinkRemoved,
    /// A repair has a good object under a scratch name.
    ObjectRestored,
    /// The good object and the bad one have changed places.
    ObjectExchanged,
}

/// Which of the points kills the process: none, but for tests.
#[derive(Debug, Clone, Default)]
pub struct CrashPoints {
    #[cfg(feature = "crash-points")]
    left: Option<std::sync::Arc<std::sync::atomic::AtomicU32>>,
}

impl CrashPoints {
    /// Aborts the process when the `n`-th point is reached, counted from 1.
    #[cfg(feature = "crash-points")]
    #[must_use]
    pub fn abort_at(n: u32) -> Self {
        CrashPoints {
            left: Some(std::sync::Arc::new(std::sync::atomic::AtomicU32::new(n))),
        }
    }

    #[cfg_attr(
        not(feature = "crash-points"),
        expect(clippy::unused_self, reason = "only tests count the points")
    )]
    pub(crate) fn reached(&self, point: CrashPoint) {
        tracing::trace!(?point, "crash point");
        #[cfg(feature = "crash-points")]
        if let Some(left) = &self.left {
            use std::sync::atomic::Ordering;
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) == Ok(1) {
                std::process::abort();
            }
        }
    }
}
