// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measurements themselves: both programs in turn.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::Options;
use crate::cases::{self, Case, Lower, Pace, Place, Proof, SCALE, Upper};
use crate::layers::{Layers, Restore};
use crate::machine;
use crate::measure::{self, Program, Sample};
use crate::stage::Stage;
use crate::stock::Stock;
use crate::table::Samples;

/// How often each program runs unless told otherwise: medians of five hold within a few percent.
const RUNS: usize = 5;

/// Runs that take a few milliseconds each need more of them.
const SHORT_RUNS: usize = 41;

/// Everything that is needed to measure.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) stage: Stage,
    pub(crate) stock: Stock,
    pub(crate) superpose: Program,
    /// The machine as it was before the first run.
    pub(crate) machine: Vec<String>,
    runs: Option<usize>,
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<(Case, Compared)>,
    /// superpose over the small and the large store.
    pub(crate) scale: Option<Compared>,
}

/// Two programs, or two stores.
#[derive(Debug, Clone, Default)]
pub(crate) struct Compared {
    pub(crate) base: Samples,
    pub(crate) ours: Samples,
}

/// One of the two that are compared.
struct Side {
    name: &'static str,
    program: Program,
    layers: Layers,
    output: PathBuf,
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
            results.scale = Some(self.scale().context("case scale")?);
        }
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
        });
        stock.run(case)?;
        ours.run(case)?;
        for _ in 0..runs {
            compared.base.0.push(stock.run(case)?);
            compared.ours.0.push(ours.run(case)?);
        }
        let [theirs, ours] = [&stock, &ours].map(|side| case.proof.of(&side.output, &side.layers));
        ensure!(theirs? == ours?, "the programs do not agree");
        Ok(compared)
    }

    fn side(&self, name: &'static str, program: Program, case: &Case, args: &[OsString]) -> Result<Side> {
        let layers = self.stage.layers(name, case.place, case.upper)?;
        Ok(Side {
            name,
            program: program.with(&["--store".into(), layers.url().into()]).with(args),
            output: self.stage.work.join(format!("{name}.out")),
            layers,
        })
    }

    /// superpose over few and over many objects.
    fn scale(&self) -> Result<Compared> {
        let mut sides = Vec::new();
        for (name, lower) in [("few", Lower::Small), ("many", Lower::Large)] {
            let layers = self.stage.layers(name, Place::Over(lower), Upper::Empty)?;
            let library = superpose_store_path::StoreDir::default().join(&self.stage.store(lower).library());
            let words = [
                "--store".into(),
                layers.url().into(),
                "path-info".into(),
                library.into(),
            ];
            sides.push(Side {
                name,
                program: self.superpose.with(&words),
                output: self.stage.work.join(format!("{name}.out")),
                layers,
            });
        }
        let mut compared = Compared::default();
        for round in 0..=self.runs.unwrap_or(SHORT_RUNS) {
            for (side, samples) in sides.iter_mut().zip([&mut compared.base, &mut compared.ours]) {
                let sample = side.measure(Restore::Nothing, &Proof::Lines(1))?;
                if round > 0 {
                    samples.0.push(sample);
                }
            }
        }
        Ok(compared)
    }
}

impl Side {
    fn run(&mut self, case: &Case) -> Result<Sample> {
        let sample = self.measure(case.restore, &case.proof)?;
        eprintln!("{:<14} {:<10} {:>10.1?}", case.name, self.name, sample.wall);
        Ok(sample)
    }

    fn measure(&mut self, restore: Restore, proof: &Proof) -> Result<Sample> {
        self.layers.restore(restore)?;
        let sample = measure::run(&self.program, &self.output)?;
        proof
            .of(&self.output, &self.layers)
            .with_context(|| format!("{} did not do its work", self.name))?;
        Ok(sample)
    }
}
