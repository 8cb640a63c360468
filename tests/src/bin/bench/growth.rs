// SPDX-License-Identifier: MIT OR Apache-2.0
//! superpose over few and over many lower objects: nothing may cost more because the lower store is larger.

use std::ffi::OsString;

use anyhow::Result;
use superpose_store_path::StoreDir;

use crate::cases::{Lower, Place, Sizes, Upper};
use crate::layers::Restore;
use crate::proof::{LayerProof, Proof};
use crate::runs::{Bench, SHORT_RUNS, Side};
use crate::table::Samples;

/// A collection takes longer than a query, and what it starts from has to be put back each time.
const COLLECTIONS: usize = 15;

/// The same work over both.
#[derive(Debug)]
pub(crate) struct Growth {
    pub(crate) title: String,
    pub(crate) few: Samples,
    pub(crate) many: Samples,
    /// Whether it is an opening with one query, whose memory counts too.
    pub(crate) is_query: bool,
}

/// Work that both stores are the ground of.
struct Work {
    upper: Upper,
    args: Vec<OsString>,
    restore: Restore,
    proof: Proof,
    runs: usize,
}

impl Growth {
    /// Measures a query and a collection.
    pub(crate) fn measure(bench: &Bench, sizes: Sizes) -> Result<Vec<Self>> {
        let library = StoreDir::default().join(&bench.stage.store(Lower::Small).library());
        let query = Work {
            upper: Upper::EMPTY,
            args: vec!["path-info".into(), library.into()],
            restore: Restore::Nothing,
            proof: Proof::Lines(1),
            runs: SHORT_RUNS,
        };
        let dead = sizes.objects[0];
        let collection = Work {
            upper: Upper::dead(dead),
            args: vec!["gc".into()],
            restore: Restore::Layer,
            proof: Proof::Layer(LayerProof::collected(dead)),
            runs: COLLECTIONS,
        };
        Ok(vec![
            Self::of(bench, "open, and one query".to_owned(), true, &query)?,
            Self::of(bench, format!("`gc` of {dead} dead objects"), false, &collection)?,
        ])
    }

    fn of(bench: &Bench, title: String, is_query: bool, work: &Work) -> Result<Self> {
        let mut sides = Vec::new();
        for (name, lower) in [("few", Lower::Small), ("many", Lower::Large)] {
            let place = (Place::Over(lower), &work.upper);
            let program = bench.superpose.clone();
            sides.push(Side::new(&bench.stage, name, program, place, &work.args)?);
        }
        let mut samples = [Samples::default(), Samples::default()];
        // The first round does not count.
        for round in 0..=bench.runs.unwrap_or(work.runs) {
            for (side, samples) in sides.iter_mut().zip(&mut samples) {
                let sample = side.measure(work.restore, &work.proof)?;
                if round > 0 {
                    samples.0.push(sample);
                }
            }
        }
        let [few, many] = samples;
        Ok(Self {
            title,
            few,
            many,
            is_query,
        })
    }
}
