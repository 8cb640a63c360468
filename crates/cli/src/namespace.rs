// SPDX-License-Identifier: MIT OR Apache-2.0
//! Enters namespaces by system call, so that `superpose run` needs no root and no helper program.
//!
//! The only module of the workspace with `unsafe` code; it holds nothing else.
#![expect(
    unsafe_code,
    reason = "unshare(2) is unsafe in rustix; see the SAFETY comment at its one call"
)]

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{getegid, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// What to enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaces {
    /// A user namespace in which the caller is root, and a mount namespace that belongs to it: needs no rights.
    UserAndMount,
    /// A mount namespace alone: needs root (`CAP_SYS_ADMIN`).
    MountOnly,
}

/// What can be told without trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Nothing speaks against it. Only [`enter`] tells for sure: a security module or a container may still refuse.
    Likely,
    /// It is switched off; the text names the switch.
    Forbidden(String),
}

/// Moves this process into new namespaces and makes every mount private, so that nothing mounted from here on is seen
/// outside, and nothing mounted outside is seen here.
///
/// In a new user namespace the caller's user and group become 0, as with `unshare -r`. All other users and groups
/// appear as nobody, and supplementary groups can no longer be changed.
///
/// # Errors
/// An error whose text says why, and what would allow it. After one the process may be in half of the namespaces: end it.
pub(crate) fn enter(namespaces: Namespaces) -> io::Result<()> {
    require_single_thread()?;
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let flags = match namespaces {
        Namespaces::UserAndMount => UnshareFlags::NEWUSER | UnshareFlags::NEWNS,
        Namespaces::MountOnly => UnshareFlags::NEWNS,
    };
    // SAFETY: what makes unshare(2) unsafe is CLONE_FILES, by which a thread loses sight of the descriptors of the
    // others. It is not among the flags, and there is no other thread.
    unsafe { unshare_unsafe(flags) }.map_err(|errno| explain_unshare(namespaces, errno))?;
    if namespaces == Namespaces::UserAndMount {
        // Without this the kernel accepts no group map from an ordinary user (Linux 3.19 and newer).
        write_map("setgroups", "deny")?;
        write_map("uid_map", &format!("0 {user} 1"))?;
        write_map("gid_map", &format!("0 {group} 1"))?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(|errno| {
        explain(
            errno,
            "cannot make the mounts of the new mount namespace private",
            security_module_hint(),
        )
    })
}

/// Tells whether [`enter`] can work, from the switches of the kernel alone.
pub(crate) fn probe(namespaces: Namespaces) -> Probe {
    match namespaces {
        // A capability check would repeat the kernel's; it says EPERM clearly enough.
        Namespaces::MountOnly => Probe::Likely,
        Namespaces::UserAndMount => {
            let privileged = geteuid().is_root();
            forbidden_by(
                &|switch| fs::read_to_string(format!("/proc/sys/{switch}")).ok(),
                privileged,
            )
            .map_or(Probe::Likely, Probe::Forbidden)
        }
    }
}

/// Switches that forbid user namespaces: the file below `/proc/sys`, the forbidding value, whether root is exempt.
const SWITCHES: [(&str, &str, bool); 2] = [
    // Debian's and Arch's own.
    ("kernel/unprivileged_userns_clone", "0", true),
    ("user/max_user_namespaces", "0", false),
];

/// Ubuntu's switch does not forbid the namespace, but all rights in it, unless an AppArmor profile of the program
/// grants them. So it is a hint, not a verdict.
const APPARMOR_SWITCH: &str = "kernel/apparmor_restrict_unprivileged_userns";

fn forbidden_by(read: &dyn Fn(&str) -> Option<String>, privileged: bool) -> Option<String> {
    let is_set = |switch: &str, value: &str| read(switch).is_some_and(|found| found.trim() == value);
    let found = SWITCHES
        .into_iter()
        .find(|(switch, value, root_is_exempt)| !(privileged && *root_is_exempt) && is_set(switch, value));
    found.map(|(switch, value, _)| {
        let name = switch.replacen('/', ".", 1);
        format!("user namespaces are forbidden here (sysctl {name} = {value}); set it to another value, or run as root")
    })
}

/// A user namespace cannot be entered with several threads, and a mount namespace would be entered by one of them only.
fn require_single_thread() -> io::Result<()> {
    let threads = fs::read_dir("/proc/self/task").map_err(|source| {
        explain(
            source,
            "cannot count the threads of this process",
            "; is /proc mounted?".to_owned(),
        )
    })?;
    match threads.count() {
        1 => Ok(()),
        count => Err(explain(
            Errno::INVAL,
            format!(
                "namespaces must be entered before any thread is started; expected 1 thread, found {count}"
            ),
            String::new(),
        )),
    }
}

fn write_map(file: &str, text: &str) -> io::Result<()> {
    let path = format!("/proc/self/{file}");
    fs::write(&path, text).map_err(|source| {
        explain(
            source,
            format!("cannot write '{text}' to '{path}'"),
            security_module_hint(),
        )
    })
}

fn explain_unshare(namespaces: Namespaces, errno: Errno) -> io::Error {
    let what = match namespaces {
        Namespaces::UserAndMount => "cannot make a user namespace",
        Namespaces::MountOnly => "cannot make a mount namespace",
    };
    let hint = match (namespaces, errno) {
        (Namespaces::MountOnly, Errno::PERM) => "; it takes root (CAP_SYS_ADMIN)".to_owned(),
        (Namespaces::UserAndMount, Errno::PERM | Errno::NOSPC | Errno::USERS) => match probe(namespaces) {
            Probe::Forbidden(reason) => format!("; {reason}"),
            Probe::Likely if errno == Errno::PERM => {
                "; a container, a security module or a chroot forbids it (sysctls kernel.unprivileged_userns_clone, \
                 user.max_user_namespaces); allow it there, or run as root"
                    .to_owned()
            }
            Probe::Likely => "; the limit of user.max_user_namespaces, or of 32 nested ones, is reached".to_owned(),
        },
        _ => String::new(),
    };
    explain(errno, what, hint)
}

fn security_module_hint() -> String {
    let restricted = fs::read_to_string(format!("/proc/sys/{APPARMOR_SWITCH}"));
    if restricted.is_ok_and(|value| value.trim() == "1") {
        "; AppArmor takes all rights from user namespaces here \
         (sysctl kernel.apparmor_restrict_unprivileged_userns = 1): give this program a profile that allows userns, \
         or run as root"
            .to_owned()
    } else {
        String::new()
    }
}

/// An error with a text of its own that keeps the kind and, as source, the system's own.
#[derive(Debug)]
struct Explained {
    text: String,
    source: io::Error,
}

impl fmt::Display for Explained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Explained {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn explain(source: impl Into<io::Error>, what: impl fmt::Display, hint: String) -> io::Error {
    let source = source.into();
    io::Error::new(
        source.kind(),
        Explained {
            text: format!("{what}{hint}"),
            source,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_stays_where_it_is() {
        // A test runs on a thread of its own, so there are at least two.
        let error = enter(Namespaces::UserAndMount).unwrap_err();
        assert!(error.to_string().contains("expected 1 thread, found "), "{error}");
    }

    #[test]
    fn the_switch_that_forbids_is_named() {
        let check = |set: &[(&str, &str)], privileged: bool, want: Option<&str>| {
            let read = |switch: &str| {
                set.iter()
                    .find(|(name, _)| *name == switch)
                    .map(|(_, value)| format!("{value}\n"))
            };
            let found = forbidden_by(&read, privileged);
            match want {
                Some(text) => assert!(
                    found.as_ref().is_some_and(|found| found.contains(text)),
                    "{found:?}"
                ),
                None => assert_eq!(found, None),
            }
        };
        check(&[], false, None);
        check(
            &[
                ("kernel/unprivileged_userns_clone", "1"),
                ("user/max_user_namespaces", "96365"),
            ],
            false,
            None,
        );
        let clone = [("kernel/unprivileged_userns_clone", "0")];
        check(&clone, false, Some("kernel.unprivileged_userns_clone = 0"));
        check(&clone, true, None);
        let none = [("user/max_user_namespaces", "0")];
        check(&none, false, Some("user.max_user_namespaces = 0"));
        check(&none, true, Some("user.max_user_namespaces = 0"));
    }

    #[test]
    fn the_systems_own_error_stays_the_source() {
        let error = explain_unshare(Namespaces::MountOnly, Errno::PERM);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(
            error.to_string(),
            "cannot make a mount namespace; it takes root (CAP_SYS_ADMIN)"
        );
        let inner = error.get_ref().and_then(|explained| explained.source()).unwrap();
        assert!(inner.to_string().contains("not permitted"), "{inner}");
    }
}
