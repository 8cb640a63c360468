// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernels of three Debian releases, unpacked, and the modules that a guest needs of them, in the order in which they are
//! loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use xshell::Shell;

use super::tools::Tools;
use crate::debian::{self, Unpacked};

/// Changes whenever what is unpacked does.
const FORMAT: &str = "1";

/// What every guest has: disks, a port for results, a network, file systems, the layers themselves.
const MODULES: [&str; 14] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "ext4",
    "xfs",
    "squashfs",
    "erofs",
    "overlay",
    "fuse",
    "loop",
    "9pnet_virtio",
    "9p",
    "virtiofs",
];

/// What a module wants and its list of dependencies does not name: sums of ext4 before 6.14 or so come from the crypto
/// layer, which would ask a program of the running system for this module.
const SOFT_DEPENDENCIES: [(&str, &str); 1] = [("crc32c", "crc32c_generic")];

/// A kernel to try things on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Release {
    /// Of bookworm: no file handles of overlay mounts, no tmpfs with attributes of users
    #[value(name = "6.1", alias = "bookworm")]
    Bookworm,
    /// Of trixie
    #[value(name = "6.12", alias = "trixie")]
    Trixie,
    /// The newest that Debian has, of sid
    #[value(name = "newest", alias = "sid")]
    Sid,
}

impl Release {
    pub(crate) const ALL: [Self; 3] = [Self::Bookworm, Self::Trixie, Self::Sid];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
            Self::Sid => "newest",
        }
    }

    /// This kernel's share of what is done on one kernel only: which of how many.
    pub(crate) fn share(self) -> String {
        format!("{}/{}", self as usize, Self::ALL.len())
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    pub(crate) release: Release,
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// Unpacked modules with what they need before them.
    pub(crate) modules: Vec<PathBuf>,
}

impl Kernel {
    /// Finds a kernel, or fetches it.
    pub(crate) fn prepare(base: &Path, release: Release, tools: &Tools) -> Result<Self> {
        let dir = base.join("kernels").join(release.suite());
        let root = dir.join("root");
        let stamp = dir.join("stamp");
        if !fs::read_to_string(&stamp).is_ok_and(|text| text == FORMAT) {
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            eprintln!("kernel {}: downloading", release.name());
            let apt = dir.join("apt");
            let archives = debian::with_archive(&apt, release.suite(), "a kernel", |archive| {
                archive.alone(&packages(|package| archive.dependencies(package))?)
            })?;
            Unpacked::make(&root, &archives)?;
            fs::write(&stamp, FORMAT).with_context(|| stamp.display().to_string())?;
            Shell::new()?.remove_path(&apt)?;
        }
        let tree = ModuleTree::find(&root)?;
        let image = [
            root.join(format!("boot/vmlinuz-{}", tree.version)),
            tree.dir.join("vmlinuz"),
        ];
        let image = image.into_iter().find(|path| path.is_file());
        Ok(Self {
            release,
            image: image.with_context(|| format!("no kernel below {}", root.display()))?,
            modules: tree.unpacked(&MODULES, &dir.join("modules"), tools)?,
            version: tree.version,
        })
    }
}

/// The packages with the kernel and its modules: one, or in newer releases one each, below one that is empty.
fn packages(dependencies: impl Fn(&str) -> Result<Vec<String>>) -> Result<Vec<String>> {
    let image = dependencies("linux-image-amd64")?
        .into_iter()
        .find(|package| package.starts_with("linux-image-"))
        .context("linux-image-amd64 depends on no kernel")?;
    let mut parts = dependencies(&image)?;
    parts.retain(|package| package.starts_with("linux-binary-") || package.starts_with("linux-modules-"));
    Ok(if parts.is_empty() { vec![image] } else { parts })
}

/// All modules of one kernel.
struct ModuleTree {
    version: String,
    dir: PathBuf,
    files: BTreeMap<String, PathBuf>,
    builtin: String,
}

