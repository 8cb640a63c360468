// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who collect, deduplicate, delete, verify and read.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::adder::expect_says;
use super::ground::{Ground, base};
use super::object::Object;
use crate::{Invocation, Seeded};

/// Does something over and over until the time is over, and counts.
fn repeatedly(ground: &Ground, mut work: impl FnMut() -> Result<()>) -> Result<u32> {
    let mut count = 0;
    while !ground.is_over() {
        work()?;
        count += 1;
    }
    Ok(count)
}

/// superpose collects, in all ways.
pub(super) fn collect(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    const WAYS: [&[&str]; 6] = [
        &["gc"],
        &["gc", "--json"],
        &["gc", "--max-freed", "16K"],
        &["gc", "--dry-run"],
        &["gc", "--print-dead"],
        &["gc", "--print-live"],
    ];
    repeatedly(ground, || {
        let way = seeded.choose(&WAYS);
        ground.superpose()?.args(*way).succeed().map(drop)
    })
}

/// Stock Nix collects. It fails where it does not expect company, and changes nothing more then.
pub(super) fn collect_with_stock(ground: &Ground, _: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        let collected = ground.nix_store()?.arg("--gc").run()?;
        let says = collected.errors();
        let is_tolerated = match (collected.code(), collected.signal()) {
            (Some(0), _) => true,
            // Somebody gave a dead path a referrer, or deleted it, after it had decided.
            (Some(1), _) => says.contains("is not valid") || says.contains("in use by"),
            // It ends so when somebody who handed it a root goes while its threads are still busy with the coming, and the
            // next one comes. What it leaves has to be whole all the same.
            (_, Some(signal)) => signal == Signal::ABORT.as_raw() && says.contains("terminate"),
            _ => false,
        };
        ensure!(is_tolerated, "{collected}");
        Ok(())
    })
}

/// Lower objects come to lie above, too, as if they had been added there first; superpose drops them, and links what
/// is alike.
pub(super) fn optimise(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        for _ in 0..=seeded.below(3) {
            let object = seeded.choose(&ground.lower);
            duplicate(ground, object)?;
        }
        // The kernel does not know of them.
        ground.superpose()?.arg("remount").succeed()?;
        let optimised = ground.superpose()?.arg("optimise").succeed()?;
        let said = optimised.text()?;
        for object in &ground.lower {
            let above = ground.layers.upper().join(base(&object.path));
            // Somebody makes it known above at this moment; or the kernel marked a directory that lies in both layers when
            // it was first looked up, which is a change, too.
            let is_left = ["a process is adding it", "it was replaced while it was compared"]
                .iter()
                .map(|why| format!("'{}' is left: {why}", object.path))
                .any(|line| said.contains(&line));
            ensure!(
                fs::symlink_metadata(&above).is_err() || is_left,
                "{} is still above: {optimised}",
                object.path
            );
        }
        Ok(())
    })
}

/// A copy appears in the upper layer at once.
fn duplicate(ground: &Ground, object: &Object) -> Result<()> {
    let name = base(&object.path);
    let above = ground.layers.upper().join(name);
    if fs::symlink_metadata(&above).is_ok() {
        return Ok(());
    }
    let aside = ground.layers.join(format!("sources/{}", ground.number()));
    let copy = Invocation::new("cp")
        .arg("-a")
        .arg(ground.layers.lower_dir().join(name));
    copy.arg(&aside).succeed()?;
    fs::rename(&aside, &above).with_context(|| format!("moving {} to the upper layer", object.path))
}

/// superpose deletes: what is kept is refused, what is not goes.
pub(super) fn delete(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        if seeded.chance(30)
            && let Some(object) = ground.published.any(&mut seeded)
        {
            return object.while_kept(|| {
                let refused = ground.superpose()?.args(["delete", &object.path]).run()?;
                expect_says(&refused, "kept alive")
            });
        }
        let content = ground.content(&mut seeded);
        let source = ground.source()?;
        content.write(&source)?;
        let added = ground.superpose()?.arg("add").arg(source).succeed()?;
        let deleted = ground.superpose()?.args(["delete", added.line()?]).run()?;
        match deleted.code() {
            Some(0) => Ok(()),
            // Somebody else keeps the same, or is just adding it.
            _ if ground.company().is_none() => expect_says(&deleted, "kept alive"),
            _ => expect_says(&deleted, "no other has this content"),
        }
    })
}

/// superpose verifies.
pub(super) fn verify(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        let verify = ground.superpose()?.arg("verify");
        let flags: &[&str] = if seeded.chance(40) {
            &["--check-contents"]
        } else {
            &[]
        };
        verify.args(flags).succeed()?;
        let object = Arc::clone(seeded.choose(&ground.lower));
        ground.superpose()?.args(["ensure", &object.path]).succeed()?;
        Ok(())
    })
}

/// Files are read through the merged view: whole at every moment.
pub(super) fn read_files(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        let object = ground.any_object(&mut seeded);
        object.while_kept(|| {
            let seen = object.content.expect_at(&ground.seen(&object.path));
            seen.with_context(|| ground.describe(&object.path))
        })
    })
}

/// superpose is asked for closures and archives.
pub(super) fn read_rows(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        let object = ground.any_object(&mut seeded);
        let dumps = seeded.chance(30);
        object.while_kept(|| {
            if dumps {
                let dump = ground.superpose()?.args(["dump", &object.path]);
                return expect_archive(ground, &object, dump);
            }
            let asked = ground
                .superpose()?
                .args(["path-info", "-r", &object.path])
                .succeed()?;
            expect_closure(&object, asked.text()?)
        })
    })
}

/// Stock Nix is asked.
pub(super) fn read_with_stock(ground: &Ground, mut seeded: Seeded) -> Result<u32> {
    repeatedly(ground, || {
        let object = ground.any_object(&mut seeded);
        let way = seeded.below(3);
        object.while_kept(|| match way {
            0 => {
                let dump = ground.nix_store()?.arg("--dump");
                expect_archive(ground, &object, dump.arg(ground.seen(&object.path)))
            }
            1 => ground
                .nix_store()?
                .args(["--verify-path", &object.path])
                .succeed()
                .map(drop),
            _ => {
                let asked = ground.nix_store()?.args(["-q", "--requisites", &object.path]);
                expect_closure(&object, asked.succeed()?.text()?)
            }
        })
    })
}

pub(super) fn expect_closure(object: &Object, text: &str) -> Result<()> {
    let mut found: Vec<&str> = text.lines().collect();
    let mut expected: Vec<&str> = object.closure().iter().map(|one| one.path.as_str()).collect();
    found.sort_unstable();
    expected.sort_unstable();
    ensure!(
        found == expected,
        "the closure of {} is {found:?}, not {expected:?}",
        object.path
    );
    Ok(())
}

/// The archive of the object as it is seen is that of its content.
fn expect_archive(ground: &Ground, object: &Object, dump: Invocation) -> Result<()> {
    let dumped = dump.succeed()?;
    let source = ground.source()?;
    object.content.write(&source)?;
    let mut archive = Vec::new();
    superpose_nar::dump_path(&source, &mut archive)?;
    ensure!(
        dumped.stdout == archive,
        "the archive of {} is another",
        object.path
    );
    Ok(())
}
