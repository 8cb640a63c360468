// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workload whose machine is switched off, and the judge of the disks that are left.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, unmount};
use serde_json::{Value, json};
use superpose_tests::power::{
    Depth, Expectation, Place, Plan, Reached, Workload, check, expect_live, expect_refused_unmounted, mark,
};
use superpose_tests::{Invocation, StockNix};

use crate::order::Order;
use crate::{disks, results};

const PLACE: &str = "/power";
/// The serials of the disks: with the lower store, and of the workload.
const LOWER: &str = "lower";
const DISK: &str = "disk";
/// Where the lower store is mounted when it is copied to the disk.
const ORIGINAL: &str = "/original";

/// Fills a new disk with the lower store.
pub(crate) fn lower(_order: &Order) -> Result<()> {
    let place = Place::lasting(Path::new(PLACE))?;
    let at = place.layers.lower();
    disks::mount_device(&disks::device(LOWER)?, &at, "ext4", MountFlags::empty(), "")?;
    place.fill_lower()?;
    unmount(&at, UnmountFlags::empty()).context("unmounting the lower store")
}

/// Takes steps until the plan or the power ends, and acknowledges each.
pub(crate) fn workload(order: &Order) -> Result<()> {
    let place = Place::lasting(Path::new(PLACE))?;
    let device = disks::device(DISK)?;
    disks::mount_device(
        &device,
        &place.disk(),
        order.text("file-system")?,
        MountFlags::empty(),
        "",
    )?;
    let plan = plan(order, &place)?;
    if is_copied(order) {
        mount_read_only(LOWER, Path::new(ORIGINAL))?;
        let copy = copied(&place);
        let from = format!("{ORIGINAL}/.");
        fs::create_dir(&copy)?;
        Invocation::new("cp").arg("-a").arg(from).arg(&copy).succeed()?;
    }
    mount_lower(order, &place)?;
    fs::create_dir_all(place.layers.merged())?;
    let mount = place.layers.mount()?;
    place.begin(&plan.lower)?;
    acknowledge(&device, 0)?;
    let workload = Workload::new(&place, &plan);
    for (number, step) in (1..).zip(&plan.steps) {
        workload
            .take(step)
            .and_then(|()| expect_live(&place, &plan))
            .with_context(|| format!("step {number}, {step:?}"))?;
        acknowledge(&device, number)?;
    }
    drop(mount);
    unmount_all(&place)
}

fn acknowledge(device: &Path, number: u64) -> Result<()> {
    mark(device, number)?;
    println!("ACK {number}");
    Ok(())
}

/// Judges disks one after the other. What is wrong with one is its result, and says nothing of the others.
pub(crate) fn judge(order: &Order) -> Result<()> {
    let place = Place::lasting(Path::new(PLACE))?;
    let plan = plan(order, &place)?;
    let disks = order.arguments.get("disks").and_then(Value::as_array);
    let mut found = Vec::new();
    for (index, disk) in disks.context("no `disks`")?.iter().enumerate() {
        let serial = disk["serial"].as_str().context("no `serial`")?;
        let judged = judge_one(order, &place, &plan, disk, index);
        unmount_all(&place)?;
        match &judged {
            Ok(reached) => println!("disk {serial}: {reached:?}"),
            Err(error) => println!("disk {serial}: {error:#}"),
        }
        found.push(json!({
            "serial": serial,
            "error": judged.err().map(|error| format!("{error:#}")),
        }));
    }
    results::send(&Value::Array(found))
}

fn judge_one(order: &Order, place: &Place, plan: &Plan, disk: &Value, index: usize) -> Result<Reached> {
    let serial = disk["serial"].as_str().context("no `serial`")?;
    let acknowledged = disk["acknowledged"].as_u64().context("no `acknowledged`")?;
    let device = disks::device(serial)?;
    let kind = order.text("file-system")?;
    let mount = || disks::mount_device(&device, &place.disk(), kind, MountFlags::empty(), "");
    // The kernel replays its own journal first.
    mount()?;
    unmount(place.disk(), UnmountFlags::empty())?;
    check_file_system(&device, kind)?;
    mount()?;
    mount_lower(order, place)?;
    if is_copied(order) {
        mount_read_only(LOWER, Path::new(ORIGINAL))?;
    }
    expect_refused_unmounted(place, plan).context("before the mount")?;
    let _mount = place.layers.mount()?;
    check(
        place,
        plan,
        Expectation {
            acknowledged: usize::try_from(acknowledged)?,
            stock: Some(StockNix::ALL[index % StockNix::ALL.len()]),
            lower: is_copied(order).then_some(Path::new(ORIGINAL)),
            depth: Depth::Final,
        },
    )
}

fn check_file_system(device: &Path, kind: &str) -> Result<()> {
    let (program, flags) = match kind {
        "ext4" => ("e2fsck", "-fn"),
        "xfs" => ("xfs_repair", "-n"),
        _ => return Err(anyhow!("nobody knows how to check {kind}")),
    };
    Invocation::new(program).arg(flags).arg(device).succeed()?;
    Ok(())
}

fn plan(order: &Order, place: &Place) -> Result<Plan> {
    let number = |name: &str| order.arguments.get(name).and_then(Value::as_u64);
    let seed = number("seed").context("no `seed`")?;
    let steps = number("steps").context("no `steps`")?;
    Plan::new(seed, usize::try_from(steps)?, &place.sources)
}

/// Whether the lower store is a copy on the disk itself, where everybody could write to it.
fn is_copied(order: &Order) -> bool {
    order.arguments.get("copied") == Some(&Value::Bool(true))
}

fn copied(place: &Place) -> PathBuf {
    place.disk().join("lower")
}

fn mount_lower(order: &Order, place: &Place) -> Result<()> {
    let at = place.layers.lower();
    if !is_copied(order) {
        return mount_read_only(LOWER, &at);
    }
    fs::create_dir_all(&at)?;
    mount_bind(copied(place), &at).context("the copy of the lower store")
}

/// Mounts a disk so that the file system itself changes nothing, either.
fn mount_read_only(serial: &str, at: &Path) -> Result<()> {
    let device = disks::device(serial)?;
    disks::mount_device(&device, at, "ext4", MountFlags::RDONLY, "noload")
}

/// Unmounts what is mounted of these, whatever went before.
fn unmount_all(place: &Place) -> Result<()> {
    let merged = place.layers.merged();
    for at in [merged, place.layers.lower(), ORIGINAL.into(), place.disk()] {
        while is_mount_point(&at)? {
            unmount(&at, UnmountFlags::empty()).with_context(|| format!("unmounting {}", at.display()))?;
        }
    }
    Ok(())
}

fn is_mount_point(at: &Path) -> Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("the table of mounts")?;
    let text = at.to_str();
    ensure!(text.is_some(), "an odd name");
    Ok(table.lines().any(|line| line.split(' ').nth(4) == text))
}
