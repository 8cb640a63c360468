// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of the crash journal, format 1.
//!
//! ```text
//! file    := magic format record*
//! magic   := "superpose-journal\n"            18 bytes
//! format  := u32, little endian                1
//! record  := length body checksum
//! length  := u32, little endian                bytes of the body, 1..=64 MiB
//! body    := postcard of `Record`
//! checksum:= u32, little endian                CRC-32C (Castagnoli) over length and body
//! ```
//!
//! A file of no bytes is a journal in which nothing is begun. Names are bytes and relative to a layer directory or
//! the trash, so that a store that is moved or mounted elsewhere keeps a valid journal.
//!
//! Format rules: the types below are private to this module, hold only fixed-width integers, bytes and vectors, and
//! never change; a new shape is a new variant of [`Record`], appended. A golden file per format is read by a test.
//!
//! What the reader does with damage: a last record that is cut short or does not check is dropped, since the intent
//! reaches the disk before the first effect, so that nothing was begun; damage before the last record, or a wrong
//! header, is an error, and nothing is changed.

use serde::{Deserialize, Serialize};

use super::{Intent, Moved, Via};

const MAGIC: &[u8; 18] = b"superpose-journal\n";
const FORMAT: u32 = 1;
/// Bytes before the first record.
const HEADER: usize = MAGIC.len() + 4;
/// No record is longer.
const MAX_BODY: usize = 64 << 20;
/// Objects in one record: of the longest names that is 12 MiB. A larger intent is several records of one kind, written
/// at once.
const OBJECTS_PER_RECORD: usize = 20_000;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

#[derive(Serialize, Deserialize)]
enum Record {
    RemovalV1(MovesV1),
    DeduplicationV1(MovesV1),
    LinkingV1(LinkingV1),
}

#[derive(Serialize, Deserialize)]
struct MovesV1 {
    /// The moves in the order in which they are made.
    moves: Vec<MoveV1>,
}

#[derive(Serialize, Deserialize)]
struct MoveV1 {
    name: Vec<u8>,
    trash: Vec<u8>,
    via: u8,
}

#[derive(Serialize, Deserialize)]
struct LinkingV1 {
    /// The objects in which files are replaced.
    objects: Vec<Vec<u8>>,
}

/// Why the bytes are no journal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("it does not begin like a journal")]
    Magic,
    #[error("expected format {FORMAT}, found format {0}")]
    Format(u32),
    #[error("the record at byte {0} is damaged, and others follow it")]
    Damaged(usize),
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// What was begun, if anything was.
    pub(super) intent: Option<Intent>,
    /// Bytes of a last record that did not reach the disk whole.
    pub(super) torn: usize,
}

/// The bytes of a journal with one intent.
pub(super) fn encode(intent: &Intent) -> Vec<u8> {
    let objects = match intent {
        Intent::Removal(moves) | Intent::Deduplication(moves) => moves.len(),
        Intent::Linking(objects) => objects.len(),
    };
    let mut file = Vec::with_capacity(HEADER + 160 * objects + 16);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&FORMAT.to_le_bytes());
    match intent {
        Intent::Removal(moves) => push_records(&mut file, moves, |moves| Record::RemovalV1(moves_v1(moves))),
        Intent::Deduplication(moves) => {
            push_records(&mut file, moves, |moves| Record::DeduplicationV1(moves_v1(moves)))
        }
        Intent::Linking(objects) => push_records(&mut file, objects, |objects| {
            Record::LinkingV1(LinkingV1 {
                objects: objects.to_vec(),
            })
        }),
    }
    file
}

/// Pushes at least one record, so that the kind of an empty intent is known.
fn push_records<T>(file: &mut Vec<u8>, objects: &[T], record: impl Fn(&[T]) -> Record) {
    if objects.is_empty() {
        push_record(file, &record(&[]));
    }
    for objects in objects.chunks(OBJECTS_PER_RECORD) {
        push_record(file, &record(objects));
    }
}

fn moves_v1(moves: &[Moved]) -> MovesV1 {
    let moves = moves.iter().map(|moved| MoveV1 {
        name: moved.name.clone(),
        trash: moved.trash.clone(),
        via: match moved.via {
            Via::UpperLayer => 0,
            Via::MergedView => 1,
        },
    });
    MovesV1 {
        moves: moves.collect(),
    }
}

fn push_record(file: &mut Vec<u8>, record: &Record) {
    let body = postcard::to_stdvec(record).expect("vectors of bytes always serialise");
    let length = u32::try_from(body.len()).expect("a bounded number of bounded names");
    let start = file.len();
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(&body);
    let checksum = CRC.checksum(&file[start..]);
    file.extend_from_slice(&checksum.to_le_bytes());
}

