// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runtime roots: objects that running processes execute, have open or mapped, or name in their environment.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::StoreDir;

use super::Root;
use super::prefixes::Prefixes;
use crate::error::{Error, Result};

/// Links of a process to what it runs and where it is. Nix does not look at `root`.
const PROCESS_LINKS: [&str; 3] = ["exe", "cwd", "root"];

/// Files of a process that name what it uses.
const PROCESS_TEXTS: [&str; 2] = ["maps", "environ"];

/// Directory of a process with a link for each open file.
const OPEN_FILES: &str = "fd";

/// Settings of the kernel that name programs.
const KERNEL_TEXTS: [&str; 3] = [
    "sys/kernel/modprobe",
    "sys/kernel/fbsplash",
    "sys/kernel/poweroff_cmd",
];

/// What is found in `/proc`.
#[derive(Debug, Default)]
pub(crate) struct RuntimeRoots {
    /// The roots, sorted; each under the file below `/proc` that names it.
    pub(crate) roots: Vec<Root>,
    /// How many processes did not let us see all of what they use.
    pub(crate) unreadable: u64,
}

/// Finds what running processes use of the store.
///
/// `proc` is where the proc file system is: `/proc`. `physical` are directories that hold the objects of
/// this store beside the logical store directory: the real one, the layers.
///
/// What is only in the memory of a process is not found, nor what processes of others use when we may not look.
///
/// # Errors
/// If there is no proc file system, or a file in it cannot be read for a reason that has nothing to do with its
/// process. To go on could remove what is in use.
///
/// # Deviation
/// Nix matches the logical store directory only, and so does not see what runs from the physical directory of a
/// relocated store; nor does it look at a process's root directory. Without `/proc` it finds nothing and goes on.
pub(crate) fn scan(proc: &Path, store_dir: &StoreDir, physical: &[&Path]) -> Result<RuntimeRoots> {
    let prefixes = Prefixes::new(store_dir, physical);
    let mut scan = Scan {
        prefixes: &prefixes,
        roots: BTreeSet::new(),
        hidden: false,
    };
    let mut unreadable = 0;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::open(proc, flags, Mode::empty())
        .map_err(|error| Error::io("open the directory", proc, error))?;
    let fail = |error: Errno| Error::io("read the directory", proc, error);
    for entry in Dir::read_from(&top).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_bytes();
        if name.iter().all(u8::is_ascii_digit) {
            scan.hidden = false;
            scan.process(top.as_fd(), OsStr::from_bytes(name), proc)?;
            unreadable += u64::from(scan.hidden);
        }
    }
    for name in KERNEL_TEXTS {
        scan.text(top.as_fd(), name, proc)?;
    }
    Ok(RuntimeRoots {
        roots: scan.roots.into_iter().collect(),
        unreadable,
    })
}

/// A scan under way.
struct Scan<'a> {
    prefixes: &'a Prefixes,
    roots: BTreeSet<Root>,
    /// Whether something of the present process could not be seen.
    hidden: bool,
}

