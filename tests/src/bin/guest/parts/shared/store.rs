// SPDX-License-Identifier: MIT OR Apache-2.0
//! The overlay store of one machine, beside a model of what must be valid in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use superpose_tests::{Finished, Invocation, Seeded, StockNix, encoded, superpose};

use crate::SCRATCH;

/// Where the lower store is mounted.
const LOWER: &str = "/lower";

/// Between two starts of the machine, on its own disk.
const MODEL: &str = "model.json";

/// The store, and the model.
pub(super) struct Store {
    url: String,
    lower_url: String,
    pub(super) below: BTreeSet<String>,
    /// Added here and not removed, be it below as well or not.
    above: BTreeSet<String>,
    /// Of these, those with a root.
    kept: BTreeSet<String>,
    count: u32,
}

fn on_disk(name: &str) -> PathBuf {
    Path::new(SCRATCH).join(name)
}

fn set(value: &serde_json::Value) -> BTreeSet<String> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(|path| path.as_str().map(str::to_owned)).collect()
}

fn lines(finished: &Finished) -> Result<BTreeSet<String>> {
    Ok(finished.text()?.lines().map(str::to_owned).collect())
}

impl Store {
    /// Mounts the store as it was left, over a lower store whose database is asked by way of a socket if one is given.
    pub(super) fn mount(socket: Option<&str>) -> Result<Self> {
        let lower_url = match socket {
            Some(socket) => format!("unix://{socket}?root={LOWER}"),
            None => format!("local://?root={LOWER}&read-only=true"),
        };
        let encoded = String::from_utf8(encoded(lower_url.as_bytes())).context("a URL")?;
        let url =
            format!("local-overlay://?root={SCRATCH}/root&upper-layer={SCRATCH}/upper&lower-store={encoded}");
        let below = superpose()?.args(["--store", &lower_url, "path-info", "--all"]);
        let below = lines(&below.succeed()?)?;
        superpose()?.args(["--store", &url, "mount"]).succeed()?;
        let model = match fs::read(on_disk(MODEL)) {
            Ok(text) => serde_json::from_slice(&text).context(MODEL)?,
            Err(_) => json!({}),
        };
        Ok(Self {
            url,
            lower_url,
            below,
            above: set(&model["above"]),
            kept: set(&model["kept"]),
            count: u32::try_from(model["count"].as_u64().unwrap_or_default())?,
        })
    }

    /// Writes the model down, and unmounts the store.
    pub(super) fn leave(self) -> Result<()> {
        let model = json!({ "above": self.above, "kept": self.kept, "count": self.count });
        fs::write(on_disk(MODEL), model.to_string()).context(MODEL)?;
        self.superpose()?.arg("umount").succeed().map(drop)
    }

    fn superpose(&self) -> Result<Invocation> {
        Ok(superpose()?.args(["--store", &self.url]))
    }

    /// Adds what other machines and the lower store may add, too: the name says what it is, and with the seed what is in it.
    pub(super) fn add_common(&mut self, name: &str, seed: u64) -> Result<String> {
        let source = on_disk("sources").join(name);
        let text = format!("{name} of {seed}\n");
        if name.starts_with("tree") {
            fs::create_dir_all(&source)?;
            fs::write(source.join("text"), text)?;
        } else {
            fs::create_dir_all(on_disk("sources"))?;
            fs::write(&source, text)?;
        }
        self.add_source(&source, &[])
    }

    /// Adds something of this machine, which may refer to what is below or has a root.
    pub(super) fn add(&mut self, seeded: &mut Seeded) -> Result<String> {
        self.count += 1;
        let source = on_disk("sources").join(format!("own-{}", self.count));
        fs::create_dir_all(&source)?;
        for number in 0..=seeded.below(3) {
            let mut bytes = vec![0; 1 + seeded.below(40_000) as usize];
            seeded.fill(&mut bytes);
            fs::write(source.join(number.to_string()), bytes)?;
        }
        let all: Vec<String> = self.below.union(&self.kept).cloned().collect();
        let references: Vec<String> = (0..seeded.below(3))
            .map(|_| seeded.choose(&all).clone())
            .collect();
        self.add_source(&source, &references)
    }

