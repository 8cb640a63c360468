// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of a mount that work and yet endanger what is kept in its layers.

use std::fmt;
use std::path::Path;

use crate::options::OverlayOptions;
use crate::quote;

/// A danger of a mount that is otherwise as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// `index=on`: copied-up hard links stay reachable through the work directory.
    Index,
    /// `nfs_export=on`: every copied-up object keeps an index entry, and file handles tell another layer.
    NfsExport,
    /// `metacopy=on`: a changed mode leaves an object in the upper layer without its data.
    Metacopy,
    /// `redirect_dir=on`, given or brought along by `metacopy=on`: a renamed directory leaves an upper directory that depends on a name below.
    RedirectDir,
    /// `volatile`: nothing is synced.
    Volatile,
    /// Mounted in a user namespace without `userxattr`.
    MissingUserxattr,
    /// Data-only lower directories that nobody asked for.
    DataOnlyLayers(usize),
    /// The mount is read-only, which the caller accepts.
    ReadOnly,
    /// A lower directory lists an object that the mount does not show.
    StaleView(String),
    /// Another overlay is mounted at the same place, below this one.
    HidesAnother,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str(
                "index=on: a copied-up hard link stays visible after its upper copy is removed, so removing duplicates fails; mount with index=off",
            ),
            Self::NfsExport => f.write_str(
                "nfs_export=on: every copied-up object keeps an entry in the work directory's index; mount with nfs_export=off",
            ),
            Self::Metacopy => f.write_str(
                "metacopy=on: objects in the upper layer can be without data of their own, so reading or keeping them apart from the lower directory loses contents; mount with metacopy=off",
            ),
            Self::RedirectDir => f.write_str(
                "redirect_dir=on: a renamed directory in the upper layer depends on a name in the lower one; mount with redirect_dir=nofollow",
            ),
            Self::Volatile => f.write_str(
                "volatile: nothing is written out before the mount is undone, and after a crash the upper layer must be thrown away; mount without volatile",
            ),
            Self::MissingUserxattr => f.write_str(
                "no userxattr: if the mount was made in this user namespace, removing a directory that exists in both layers fails with an input/output error; mount with userxattr",
            ),
            Self::DataOnlyLayers(count) => write!(
                f,
                "{count} data-only lower director{} below the expected ones: contents come from there, names do not",
                if *count == 1 { "y" } else { "ies" }
            ),
            Self::ReadOnly => f.write_str("the mount is read-only: nothing can be added or removed"),
            Self::StaleView(name) => write!(
                f,
                "the lower directory has {name}, the mount remembers that it was absent; remount to refresh the view"
            ),
            Self::HidesAnother => f.write_str(
                "another overlay is mounted at the same place below this one; two overlays must not share an upper layer",
            ),
        }
    }
}

/// The warnings that options alone give. What is on by default is not shown among the options, so `defaults`
/// answers for what is absent.
pub(crate) fn from_options(
    options: &OverlayOptions,
    defaults: &dyn Fn(&str) -> Option<Vec<u8>>,
) -> Vec<Warning> {
    let value = |key: &str| match options.feature(key.as_bytes()) {
        Some(shown) => Some(shown.to_vec()),
        None => defaults(key),
    };
    let on = |key: &str| value(key).is_some_and(|value| value == b"on" || value == b"Y");
    let mut warnings = Vec::new();
    // Without an upper layer nothing is ever copied up, and redirect_dir=on is shown although nobody asked.
    if options.upper.is_none() {
        return warnings;
    }
    for (key, warning) in [
        ("index", Warning::Index),
        ("nfs_export", Warning::NfsExport),
        ("metacopy", Warning::Metacopy),
    ] {
        if on(key) {
            warnings.push(warning);
        }
    }
    // Linux 6.1 shows what was given, not what it turned on or off because of another option: `userxattr` excludes
    // redirects, and `metacopy=on` brings them along.
    let redirects = match options.feature(b"redirect_dir") {
        Some(shown) => shown == b"on",
        None if options.feature(b"userxattr").is_some() => false,
        None => on("metacopy") || on("redirect_dir"),
    };
    if redirects {
        warnings.push(Warning::RedirectDir);
    }
    // Linux 6.12 and newer show `fsync=volatile`, older kernels plain `volatile`.
    if options.feature(b"volatile").is_some() || options.feature(b"fsync") == Some(b"volatile") {
        warnings.push(Warning::Volatile);
    }
    warnings
}

