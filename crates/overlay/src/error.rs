// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong in a store, said so that the reader knows what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::mounting::{Holder, HookFailure, MountProblem, describe_holders};

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a store operation.
///
/// Each variant names the operation and the path; where something was expected, what was found instead; and where
/// there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call on a file of the store failed.
    #[error("cannot {operation} '{}'", path.display())]
    Io {
        /// What was attempted, as a verb phrase that fits between "cannot" and the path.
        operation: &'static str,
        /// The file or directory it was attempted on.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something else is where a file or directory of the store belongs. To use it could lead out of the store.
    #[error("'{}' is {found}, expected {expected}", path.display())]
    WrongFileType {
        /// The file.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A store that was opened for reading only was to be written.
    #[error("cannot {operation}: the state directory '{}' was opened for reading only", path.display())]
    ReadOnlyState {
        /// What was attempted, as a verb phrase.
        operation: &'static str,
        /// The state directory.
        path: PathBuf,
    },
    /// Somebody else held a lock for longer than the caller wanted to wait.
    #[error("the lock '{}' is held by another process, after {} of waiting", path.display(), seconds(waited))]
    LockHeld {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// One user wants to keep more paths than he may.
    #[error(
        "cannot keep so many paths: expected at most {limit} for one user of the store, found {found}; they are given up when \
         he goes"
    )]
    TooManyTempRoots {
        /// How many he may keep.
        limit: usize,
        /// How many it would be.
        found: usize,
    },
    /// A path would have more signatures than it may.
    #[error(
        "cannot add signatures to '{path}': expected at most {limit} of them in all, found {found} with the new ones; \
         none was added"
    )]
    TooManySignatures {
        /// The path.
        path: String,
        /// How many it may have.
        limit: usize,
        /// How many it would have.
        found: usize,
    },
    /// A file of temporary roots cannot be understood. To collect all the same could remove what is in use.
    #[error(
        "the temporary roots '{}' hold no store path at byte {offset}: \
         nothing may be collected before the process that owns the file has ended, or the file is removed",
        path.display()
    )]
    TempRootRecord {
        /// The file.
        path: PathBuf,
        /// Where the record begins, in bytes from the start of the file.
        offset: u64,
        /// Why it is none.
        #[source]
        source: Box<superpose_store_path::Error>,
    },
    /// A root was not made, because something would have been lost or the root would not have worked.
    #[error("cannot make the root '{}': expected {expected}, found {found}", link.display())]
    RootRefused {
        /// The link that was to be made.
        link: PathBuf,
        /// What would have been accepted.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// An overlay cannot be mounted.
    #[error("cannot mount an overlay at '{}': {problem}", mount_point.display())]
    CannotMount {
        /// Where it was to be mounted.
        mount_point: PathBuf,
        /// Why, and the way out.
        problem: MountProblem,
        /// What the kernel said, where it was asked.
        #[source]
        source: Option<io::Error>,
    },
    /// An overlay is mounted there already. Another one on top would write to an upper layer in use.
    #[error(
        "an overlay is already mounted at '{}'; `superpose check-mount` tells whether it is the right one, \
         `superpose umount` removes it",
        mount_point.display()
    )]
    AlreadyMounted {
        /// The mount point.
        mount_point: PathBuf,
    },
    /// The upper layer is mounted for a command that runs in namespaces of its own. A second mount over it would show
    /// what the first changes or not, and could read objects that were removed as empty directories.
    #[error(
        "the upper layer '{}' is mounted for another `superpose run`, which is still running; run both commands in one \
         (`superpose run -- sh`), or wait",
        upper.display()
    )]
    LayerInUse {
        /// The upper layer.
        upper: PathBuf,
    },
    /// A mount was expected at a directory that only lies inside one.
    #[error("cannot {operation} '{}': expected a mount point, found a directory on {found}", path.display())]
    NotAMountPoint {
        /// What was attempted.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// The type of the file system that it is on.
        found: String,
    },
    /// Something else than the kernel's OverlayFS is mounted. What works on one means nothing to the other.
    #[error("cannot {operation} '{}': expected an overlay mount, found {found}", path.display())]
    NotAnOverlay {
        /// What was attempted.
        operation: &'static str,
        /// The mount point.
        path: PathBuf,
        /// The type of the file system that is mounted.
        found: String,
    },
    /// The process has no rights over the file system that is to be remounted.
    #[error(
        "not permitted to remount '{}': that takes root (CAP_SYS_ADMIN) in the user namespace in which it was mounted; \
         run `superpose remount` there, or set a remount-hook that has the right",
        mount_point.display()
    )]
    RemountNotPermitted {
        /// The mount point.
        mount_point: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The mount is in use.
    #[error("cannot unmount '{}': it is used by {}", mount_point.display(), describe_holders(holders))]
    MountBusy {
        /// The mount point.
        mount_point: PathBuf,
        /// Who uses it, as far as it can be seen.
        holders: Vec<Holder>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The remount hook failed. Until the remount is made up for, objects that were removed from the upper layer can
    /// read as empty directories.
    #[error(
        "the remount hook '{}' with the argument '{}' {failure}; the deletions stand and the remount is still \
         pending: make it up with `superpose remount`{}",
        hook.display(), mount_point.display(), failure.hint()
    )]
    RemountHook {
        /// The program.
        hook: PathBuf,
        /// Its argument.
        mount_point: PathBuf,
        /// How it failed.
        failure: HookFailure,
        /// What the system said, if it could not be run.
        #[source]
        source: Option<io::Error>,
    },
    /// A setting that an overlay store cannot do without is missing.
    #[error("'{url}' has no upper layer: add upper-layer=DIRECTORY, the OverlayFS upperdir of its mount")]
    NoUpperLayer {
        /// The store.
        url: String,
    },
    /// An overlay store without a state directory of its own. It would share that of the default local store, and
    /// with it the database: deleting in the one would forget objects of the other.
    #[error("'{url}' would use '{}', which belongs to the default local store: add root=DIRECTORY or state=DIRECTORY", state.display())]
    NoStateOfItsOwn {
        /// The store.
        url: String,
        /// The state directory that it would share.
        state: PathBuf,
    },
    /// Two stores of a chain would use one directory. Each would take the objects of the other for its own.
    #[error("the {what} '{}' of '{url}' belongs to a store below it too: give each its own", path.display())]
    SharedDirectory {
        /// Which directory.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The store.
        url: String,
    },
    /// The logical store directories of two layers differ: the paths of the one mean nothing in the other.
    #[error(
        "the lower store '{url}' has the store directory '{lower}', expected '{upper}': both must have the same setting store"
    )]
    StoreDirsDiffer {
        /// The store directory of the upper store.
        upper: superpose_store_path::StoreDir,
        /// That of the lower store.
        lower: superpose_store_path::StoreDir,
        /// The lower store.
        url: String,
    },
    /// A chain of overlay stores is too long.
    #[error(
        "'{url}' is overlay number {limit} of its chain: expected fewer; put several layers into one lower store"
    )]
    TooDeep {
        /// The store at the end of the chain.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// A change was asked of a daemon's store, or something that only an overlay store has.
    #[error(
        "'{url}' is a daemon's store, which is only asked here: expected a local store or an overlay store; \
         give the URL of the store that the daemon serves, or let `nix --store` do it"
    )]
    DaemonStore {
        /// The store.
        url: String,
    },
    /// An overlay operation was asked of a local store.
    #[error("'{url}' is a local store: expected a local-overlay store, which has layers and a mount")]
    NoLayers {
        /// The store.
        url: String,
    },
    /// A store whose URL says that it must not be written.
    #[error("'{url}' is read-only: leave out read-only=true to write to it")]
    ReadOnlyStore {
        /// The store.
        url: String,
    },
    /// A store directory that is reached through a symbolic link, so that its paths would change with the link.
    #[error("the store directory '{}' leads through the symbolic link '{}': give the path that it points to", path.display(), link.display())]
    SymlinkedStore {
        /// The store directory.
        path: PathBuf,
        /// The link.
        link: PathBuf,
    },
    /// The mount is missing or not the expected one. Written all the same, objects would go to where nobody looks for
    /// them, and deletions would hit another store.
    #[error("the store '{url}' is not mounted at '{}' as it should be\n{report}", mount_point.display())]
    WrongMount {
        /// Where it should be mounted.
        mount_point: PathBuf,
        /// The store.
        url: String,
        /// What is there, and how to mend it.
        report: Box<superpose_mount_check::Report>,
    },
    /// A path that is to be deleted is still needed. Nothing was deleted.
    #[error(
        "cannot delete '{path}': it is kept alive by {by}; see `superpose query --roots` and `--referrers`"
    )]
    StillAlive {
        /// The path.
        path: String,
        /// What needs it.
        by: String,
    },
    /// The journal is not what was written. Nothing was changed, since what was begun is not known.
    #[error(
        "the crash journal '{}' is damaged: {found}; nothing was changed. Compare the store with `nix-store --verify`, \
         then move the journal away",
        path.display()
    )]
    JournalDamaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// A way of addition that is not supported.
    #[error(
        "cannot add '{name}' by git hashing or with a reference to itself: expected nar, flat or text hashing"
    )]
    UnsupportedMethod {
        /// The name of the object.
        name: String,
    },
    /// Logs are those of derivations. Another one would lie under a name that nobody looks for.
    #[error("cannot keep a build log of '{path}': expected the path of a derivation, which ends in '.drv'")]
    LogOfNoDerivation {
        /// The path.
        path: String,
    },
    /// A flat or text object can only be made of a regular file.
    #[error("cannot add '{}' by its bare contents: expected a regular file; directories are added with nar hashing", path.display())]
    NotARegularFile {
        /// The path.
        path: PathBuf,
    },
    /// An object could not be written, most often because the disk is full. What there was of it is removed.
    #[error("cannot add '{name}' to the store directory '{}'", path.display())]
    CannotAdd {
        /// The name of the object.
        name: String,
        /// The physical store directory.
        path: PathBuf,
        /// What failed: reading what is to be added, or writing it.
        #[source]
        source: Box<superpose_nar::Error>,
    },
    /// The objects of another store cannot be taken: their paths mean something else.
    #[error("'{url}' has the store directory '{found}', expected '{expected}'")]
    ForeignSource {
        /// The store that objects were to come from.
        url: String,
        /// The store directory of this store.
        expected: superpose_store_path::StoreDir,
        /// That of the other one.
        found: superpose_store_path::StoreDir,
    },
    /// A good object could not be written, most often because the disk is full. What was repaired before stays
    /// repaired; everything else is as it was.
    #[error("cannot repair '{object}' in '{}'", path.display())]
    CannotRepair {
        /// The object.
        object: String,
        /// The layer, or the physical store directory.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<superpose_nar::Error>,
    },
    /// An object is not what is known of it. Registered all the same, it would be trusted for what it is not.
    #[error(
        "{what} mismatch importing path '{path}': expected {expected}, found {found}; it was damaged or changed where it \
         comes from (`superpose verify --check-contents` there tells), or on its way"
    )]
    HashMismatch {
        /// The path.
        path: String,
        /// Which hash.
        what: &'static str,
        /// What is known of it.
        expected: String,
        /// What it is.
        found: String,
    },
    /// An object has another size than is known of it.
    #[error("size mismatch importing path '{path}': expected an archive of {expected} bytes, found {found}")]
    SizeMismatch {
        /// The path.
        path: String,
        /// What is known of it, in bytes.
        expected: u64,
        /// What it is, in bytes.
        found: u64,
    },
    /// Nobody who is trusted vouches for an object. Added all the same, whoever made it could run programs here.
    #[error(
        "cannot add path '{path}' because it lacks a signature by a trusted key: trust the key that signed it \
         (--trusted-public-keys), or add it without (--no-check-sigs, or require-sigs=false in the store URL)"
    )]
    Untrusted {
        /// The path.
        path: String,
    },
    /// A store that has no table for what is known of content-addressed derivations.
    #[error(
        "cannot record the output '{key}': '{url}' keeps no realisations of this kind, as only a Nix with the experimental \
         feature ca-derivations makes the table for them"
    )]
    NoRealisations {
        /// The output.
        key: String,
        /// The store.
        url: String,
    },
    /// Objects that are sent one after the other do not arrive, or not in the form that they should have.
    #[error("cannot receive the objects that are sent")]
    Upload {
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// A stream of exported objects is not one, or ends too early.
    #[error("the stream of exported objects is wrong at byte {offset}: expected {expected}, found {found}")]
    ExportStream {
        /// Where in the stream, in bytes from its beginning.
        offset: u64,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An object that is to be passed on is not what was registered. What was written of it until then is of no use.
    #[error(
        "hash of path '{path}' has changed from '{expected}' to '{found}': `superpose verify --check-contents` shows \
         what else has"
    )]
    Changed {
        /// The path.
        path: String,
        /// What was registered.
        expected: String,
        /// What the object is.
        found: String,
    },
    /// The receiver of a stream of exported objects failed.
    #[error("cannot pass on the exported objects")]
    WriteExport {
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// An object that is to be registered cannot be used.
    #[error("cannot register '{}'", path.display())]
    CannotRegister {
        /// The object.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<superpose_nar::Error>,
    },
    /// A path is to be recorded as valid without being looked at, and nothing says what its object is.
    #[error("nothing says what the archive of '{path}' is: expected its hash and size, found none")]
    NoArchiveHash {
        /// The path.
        path: String,
    },
    /// The caller wanted the work to stop. What was done until then stays done, and the store is whole.
    #[error("stopped: what was done stays done, and the same command does the rest")]
    Stopped,
    /// A store path, hash, URL or setting could not be understood.
    #[error(transparent)]
    StorePath(#[from] superpose_store_path::Error),
    /// The database could not be read or written.
    #[error(transparent)]
    Metadata(#[from] superpose_metadata::Error),
    /// The mount could not be examined.
    #[error(transparent)]
    MountCheck(#[from] superpose_mount_check::Error),
    /// An object could not be archived, restored or removed.
    #[error(transparent)]
    Nar(#[from] superpose_nar::Error),
}

impl Error {
    /// Wraps the failure of a system call on `path`.
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Error::Io {
            operation,
            path: path.into(),
            source: source.into(),
        }
    }
}

/// Shown by messages that waited for something.
pub(crate) fn seconds(limit: &Duration) -> String {
    format!("{:.1} s", limit.as_secs_f64())
}
