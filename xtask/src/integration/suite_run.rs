// SPDX-License-Identifier: MIT OR Apache-2.0
//! A suite of the `tests` package in a guest, with a disk of its own to work on.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::disk::Disk;
use super::guest::{Guest, KernelFault};
use super::image;
use super::scenario::Stage;
use super::verdict::Verdict;
use crate::test::Tally;
use crate::workspace;

/// Where the suites work.
const SCRATCH: &str = "/scratch";
const SCRATCH_MEBIBYTES: u64 = 2048;

/// Where memory holds what a suite works on, too.
const MEMORY_WITH_SCRATCH: u32 = 2048;

/// The user `nobody`.
const NOBODY: &str = "65534";

/// What the directories are on that a suite works in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ScratchOn {
    Ext4,
    Xfs,
    Memory,
}

/// A run of one suite.
pub(crate) struct SuiteRun {
    suite: &'static str,
    part: &'static str,
    filters: Vec<&'static str>,
    left_out: Vec<&'static str>,
    required: &'static str,
    environment: Map<String, Value>,
    is_nobody: bool,
    scratch: ScratchOn,
    is_shared: bool,
    limit: Duration,
}

impl SuiteRun {
    /// A whole suite as root, in which nothing may be missing but what [`requiring`](Self::requiring) leaves out.
    pub(crate) fn new(suite: &'static str) -> Self {
        Self {
            suite,
            part: "suite",
            filters: Vec::new(),
            left_out: Vec::new(),
            required: "root,userns,loop,stock",
            environment: Map::new(),
            is_nobody: false,
            scratch: ScratchOn::Ext4,
            is_shared: false,
            limit: Duration::from_secs(600),
        }
    }

    /// A whole suite inside a crate, as root.
    pub(crate) fn of_crate(suite: &'static str) -> Self {
        Self {
            part: "crate-suite",
            ..Self::new(suite)
        }
    }

    /// Only trials whose names contain one of these.
    pub(crate) fn filters(mut self, filters: &[&'static str]) -> Self {
        self.filters = filters.to_vec();
        self
    }

    /// None of the trials whose names contain one of these.
    pub(crate) fn leaving_out(mut self, names: &[&'static str]) -> Self {
        self.left_out = names.to_vec();
        self
    }

    /// Works on something else than an ext4.
    pub(crate) fn scratch(mut self, scratch: ScratchOn) -> Self {
        self.scratch = scratch;
        self
    }

    /// Sets a variable of the environment, unless this run's own names another value.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), json!(value));
        self
    }

    /// Runs it as somebody without rights.
    pub(crate) fn by_nobody(mut self) -> Self {
        self.is_nobody = true;
        self
    }

    /// Where guests are emulated, each trial runs on one of the kernels only: there is no time for all of them on each.
    pub(crate) fn shared_by_kernels(mut self) -> Self {
        self.is_shared = true;
        self
    }

    /// Sets how long it may take on a machine that has nothing else to do.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it, and returns what its report says. Failed trials are in the count, and in the log.
    pub(crate) fn run(self, stage: &Stage<'_>) -> Result<Tally> {
        let user = if self.is_nobody { "nobody" } else { "root" };
        let on = match self.scratch {
            ScratchOn::Ext4 => "",
            ScratchOn::Xfs => "-xfs",
            ScratchOn::Memory => "-memory",
        };
        let name = format!("{}-{}-{user}{on}", stage.name, self.suite);
        let dir = stage
            .room
            .run_dir(&format!("{name}-{}", stage.kernel.release.name()))?;
        let image = dir.join("scratch.img");
        let mut environment = self.environment;
        for (name, value) in workspace::chance() {
            environment.insert(name.to_owned(), json!(value));
        }
        // The expected texts of a suite are in the work tree; nothing is to be found out about it with a cargo.
        environment.insert(
            "INSTA_WORKSPACE_ROOT".to_owned(),
            json!(workspace::root().to_str()),
        );
        environment.insert("INSTA_UPDATE".to_owned(), json!("no"));
        environment.insert("SUPERPOSE_REQUIRE".to_owned(), json!(self.required));
        let mut guest = Guest::new(stage.room, stage.kernel, &name, self.part)
            .argument("suite", self.suite)
            .argument("filters", self.filters)
            .argument("left-out", self.left_out)
            .argument("environment", environment)
            .limit(self.limit);
        guest = match self.scratch {
            ScratchOn::Ext4 => {
                image::ext4(&stage.room.tools, SCRATCH_MEBIBYTES, &image, &[])?;
                guest.disk(Disk::writable("scratch", &image).at(SCRATCH, "ext4"))
            }
            ScratchOn::Xfs => {
                image::xfs(&stage.room.tools, SCRATCH_MEBIBYTES, &image, &[])?;
                guest.disk(Disk::writable("scratch", &image).at(SCRATCH, "xfs"))
            }
            ScratchOn::Memory => guest.argument("scratch", "tmpfs").memory(MEMORY_WITH_SCRATCH),
        };
        if self.is_shared && stage.is_emulated() {
            guest = guest.argument("share", stage.kernel.release.share());
        }
        if self.is_nobody {
            guest = guest.argument("user", NOBODY);
        }
        for disk in stage.room.programs.disks() {
            guest = guest.disk(disk);
        }
        let ended = guest.disk(stage.room.stock_nix()).run()?;
        match (ended.verdict, ended.results) {
            (Verdict::Passed | Verdict::Failed(_), Some(Value::Array(reports))) => added(&reports),
            (Verdict::Passed | Verdict::Failed(_), Some(Value::String(text))) => printed(&text),
            (Verdict::Oops(line), _) => Err(KernelFault(line).into()),
            (verdict, _) => bail!("{verdict}"),
        }
    }
}

/// One report for each filter.
fn added(reports: &[Value]) -> Result<Tally> {
    let mut tally = Tally::default();
    for report in reports {
        let one = Tally::from_suite(&report.to_string()).context("what a guest reported")?;
        tally.add(one);
    }
    Ok(tally)
}

/// What the runner of a suite inside a crate printed. A trial that needs a newer kernel makes no sense on an older one: it
/// is no skip, for it runs on the other.
fn printed(text: &str) -> Result<Tally> {
    let mut tally = Tally::from_libtest(text).context("what a guest printed")?;
    ensure!(tally.count() > 0, "a suite ran no trial at all");
    tally
        .skipped
        .retain(|skip| !skip.reason.starts_with("Linux older than "));
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_added() {
        let report = json!({"passed": 2, "failed": 1, "skipped": [{"name": "a", "reason": "b"}]});
        let tally = added(&[report.clone(), report]).unwrap();
        assert_eq!(tally.to_string(), "4 passed, 2 failed, 2 skipped");
        assert!(added(&[json!({})]).is_err());
    }

    #[test]
    fn what_needs_a_newer_kernel_is_no_skip() {
        let text = "test a ... ok\ntest b [ignored: Linux older than 6.13] ... ignored\n\
            test c [ignored: no script] ... ignored\n\
            test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n";
        let tally = printed(text).unwrap();
        assert_eq!((tally.passed, tally.skipped.len()), (1, 1));
        assert_eq!(tally.skipped[0].name, "c");
        assert!(printed("").is_err());
    }
}