impl Scan<'_> {
    fn process(&mut self, top: BorrowedFd<'_>, name: &OsStr, proc: &Path) -> Result<()> {
        let path = proc.join(name);
        let Some(process) = self.open(top, name, &path, OFlags::DIRECTORY)? else {
            return Ok(());
        };
        for name in PROCESS_LINKS {
            self.link(process.as_fd(), OsStr::new(name), &path)?;
        }
        for name in PROCESS_TEXTS {
            self.text(process.as_fd(), name, &path)?;
        }
        self.open_files(process.as_fd(), &path.join(OPEN_FILES))
    }

    fn open_files(&mut self, process: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let Some(directory) = self.open(process, OsStr::new(OPEN_FILES), path, OFlags::DIRECTORY)? else {
            return Ok(());
        };
        let entries = match Dir::read_from(&directory) {
            Ok(entries) => entries,
            Err(error) => return self.passed_over("read the directory", path, error.into()),
        };
        for entry in entries {
            match entry {
                Ok(entry) if entry.file_name() == c"." || entry.file_name() == c".." => {}
                Ok(entry) => self.link(
                    directory.as_fd(),
                    OsStr::from_bytes(entry.file_name().to_bytes()),
                    path,
                )?,
                Err(error) => return self.passed_over("read the directory", path, error.into()),
            }
        }
        Ok(())
    }

    /// Looks where a link leads to.
    fn link(&mut self, directory: BorrowedFd<'_>, name: &OsStr, parent: &Path) -> Result<()> {
        match rustix::fs::readlinkat(directory, name, Vec::new()) {
            Ok(text) => {
                if let Some(path) = self.prefixes.object_at(text.to_bytes()) {
                    self.roots.insert(Root {
                        link: parent.join(name),
                        path,
                    });
                }
                Ok(())
            }
            Err(error) => self.passed_over("read the link", &parent.join(name), error.into()),
        }
    }

    /// Looks for paths anywhere in a file.
    fn text(&mut self, directory: BorrowedFd<'_>, name: &str, parent: &Path) -> Result<()> {
        let link = parent.join(name);
        let Some(file) = self.open(directory, OsStr::new(name), &link, OFlags::empty())? else {
            return Ok(());
        };
        let roots = &mut self.roots;
        let result = self.prefixes.find_in(&mut File::from(file), |path| {
            roots.insert(Root {
                link: link.clone(),
                path,
            });
        });
        result.or_else(|error| self.passed_over("read", &link, error))
    }

    fn open(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        extra: OFlags,
    ) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
        match rustix::fs::openat(directory, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(error) => self.passed_over("open", path, error.into()).map(|()| None),
        }
    }

    /// Goes on after an error that is due to the process, which has ended or is not to be seen; or stops.
    fn passed_over(&mut self, operation: &'static str, path: &Path, error: io::Error) -> Result<()> {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH) => Ok(()),
            // An environment that is not in memory any more is EIO; a link of more than a page ENAMETOOLONG.
            Some(Errno::ACCESS | Errno::PERM | Errno::IO | Errno::NAMETOOLONG) => {
                self.hidden = true;
                Ok(())
            }
            _ => Err(Error::io(operation, path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    const A: &str = "x6xcakh6pmsprh9372j47cndyciwzqqy-a";
    const B: &str = "00000000000000000000000000000000-b-1.2";

    /// A tree that looks like `/proc` with one process, 42.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn new() -> Self {
            let top = tempfile::tempdir().unwrap();
            fs::create_dir_all(top.path().join("42/fd")).unwrap();
            fs::create_dir_all(top.path().join("sys/kernel")).unwrap();
            Self(top)
        }

        fn link(&self, name: &str, target: &str) {
            symlink(target, self.0.path().join(name)).unwrap();
        }

        fn write(&self, name: &str, text: impl AsRef<[u8]>) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        /// What is found, as pairs of file below the tree and base name.
        fn found(&self, physical: &[&Path]) -> Vec<(String, String)> {
            let found = scan(self.0.path(), &StoreDir::default(), physical).unwrap();
            assert_eq!(found.unreadable, 0);
            found
                .roots
                .iter()
                .map(|root| {
                    let link = root
                        .link
                        .strip_prefix(self.0.path())
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    (link, root.path.to_string())
                })
                .collect()
        }
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(link, path)| ((*link).to_owned(), (*path).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_process_has_open_is_found() {
        for name in ["42/exe", "42/cwd", "42/root", "42/fd/0", "42/fd/1000"] {
            for (target, expected) in [
                (format!("/nix/store/{A}"), Some(A)),
                (format!("/nix/store/{A}/bin/a b"), Some(A)),
                (format!("/nix/store/{A}/bin/x (deleted)"), Some(A)),
                (format!("/nix/store/{A} (deleted)"), Some(A)),
                (format!("/nix/store/{B}.lock"), None),
                (format!("/mnt/nix/store/{A}/bin"), None),
                (format!("/nix/store2/{A}/bin"), None),
                ("/nix/store".to_owned(), None),
                ("socket:[4711]".to_owned(), None),
            ] {
                let proc = Proc::new();
                proc.link(name, &target);
                let expected = match expected {
                    None if target.ends_with(".lock") => vec![(name.to_owned(), format!("{B}.lock"))],
                    None => vec![],
                    Some(path) => pairs(&[(name, path)]),
                };
                assert_eq!(proc.found(&[]), expected, "{name} -> {target}");
            }
        }
    }

    #[test]
    fn maps_and_environments_are_searched() {
        let proc = Proc::new();
        proc.write(
            "42/maps",
            format!(
                "55e0-55e1 r--p 00000000 08:01 123    /nix/store/{A}/lib/libc.so.6\n\
                 7ff0-7ff1 rw-p 00000000 00:00 0      [heap]\n\
                 7ff2-7ff3 r-xp 00001000 08:01 124    /nix/store/{B}/lib/x y.so (deleted)\n\
                 7ff4-7ff5 r-xp 00001000 08:01 125    /usr/lib/libz.so\n"
            ),
        );
        proc.write(
            "42/environ",
            [
                format!("PATH=/bin:/nix/store/{B}/bin:/nix/store/{A}/bin\0X=").as_bytes(),
                b"\xff\0",
            ]
            .concat(),
        );
        assert_eq!(
            proc.found(&[]),
            pairs(&[
                ("42/environ", B),
                ("42/environ", A),
                ("42/maps", B),
                ("42/maps", A)
            ])
        );
    }

    #[test]
    fn programs_of_the_kernel_are_found() {
        let proc = Proc::new();
        for name in KERNEL_TEXTS {
            proc.write(name, format!("/nix/store/{A}/bin/modprobe\n"));
        }
        proc.write("sys/kernel/hotplug", format!("/nix/store/{B}/bin/x\n"));
        let mut expected: Vec<_> = KERNEL_TEXTS.iter().map(|name| (*name, A)).collect();
        expected.sort_unstable();
        assert_eq!(proc.found(&[]), pairs(&expected));
    }

    #[test]
    fn physical_directories_count_too() {
        let proc = Proc::new();
        proc.link("42/exe", &format!("/mnt/root/nix/store/{A}/bin/x"));
        proc.link("42/cwd", &format!("/layers/upper/{B}"));
        assert_eq!(proc.found(&[]), []);
        assert_eq!(
            proc.found(&[Path::new("/mnt/root/nix/store"), Path::new("/layers/upper/")]),
            pairs(&[("42/cwd", B), ("42/exe", A)])
        );
    }

    #[test]
    fn only_processes_are_looked_at() {
        let proc = Proc::new();
        for name in ["self", "42a", "x"] {
            fs::create_dir(proc.0.path().join(name)).unwrap();
            proc.link(&format!("{name}/exe"), &format!("/nix/store/{A}"));
        }
        assert_eq!(proc.found(&[]), []);
    }

    #[test]
    fn no_proc_is_an_error_and_so_is_a_broken_one() {
        let proc = Proc::new();
        assert!(scan(&proc.0.path().join("missing"), &StoreDir::default(), &[]).is_err());
        proc.write("43", "no directory");
        let error = scan(proc.0.path(), &StoreDir::default(), &[]).unwrap_err();
        assert!(matches!(error, Error::Io { path, .. } if path == proc.0.path().join("43")));
    }

    #[test]
    fn errors_of_a_process_are_told_from_those_of_the_system() {
        for (errno, expected) in [
            (Errno::NOENT, Some(false)),
            (Errno::SRCH, Some(false)),
            (Errno::ACCESS, Some(true)),
            (Errno::PERM, Some(true)),
            (Errno::IO, Some(true)),
            (Errno::MFILE, None),
            (Errno::NOMEM, None),
        ] {
            let prefixes = Prefixes::new(&StoreDir::default(), &[]);
            let mut scan = Scan {
                prefixes: &prefixes,
                roots: BTreeSet::new(),
                hidden: false,
            };
            let result = scan.passed_over("read", Path::new("/proc/1/maps"), errno.into());
            assert_eq!(result.is_ok().then_some(scan.hidden), expected, "{errno}");
        }
    }

    #[test]
    fn a_file_that_this_process_has_open_is_found_in_the_real_proc() {
        let top = tempfile::tempdir().unwrap();
        let physical = fs::canonicalize(top.path()).unwrap();
        let name = physical.join(A);
        let _open = File::create(&name).unwrap();
        let found = scan(Path::new("/proc"), &StoreDir::default(), &[&physical]).unwrap();
        let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
        assert!(
            found
                .roots
                .iter()
                .any(|root| root.path.base_name() == A && root.link.starts_with(&own))
        );
    }
}
