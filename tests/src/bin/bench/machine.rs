// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that the numbers come from.

use std::fs;
use std::path::Path;
use std::thread;

/// Describes processor, memory, kernel, how busy they are now, and the file systems of the given directories.
pub(crate) fn description(dirs: &[&Path]) -> Vec<String> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let mut lines = vec![format!(
        "{cores} cores of {}, {} GiB of memory, Linux {} ({})",
        field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned()),
        memory().unwrap_or(0),
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim_end(),
        std::env::consts::ARCH,
    )];
    lines.extend(
        dirs.iter()
            .map(|dir| format!("{} on {}", dir.display(), file_system(dir))),
    );
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    lines.push(format!("load before the first run: {load}"));
    lines
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// In GiB, rounded.
fn memory() -> Option<u64> {
    let text = field("/proc/meminfo", "MemTotal")?;
    let kibibytes: u64 = text.split(' ').next()?.parse().ok()?;
    Some((kibibytes + (1 << 19)) >> 20)
}

/// The type of the file system that a directory is on.
fn file_system(dir: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    mounts
        .filter(|(point, _)| dir.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map_or_else(
            || "an unknown file system".to_owned(),
            |(_, kind)| kind.to_owned(),
        )
}
