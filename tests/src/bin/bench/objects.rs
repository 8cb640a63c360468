// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single objects of generated stores, the same in every run: real files, real archive hashes, and rows like those
//! of packages from a binary cache.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use superpose_metadata::PathInfo;
use superpose_nar::{FileArchive, HashingReader, NarHash};
use superpose_store_path::{
    Hash, HashAlgorithm, HashEncoding, HashPart, Name, Signature, StoreDir, StorePath,
};
use superpose_tests::Seeded;

/// To be raised when stores come out differently, so that none of before are used.
pub(crate) const FORM: u32 = 2;

/// When every object became valid, in Unix seconds.
pub(crate) const REGISTERED: i64 = 1_700_000_000;

/// Large files are written and read in pieces of this size.
const PIECE: usize = 1 << 16;

/// The path of an object: not made from its content, as with everything that is built.
pub(crate) fn path(object: u32) -> StorePath {
    let mut part = [0; 20];
    seed_of(object).fill(&mut part);
    let name = if object == 0 {
        "library-1.0".to_owned()
    } else {
        format!("package-{object}-1.{}", object % 17)
    };
    let name = Name::new(name.as_bytes()).expect("letters, digits, dots and dashes");
    StorePath::from_parts(HashPart::new(part), &name)
}

pub(crate) fn seed_of(object: u32) -> Seeded {
    Seeded::new(u64::from(FORM) << 32 | u64::from(object))
}

/// Writes a small object that mentions what it refers to, and gives its row.
pub(crate) fn make_object(store: &Path, object: u32, references: &[u32]) -> Result<PathInfo> {
    let dir = StoreDir::default();
    let path = path(object);
    let mut references: Vec<StorePath> = references.iter().map(|&number| self::path(number)).collect();
    references.sort_unstable();
    let mut seeded = seed_of(object);
    let mut text = String::new();
    for reference in &references {
        writeln!(text, "uses {}", dir.display(reference))?;
    }
    for _ in 0..seeded.below(30) {
        writeln!(text, "{:016x}", seeded.number())?;
    }
    let file = store.join(path.base_name());
    fs::write(&file, text.as_bytes()).with_context(|| format!("writing {}", file.display()))?;
    make_canonical(&file)?;
    let nar = archive_of(text.as_bytes(), text.len() as u64)?;
    let mut info = row(path, &nar, &mut seeded)?;
    info.references = references;
    Ok(info)
}

/// Writes an object of so many bytes that refers to nothing, and gives its row.
pub(crate) fn make_large_object(store: &Path, object: u32, size: u64) -> Result<PathInfo> {
    let path = path(object);
    let file = store.join(path.base_name());
    write_large(&file, u64::from(object), size)?;
    make_canonical(&file)?;
    let nar = archive_of(BufReader::with_capacity(PIECE, File::open(&file)?), size)?;
    row(path, &nar, &mut seed_of(object))
}

/// Writes a file whose bytes are those of a seed. Its size is a multiple of 64 KiB, or it is shorter.
pub(crate) fn write_large(file: &Path, seed: u64, size: u64) -> Result<()> {
    let mut out = BufWriter::new(File::create(file).with_context(|| format!("creating {}", file.display()))?);
    let mut seeded = Seeded::new(seed);
    let mut piece = vec![0; PIECE];
    for _ in 0..size / PIECE as u64 {
        seeded.fill(&mut piece);
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}

fn archive_of(contents: impl Read, size: u64) -> Result<NarHash> {
    let mut archive = HashingReader::new(FileArchive::new(contents, size));
    io::copy(&mut archive.by_ref(), &mut io::sink())?;
    Ok(archive.finish().1)
}

fn row(path: StorePath, nar: &NarHash, seeded: &mut Seeded) -> Result<PathInfo> {
    let deriver = format!("{}-{}.drv", path.hash_part_str(), path.name());
    let mut info = PathInfo::new(path, nar.hash, nar.size);
    info.registration_time = REGISTERED;
    info.deriver = Some(StorePath::from_base_name(deriver.as_bytes())?);
    info.signatures = vec![signature(seeded)?];
    Ok(info)
}

/// Makes a file such as a store has them: read-only, at the time 1.
pub(crate) fn make_canonical(file: &Path) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o444))?;
    let one = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: one,
        last_modification: one,
    };
    utimensat(CWD, file, &times, AtFlags::empty())
        .with_context(|| format!("setting the times of {}", file.display()))
}

/// Looks like the signature of a binary cache, and is as long.
pub(crate) fn signature(seeded: &mut Seeded) -> Result<Signature> {
    let mut bytes = [0; 64];
    seeded.fill(&mut bytes);
    let base64 = Hash::new(HashAlgorithm::Sha512, &bytes)?.render_bare(HashEncoding::Base64);
    Ok(Signature::parse(
        format!("cache.example.org-1:{base64}").as_bytes(),
    )?)
}
