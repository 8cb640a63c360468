// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is remembered of objects that were searched for files that can become links: the file `superpose/linked` in the
//! state directory.
//!
//! ```text
//! file    := magic format layer farm object* checksum
//! magic   := "superpose-linked\n"              17 bytes
//! format  := u32                               1
//! layer   := u64                               inode of the layer directory
//! farm    := u64                               inode of the farm of links in it, 0 if there was none
//! object  := hash inode seconds nanoseconds count size*
//! hash    := 20 bytes                          the hash part of the object's name
//! inode, seconds, nanoseconds := u64, i64, u32 of the object itself, the time being that of its last status change
//! count   := u32
//! size    := u64                               of a file that was not hashed, as no other had its size; ascending
//! checksum:= u32                               CRC-32C (Castagnoli) over all before it
//! ```
//!
//! All numbers are little endian. An object that is still the same (inode and time) need not be searched again: its files
//! are in the farm, or no link to them was possible, or their sizes are here, so that a later file of the same size brings
//! them back.
//!
//! Nothing depends on this file but how long a search takes. It is written to another name and renamed, without a sync; one
//! that is missing, damaged, of another format or of another layer is as good as empty, and all objects are searched.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use superpose_store_path::HashPart;

use crate::state_dir::{Directory, StateDir};
use crate::store::layer::Identity;
use crate::{Error, Result, random};

/// The name below the `superpose` subdirectory of the state directory.
const FILE_NAME: &str = "linked";
const MAGIC: &[u8; 17] = b"superpose-linked\n";
const FORMAT: u32 = 1;
/// Ten million objects with a few sizes each need less; a file beyond this is not ours.
const MAX_FILE: u64 = 1 << 30;
/// As the journal beside it.
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
/// The bytes of an object without sizes.
const OBJECT: usize = 20 + 8 + 8 + 4 + 4;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Stands for the farm while there is none.
pub(super) const NO_FARM: u64 = 0;

/// Of which directories something is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The inode of the layer directory.
    pub(super) layer: u64,
    /// The inode of the farm, or [`NO_FARM`].
    pub(super) farm: u64,
}

/// What is remembered of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Searched {
    pub(super) identity: Identity,
    /// Sizes of files that were not hashed, ascending.
    pub(super) open: Vec<u64>,
}

/// What is remembered of all objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(pub(super) HashMap<HashPart, Searched>);

impl Memory {
    /// Reads what is remembered of these directories.
    ///
    /// # Errors
    /// If the state directory cannot be read. Whatever is wrong with the file itself is logged, and nothing is remembered.
    pub(super) fn load(state: &StateDir, place: Place) -> Result<Self> {
        let Some(own) = state.own()? else {
            return Ok(Self::default());
        };
        let bytes = match read(&own) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Self::default()),
            Err(error) => {
                tracing::debug!(%error, "what was searched for links cannot be read: all is searched again");
                return Ok(Self::default());
            }
        };
        Ok(decode(&bytes, place).unwrap_or_else(|| {
            tracing::debug!(
                "what was searched for links is damaged or of another layer: all is searched again"
            );
            Self::default()
        }))
    }

    /// Writes it down. That this fails costs time at the next search and nothing else.
    pub(super) fn save(&self, state: &StateDir, place: Place) {
        let saved = state
            .create_own()
            .and_then(|own| write(&own, &encode(self, place)));
        if let Err(error) = saved {
            tracing::debug!(%error, "what was searched for links is not written down");
        }
    }
}

fn path_in(own: &Directory) -> PathBuf {
    own.path().join(FILE_NAME)
}

fn read(own: &Directory) -> Result<Option<Vec<u8>>> {
    let failed = |source: std::io::Error| Error::io("read", path_in(own), source);
    // Not to block on a fifo in its place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match fs::openat(own.fd(), FILE_NAME, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(source) => return Err(failed(source.into())),
    };
    let mut bytes = Vec::new();
    (&file).take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

fn write(own: &Directory, bytes: &[u8]) -> Result<()> {
    let failed = |source: std::io::Error| Error::io("write", path_in(own), source);
    let scratch = format!("{FILE_NAME}-{}", random::hex_digits(16));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = fs::openat(own.fd(), &scratch, flags, FILE_MODE).map_err(|source| failed(source.into()))?;
    let written = std::io::Write::write_all(&mut std::fs::File::from(file), bytes)
        .and_then(|()| Ok(fs::renameat(own.fd(), &scratch, own.fd(), FILE_NAME)?));
    written.map_err(|source| {
        if let Err(error) = fs::unlinkat(own.fd(), &scratch, fs::AtFlags::empty()) {
            tracing::debug!(%error, scratch, "cannot be removed");
        }
        failed(source)
    })
}

fn encode(memory: &Memory, place: Place) -> Vec<u8> {
    let mut file = Vec::with_capacity(64 + memory.0.len() * (OBJECT + 16));
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    file.extend_from_slice(&place.layer.to_le_bytes());
    file.extend_from_slice(&place.farm.to_le_bytes());
    let mut objects: Vec<(&HashPart, &Searched)> = memory.0.iter().collect();
    objects.sort_unstable_by_key(|(hash, _)| **hash);
    for (hash, Searched { identity, open }) in objects {
        file.extend_from_slice(hash.as_bytes());
        file.extend_from_slice(&identity.inode.to_le_bytes());
        file.extend_from_slice(&identity.changed.0.to_le_bytes());
        file.extend_from_slice(&identity.changed.1.to_le_bytes());
        // An object of more files than this is beyond every file system.
        let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
        file.extend_from_slice(&count.to_le_bytes());
        for size in open.iter().take(count as usize) {
            file.extend_from_slice(&size.to_le_bytes());
        }
    }
    let checksum = CRC.checksum(&file);
    file.extend_from_slice(&checksum.to_le_bytes());
    file
}

