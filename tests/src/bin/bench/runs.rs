// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measurements themselves: both programs in turn.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use superpose_store_path::StoreReference;
use superpose_tests::StockDaemon;

use crate::Options;
use crate::cases::{
    self, Case, DESTINATION, GC_MEMORY, Lower, Pace, Place, SCALE, SYNCS, Upper, VERIFY_LARGE,
};
use crate::growth::Growth;
use crate::hashing::Hashing;
use crate::layers::{Layers, Restore};
use crate::machine;
use crate::many_rows::ManyRows;
use crate::measure::{self, Program, Sample};
use crate::proof::Proof;
use crate::serving::Served;
use crate::stage::Stage;
use crate::stock::Stock;
use crate::syncs::Syncs;
use crate::table::Samples;

/// How often each program runs unless told otherwise: medians of five hold within a few percent.
pub(crate) const RUNS: usize = 5;

/// Runs that take a few milliseconds each need more of them.
pub(crate) const SHORT_RUNS: usize = 41;

/// Where stock Nix takes most of a minute, so many have to do.
const SLOW_RUNS: usize = 3;

/// How many connections to a daemon both programs may make; its own default is one.
const SERVED_CONNECTIONS: &str = "2";

/// Everything that is needed to measure.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) stock: Stock,
    pub(crate) superpose: Program,
    /// The machine as it was before the first run.
    pub(crate) machine: Vec<String>,
    pub(crate) runs: Option<usize>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<(Case, Compared)>,
    /// superpose over the small and the large store.
    pub(crate) growths: Vec<Growth>,
    pub(crate) hashing: Option<Hashing>,
    pub(crate) many_rows: Option<ManyRows>,
    pub(crate) syncs: Vec<Syncs>,
    pub(crate) served: Served,
}

/// Two programs, or two stores.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compared {
    pub(crate) base: Samples,
    pub(crate) ours: Samples,
}

/// One of the two that are compared.
pub(crate) struct Side {
    name: &'static str,
    program: Program,
    pub(crate) layers: Layers,
    output: PathBuf,
    /// Whom the program asks, where it is asked about a store that is served.
    _daemon: Option<StockDaemon>,
}

impl Bench {
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let stock = Stock::at(&options.stock)?;
        let stage = Stage::make(options)?;
        Ok(Self {
            machine: machine::description(&[&stage.work, stage.memory.path()]),
            stage,
            stock,
            superpose: Program::new(&options.superpose),
            runs: options.runs,
        })
    }

    /// Measures what is asked for.
    pub(crate) fn run(&self, options: &Options) -> Result<Results> {
        let mut results = Results::default();
        for case in cases::all(options.sizes(), &self.stage.stores, &self.stage.inputs) {
            if options.wants(case.name) {
                let compared = self
                    .compare(&case)
                    .with_context(|| format!("case {}", case.name))?;
                results.cases.push((case, compared));
            }
        }
        if options.wants(SCALE) {
            results.growths = Growth::measure(self, options.sizes()).context("case scale")?;
        }
        if options.wants(VERIFY_LARGE) {
            results.hashing = Some(Hashing::measure(self, options.sizes()).context("case verify-large")?);
        }
        if options.wants(GC_MEMORY) {
            results.many_rows = Some(ManyRows::measure(self, options.sizes()).context("case gc-memory")?);
        }
        if options.wants(SYNCS) {
            results.syncs = Syncs::count(self, options.sizes()).context("case syncs")?;
        }
        results.served = Served::measure(self, options).context("case of a server")?;
        Ok(results)
    }

    fn compare(&self, case: &Case) -> Result<Compared> {
        let (stock, args) = &case.stock;
        let mut stock = self.side("stock", self.stock.program(stock), case, args)?;
        let mut ours = self.side("superpose", self.superpose.clone(), case, &case.ours)?;
        let mut compared = Compared::default();
        let runs = self.runs.unwrap_or(match case.pace {
            Pace::Short => SHORT_RUNS,
            Pace::Usual => RUNS,
            Pace::Slow => SLOW_RUNS,
        });
        stock.run(case)?;
        ours.run(case)?;
        for _ in 0..runs {
            compared.base.0.push(stock.run(case)?);
            compared.ours.0.push(ours.run(case)?);
        }
        let proofs = [&stock, &ours].map(|side| case.proof.of(&side.output, &side.layers));
        let [theirs_said, ours_said] = proofs;
        ensure!(theirs_said? == ours_said?, "the programs do not agree");
        if case.proof == Proof::Verified {
            stock.expect_damage_found(self.stage.store(Lower::Middle).library())?;
            ours.expect_damage_found(self.stage.store(Lower::Middle).library())?;
        }
        Ok(compared)
    }

    fn side(&self, name: &'static str, program: Program, case: &Case, args: &[OsString]) -> Result<Side> {
        Side::new(&self.stage, name, program, (case.place, &case.upper), args)
    }
}

impl Side {
    /// A program on a store of its own.
    pub(crate) fn new(
        stage: &Stage,
        name: &'static str,
        program: Program,
        (place, upper): (Place, &Upper),
        args: &[OsString],
    ) -> Result<Self> {
        let layers = stage.layers(name, place, upper)?;
        let mut daemon = None;
        let url = match place {
            Place::Of(lower) => stage.store(lower).url().to_string(),
            Place::Served(lower) => {
                let daemon = daemon.insert(stage.serve(name, lower)?);
                StoreReference::daemon(Some(daemon.socket()))
                    .with_path("root", &stage.store(lower).root)
                    .with_param("max-connections", SERVED_CONNECTIONS)
                    .to_string()
            }
            Place::Over(_) | Place::Memory => layers.url(),
        };
        let args: Vec<OsString> = args
            .iter()
            .map(|arg| {
                if arg == DESTINATION {
                    layers.destination().into()
                } else {
                    arg.clone()
                }
            })
            .collect();
        Ok(Self {
            name,
            program: program.with(&["--store".into(), url.into()]).with(&args),
            output: stage.work.join(format!("{name}.out")),
            layers,
            _daemon: daemon,
        })
    }

    fn run(&mut self, case: &Case) -> Result<Sample> {
        let sample = self.measure(case.restore, &case.proof)?;
        eprintln!("{:<14} {:<10} {:>10.1?}", case.name, self.name, sample.wall);
        Ok(sample)
    }

    pub(crate) fn measure(&mut self, restore: Restore, proof: &Proof) -> Result<Sample> {
        self.layers.restore(restore)?;
        let sample = measure::run(&self.program, &self.output)?;
        proof
            .of(&self.output, &self.layers)
            .with_context(|| format!("{} did not do its work", self.name))?;
        Ok(sample)
    }

    /// It says that an object is not what its row says: so it hashes.
    fn expect_damage_found(&mut self, path: superpose_store_path::StorePath) -> Result<()> {
        self.layers.damage(&path)?;
        ensure!(
            measure::run(&self.program, &self.output).is_err(),
            "{} does not see that an object changed",
            self.name
        );
        Ok(())
    }
}
