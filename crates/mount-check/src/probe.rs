// SPDX-License-Identifier: MIT OR Apache-2.0
//! The active probe: a file made through the mount must appear in the upper layer.

use std::ffi::CString;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::BorrowedFd;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::evidence::Judgement;
use crate::object::Object;
use crate::report::Certainty;

/// A file that is removed again whatever happens.
struct ProbeFile<'a> {
    directory: BorrowedFd<'a>,
    name: CString,
}

impl Drop for ProbeFile<'_> {
    fn drop(&mut self) {
        // A file that cannot be removed is empty and named for what it is; the finding does not depend on it.
        fs::unlinkat(self.directory, &self.name, AtFlags::empty()).ok();
    }
}

/// Makes a file through the mount, looks for it in the upper layer, removes it.
pub(crate) fn probe_upper(merged: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> Judgement {
    let unknown = |why: String| Judgement::new(Certainty::Unknown, why);
    // Never used before: the kernel would remember the absence of a name that was looked up.
    let Ok(name) = CString::new(format!(".superpose-probe-{:016x}{:016x}", random(), random())) else {
        return unknown("no name for a probe".to_owned());
    };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(merged, &name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(errno) => return unknown(format!("a probe file cannot be made: {errno}")),
    };
    let made = ProbeFile {
        directory: merged,
        name,
    };
    let likeness = match (Object::below(upper, &made.name), Object::of(&file)) {
        (Ok(found), Ok(written)) if found.kind == written.kind => {
            Judgement::new(Certainty::Proven, "a file made through the mount appears in it")
        }
        (Err(Errno::NOENT), _) => Judgement::new(
            Certainty::Refuted,
            "a file made through the mount does not appear in it",
        ),
        (Err(errno), _) | (_, Err(errno)) => unknown(format!("a probe file cannot be looked at: {errno}")),
        (Ok(_), Ok(_)) => Judgement::new(Certainty::Refuted, "another object appears in it"),
    };
    drop(made);
    likeness
}

/// The standard library seeds its hashers from the system's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
