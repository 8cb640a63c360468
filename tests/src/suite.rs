// SPDX-License-Identifier: MIT OR Apache-2.0
//! A suite: trials with their needs, run by libtest-mimic, and a report for `cargo xtask test`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};
use serde_json::json;

use crate::daemon::{Front, in_front};
use crate::{Machine, Need, StockNix, private_mounts};

/// Names the file that the report is written to.
const REPORT: &str = "SUPERPOSE_TEST_REPORT";

/// Which of the suites it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Needs nothing; runs as whoever starts it.
    Host,
    /// Real mounts, in a mount namespace of its own.
    Root,
    /// Stock Nix beside superpose; in a mount namespace of its own where root is to be had.
    Stock,
}

/// The trials of one tier.
#[derive(Debug)]
pub struct Suite {
    arguments: Arguments,
    machine: Machine,
    trials: Vec<Trial>,
    skipped: Arc<Mutex<Vec<Skipped>>>,
    /// Set while trials are added of which a daemon is to stand before the lower stores.
    behind: Option<Behind>,
}

/// A daemon before the lower stores, and the trials to which that means nothing.
#[derive(Debug)]
struct Behind {
    front: Front,
    left_out: Vec<&'static str>,
}

#[derive(Debug)]
struct Skipped {
    name: String,
    reason: String,
}

impl Suite {
    /// Reads the command line and looks at the machine. The root and stock tiers restart the process here, in
    /// a mount namespace of its own, so this comes first in `main`.
    #[must_use]
    pub fn start(tier: Tier) -> Self {
        let private_mounts = match tier {
            Tier::Host => Some("the host tier changes no mounts of the machine".to_owned()),
            Tier::Root | Tier::Stock => private_mounts::enter(),
        };
        Self {
            arguments: Arguments::from_args(),
            machine: Machine::detect(private_mounts),
            trials: Vec::new(),
            skipped: Arc::default(),
            behind: None,
        }
    }

