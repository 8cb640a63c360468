// SPDX-License-Identifier: MIT OR Apache-2.0
//! The number of the last acknowledged step, in the last block of the disk, behind the file system.
//!
//! It is written past the page cache and without a flush: it must not make anything else durable.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::OFlags;

/// The size of the block, and what its address in memory is a multiple of.
const BLOCK: usize = 4096;
/// What the block begins with; the number follows, 64 bits, little endian. `cargo xtask integration` looks for it in logs
/// of writes.
const MAGIC: &[u8; 16] = b"superpose-mark:\n";

#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

/// Acknowledges steps, on a disk or in its image.
///
/// # Errors
/// If it cannot be written.
pub fn mark(disk: &Path, number: u64) -> Result<()> {
    let mut block = Block([0; BLOCK]);
    block.0[..MAGIC.len()].copy_from_slice(MAGIC);
    block.0[MAGIC.len()..MAGIC.len() + 8].copy_from_slice(&number.to_le_bytes());
    let flags = OFlags::DIRECT.bits().cast_signed();
    let open = OpenOptions::new().write(true).custom_flags(flags).open(disk);
    let mut file = open.with_context(|| disk.display().to_string())?;
    let place = place(&mut file)?;
    file.write_all_at(&block.0, place)
        .with_context(|| format!("acknowledging step {number} on {}", disk.display()))
}

/// How many steps were acknowledged; `None` if the work had not begun.
///
/// # Errors
/// If it cannot be read.
pub fn acknowledged(disk: &Path) -> Result<Option<u64>> {
    let mut file = File::open(disk).with_context(|| disk.display().to_string())?;
    let place = place(&mut file)?;
    let mut start = [0; MAGIC.len() + 8];
    file.read_exact_at(&mut start, place)
        .with_context(|| disk.display().to_string())?;
    let (magic, number) = start.split_at(MAGIC.len());
    let number = number.try_into().map(u64::from_le_bytes);
    Ok(number.ok().filter(|_| magic == MAGIC))
}

fn place(file: &mut File) -> Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    end.checked_sub(BLOCK as u64)
        .context("a disk of less than a block")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn the_last_mark_counts() {
        let scratch = Scratch::new().unwrap();
        let disk = scratch.join("disk");
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(acknowledged(&disk).unwrap(), None);
        for number in [0, 7] {
            mark(&disk, number).unwrap();
            assert_eq!(acknowledged(&disk).unwrap(), Some(number));
        }
        assert_eq!(std::fs::metadata(&disk).unwrap().len(), 1 << 20);
    }
}
