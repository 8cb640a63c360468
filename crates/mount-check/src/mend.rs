// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to mend what a check found: commands that can be run as they are printed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::check::Expected;
use crate::describe::MountDescription;
use crate::escape::Layers;
use crate::quote;
use crate::report::{Layer, Mend};
use crate::warning;

/// Knows what is expected and what is there.
#[derive(Debug)]
pub(crate) struct Mender<'a> {
    expected: &'a Expected<'a>,
    found: Option<&'a MountDescription>,
    /// The mount point, absolute and resolved where possible.
    mount_point: PathBuf,
}

impl<'a> Mender<'a> {
    pub(crate) fn new(expected: &'a Expected<'a>, found: &'a MountDescription) -> Self {
        Self {
            expected,
            found: Some(found),
            mount_point: found.path.clone(),
        }
    }

    pub(crate) fn without_mount(expected: &'a Expected<'a>) -> Self {
        Self {
            expected,
            found: None,
            mount_point: absolute(expected.mount_point),
        }
    }

    /// Makes the mount where nothing is mounted yet.
    pub(crate) fn mount(&self) -> Vec<Mend> {
        self.mount_after(Vec::new())
    }

    /// The commands that make the mount, after others that clear the way.
    fn mount_after(&self, clear: Vec<Vec<OsString>>) -> Vec<Mend> {
        let mut mend = vec![Mend::Advice(
            "let `superpose mount` do it, or by hand:".to_owned(),
        )];
        mend.extend(clear.into_iter().map(Mend::Run));
        mend.push(Mend::Run(words(&["mkdir", "-p", "--"], &[&self.work()])));
        mend.push(Mend::Run(self.mount_words()));
        mend
    }

    fn unmount_words(&self) -> Vec<OsString> {
        words(&["umount", "--"], &[&self.mount_point])
    }

    /// Undoes what is mounted and makes the right mount.
    pub(crate) fn mount_again(&self) -> Vec<Mend> {
        self.mount_after(vec![self.unmount_words()])
    }

    pub(crate) fn make_mount_point(&self) -> Vec<Mend> {
        self.mount_after(vec![words(&["mkdir", "-p", "--"], &[&self.mount_point])])
    }

    pub(crate) fn make_upper(&self) -> Vec<Mend> {
        let make = words(&["mkdir", "-p", "--"], &[&absolute(self.expected.upper)]);
        let mut mend = self.mount_after(vec![make, self.unmount_words()]);
        mend.push(Mend::Advice(
            "or, if the mount is right, set `upper-layer` to what is mounted".to_owned(),
        ));
        mend
    }

    pub(crate) fn name_existing_lower(&self, path: &Path) -> Vec<Mend> {
        vec![Mend::Advice(format!(
            "name an existing lower directory; {} must exist before anything is layered over it",
            quote::path(path)
        ))]
    }

    /// Takes away what lies over the overlay.
    pub(crate) fn uncover(&self) -> Vec<Mend> {
        let over = self
            .found
            .and_then(|found| found.info.as_ref())
            .map(|info| info.mount_point_path());
        vec![Mend::Run(words(
            &["umount", "--"],
            &[over.unwrap_or(&self.mount_point)],
        ))]
    }

    pub(crate) fn mend_layer(&self, layer: Layer) -> Vec<Mend> {
        let mut mend = self.mount_again();
        let setting = match layer {
            Layer::Upper => "`upper-layer`",
            Layer::Lower(_) => "`lower-store`",
        };
        mend.push(Mend::Advice(format!(
            "or, if the mount is right, set {setting} to what is mounted"
        )));
        mend
    }

    pub(crate) fn mend_lower_list(&self) -> Vec<Mend> {
        let mut mend = self.mount_again();
        mend.push(Mend::Advice(
            "or, if the mount is right, set `lower-store` to what is mounted".to_owned(),
        ));
        mend
    }

    /// Makes the mount writable; which command does it depends on what is read-only.
    pub(crate) fn make_writable(&self) -> Vec<Mend> {
        let info = self.found.and_then(|found| found.info.as_ref());
        let mut mend = Vec::new();
        if info.is_none_or(crate::mountinfo::MountInfo::is_super_read_only) {
            // Newer util-linux repeats the mount's options, which the kernel refuses; without a source they
            // are left out.
            let command = ["mount", "--options-source", "disable", "-o", "remount,rw", "--"];
            mend.push(Mend::Run(words(&command, &[&self.mount_point])));
        }
        if info.is_some_and(crate::mountinfo::MountInfo::is_mount_read_only) {
            mend.push(Mend::Run(words(
                &["mount", "-o", "remount,bind,rw", "--"],
                &[&self.mount_point],
            )));
        }
        mend.push(Mend::Advice("or open the store for reading only".to_owned()));
        mend
    }

    pub(crate) fn describe_read_only(&self) -> String {
        match self.found.and_then(|found| found.info.as_ref()) {
            Some(info) if !info.is_super_read_only() && info.is_mount_read_only() => {
                "a read-only mount of a writable overlay".to_owned()
            }
            _ => "a read-only overlay".to_owned(),
        }
    }

    /// What covers the mount point instead of the expected overlay.
    pub(crate) fn describe_covering(&self) -> String {
        match self.found.and_then(|found| Some((found, found.info.as_ref()?))) {
            Some((found, info)) if found.is_mount_point => {
                format!("{} mounted there", quote::bytes(&info.fs_type))
            }
            Some((_, info)) => format!(
                "a plain directory of the {} mounted at {}",
                quote::bytes(&info.fs_type),
                quote::bytes(&info.mount_point)
            ),
            None => "a mount that this process's mount table does not list".to_owned(),
        }
    }

    fn mount_words(&self) -> Vec<OsString> {
        let lower: Vec<_> = self.expected.lower.iter().map(|path| absolute(path)).collect();
        let layers = Layers {
            lower: &lower,
            upper: &absolute(self.expected.upper),
            work: &self.work(),
        };
        let mut words = layers.mount_command(&self.mount_point);
        if warning::in_user_namespace()
            && let Some(options) = words.iter_mut().rev().nth(1)
        {
            options.push(",userxattr");
        }
        words
    }

    /// The work directory: next to the upper layer, on the same file system and outside of it.
    fn work(&self) -> PathBuf {
        let upper = absolute(self.expected.upper);
        let found = self.found.and_then(|found| found.overlay.as_ref());
        // The one that is in use with this upper layer already.
        if let Some((Some(over), Some(work))) = found.map(|overlay| (&overlay.upper, &overlay.work))
            && over.path == upper
            && work.path.is_absolute()
        {
            return work.path.clone();
        }
        let mut name = upper.into_os_string();
        name.push(".work");
        PathBuf::from(name)
    }
}

/// A path that means the same from everywhere, in the caller's own words: stock Nix compares the text of the
/// mount options with the text of its settings.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path)
        .unwrap_or_else(|_| path.to_owned())
        .components()
        .collect()
}

fn words(command: &[&str], paths: &[&Path]) -> Vec<OsString> {
    let command = command.iter().map(OsString::from);
    command
        .chain(paths.iter().map(|path| OsStr::to_owned(path.as_os_str())))
        .collect()
}
