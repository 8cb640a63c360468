// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of all writes to a disk, as the emulator's filter `blklogwrites` keeps it, and what a power cut would have left of
//! them: an image of the pristine disk with some of the entries.
//!
//! The form is that of the kernel's target `dm-log-writes`. All numbers are 64 bits, little endian, but for the size of a
//! sector, which has 32. The first sector has a magic number, the version 1, the number of entries and the size of a sector. Then
//! comes for each entry a sector with the first sector written, how many there are, flags and a length; and after it what was
//! written, unless it is a flush or a discard. The length counts for marks alone.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Sizes of sectors that a log may have.
const SECTORS: [u32; 4] = [512, 1024, 2048, 4096];
/// An entry is copied in pieces of this size.
const PIECE: usize = 1 << 20;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// What the last block of a disk begins with, if a step was acknowledged there; the number of the step follows. The
/// `tests` package writes it.
const ACKNOWLEDGED: &[u8; 16] = b"superpose-mark:\n";
/// The size of that block.
pub(crate) const ACKNOWLEDGED_BLOCK: u64 = 4096;

/// One entry: bytes of the disk, and where in the log they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    at: u64,
    length: u64,
    flags: u64,
    data: u64,
    /// The step that it acknowledges.
    pub(crate) acknowledges: Option<u64>,
}

impl Entry {
    /// Whether everything before it is on the disk when it is.
    pub(crate) fn is_flush(&self) -> bool {
        self.flags & (FLUSH | FUA) != 0
    }

    fn is_write(&self) -> bool {
        self.length > 0 && self.flags & MARK == 0
    }
}

/// A log whose entries are known.
#[derive(Debug)]
pub(crate) struct WriteLog {
    file: File,
    path: PathBuf,
    pub(crate) entries: Vec<Entry>,
    disk_size: u64,
}

impl WriteLog {
    /// Reads which entries there are. A log may end in the middle of one, which is left out then: its writer was killed.
    pub(crate) fn open(path: &Path, disk_size: u64) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let end = file.metadata().with_context(|| path.display().to_string())?.len();
        let mut log = Self {
            file,
            path: path.to_owned(),
            entries: Vec::new(),
            disk_size,
        };
        let mut start = [0; 28];
        log.read(&mut start, 0)?;
        let number = |at| u64_at(&start, at);
        ensure!(
            number(0) == MAGIC && number(8) == VERSION,
            "{} is no log of writes of version {VERSION}",
            path.display()
        );
        let sector = u32::from_le_bytes([start[24], start[25], start[26], start[27]]);
        ensure!(
            SECTORS.contains(&sector),
            "{}: a sector of {sector} bytes",
            path.display()
        );
        log.read_entries(number(16), sector.into(), end)?;
        Ok(log)
    }

    fn read_entries(&mut self, count: u64, sector: u64, end: u64) -> Result<()> {
        let mut at = sector;
        for _ in 0..count {
            if at + sector > end {
                break;
            }
            let mut header = [0; 32];
            self.read(&mut header, at)?;
            let [first, sectors, flags, length] = [0, 8, 16, 24].map(|from| u64_at(&header, from));
            let bytes = |sectors: u64| {
                let bytes = sectors.checked_mul(sector);
                bytes.with_context(|| format!("{}: {sectors} sectors at byte {at}", self.path.display()))
            };
            let (place, written) = (bytes(first)?, bytes(sectors)?);
            let data = at + sector;
            let stored = match flags {
                _ if flags & DISCARD != 0 => 0,
                _ if flags & MARK != 0 => bytes(length.div_ceil(sector))?,
                _ => written,
            };
            let Some(next) = data.checked_add(stored).filter(|next| *next <= end) else {
                break;
            };
            let mut entry = Entry {
                at: place,
                length: written,
                flags,
                data,
                acknowledges: None,
            };
            if entry.is_write() {
                let fits = place.checked_add(written).is_some_and(|to| to <= self.disk_size);
                ensure!(
                    fits,
                    "{}: the entry at byte {at} writes {written} bytes at {place}, beyond the disk",
                    self.path.display()
                );
                entry.acknowledges = self.acknowledged_by(&entry)?;
            }
            self.entries.push(entry);
            at = next;
        }
        Ok(())
    }

    fn acknowledged_by(&self, entry: &Entry) -> Result<Option<u64>> {
        let is_there = entry.at + ACKNOWLEDGED_BLOCK == self.disk_size;
        if !is_there || entry.flags & DISCARD != 0 || entry.length < ACKNOWLEDGED_BLOCK {
            return Ok(None);
        }
        let mut start = [0; 24];
        self.read(&mut start, entry.data)?;
        Ok(acknowledgement(&start))
    }

    /// Makes an image: a copy of the pristine disk, and what the entries with these numbers wrote, in this order.
    pub(crate) fn replay(
        &self,
        pristine: &Path,
        entries: impl Iterator<Item = usize>,
        image: &Path,
    ) -> Result<()> {
        copy_sparse(pristine, image)?;
        let open = OpenOptions::new().write(true).open(image);
        let disk = open.with_context(|| image.display().to_string())?;
        let mut piece = vec![0; PIECE];
        for number in entries {
            let entry = self.entries.get(number).context("no such entry")?;
            if !entry.is_write() {
                continue;
            }
            let mut done = 0;
            while done < entry.length {
                let size = usize::try_from(entry.length - done).map_or(PIECE, |left| left.min(PIECE));
                let piece = &mut piece[..size];
                if entry.flags & DISCARD != 0 {
                    piece.fill(0);
                } else {
                    self.read(piece, entry.data + done)?;
                }
                disk.write_all_at(piece, entry.at + done)
                    .with_context(|| image.display().to_string())?;
                done += size as u64;
            }
        }
        Ok(())
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file
            .read_exact_at(bytes, at)
            .with_context(|| format!("reading {} bytes at {at} of {}", bytes.len(), self.path.display()))
    }
}

