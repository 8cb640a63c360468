// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask stock-nix`: fetches Debian's Nix, with every library that it needs, into
//! `target/stock-nix/<suite>`, and makes programs there that run it. Nothing is installed.

mod wrapper;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use xshell::{Shell, cmd};

use crate::debian::{self, Unpacked};
use crate::workspace;

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

/// Fetches what is missing of all suites, and returns the directory that they are in.
pub(crate) fn fetch() -> Result<PathBuf> {
    run(&Args {
        suite: Suites::All,
        check: false,
    })?;
    Ok(workspace::fetched().join("stock-nix"))
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
        wrapper::write_all(&self.dir, &Unpacked::at(&self.root()))?;
        Ok(Some(version.to_owned()))
    }

    /// Downloads, unpacks, tries. The stamp comes last, so an interrupted run is taken up again; packages
    /// that were already downloaded are kept until then.
    fn make(&self) -> Result<String> {
        let shell = Shell::new()?;
        fs::create_dir_all(&self.dir).with_context(|| format!("creating {}", self.dir.display()))?;
        let apt = self.dir.join("apt");
        eprintln!("{}: downloading nix-bin and what it depends on", self.suite);
        let archives = debian::with_archive(&apt, self.suite, "nix-bin", |archive| {
            archive.with_dependencies(&["nix-bin"])
        })?;
        let unpacked = Unpacked::make(&self.root(), &archives)?;
        wrapper::write_all(&self.dir, &unpacked)?;
        let program = self.dir.join("bin").join("nix-store");
        let version = cmd!(shell, "{program} --version").quiet().read()?;
        fs::write(self.stamp(), format!("{FORMAT} {version}\n"))?;
        shell.remove_path(apt)?;
        Ok(version)
    }
}