/// The value the overlay module uses for an option that was not given (`Y`, `N`), from `/sys`.
pub(crate) fn module_default(key: &str) -> Option<Vec<u8>> {
    let file = Path::new("/sys/module/overlay/parameters").join(key);
    let mut value = std::fs::read(file).ok()?;
    while value.last().is_some_and(u8::is_ascii_whitespace) {
        value.pop();
    }
    Some(value)
}

/// Is this process in a user namespace other than the initial one?
pub(crate) fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/thread-self/uid_map") else {
        return false;
    };
    // The initial namespace maps all 2^32 - 1 ids to themselves.
    map.split_ascii_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"]
}

pub(crate) fn stale_view(name: &[u8]) -> Warning {
    Warning::StaleView(quote::bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mountinfo;

    fn check(super_options: &str, defaults: &dyn Fn(&str) -> Option<Vec<u8>>, want: &[Warning]) {
        let line = format!("1 2 0:3 / /m rw - overlay overlay {super_options}");
        let parsed = mountinfo::parse(line.as_bytes()).unwrap();
        let options = OverlayOptions::decode(&parsed[0].super_options);
        assert_eq!(from_options(&options, defaults), want, "{super_options}");
    }

    #[test]
    fn dangerous_options_are_named() {
        let none = |_: &str| None;
        check("rw,lowerdir=a,upperdir=u,workdir=w,uuid=on", &none, &[]);
        check("rw,lowerdir=a,upperdir=u,index=on", &none, &[Warning::Index]);
        check(
            "rw,lowerdir=a,upperdir=u,index=on,nfs_export=on",
            &none,
            &[Warning::Index, Warning::NfsExport],
        );
        check(
            "rw,lowerdir=a,upperdir=u,redirect_dir=on,metacopy=on",
            &none,
            &[Warning::Metacopy, Warning::RedirectDir],
        );
        check("rw,lowerdir=a,upperdir=u,volatile", &none, &[Warning::Volatile]);
        check(
            "rw,lowerdir=a,upperdir=u,fsync=volatile",
            &none,
            &[Warning::Volatile],
        );
        check(
            "rw,lowerdir=a,upperdir=u,redirect_dir=nofollow,userxattr",
            &none,
            &[],
        );
        check("ro,lowerdir=a:b,redirect_dir=on", &none, &[]);
    }

    #[test]
    fn what_is_on_by_default_counts_unless_switched_off() {
        let index_on = |key: &str| (key == "index").then(|| b"Y".to_vec());
        check("rw,lowerdir=a,upperdir=u", &index_on, &[Warning::Index]);
        check("rw,lowerdir=a,upperdir=u,index=off", &index_on, &[]);
    }

    /// Each line was shown by Linux 6.1, with the module parameters in brackets set; whether a directory of the lower
    /// layer could then be renamed told what was in force.
    #[test]
    fn redirects_of_linux_6_1_are_not_always_shown() {
        let default = |parameters: &'static [&str]| {
            move |key: &str| {
                let value: &[u8] = if parameters.contains(&key) { b"Y" } else { b"N" };
                Some(value.to_vec())
            }
        };
        let check = |shown: &str, parameters: &'static [&str], want: &[Warning]| {
            let options = format!("rw,lowerdir=a,upperdir=u,workdir=w{shown}");
            check(&options, &default(parameters), want);
        };
        let both = [Warning::Metacopy, Warning::RedirectDir];
        check(",metacopy=on", &[], &both);
        check("", &["metacopy"], &both);
        check(",metacopy=off", &["metacopy"], &[]);
        check(",redirect_dir=nofollow,metacopy=off", &["metacopy"], &[]);
        check("", &["redirect_dir"], &[Warning::RedirectDir]);
        check(",metacopy=on", &["redirect_dir"], &both);
        check(",redirect_dir=off", &["redirect_dir"], &[]);
        check(",userxattr", &["redirect_dir"], &[]);
        check(",metacopy=off,userxattr", &["metacopy", "redirect_dir"], &[]);
    }
}
