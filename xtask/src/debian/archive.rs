// SPDX-License-Identifier: MIT OR Apache-2.0
//! One suite of the Debian archive, asked through the machine's own package client with a configuration, state and
//! cache that are nobody else's. The client checks signatures and sums, as always.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use super::mirrors::{self, Mirror};

/// A suite of which the package client knows the index.
pub(crate) struct Archive {
    shell: Shell,
    /// Everything that apt writes is below it.
    apt: PathBuf,
    config: PathBuf,
}

/// Does some work with the first of the machine's mirrors that has what is needed for it. `what` is what the work is
/// for, to complain with.
pub(crate) fn with_archive<T>(
    apt: &Path,
    suite: &str,
    what: &str,
    work: impl Fn(&Archive) -> Result<T>,
) -> Result<T> {
    let shell = Shell::new()?;
    let architecture = cmd!(shell, "dpkg --print-architecture").quiet().read()?;
    let mut failures = Vec::new();
    for mirror in mirrors::of_this_machine()? {
        let archive = Archive::update(apt, suite, &mirror, &architecture);
        match archive.and_then(|archive| work(&archive)) {
            Ok(done) => return Ok(done),
            Err(error) => failures.push(format!("{}: {error:#}", mirror.uri)),
        }
    }
    bail!(
        "no mirror of this machine gave {what} of {suite}:\n{}",
        failures.join("\n")
    )
}

impl Archive {
    fn update(apt: &Path, suite: &str, mirror: &Mirror, architecture: &str) -> Result<Self> {
        for dir in ["state/lists/partial", "cache/archives/partial", "log", "none"] {
            let dir = apt.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        }
        let config = apt.join("apt.conf");
        fs::write(&config, configuration(apt)?)?;
        // An empty status: nothing counts as installed, so whole closures of dependencies are downloaded.
        fs::write(apt.join("status"), "")?;
        fs::write(apt.join("sources.list"), mirror.source_line(suite, architecture))?;
        let shell = Shell::new()?;
        cmd!(shell, "apt-get -qq -c {config} update").quiet().run()?;
        Ok(Self {
            shell,
            apt: apt.to_owned(),
            config,
        })
    }

    /// Downloads packages with all they depend on, and returns the files.
    pub(crate) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let Self { shell, config, .. } = self;
        cmd!(
            shell,
            "apt-get -qq -y -c {config} --download-only install {packages...}"
        )
        .quiet()
        .run()?;
        archives(&self.apt.join("cache/archives"))
    }

    /// Downloads packages and nothing that they depend on.
    pub(crate) fn alone(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let Self { shell, config, .. } = self;
        let dir = self.apt.join("alone");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let _dir = shell.push_dir(&dir);
        cmd!(shell, "apt-get -qq -c {config} download {packages...}")
            .quiet()
            .run()?;
        archives(&dir)
    }

    /// The packages that a package depends on directly.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let Self { shell, config, .. } = self;
        let said = cmd!(shell, "apt-cache -c {config} depends --important {package}");
        let said = said.quiet().read()?;
        Ok(depended(&said).map(str::to_owned).collect())
    }
}

/// What `apt-cache depends` says: each alternative of a dependency begins with `|`, but for its last.
fn depended(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches('|');
        line.strip_prefix("Depends: ").map(str::trim)
    })
}

fn archives(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "apt-get downloaded nothing");
    found.sort_unstable();
    Ok(found)
}

/// An apt configuration that is read after the machine's own, of which proxies and the like stay in force:
/// every path apt writes to is below `apt`, the machine's sources, pins and hooks are left out, and a release
/// file older than its validity date is accepted. Signatures are checked as always.
fn configuration(apt: &Path) -> Result<String> {
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
        let text = configuration(Path::new("/somewhere/apt")).unwrap();
        for key in ["Dir::State ", "Dir::State::status ", "Dir::Cache ", "Dir::Log "] {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            assert!(line.contains("\"/somewhere/apt/"), "{line}");
        }
    }

    #[test]
    fn a_path_that_would_end_the_string_is_refused() {
        assert!(configuration(Path::new("/some\"where")).is_err());
    }

    #[test]
    fn what_a_package_depends_on() {
        let said = "linux-image-amd64\n  Depends: linux-image-6.1.0-1-amd64\n |Depends: one\n  Depends: other\n    no\n";
        let expected = ["linux-image-6.1.0-1-amd64", "one", "other"];
        assert_eq!(depended(said).collect::<Vec<_>>(), expected);
    }
}
