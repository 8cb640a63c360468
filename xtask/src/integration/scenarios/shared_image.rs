// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lower store as an image that nobody can write, with its database in it, and several machines at once on it; then a
//! grown one in its place, under the upper layers that they have.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::integration::disk::Disk;
use crate::integration::image;
use crate::integration::kernel::Release;
use crate::integration::lower_store::LowerStore;
use crate::integration::scenario::{Scenario, Stage};
use crate::integration::sharing::{Company, Phase};
use crate::integration::tools::Tools;
use crate::test::Tally;
use crate::workspace;

pub(crate) const SCENARIO: Scenario = Scenario {
    name: "shared-image",
    about: "several machines at once over one lower store in an erofs or squashfs, which is then replaced by a grown one",
    kernels: &Release::ALL,
    is_quick: true,
    run,
};

type Pack = fn(&Tools, &Path, &Path) -> Result<()>;

/// The forms of an image. A quick run has the first; where guests are emulated, each kernel has one of them.
const FORMS: [(&str, Pack); 2] = [("erofs", image::erofs), ("squashfs", image::squashfs)];

fn run(stage: &Stage<'_>) -> Result<Tally> {
    let mut tally = Tally::default();
    let of_kernel = stage.kernel.release as usize % FORMS.len();
    let forms = match (stage.is_quick, stage.is_emulated()) {
        (true, _) => &FORMS[..1],
        (false, true) => &FORMS[of_kernel..=of_kernel],
        (false, false) => &FORMS[..],
    };
    for &(form, pack) in forms {
        one(stage, form, pack).with_context(|| form)?;
        tally.passed += 1;
    }
    Ok(tally)
}

fn one(stage: &Stage<'_>, form: &'static str, pack: Pack) -> Result<()> {
    let name = format!("{}-{form}", stage.name);
    let room = stage.room;
    let dir = room.run_dir(&format!("{name}-{}", stage.kernel.release.name()))?;
    let seed = workspace::seed();
    let store = LowerStore::new(room, &dir, &seed)?;
    let company = Company::new(stage, &name, &dir, &seed)?;
    for (phase, image) in [(Phase::First, "lower-1.img"), (Phase::Again, "lower-2.img")] {
        if matches!(phase, Phase::Again) {
            store.grow()?;
        }
        let image = dir.join(image);
        pack(&room.tools, &store.dir, &image)?;
        let read = || fs::read(&image).with_context(|| image.display().to_string());
        let before = read()?;
        company.work(phase, |_, guest| {
            Ok(guest.disk(Disk::read_only("lower", &image).at("/lower", form)))
        })?;
        ensure!(read()? == before, "{} was changed", image.display());
    }
    store.remove()
}