    /// Adds trials of another suite once more, each with `::daemon` behind its name: with a stock daemon before every
    /// lower store that they make. Those that are left out are about the lower store itself.
    ///
    /// # Panics
    /// If there is no trial of a name that is left out.
    pub fn over_daemon(
        &mut self,
        stock: StockNix,
        left_out: &[&'static str],
        register: impl FnOnce(&mut Self),
    ) {
        self.behind(Front::Stock(stock), left_out, register);
    }

    /// The same with `superpose serve --read-only` as the daemon, and `::serve` behind the names.
    ///
    /// # Panics
    /// If there is no trial of a name that is left out.
    pub fn over_serve(&mut self, left_out: &[&'static str], register: impl FnOnce(&mut Self)) {
        self.behind(Front::Superpose, left_out, register);
    }

    fn behind(&mut self, front: Front, left_out: &[&'static str], register: impl FnOnce(&mut Self)) {
        let left_out = left_out.to_vec();
        self.behind = Some(Behind { front, left_out });
        register(self);
        let left = self
            .behind
            .take()
            .map(|behind| behind.left_out)
            .unwrap_or_default();
        assert!(left.is_empty(), "no trials of these names: {left:?}");
    }

    /// Adds one trial; [`trials!`](crate::trials) makes the name from the function's.
    pub fn add(
        &mut self,
        name: &str,
        needs: &[Need],
        body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) {
        let Some(behind) = &mut self.behind else {
            return self.add_as(name, needs, body);
        };
        let function = name.rsplit("::").next().unwrap_or(name);
        if let Some(place) = behind.left_out.iter().position(|left_out| *left_out == function) {
            behind.left_out.remove(place);
            return;
        }
        let front = behind.front;
        let needs: Vec<Need> = front.need().iter().chain(needs).copied().collect();
        self.add_as(&format!("{name}::{}", front.word()), &needs, move || {
            in_front(front, body)
        });
    }

    fn add_as(
        &mut self,
        name: &str,
        needs: &[Need],
        body: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) {
        let missing = needs
            .iter()
            .find_map(|&need| Some((need, self.machine.missing(need)?)));
        let trial = match missing {
            None => Trial::test(name, move || {
                body().map_err(|error| Failed::from(format!("{error:#}")))
            }),
            Some((need, reason)) if self.machine.requires(need) => {
                let word = need.word();
                Trial::test(name, move || {
                    Err(format!("SUPERPOSE_REQUIRE names {word}: {reason}").into())
                })
            }
            Some((_, reason)) => {
                let skipped = Skipped {
                    name: name.to_owned(),
                    reason: reason.clone(),
                };
                let list = Arc::clone(&self.skipped);
                Trial::ignorable_test(name, move || {
                    // Trials that the filter leaves out never come here, and are not counted.
                    list.lock().unwrap_or_else(PoisonError::into_inner).push(skipped);
                    Ok(Completion::ignored_with(reason))
                })
            }
        };
        self.trials.push(trial);
    }

    /// Adds a trial for each stock Nix, with the name of its Debian suite behind its own;
    /// [`stock_trials!`](crate::stock_trials) makes the name from the function's.
    pub fn add_for_stock(&mut self, name: &str, needs: &[Need], body: fn(StockNix) -> anyhow::Result<()>) {
        for stock in StockNix::ALL {
            let needs: Vec<Need> = [Need::Stock(stock)].iter().chain(needs).copied().collect();
            self.add(&format!("{name}::{}", stock.suite()), &needs, move || body(stock));
        }
    }

    /// Runs the trials that the command line asks for.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let is_listing = self.arguments.list;
        let conclusion = libtest_mimic::run(&self.arguments, self.trials);
        if let Some(path) = std::env::var_os(REPORT).filter(|_| !is_listing) {
            let skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
            if write_report(Path::new(&path), &conclusion, &skipped).is_err() {
                return ExitCode::FAILURE;
            }
        }
        conclusion.exit_code()
    }
}

fn write_report(path: &Path, conclusion: &Conclusion, skipped: &[Skipped]) -> std::io::Result<()> {
    let skipped: Vec<_> = skipped
        .iter()
        .map(|skip| json!({ "name": skip.name, "reason": skip.reason }))
        .collect();
    let report = json!({
        "passed": conclusion.num_passed,
        "failed": conclusion.num_failed,
        "skipped": skipped,
    });
    std::fs::write(path, report.to_string())
}

/// Hands functions to a suite as trials that share their needs; each is named after its module and itself.
///
/// ```no_run
/// use superpose_tests::{Need, Suite, Tier, trials};
///
/// fn shell_runs() -> anyhow::Result<()> {
///     anyhow::ensure!(std::process::Command::new("true").status()?.success());
///     Ok(())
/// }
///
/// let mut suite = Suite::start(Tier::Root);
/// trials!(suite, [Need::Root], shell_runs);
/// ```
#[macro_export]
macro_rules! trials {
    ($suite:expr, $needs:expr, $($body:ident),+ $(,)?) => {
        $($suite.add(concat!(module_path!(), "::", stringify!($body)), &$needs, $body);)+
    };
}

/// The same for functions that work beside a stock Nix: each is a trial for every version of it.
#[macro_export]
macro_rules! stock_trials {
    ($suite:expr, $needs:expr, $($body:ident),+ $(,)?) => {
        $($suite.add_for_stock(concat!(module_path!(), "::", stringify!($body)), &$needs, $body);)+
    };
}

/// Registers the trials that are run once more with a daemon before the lower store. The modules are those of their names
/// where this is written.
#[macro_export]
macro_rules! overlay_trials {
    ($suite:expr) => {
        collecting::register($suite);
        crashes::register($suite);
        crashing_repairs::register($suite);
        deleting::register($suite);
        full_disk::register($suite);
        hooks::register($suite);
        nested::register($suite);
        odd_names::register($suite);
        optimising::register($suite);
        repairing::register($suite);
        run::register($suite);
        stress::register($suite);
        verifying::register($suite);
        verifying_beside::register($suite);
    };
}