/// Which step a disk says was acknowledged last.
pub(crate) fn acknowledged(disk: &Path) -> Result<Option<u64>> {
    let file = File::open(disk).with_context(|| disk.display().to_string())?;
    let size = file.metadata().with_context(|| disk.display().to_string())?.len();
    let place = size
        .checked_sub(ACKNOWLEDGED_BLOCK)
        .context("a disk of no block")?;
    let mut start = [0; 24];
    file.read_exact_at(&mut start, place)
        .with_context(|| disk.display().to_string())?;
    Ok(acknowledgement(&start))
}

fn acknowledgement(start: &[u8; 24]) -> Option<u64> {
    start.starts_with(ACKNOWLEDGED).then(|| u64_at(start, 16))
}

/// A copy that shares what it can, and has holes where the original has.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let mut command = std::process::Command::new("cp");
    command
        .args(["--sparse=always", "--reflink=auto"])
        .arg(from)
        .arg(to);
    let status = command.status().context("starting cp")?;
    ensure!(status.success(), "copying {} to {}", from.display(), to.display());
    Ok(())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::workspace;
    use std::fs;

    /// A log as the emulator writes it, entry by entry.
    pub(crate) struct Writer(Vec<u8>, u64);

    impl Writer {
        pub(crate) fn new() -> Self {
            Self(vec![0; 512], 0)
        }

        pub(crate) fn entry(&mut self, sector: u64, flags: u64, data: &[u8]) {
            let sectors = data.len() as u64 / 512;
            let mut header = [0; 512];
            for (index, number) in [sector, sectors, flags, 0].into_iter().enumerate() {
                header[index * 8..index * 8 + 8].copy_from_slice(&number.to_le_bytes());
            }
            self.0.extend_from_slice(&header);
            if flags & DISCARD == 0 {
                self.0.extend_from_slice(data);
            }
            self.1 += 1;
        }

        pub(crate) fn write(&mut self, sector: u64, byte: u8) {
            self.entry(sector, 0, &[byte; 512]);
        }

        pub(crate) fn flush(&mut self) {
            self.entry(0, FLUSH, &[]);
        }

        /// Acknowledges a step on a disk of so many sectors.
        pub(crate) fn acknowledge(&mut self, number: u64, sectors: u64) {
            let mut block = vec![0; 4096];
            block[..16].copy_from_slice(ACKNOWLEDGED);
            block[16..24].copy_from_slice(&number.to_le_bytes());
            self.entry(sectors - 8, 0, &block);
        }

        pub(crate) fn finish(mut self) -> Vec<u8> {
            for (index, number) in [MAGIC, VERSION, self.1, 512].into_iter().enumerate() {
                self.0[index * 8..index * 8 + 8].copy_from_slice(&number.to_le_bytes());
            }
            self.0
        }
    }

    /// A directory that is removed in the end.
    pub(crate) struct Dir(pub(crate) PathBuf);

    impl Dir {
        pub(crate) fn new(name: &str) -> Self {
            let dir = workspace::fetched().join(format!("{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            xshell::Shell::new()
                .and_then(|shell| shell.remove_path(&self.0))
                .ok();
        }
    }

    const SECTORS_OF_DISK: u64 = 64;

    #[test]
    fn an_image_has_the_chosen_writes_and_no_others() {
        let dir = Dir::new("write-log-replay");
        let mut writer = Writer::new();
        writer.write(1, 0x11);
        writer.write(2, 0x22);
        writer.flush();
        writer.write(1, 0x33);
        writer.entry(2, DISCARD, &[0; 512]);
        let log = dir.write("log", &writer.finish());
        let size = SECTORS_OF_DISK * 512;
        let pristine = dir.write("pristine", &vec![0xff; usize::try_from(size).unwrap()]);
        let log = WriteLog::open(&log, size).unwrap();
        assert_eq!(log.entries.len(), 5);
        assert_eq!(
            log.entries.iter().map(Entry::is_flush).collect::<Vec<_>>(),
            [false, false, true, false, false]
        );
        let check = |entries: &[usize], expected: [u8; 3]| {
            let image = dir.0.join("image");
            log.replay(&pristine, entries.iter().copied(), &image).unwrap();
            let bytes = fs::read(image).unwrap();
            assert_eq!([bytes[0], bytes[512], bytes[1024]], expected, "{entries:?}");
        };
        check(&[], [0xff; 3]);
        check(&[0, 1, 2], [0xff, 0x11, 0x22]);
        check(&[1, 3], [0xff, 0x33, 0x22]);
        check(&[0, 1, 2, 3, 4], [0xff, 0x33, 0]);
    }

    #[test]
    fn a_torn_end_is_left_out_and_other_damage_is_an_error() {
        let dir = Dir::new("write-log-torn");
        let mut writer = Writer::new();
        writer.write(1, 1);
        writer.write(2, 2);
        let bytes = writer.finish();
        for cut in [1, 512, 513, 1023] {
            let log = dir.write("log", &bytes[..bytes.len() - cut]);
            let log = WriteLog::open(&log, SECTORS_OF_DISK * 512).unwrap();
            assert_eq!(log.entries.len(), 1, "{cut}");
        }
        let beyond = dir.write("log", &bytes);
        let error = WriteLog::open(&beyond, 512).unwrap_err().to_string();
        assert!(error.contains("beyond the disk"), "{error}");
        let other = dir.write("log", &[7; 512]);
        assert!(WriteLog::open(&other, 512).is_err());
        let empty = dir.write("log", &[]);
        assert!(WriteLog::open(&empty, 512).is_err());
        // A number of entries that nobody wrote costs nothing.
        let mut many = bytes;
        many[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        let many = dir.write("log", &many);
        assert_eq!(
            WriteLog::open(&many, SECTORS_OF_DISK * 512)
                .unwrap()
                .entries
                .len(),
            2
        );
    }

    #[test]
    fn acknowledged_steps_are_found() {
        let dir = Dir::new("write-log-marks");
        let mut writer = Writer::new();
        writer.acknowledge(0, SECTORS_OF_DISK);
        writer.write(SECTORS_OF_DISK - 8, 9);
        writer.acknowledge(7, SECTORS_OF_DISK);
        let log = dir.write("log", &writer.finish());
        let size = SECTORS_OF_DISK * 512;
        let log = WriteLog::open(&log, size).unwrap();
        let found: Vec<_> = log.entries.iter().map(|entry| entry.acknowledges).collect();
        assert_eq!(found, [Some(0), None, Some(7)]);
        let pristine = dir.write("pristine", &vec![0; usize::try_from(size).unwrap()]);
        let image = dir.0.join("image");
        log.replay(&pristine, 0..3, &image).unwrap();
        assert_eq!(acknowledged(&image).unwrap(), Some(7));
        assert_eq!(acknowledged(&pristine).unwrap(), None);
    }
}