/// Reads the file; `None` if it is damaged, or not about this place.
fn decode(file: &[u8], place: Place) -> Option<Memory> {
    let (checked, checksum) = file.split_last_chunk::<4>()?;
    if CRC.checksum(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut rest = checked.strip_prefix(MAGIC)?;
    let format = u32::from_le_bytes(take(&mut rest)?);
    let layer = u64::from_le_bytes(take(&mut rest)?);
    let farm = u64::from_le_bytes(take(&mut rest)?);
    // Without a farm nothing was in one, so that a new one makes no difference.
    if format != FORMAT || layer != place.layer || (farm != place.farm && farm != NO_FARM) {
        return None;
    }
    let mut objects = HashMap::with_capacity(rest.len() / OBJECT);
    while !rest.is_empty() {
        let hash = HashPart::new(take(&mut rest)?);
        let identity = Identity {
            inode: u64::from_le_bytes(take(&mut rest)?),
            changed: (
                i64::from_le_bytes(take(&mut rest)?),
                u32::from_le_bytes(take(&mut rest)?),
            ),
        };
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        let (sizes, behind) = rest.split_at_checked(count.checked_mul(8)?)?;
        rest = behind;
        let open = sizes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|size| u64::from_le_bytes(*size));
        objects.insert(
            hash,
            Searched {
                identity,
                open: open.collect(),
            },
        );
    }
    Some(Memory(objects))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLACE: Place = Place { layer: 7, farm: 8 };

    fn example() -> Memory {
        let searched = |inode, open: &[u64]| Searched {
            identity: Identity {
                inode,
                changed: (1_700_000_000, 5),
            },
            open: open.to_vec(),
        };
        Memory(HashMap::from([
            (HashPart::new([1; 20]), searched(11, &[])),
            (HashPart::new([2; 20]), searched(12, &[3, 4096])),
        ]))
    }

    /// Written once, by the first version that knew this format, and never written again.
    #[test]
    fn reads_the_golden_file_of_format_1() {
        let golden = include_bytes!("../../../tests/golden/linked-1");
        assert_eq!(decode(golden, PLACE), Some(example()));
        assert_eq!(encode(&example(), PLACE), golden);
    }

    #[test]
    fn damage_and_other_places_are_as_good_as_nothing() {
        let file = encode(&example(), PLACE);
        for cut in 0..file.len() {
            assert_eq!(decode(&file[..cut], PLACE), None, "cut at {cut}");
        }
        for place in 0..file.len() {
            let mut damaged = file.clone();
            damaged[place] ^= 4;
            assert_eq!(decode(&damaged, PLACE), None, "damaged at {place}");
        }
        assert_eq!(decode(&file, Place { layer: 7, farm: 9 }), None);
        assert_eq!(decode(&file, Place { layer: 6, farm: 8 }), None);
        let before = encode(
            &example(),
            Place {
                layer: 7,
                farm: NO_FARM,
            },
        );
        assert_eq!(decode(&before, PLACE), Some(example()), "the farm was made since");
    }

    #[test]
    fn what_is_written_is_read_and_what_is_no_file_is_nothing() {
        let top = tempfile::tempdir().expect("a scratch directory");
        let state = StateDir::open(top.path()).expect("a state directory");
        assert_eq!(
            Memory::load(&state, PLACE).expect("nothing is there"),
            Memory::default()
        );
        example().save(&state, PLACE);
        example().save(&state, PLACE);
        assert_eq!(Memory::load(&state, PLACE).expect("it is there"), example());
        let own = top.path().join("superpose");
        assert_eq!(
            std::fs::read_dir(&own).expect("a directory").count(),
            1,
            "no scratch is left"
        );
        std::fs::remove_file(own.join(FILE_NAME)).expect("it goes");
        std::os::unix::fs::symlink("/etc/passwd", own.join(FILE_NAME)).expect("a link is made");
        assert_eq!(
            Memory::load(&state, PLACE).expect("links are not followed"),
            Memory::default()
        );
    }

    proptest! {
        #[test]
        fn round_trip(objects in prop::collection::hash_map(any::<[u8; 20]>(), (any::<u64>(), any::<(i64, u32)>(),
            prop::collection::vec(any::<u64>(), 0..5)), 0..20)) {
            let memory = Memory(objects.into_iter().map(|(hash, (inode, changed, open))| (HashPart::new(hash), Searched {
                identity: Identity { inode, changed },
                open,
            })).collect());
            prop_assert_eq!(decode(&encode(&memory, PLACE), PLACE), Some(memory));
        }

        #[test]
        fn never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), with_header in any::<bool>()) {
            if with_header {
                let mut file = encode(&example(), PLACE);
                file.truncate(MAGIC.len() + 20);
                file.append(&mut bytes);
                let checksum = CRC.checksum(&file);
                file.extend_from_slice(&checksum.to_le_bytes());
                bytes = file;
            }
            let _memory = decode(&bytes, PLACE);
        }
    }
}
