// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask stock-nix`: fetches Debian's Nix, with every library that it needs, into
//! `target/stock-nix/<suite>`, and makes programs there that run it. Nothing is installed: apt gets a
//! configuration of its own, packages are only unpacked, and the programs start through the dynamic loader
//! that came with them, so that they see the machine's own paths and mounts.

mod mirrors;
mod wrapper;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use xshell::{Shell, cmd};

use crate::workspace;
use mirrors::Mirror;
pub(crate) use mirrors::hosts_of_this_machine as package_hosts;

/// Changes whenever what is made from the packages changes, so that old trees are made anew.
const FORMAT: &str = "1";

/// Fetch Debian's Nix into target/stock-nix, without touching the machine.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The Debian suite whose Nix to fetch
    #[arg(long, value_enum, default_value_t = Suites::All)]
    suite: Suites,
    /// Only say what is there; the exit status is 1 if something is missing
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suites {
    /// Nix 2.34 at the time of writing
    Sid,
    /// Nix 2.26
    Trixie,
    All,
}

impl Suites {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Sid => &["sid"],
            Self::Trixie => &["trixie"],
            Self::All => &["sid", "trixie"],
        }
    }
}

/// Runs the task.
pub(crate) fn run(args: &Args) -> Result<()> {
    let base = workspace::fetched().join("stock-nix");
    let mut missing = Vec::new();
    for suite in args.suite.names() {
        let place = Place {
            suite,
            dir: base.join(suite),
        };
        match place.present()? {
            Some(version) => println!("{suite}: {version} in {}", place.dir.display()),
            None if args.check => missing.push(*suite),
            None => println!("{suite}: {} in {}", place.make()?, place.dir.display()),
        }
    }
    ensure!(
        missing.is_empty(),
        "not fetched: {}; run `cargo xtask stock-nix`",
        missing.join(", ")
    );
    Ok(())
}

/// One suite's directory.
struct Place<'a> {
    suite: &'a str,
    dir: PathBuf,
}

impl Place<'_> {
    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    fn stamp(&self) -> PathBuf {
        self.dir.join("stamp")
    }

    /// The version that is unpacked, or `None` if the work was never finished. The programs hold absolute
    /// paths, so they are written again if the work tree has moved.
    fn present(&self) -> Result<Option<String>> {
        let Ok(stamp) = fs::read_to_string(self.stamp()) else {
            return Ok(None);
        };
        let Some((FORMAT, version)) = stamp.trim_end().split_once(' ') else {
            return Ok(None);
        };
        wrapper::write_all(&self.dir, &self.root())?;
        Ok(Some(version.to_owned()))
    }

    /// Downloads, unpacks, tries. The stamp comes last, so an interrupted run is taken up again; packages
    /// that were already downloaded are kept until then.
    fn make(&self) -> Result<String> {
        let shell = Shell::new()?;
        fs::create_dir_all(&self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        let archives = self.download(&shell)?;
        let root = self.root();
        shell.remove_path(&root)?;
        fs::create_dir(&root).with_context(|| format!("creating {}", root.display()))?;
        for archive in &archives {
            cmd!(shell, "dpkg-deb -x {archive} {root}").quiet().run()?;
        }
        wrapper::write_all(&self.dir, &root)?;
        let program = self.dir.join("bin").join("nix-store");
        let version = cmd!(shell, "{program} --version").quiet().read()?;
        fs::write(self.stamp(), format!("{FORMAT} {version}\n"))?;
        shell.remove_path(self.dir.join("apt"))?;
        Ok(version)
    }

    /// Downloads `nix-bin` and all it depends on, from the first of the machine's mirrors that has it.
    fn download(&self, shell: &Shell) -> Result<Vec<PathBuf>> {
        let mirrors = mirrors::of_this_machine()?;
        let architecture = cmd!(shell, "dpkg --print-architecture").quiet().read()?;
        let apt = self.dir.join("apt");
        let mut failures = Vec::new();
        for mirror in &mirrors {
            match self.download_from(shell, &apt, mirror, &architecture) {
                Ok(archives) => return Ok(archives),
                Err(error) => failures.push(format!("{}: {error:#}", mirror.uri)),
            }
        }
        bail!(
            "no mirror of this machine gave nix-bin of {}:\n{}",
            self.suite,
            failures.join("\n")
        )
    }

    fn download_from(
        &self,
        shell: &Shell,
        apt: &Path,
        mirror: &Mirror,
        architecture: &str,
    ) -> Result<Vec<PathBuf>> {
        for dir in ["state/lists/partial", "cache/archives/partial", "log", "none"] {
            fs::create_dir_all(apt.join(dir))?;
        }
        let config = apt.join("apt.conf");
        fs::write(&config, apt_configuration(apt)?)?;
        // An empty status: nothing counts as installed, so the whole closure of dependencies is downloaded.
        fs::write(apt.join("status"), "")?;
        fs::write(
            apt.join("sources.list"),
            mirror.source_line(self.suite, architecture),
        )?;
        eprintln!("{}: downloading nix-bin and what it depends on", self.suite);
        cmd!(shell, "apt-get -qq -c {config} update").quiet().run()?;
        cmd!(
            shell,
            "apt-get -qq -y -c {config} --download-only install nix-bin"
        )
        .quiet()
        .run()?;
        let mut archives = shell.read_dir(apt.join("cache/archives"))?;
        archives.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        ensure!(!archives.is_empty(), "apt-get downloaded nothing");
        Ok(archives)
    }
}

/// An apt configuration that is read after the machine's own, of which proxies and the like stay in force:
/// every path apt writes to is below `apt`, the machine's sources, pins and hooks are left out, and a release
/// file older than its validity date is accepted. Signatures are checked as always.
fn apt_configuration(apt: &Path) -> Result<String> {
    let dir = apt.to_str().filter(|text| !text.contains(['"', '\n']));
    let dir = dir.context("apt's configuration cannot hold the path of this work tree")?;
    Ok(format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::State "{dir}/state";
Dir::State::status "{dir}/status";
Dir::Cache "{dir}/cache";
Dir::Log "{dir}/log";
Dir::Etc::sourcelist "{dir}/sources.list";
Dir::Etc::sourceparts "{dir}/none";
Dir::Etc::preferences "{dir}/none/preferences";
Dir::Etc::preferencesparts "{dir}/none";
APT::Default-Release "";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_writes_only_below_its_own_directory() {
        let text = apt_configuration(Path::new("/somewhere/apt")).unwrap();
        for key in ["Dir::State ", "Dir::State::status ", "Dir::Cache ", "Dir::Log "] {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.contains("\"/somewhere/apt/"), "{line}");
        }
    }

    #[test]
    fn a_path_that_would_end_the_string_is_refused() {
        assert!(apt_configuration(Path::new("/some\"where")).is_err());
    }
}