impl ModuleTree {
    fn find(root: &Path) -> Result<Self> {
        let places = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place));
        let place = places.iter().find(|place| place.is_dir());
        let place = place.with_context(|| format!("no modules below {}", root.display()))?;
        let mut versions = fs::read_dir(place)?;
        let dir = versions
            .next()
            .with_context(|| format!("no modules in {}", place.display()))??;
        ensure!(versions.next().is_none(), "two kernels in {}", place.display());
        let mut tree = Self {
            version: dir.file_name().to_string_lossy().into_owned(),
            dir: dir.path(),
            files: BTreeMap::new(),
            builtin: fs::read_to_string(dir.path().join("modules.builtin")).unwrap_or_default(),
        };
        tree.collect(&dir.path().join("kernel"))?;
        Ok(tree)
    }

    fn collect(&mut self, dir: &Path) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.collect(&entry.path())?;
            } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
                self.files.insert(name.replace('-', "_"), entry.path());
            }
        }
        Ok(())
    }

    /// Unpacks modules and all they need into a directory, and returns them in the order of loading.
    fn unpacked(&self, names: &[&str], to: &Path, tools: &Tools) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(to).with_context(|| to.display().to_string())?;
        let mut order = Vec::new();
        for name in names {
            self.add(name, to, tools, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, to: &Path, tools: &Tools, order: &mut Vec<PathBuf>) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(packed) = self.files.get(&name) else {
            return self.expect_builtin(&name);
        };
        let file = to.join(format!("{name}.ko"));
        if order.contains(&file) {
            return Ok(());
        }
        if !file.is_file() {
            unpack(packed, &file, tools)?;
        }
        let image = fs::read(&file).with_context(|| file.display().to_string())?;
        for needed in needs(&image) {
            self.add(&needed, to, tools, order)?;
        }
        order.push(file);
        Ok(())
    }

    /// Where the package lists what is built in, it must be there; newer ones have no such list.
    fn expect_builtin(&self, name: &str) -> Result<()> {
        let mut lines = self.builtin.lines().filter_map(|line| line.rsplit('/').next());
        let is_there = lines.any(|line| line.trim_end_matches(".ko").replace('-', "_") == name);
        if !is_there && !self.builtin.is_empty() {
            bail!("kernel {} has no module {name}", self.version);
        }
        Ok(())
    }
}

fn unpack(packed: &Path, file: &Path, tools: &Tools) -> Result<()> {
    let fresh = file.with_extension("new");
    if packed.extension().is_some_and(|extension| extension == "xz") {
        let mut command = tools.program("xz")?;
        command
            .args(["--decompress", "--stdout"])
            .arg(packed)
            .stdin(Stdio::null());
        let output = command.stderr(Stdio::inherit()).output().context("starting xz")?;
        ensure!(
            output.status.success(),
            "unpacking {}: xz failed",
            packed.display()
        );
        fs::write(&fresh, output.stdout)
    } else {
        fs::copy(packed, &fresh).map(drop)
    }
    .with_context(|| format!("unpacking {}", packed.display()))?;
    fs::rename(&fresh, file).with_context(|| file.display().to_string())
}

/// The modules that a module says it needs before it, in its section of `key=value` texts.
fn needs(image: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for text in image.split(|&byte| byte == 0) {
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        if let Some(list) = text.strip_prefix("depends=") {
            found.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
        } else if let Some(list) = text.strip_prefix("softdep=pre: ") {
            for wanted in list.split_whitespace() {
                let known = SOFT_DEPENDENCIES.iter().find(|(alias, _)| *alias == wanted);
                found.extend(known.map(|(_, module)| (*module).to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_itself() {
        let image =
            b"\x7fELF\0junk\0license=GPL\0softdep=pre: crc32c other\0depends=mbcache,jbd2\0depends=\0\xff";
        assert_eq!(needs(image), ["crc32c_generic", "mbcache", "jbd2"]);
        assert!(needs(b"depends\0").is_empty());
    }

    #[test]
    fn a_kernel_is_one_package_or_two() {
        let asked = |old: bool| {
            packages(move |package| {
                Ok(match (package, old) {
                    ("linux-image-amd64", _) => vec!["linux-image-7-amd64".to_owned()],
                    (_, true) => vec!["kmod".to_owned()],
                    (_, false) => vec!["linux-binary-7".to_owned(), "linux-modules-7".to_owned()],
                })
            })
        };
        assert_eq!(asked(true).unwrap(), ["linux-image-7-amd64"]);
        assert_eq!(asked(false).unwrap(), ["linux-binary-7", "linux-modules-7"]);
        assert!(packages(|_| Ok(Vec::new())).is_err());
    }
}
