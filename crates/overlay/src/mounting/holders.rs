// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who keeps a mount busy, as far as `/proc` tells.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use superpose_mount_check::mountinfo;

/// How many holders are looked for: enough to act on, and a busy machine has thousands of open files.
const HOLDER_LIMIT: usize = 16;

/// Something that keeps a mount busy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A process; one entry for each, with the first use that was found.
    Process {
        /// Its number.
        pid: u32,
        /// Its name, as the kernel shortens it.
        name: String,
        /// What it uses.
        by: HoldsBy,
    },
    /// Another mount, on a directory of this one.
    Mount {
        /// Where it is mounted.
        mount_point: PathBuf,
    },
}

/// What of a mount a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldsBy {
    /// Its working directory.
    WorkingDirectory,
    /// Its root directory.
    RootDirectory,
    /// The program it runs.
    Program,
    /// A file or directory it has open.
    OpenFile,
    /// A file it has mapped, such as a shared library.
    MappedFile,
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Process { pid, name, by } => write!(out, "process {pid} ({name}: {by})"),
            Holder::Mount { mount_point } => write!(out, "the mount at '{}'", mount_point.display()),
        }
    }
}

impl fmt::Display for HoldsBy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            HoldsBy::WorkingDirectory => "working directory",
            HoldsBy::RootDirectory => "root directory",
            HoldsBy::Program => "program",
            HoldsBy::OpenFile => "open file",
            HoldsBy::MappedFile => "mapped file",
        })
    }
}

/// A list for a message.
pub(crate) fn describe(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "nobody that /proc shows to this process".to_owned();
    }
    let mut text = holders
        .iter()
        .map(Holder::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if holders.len() >= HOLDER_LIMIT {
        text.push_str(", and perhaps more");
    }
    text
}

/// Finds mounts on the given one and processes that use it; what may not be seen is left out.
pub(super) fn find(mount_id: u64) -> Vec<Holder> {
    let mut holders = mounts_on(mount_id);
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    holders.extend(
        pids.filter_map(|pid| process_on(pid, mount_id))
            .take(HOLDER_LIMIT),
    );
    holders.truncate(HOLDER_LIMIT);
    holders
}

fn mounts_on(mount_id: u64) -> Vec<Holder> {
    let table = fs::read("/proc/thread-self/mountinfo").unwrap_or_default();
    let mounts = mountinfo::lines(&table).filter_map(Result::ok);
    let children = mounts.filter(|mount| mount.parent == mount_id && mount.id != mount_id);
    children
        .map(|mount| Holder::Mount {
            mount_point: mount.mount_point_path().to_owned(),
        })
        .collect()
}

fn process_on(pid: u32, mount_id: u64) -> Option<Holder> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let links = [
        ("cwd", HoldsBy::WorkingDirectory),
        ("root", HoldsBy::RootDirectory),
        ("exe", HoldsBy::Program),
    ];
    let direct = links
        .into_iter()
        .find(|(link, _)| leads_to(&process.join(link), mount_id));
    let by = direct.map(|(_, by)| by).or_else(|| {
        let lists = [("fd", HoldsBy::OpenFile), ("map_files", HoldsBy::MappedFile)];
        let found = lists
            .into_iter()
            .find(|(list, _)| any_leads_to(&process.join(list), mount_id));
        found.map(|(_, by)| by)
    })?;
    let name = fs::read(process.join("comm")).unwrap_or_default();
    Some(Holder::Process {
        pid,
        name: String::from_utf8_lossy(name.trim_ascii_end()).into_owned(),
        by,
    })
}

fn any_leads_to(list: &Path, mount_id: u64) -> bool {
    let entries = fs::read_dir(list).into_iter().flatten().filter_map(Result::ok);
    entries.into_iter().any(|entry| leads_to(&entry.path(), mount_id))
}

/// Whether one of the links of a process leads into the mount. Asks nothing of the file itself, so that a dead network
/// mount elsewhere does not block.
fn leads_to(link: &Path, mount_id: u64) -> bool {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(CWD, link.as_os_str() as &OsStr, flags, StatxFlags::MNT_ID);
    found.is_ok_and(|found| found.stx_mask & StatxFlags::MNT_ID.bits() != 0 && found.stx_mnt_id == mount_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_pid_name_and_use() {
        let process = Holder::Process {
            pid: 7,
            name: "sh".into(),
            by: HoldsBy::WorkingDirectory,
        };
        let mount = Holder::Mount {
            mount_point: "/m/x".into(),
        };
        assert_eq!(
            describe(&[process.clone(), mount]),
            "process 7 (sh: working directory), the mount at '/m/x'"
        );
        assert_eq!(describe(&[]), "nobody that /proc shows to this process");
        let many = vec![process; HOLDER_LIMIT];
        assert!(describe(&many).ends_with(", and perhaps more"));
    }
}