/// Reads a journal.
pub(super) fn decode(file: &[u8]) -> Result<Contents, FormatError> {
    let mut contents = Contents::default();
    if file.is_empty() {
        return Ok(contents);
    }
    if file.len() < HEADER {
        // The header is written together with the first record; a shorter file is that write, torn.
        return if MAGIC.starts_with(&file[..file.len().min(MAGIC.len())]) {
            contents.torn = file.len();
            Ok(contents)
        } else {
            Err(FormatError::Magic)
        };
    }
    if &file[..MAGIC.len()] != MAGIC {
        return Err(FormatError::Magic);
    }
    let format = u32_at(file, MAGIC.len()).unwrap_or(0);
    if format != FORMAT {
        return Err(FormatError::Format(format));
    }
    let mut at = HEADER;
    while at < file.len() {
        match record_at(file, at) {
            Read::Whole(intent, next) => {
                match &mut contents.intent {
                    None => contents.intent = Some(intent),
                    Some(begun) => append(begun, intent).ok_or(FormatError::Damaged(at))?,
                }
                at = next;
            }
            Read::Torn => {
                contents.torn = file.len() - at;
                break;
            }
            Read::Damaged { next } if next >= file.len() => {
                contents.torn = file.len() - at;
                break;
            }
            Read::Damaged { .. } => return Err(FormatError::Damaged(at)),
        }
    }
    Ok(contents)
}

/// Adds what a further record says; `None` if it is of another kind, which no writer puts there.
fn append(begun: &mut Intent, more: Intent) -> Option<()> {
    match (begun, more) {
        (Intent::Removal(moves), Intent::Removal(more))
        | (Intent::Deduplication(moves), Intent::Deduplication(more)) => moves.extend(more),
        (Intent::Linking(objects), Intent::Linking(more)) => objects.extend(more),
        _ => return None,
    }
    Some(())
}

enum Read {
    Whole(Intent, usize),
    Torn,
    Damaged { next: usize },
}

fn record_at(file: &[u8], at: usize) -> Read {
    let Some(length) = u32_at(file, at).map(|length| length as usize) else {
        return Read::Torn;
    };
    if length == 0 || length > MAX_BODY {
        // Zeros are what a file system leaves of an append that it lost; anything else was never written by us.
        let lost = file[at..].iter().all(|&byte| byte == 0);
        return if lost {
            Read::Torn
        } else {
            Read::Damaged { next: at }
        };
    }
    let body_end = at + 4 + length;
    let Some(checksum) = u32_at(file, body_end) else {
        return Read::Torn;
    };
    let next = body_end + 4;
    if CRC.checksum(&file[at..body_end]) != checksum {
        return Read::Damaged { next };
    }
    match postcard::take_from_bytes::<Record>(&file[at + 4..body_end]) {
        Ok((record, [])) => match intent(record) {
            Some(intent) => Read::Whole(intent, next),
            None => Read::Damaged { next },
        },
        _ => Read::Damaged { next },
    }
}

/// What a record says, if it can be believed.
fn intent(record: Record) -> Option<Intent> {
    Some(match record {
        Record::RemovalV1(removal) => Intent::Removal(moves(removal)?),
        Record::DeduplicationV1(deduplication) => Intent::Deduplication(moves(deduplication)?),
        Record::LinkingV1(LinkingV1 { objects }) => {
            objects.iter().all(|name| is_plain_name(name)).then_some(())?;
            Intent::Linking(objects)
        }
    })
}

fn moves(record: MovesV1) -> Option<Vec<Moved>> {
    let moves = record.moves.into_iter().map(|moved| {
        let via = match moved.via {
            0 => Via::UpperLayer,
            1 => Via::MergedView,
            _ => return None,
        };
        (is_plain_name(&moved.name) && is_plain_name(&moved.trash)).then_some(Moved {
            name: moved.name,
            trash: moved.trash,
            via,
        })
    });
    moves.collect()
}

