// SPDX-License-Identifier: MIT OR Apache-2.0
//! Taking the steps.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::format::{registration, stream};
use super::place::{Place, copy, sync_all_of, sync_names_of};
use super::plan::{Plan, Step};
use crate::{Invocation, base};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Done,
    /// It was killed.
    Killed,
}

/// Somebody who takes the steps of a plan.
#[derive(Debug)]
pub struct Workload<'a> {
    place: &'a Place,
    plan: &'a Plan,
}

/// Runs a program to its end, or less far.
type Run<'a> = &'a mut dyn FnMut(Invocation) -> Result<Outcome>;

impl<'a> Workload<'a> {
    /// The steps of `plan` on the store at `place`, which is mounted.
    #[must_use]
    pub fn new(place: &'a Place, plan: &'a Plan) -> Self {
        Self { place, plan }
    }

    /// Takes a step.
    ///
    /// # Errors
    /// If a program fails.
    pub fn take(&self, step: &Step) -> Result<()> {
        self.take_with(step, &mut |invocation| {
            invocation.succeed().map(|_| Outcome::Done)
        })
        .map(drop)
    }

    /// Takes a step with programs that `run` may kill; what was killed can be begun again.
    ///
    /// # Errors
    /// If a program fails, or whatever `run` says.
    pub fn take_with(&self, step: &Step, run: Run<'_>) -> Result<Outcome> {
        let (place, plan) = (self.place, self.plan);
        let program = || place.layers.superpose();
        match step {
            Step::Add { path, link } => {
                let object = plan.object(path)?;
                let references = object.references.iter().flat_map(|path| ["--reference", path]);
                let mut add = program()?.arg("add").args(references);
                if let Some(link) = link {
                    add = add.arg("--add-root").arg(place.link(link));
                }
                run(add.arg(object.source(&place.sources)?))
            }
            Step::AddArchive { path } => {
                let object = plan.object(path)?;
                let add = program()?.args(["add-nar", "--name", &object.name]);
                run(add.input(object.archive(&place.sources)?))
            }
            Step::Import { paths } => {
                let objects: Vec<_> = paths
                    .iter()
                    .map(|path| plan.object(path))
                    .collect::<Result<_>>()?;
                let stream = stream(objects, &place.sources)?;
                run(program()?.arg("import").input(stream))
            }
            Step::Register { path } => {
                let object = plan.object(path)?;
                let seen = place.layers.merged().join(base(path));
                if fs::symlink_metadata(&seen).is_err() {
                    object
                        .content
                        .write(&seen)
                        .with_context(|| format!("putting {path} into the store directory"))?;
                }
                run(program()?.arg("register-validity").input(registration(object)))
            }
            Step::Delete { paths } => run(program()?.arg("delete").args(paths)),
            Step::Collect => run(program()?.arg("gc")),
            Step::Optimise => run(program()?.arg("optimise")),
            Step::AddRoot { link, path } => run(program()?.arg("add-root").arg(place.link(link)).arg(path)),
            Step::RemoveRoot { link } => {
                let link = place.link(link);
                if fs::symlink_metadata(&link).is_ok() {
                    fs::remove_file(&link)?;
                }
                sync_names_of(link.parent().unwrap_or(Path::new("/")))?;
                Ok(Outcome::Done)
            }
            Step::Duplicate { path } => self.duplicate(path, run),
        }
    }

    /// The copy is there at once, and on the disk.
    fn duplicate(&self, path: &str, run: Run<'_>) -> Result<Outcome> {
        let layers = &self.place.layers;
        let name = base(path);
        let above = layers.upper().join(name);
        if fs::symlink_metadata(&above).is_err() {
            let aside = self.place.disk().join("aside").join(name);
            copy(&layers.lower_dir().join(name), &aside)?;
            sync_all_of(&self.place.disk())?;
            fs::rename(&aside, &above).with_context(|| above.display().to_string())?;
            sync_names_of(&layers.upper())?;
        }
        for more in [&["ensure", path][..], &["remount"]] {
            if run(layers.superpose()?.args(more))? == Outcome::Killed {
                return Ok(Outcome::Killed);
            }
        }
        Ok(Outcome::Done)
    }
}