    fn add_source(&mut self, source: &Path, references: &[String]) -> Result<String> {
        let references = references.iter().flat_map(|path| ["--reference", path]);
        let add = self.superpose()?.arg("add").args(references).arg(source);
        let path = add.succeed()?.line()?.to_owned();
        self.above.insert(path.clone());
        Ok(path)
    }

    /// Gives a path a root.
    pub(super) fn keep(&mut self, path: &str) -> Result<()> {
        let link = on_disk(&format!("root-{}", self.kept.len()));
        self.superpose()?.arg("add-root").arg(link).arg(path).succeed()?;
        self.kept.insert(path.to_owned());
        Ok(())
    }

    /// Deletes one path that nothing keeps, if there is one. What is below as well stays valid.
    pub(super) fn delete(&mut self, seeded: &mut Seeded) -> Result<()> {
        let free: Vec<String> = self.above.difference(&self.kept).cloned().collect();
        if free.is_empty() {
            return Ok(());
        }
        let path = seeded.choose(&free).clone();
        let deleted = self.superpose()?.args(["delete", &path]).run()?;
        // One that only the lower store has is reported to stay.
        ensure!(
            deleted.code() == Some(0) || self.below.contains(&path),
            "{deleted}"
        );
        self.above.remove(&path);
        Ok(())
    }

    pub(super) fn collect(&mut self) -> Result<()> {
        self.superpose()?.arg("gc").succeed()?;
        self.above = self.kept.clone();
        Ok(())
    }

    pub(super) fn optimise(&self) -> Result<()> {
        self.superpose()?.arg("optimise").succeed().map(drop)
    }

    /// What must be valid above and is below as well, since the lower store has grown.
    pub(super) fn duplicates(&self) -> Vec<String> {
        self.above.intersection(&self.below).cloned().collect()
    }

    /// Whether the object of a path is physically in the upper layer.
    pub(super) fn is_above(&self, path: &str) -> bool {
        let name = Path::new(path).file_name().unwrap_or(OsStr::new(""));
        fs::symlink_metadata(on_disk("upper").join(name)).is_ok()
    }

    /// Stock Nix sees the same. It is told not to look at the mount: it knows only some of the ways to make one.
    pub(super) fn ask_stock_nix(&self, seeded: &mut Seeded) -> Result<()> {
        let url = format!("{}&check-mount=false", self.url);
        let all: Vec<String> = self.below.union(&self.above).cloned().collect();
        let path = seeded.choose(&all);
        let ask = || StockNix::Sid.nix_store(&url);
        ask().args(["--check-validity", path]).succeed()?;
        let theirs = lines(&ask().args(["-q", "--requisites", path]).succeed()?)?;
        let ours = self
            .superpose()?
            .args(["query", "--requisites", path])
            .succeed()?;
        ensure!(lines(&ours)? == theirs, "{ours}: {theirs:?}");
        let dumped = ask().arg("--dump").arg(self.merged(path)).succeed()?;
        let archive = self.superpose()?.args(["dump", path]).succeed()?;
        ensure!(archive.stdout == dumped.stdout, "the archives of '{path}' differ");
        Ok(())
    }

    fn merged(&self, path: &str) -> PathBuf {
        let name = Path::new(path).file_name().unwrap_or(OsStr::new(""));
        on_disk("root/nix/store").join(OsStr::from_bytes(name.as_bytes()))
    }

    /// Both layers hold what they must and nothing else, and all of it is whole.
    pub(super) fn check(&self) -> Result<()> {
        let found = lines(&self.superpose()?.args(["path-info", "--all"]).succeed()?)?;
        let expected: BTreeSet<String> = self.below.union(&self.above).cloned().collect();
        let lost: Vec<_> = expected.difference(&found).collect();
        let unasked: Vec<_> = found.difference(&expected).collect();
        ensure!(
            lost.is_empty() && unasked.is_empty(),
            "lost: {lost:?}; never added: {unasked:?}"
        );
        self.superpose()?.args(["verify", "--check-contents"]).succeed()?;
        let below = superpose()?.args(["--store", &self.lower_url, "path-info", "--all"]);
        ensure!(
            lines(&below.succeed()?)? == self.below,
            "the lower store is another"
        );
        Ok(())
    }
}