/// A name that cannot lead out of the directory it is used in.
fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    let bytes = file.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moved() -> Vec<Moved> {
        vec![
            Moved {
                name: b"xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc".to_vec(),
                trash: b"00000001-xzq37kpjpibgfqcsxyvc9kfa6s5aiykp-abc".to_vec(),
                via: Via::UpperLayer,
            },
            Moved {
                name: b"0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".to_vec(),
                trash: b"00000002-0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc".to_vec(),
                via: Via::MergedView,
            },
        ]
    }

    fn example() -> Intent {
        Intent::Removal(moved())
    }

    /// Each golden file was written once, by the first version that knew its records, and is never written again.
    #[test]
    fn reads_the_golden_files_of_format_1() {
        let check = |golden: &[u8], intent: Intent| {
            let contents = decode(golden).expect("the golden file is a journal");
            assert_eq!(contents.intent, Some(intent.clone()));
            assert_eq!(contents.torn, 0);
            assert_eq!(encode(&intent), golden);
        };
        check(include_bytes!("../../tests/golden/journal-1"), example());
        check(
            include_bytes!("../../tests/golden/journal-1-deduplication"),
            Intent::Deduplication(moved()),
        );
        check(
            include_bytes!("../../tests/golden/journal-1-linking"),
            Intent::Linking(moved().into_iter().map(|moved| moved.name).collect()),
        );
    }

    #[test]
    fn a_torn_record_is_nothing_begun() {
        let whole = encode(&example());
        for cut in 0..whole.len() {
            let contents = decode(&whole[..cut]).expect("a prefix is a torn journal");
            assert_eq!(contents.intent, None, "cut at {cut}");
            assert_eq!(contents.torn > 0, cut > 0 && cut != HEADER, "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_last_record_is_an_error() {
        let one = encode(&example());
        let mut two = one.clone();
        two.extend_from_slice(&one[HEADER..]);
        assert_eq!(
            decode(&two)
                .expect("two records")
                .intent
                .expect("an intent")
                .moves()
                .len(),
            4
        );
        two[HEADER + 10] ^= 1;
        assert_eq!(decode(&two), Err(FormatError::Damaged(HEADER)));
    }

    #[test]
    fn records_of_two_kinds_are_damage() {
        let mut two = encode(&example());
        two.extend_from_slice(&encode(&Intent::Linking(vec![b"a".to_vec()]))[HEADER..]);
        let second = encode(&example()).len();
        assert_eq!(decode(&two), Err(FormatError::Damaged(second)));
    }

    #[test]
    fn large_intents_are_several_records() {
        let moves: Vec<Moved> = (0..2 * OBJECTS_PER_RECORD + 1)
            .map(|n| Moved {
                name: vec![b'n'; 244],
                trash: format!("{n}").into_bytes(),
                via: Via::UpperLayer,
            })
            .collect();
        let intent = Intent::Removal(moves);
        let file = encode(&intent);
        assert_eq!(decode(&file).expect("a journal").intent, Some(intent));
        assert!(decode(&file[..file.len() - 1]).expect("a torn journal").torn > 0);
    }

    #[test]
    fn a_length_that_cannot_be_is_damage() {
        let mut file = encode(&example());
        file[HEADER..HEADER + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&file), Err(FormatError::Damaged(HEADER)));
        file[HEADER..].fill(0);
        assert_eq!(decode(&file).expect("zeros are a lost write").intent, None);
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(
            decode(b"something else entirely, and long enough"),
            Err(FormatError::Magic)
        );
        let mut newer = encode(&example());
        newer[MAGIC.len()] = 2;
        assert_eq!(decode(&newer), Err(FormatError::Format(2)));
    }

    #[test]
    fn names_that_lead_out_are_refused() {
        for name in [&b"../x"[..], b"..", b"", b"a/b", b"a\0b"] {
            let mut hostile = moved();
            hostile[0].name = name.to_vec();
            for intent in [
                Intent::Removal(hostile.clone()),
                Intent::Deduplication(hostile),
                Intent::Linking(vec![name.to_vec()]),
            ] {
                let contents = decode(&encode(&intent)).expect("the record is whole but not believed");
                assert_eq!(contents.intent, None, "{name:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(names in prop::collection::vec("[a-z0-9.-]{1,40}x", 0..20), behind in any::<bool>()) {
            let via = if behind { Via::UpperLayer } else { Via::MergedView };
            let moves: Vec<Moved> = names.iter()
                .map(|n| Moved { name: n.clone().into_bytes(), trash: format!("t-{n}").into_bytes(), via })
                .collect();
            let objects = names.into_iter().map(String::into_bytes).collect();
            for intent in [Intent::Removal(moves.clone()), Intent::Deduplication(moves), Intent::Linking(objects)] {
                prop_assert_eq!(decode(&encode(&intent)).map(|c| c.intent), Ok(Some(intent)));
            }
        }

        #[test]
        fn never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..200), with_header in any::<bool>()) {
            if with_header {
                let mut file = encode(&example())[..HEADER].to_vec();
                file.append(&mut bytes);
                bytes = file;
            }
            let _contents = decode(&bytes);
        }
    }
}
