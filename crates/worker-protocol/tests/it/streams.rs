// SPDX-License-Identifier: MIT OR Apache-2.0
//! Framed streams, and the list of objects inside one.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;

use proptest::collection::vec;
use proptest::prelude::*;
use superpose_store_path::{HashAlgorithm, hash_bytes};
use superpose_worker_protocol::{
    AddMultipleReader, AddMultipleWriter, Cause, Dialect, Error, FramedReader, FramedWriter, Limits,
    UnkeyedValidPathInfo, UploadStopped, ValidPathInfo, WireReader, WireWriter,
};

use crate::sources::{Counting, Trickle, path, reader, written};
use crate::strategies;

/// Writes a stream of these frames, then `next` words.
fn frames(frames: &[&[u8]], next: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend((frame.len() as u64).to_le_bytes());
        bytes.extend(*frame);
    }
    bytes.extend([0; 8]);
    bytes.extend(next.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// The lengths of the frames of a stream, and what is inside.
fn taken_apart(mut bytes: &[u8]) -> (Vec<usize>, Vec<u8>) {
    let (mut lengths, mut inside) = (Vec::new(), Vec::new());
    loop {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes = &bytes[8..];
        if length == 0 {
            assert_eq!(bytes, b"");
            return (lengths, inside);
        }
        lengths.push(length);
        inside.extend(&bytes[..length]);
        bytes = &bytes[length..];
    }
}

proptest! {
    #[test]
    fn streams_are_read_back(pieces in vec(vec(any::<u8>(), 0..3000), 0..6), flushed in any::<u8>()) {
        let bytes = written(|out| {
            let mut stream = FramedWriter::new(out);
            for (at, piece) in pieces.iter().enumerate() {
                stream.write_all(piece).unwrap();
                if flushed >> at & 1 == 1 {
                    stream.flush().unwrap();
                }
            }
            stream.finish()
        });
        let expected = pieces.concat();
        prop_assert_eq!(taken_apart(&bytes).1, expected.clone());

        let mut input = reader(&bytes);
        let mut inside = Vec::new();
        FramedReader::new(&mut input).read_to_end(&mut inside).unwrap();
        prop_assert_eq!(&inside, &expected);
        prop_assert!(input.into_inner().is_empty());

        let mut input = WireReader::new(Trickle::new(&bytes), Limits::for_requests());
        inside.clear();
        FramedReader::new(&mut input).read_to_end(&mut inside).unwrap();
        prop_assert_eq!(&inside, &expected);

        let mut input = reader(&bytes);
        let mut stream = FramedReader::new(&mut input);
        let mut some = vec![0; expected.len() / 2];
        stream.read_exact(&mut some).unwrap();
        prop_assert_eq!(stream.drain().unwrap(), (expected.len() - some.len()) as u64);
        prop_assert!(stream.is_finished());
    }

    #[test]
    fn lists_of_objects_are_read_back(
        objects in vec((strategies::keyed_info(), vec(any::<u8>(), 0..500)), 0..4),
        reads in any::<u8>(),
        dialect in strategies::dialect(),
    ) {
        let objects: Vec<_> = objects
            .into_iter()
            .map(|(mut info, archive)| {
                info.info.nar_size = archive.len() as u64;
                (info, archive)
            })
            .collect();
        let bytes = written(|out| {
            let mut list = AddMultipleWriter::new(FramedWriter::new(out), objects.len() as u64, &dialect)?;
            for (info, archive) in &objects {
                list.begin_object(info)?;
                list.write_all(archive).unwrap();
            }
            list.finish()?.finish()
        });
        let mut input = reader(&bytes);
        let mut list =
            AddMultipleReader::new(FramedReader::new(&mut input), Limits::for_requests(), &dialect).unwrap();
        for (at, (info, archive)) in objects.iter().enumerate() {
            let found = list.next_object().unwrap();
            prop_assert_eq!(found.as_ref(), Some(info));
            // What is not read is skipped.
            if reads >> at & 1 == 1 {
                let mut found = Vec::new();
                list.read_to_end(&mut found).unwrap();
                prop_assert_eq!(&found, archive);
            }
        }
        prop_assert_eq!(list.next_object().unwrap(), None);
        prop_assert_eq!(list.into_inner().drain().unwrap(), 0);
        prop_assert!(input.into_inner().is_empty());
    }
}

#[test]
fn the_border_of_frames_carries_no_meaning() {
    let bytes = frames(&[b"a", b"bc", b"defgh"], &[42]);
    let mut input = reader(&bytes);
    let mut inside = Vec::new();
    FramedReader::new(&mut input).read_to_end(&mut inside).unwrap();
    assert_eq!(inside, b"abcdefgh");
    assert_eq!(input.number("what follows").unwrap(), 42);
}

#[test]
fn a_stream_that_is_at_its_end_stays_there() {
    let bytes = frames(&[], &[1]);
    let mut input = reader(&bytes);
    let mut stream = FramedReader::new(&mut input);
    assert!(!stream.is_finished());
    for _ in 0..2 {
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
    }
    assert!(stream.is_finished());
    assert_eq!(input.number("what follows").unwrap(), 1);
}

#[test]
fn nothing_is_allocated_for_a_frame() {
    let start = u64::from(u32::MAX).to_le_bytes();
    let source = Counting::new(start.chain(io::repeat(7)));
    let mut input = WireReader::new(source, Limits::for_requests());
    FramedReader::new(&mut input).read_exact(&mut [0; 100]).unwrap();
    let source = input.into_inner();
    assert_eq!((source.taken, source.largest), (108, 100));
}

#[test]
fn a_frame_longer_than_any_can_be_is_refused() {
    for length in [1 << 32, u64::MAX] {
        let bytes = u64::to_le_bytes(length);
        let error = FramedReader::new(&mut reader(&bytes)).drain().unwrap_err();
        assert!(
            matches!(error, Error::TooLong { what: "a frame", found, .. } if found == length),
            "{error}"
        );
        let error = FramedReader::new(&mut reader(&bytes)).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}

#[test]
fn a_stream_that_ends_too_early_says_so() {
    let bytes = frames(&[b"abc", b"d"], &[]);
    for cut in 0..bytes.len() {
        let error = FramedReader::new(&mut reader(&bytes[..cut])).drain().unwrap_err();
        assert!(matches!(error, Error::UnexpectedEnd { .. }), "{cut}: {error}");
        let error = FramedReader::new(&mut reader(&bytes[..cut]))
            .read_to_end(&mut Vec::new())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}");
    }
}

#[test]
fn small_writes_are_gathered_and_large_ones_cut() {
    let bytes = written(|out| {
        let mut stream = FramedWriter::new(out);
        for _ in 0..70_000 {
            stream.write_all(b"x").unwrap();
        }
        stream.write_all(&[b'y'; 200_000]).unwrap();
        stream.finish()
    });
    let (lengths, inside) = taken_apart(&bytes);
    assert_eq!(inside.len(), 270_000);
    assert!(lengths.iter().all(|&length| length <= 64 << 10), "{lengths:?}");
    assert_eq!(lengths.len(), 270_000_usize.div_ceil(64 << 10));
}

#[test]
fn the_hook_is_asked_before_each_frame_and_stops_the_stream() {
    let mut out = WireWriter::new(Vec::new());
    let mut asked = 0;
    let mut stream = FramedWriter::with_hook(&mut out, || {
        asked += 1;
        Ok(if asked > 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    for _ in 0..2 {
        stream.write_all(b"abc").unwrap();
        stream.flush().unwrap();
    }
    stream.write_all(b"never sent").unwrap();
    assert!(!stream.is_stopped());
    let error = stream.flush().unwrap_err();
    assert_eq!(error.downcast::<UploadStopped>().unwrap(), UploadStopped);
    assert!(stream.is_stopped());
    assert!(stream.write(b"more").is_err());
    stream.finish().unwrap();
    assert_eq!(asked, 3);
    assert_eq!(out.into_inner(), frames(&[b"abc", b"abc"], &[]));
}

#[test]
fn a_stop_at_the_very_end_still_ends_the_stream() {
    let mut out = WireWriter::new(Vec::new());
    let mut stream = FramedWriter::with_hook(&mut out, || Ok(ControlFlow::Break(())));
    stream.write_all(b"abc").unwrap();
    stream.finish().unwrap();
    assert_eq!(out.into_inner(), frames(&[], &[]));
}

#[test]
fn a_hook_that_fails_is_not_a_stop() {
    let mut out = WireWriter::new(Vec::new());
    let mut stream = FramedWriter::with_hook(&mut out, || Err(ErrorKind::ConnectionReset.into()));
    stream.write_all(b"abc").unwrap();
    let error = stream.finish().unwrap_err();
    assert_eq!(error.io_kind(), Some(ErrorKind::ConnectionReset));
}

fn object(size: u64) -> ValidPathInfo {
    ValidPathInfo {
        path: path("0p6d6far7jx5ky739yfjf0d23nv1bbbm-c"),
        info: UnkeyedValidPathInfo::new(hash_bytes(HashAlgorithm::Sha256, b""), size),
    }
}

#[test]
fn the_announced_amounts_are_held_to() {
    let dialect = Dialect::default();
    let list = |objects| AddMultipleWriter::new(Vec::new(), objects, &dialect).unwrap();

    let mut short = list(1);
    short.begin_object(&object(3)).unwrap();
    short.write_all(b"ab").unwrap();
    let error = short.begin_object(&object(3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the bytes of an archive: 3 were announced, 2 were written"
    );
    assert_eq!(error.cause(), Cause::Caller);
    assert_eq!(short.write(b"cd").unwrap_err().kind(), ErrorKind::InvalidInput);
    short.write_all(b"c").unwrap();
    assert!(matches!(
        short.begin_object(&object(0)),
        Err(Error::Amount {
            expected: 1,
            found: 2,
            ..
        })
    ));
    short.finish().unwrap();

    let error = list(2).finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the number of objects: 2 were announced, 0 were written"
    );
    let mut cut = list(1);
    cut.begin_object(&object(3)).unwrap();
    assert!(cut.finish().is_err());
    assert_eq!(list(0).finish().unwrap(), [0; 8]);
}

#[test]
fn an_archive_that_ends_too_early_says_so() {
    let dialect = Dialect::default();
    let inside = {
        let mut list = AddMultipleWriter::new(Vec::new(), 1, &dialect).unwrap();
        list.begin_object(&object(10)).unwrap();
        list.write_all(b"abc").unwrap();
        list.abandon()
    };
    // The stream is complete, what is inside is not.
    let bytes = frames(&[&inside], &[]);
    let mut input = reader(&bytes);
    let mut list =
        AddMultipleReader::new(FramedReader::new(&mut input), Limits::for_requests(), &dialect).unwrap();
    list.next_object().unwrap().unwrap();
    let error = list.next_object().unwrap_err();
    assert!(
        matches!(error, Error::UnexpectedEnd { what: "an archive" }),
        "{error}"
    );
    // The stream itself can still be ended, and the connection used.
    list.into_inner().drain().unwrap();
    assert_eq!(input.into_inner(), b"");
}

/// The limit of a message is one for each object, not for the list.
#[test]
fn a_list_may_be_longer_than_any_message() {
    let dialect = Dialect::default();
    let count = 100;
    let bytes = written(|out| {
        let mut list = AddMultipleWriter::new(FramedWriter::new(out), count, &dialect)?;
        (0..count).try_for_each(|_| list.begin_object(&object(0)))?;
        list.finish()?.finish()
    });
    let narrow = Limits {
        message: 1000,
        ..Limits::for_requests()
    };
    assert!(bytes.len() > 10_000);
    let mut input = reader(&bytes);
    let mut list = AddMultipleReader::new(FramedReader::new(&mut input), narrow, &dialect).unwrap();
    for left in (0..count).rev() {
        assert_eq!(list.next_object().unwrap(), Some(object(0)));
        assert_eq!(list.remaining(), left);
    }
    assert_eq!(list.next_object().unwrap(), None);
}

#[test]
fn an_error_of_the_stream_comes_out_of_the_list_as_it_is() {
    let dialect = Dialect::default();
    let mut bytes = frames(&[&1_u64.to_le_bytes()], &[]);
    bytes.truncate(16);
    bytes.extend((1_u64 << 40).to_le_bytes());
    let mut input = reader(&bytes);
    let mut list =
        AddMultipleReader::new(FramedReader::new(&mut input), Limits::for_requests(), &dialect).unwrap();
    let error = list.next_object().unwrap_err();
    assert!(matches!(error, Error::TooLong { what: "a frame", .. }), "{error}");
}
