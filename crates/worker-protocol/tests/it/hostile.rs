// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a peer may not send: it ends in an error, costs no more than was sent, and never panics.

use std::io::{self, Read};

use proptest::collection::vec;
use proptest::prelude::*;
use superpose_worker_protocol::{
    Cause, ClientOffer, Dialect, Error, Feature, Frame, FramedReader, Limits, LogFrame, Operation, Reply,
    Request, RootPath, ServerOffer, Version, WireReader, WireWriter, accept, connect, read_reply,
    write_reply,
};

use crate::sources::{Counting, reader, version, with, written};
use crate::strategies;

/// As much as a reader may want at once, whatever was announced.
const STEP: usize = 64 << 10;

/// Narrow limits, so that small inputs reach them.
const NARROW: Limits = Limits {
    word: 4 << 10,
    text: 100_000,
    content: 200_000,
    elements: 1000,
    signatures: 10,
    message: 400_000,
};

/// Reads everything that there is to read from these bytes.
fn read_everything(bytes: &[u8], dialect: &Dialect) {
    let mut input = reader(bytes);
    while let Ok(Some(_)) = Request::read(&mut input, dialect) {}
    for &operation in Operation::ALL {
        // Success, an error, or no end: all are fine.
        drop(Reply::read(&mut reader(bytes), operation, dialect));
    }
    let mut input = reader(bytes);
    while Frame::read(&mut input, dialect.version).is_ok() {}
    drop(FramedReader::new(&mut reader(bytes)).drain());
    let mut out = WireWriter::new(io::sink());
    drop(accept(&mut reader(bytes), &mut out, &ServerOffer::default()));
    drop(connect(
        &mut reader(bytes),
        &mut out,
        &ClientOffer::default(),
        |_| {},
    ));
}

/// Bytes that often look like something: small numbers, known words, cut and shifted.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => (0_u64..60).prop_map(|number| number.to_le_bytes().to_vec()),
        1 => any::<[u8; 8]>().prop_map(|bytes| bytes.to_vec()),
        1 => Just(u64::MAX.to_le_bytes().to_vec()),
        1 => Just(b"/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c\0\0\0".to_vec()),
        1 => proptest::sample::select(&[b"gmlo", b"stla", b"ptxc", b"TRTS", b"TLSR", b"cxin", b"oixd"][..])
            .prop_map(|word| [&word[..], &[0; 4]].concat()),
    ];
    vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..400), dialect in strategies::dialect()) {
        read_everything(&bytes, &dialect);
    }

    #[test]
    fn words_without_sense(bytes in noise(), dialect in strategies::dialect()) {
        read_everything(&bytes, &dialect);
    }

    /// A request in which something was changed is read as another one, or not.
    #[test]
    fn requests_with_a_flaw((dialect, request) in strategies::request(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = written(|out| request.write(out, &dialect));
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(Some(other)) = Request::read(&mut reader(&bytes), &dialect) {
            // What was understood can be said again, but for what only reading is lenient about.
            let mut out = WireWriter::new(Vec::new());
            if other.write(&mut out, &dialect).is_ok() {
                let again = Request::read(&mut reader(out.get_ref()), &dialect).unwrap();
                prop_assert_eq!(again, Some(other));
            }
        }
    }
}

/// A source that repeats the same bytes for ever.
struct Endless {
    pattern: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.pattern[self.at % self.pattern.len()];
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

/// A source that begins with `start` and then repeats `pattern` for ever, read with narrow limits.
fn endless(start: &[u64], pattern: &[u8]) -> WireReader<Counting<impl Read + use<>>> {
    let start: Vec<u8> = start.iter().flat_map(|word| word.to_le_bytes()).collect();
    let pattern = pattern.to_vec();
    let source = io::Cursor::new(start).chain(Endless { pattern, at: 0 });
    WireReader::new(Counting::new(source), NARROW)
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_read_or_allocated() {
    for length in [NARROW.content as u64 + 1, u64::from(u32::MAX), 1 << 63, u64::MAX] {
        // AddTextToStore: a name, then a text that is too long.
        let mut input = endless(&[8, 1, 0x61, length], &[0]);
        let error = Request::read(&mut input, &Dialect::default()).unwrap_err();
        assert!(
            matches!(error, Error::TooLong { what: "the text of an object", limit: 200_000, found } if found == length),
            "{error}"
        );
        assert_eq!(error.cause(), Cause::Peer);
        let source = input.into_inner();
        assert_eq!((source.taken, source.largest), (32, 8));
    }
}

#[test]
fn a_length_within_the_limit_is_allocated_as_it_arrives() {
    let announced = 200_000_u64.to_le_bytes();
    let start: Vec<u8> = [8_u64, 1, 0x61]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .chain(announced)
        .collect();
    let source = io::Cursor::new(start).chain(&[7; 70_000][..]);
    let mut input = WireReader::new(Counting::new(source), NARROW);
    let error = Request::read(&mut input, &Dialect::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::UnexpectedEnd {
                what: "the text of an object"
            }
        ),
        "{error}"
    );
    assert!(input.get_ref().largest <= STEP);
}

#[test]
fn a_count_over_the_limit_is_refused() {
    for count in [1001, u64::MAX] {
        let mut input = endless(&[32, count], &[0]);
        let error = Request::read(&mut input, &Dialect::default()).unwrap_err();
        assert!(
            matches!(error, Error::TooLong { what: "the paths", limit: 1000, found } if found == count),
            "{error}"
        );
        assert_eq!(input.get_ref().taken, 16);
    }
}

#[test]
fn a_message_over_the_limit_is_refused_although_no_part_of_it_is() {
    // SetOptions with overrides without end, each of which is fine.
    let mut setting = Vec::new();
    setting.extend(1_u64.to_le_bytes());
    setting.extend(*b"a\0\0\0\0\0\0\0");
    setting.extend(1000_u64.to_le_bytes());
    setting.extend([b'x'; 1000]);
    let start: Vec<u64> = [19].into_iter().chain([0; 12]).chain([1000]).collect();
    let mut input = endless(&start, &setting);
    let error = Request::read(&mut input, &Dialect::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooLong {
                what: "the message",
                limit: 400_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(input.get_ref().taken <= NARROW.message);
}

#[test]
fn each_message_is_counted_anew() {
    // A log without end: no frame of it is too long.
    let text: Vec<u8> = written(|out| LogFrame::Next(vec![b'x'; 50_000]).write(out, Version::CURRENT));
    let mut input = WireReader::new(Counting::new(Endless { pattern: text, at: 0 }), NARROW);
    for _ in 0..20 {
        Frame::read(&mut input, Version::CURRENT).unwrap();
    }
    assert!(input.get_ref().taken > 2 * NARROW.message);
    let mut out = WireWriter::new(Vec::new());
    for _ in 0..20 {
        Request::AddIndirectRoot(vec![b'/'; 50_000])
            .write(&mut out, &Dialect::default())
            .unwrap();
    }
    let bytes = out.into_inner();
    let mut input = WireReader::new(&bytes[..], NARROW);
    for _ in 0..20 {
        Request::read(&mut input, &Dialect::default()).unwrap();
    }
}

/// The frames before a reply do not count towards its limit, nor do replies before it.
#[test]
fn each_reply_is_counted_anew() {
    let dialect = Dialect::default();
    let bytes = written(|out| {
        for _ in 0..3 {
            LogFrame::Next(vec![b'x'; 80_000]).write(out, dialect.version)?;
            let root = RootPath(vec![b'/'; 90_000]);
            write_reply(out, Operation::AddPermRoot, &dialect, &root)?;
        }
        Reply::RootPath(RootPath(vec![b'/'; 90_000])).write(out, &dialect)?;
        Reply::RootPath(RootPath(vec![b'/'; 90_000])).write(out, &dialect)
    });
    let narrow = Limits {
        message: 90_010,
        ..NARROW
    };
    let mut input = WireReader::new(&bytes[..], narrow);
    for _ in 0..3 {
        let reply = read_reply::<RootPath, _>(&mut input, Operation::AddPermRoot, &dialect, |_| {});
        assert_eq!(reply.unwrap().unwrap().0.len(), 90_000);
    }
    for _ in 0..2 {
        Reply::read(&mut input, Operation::AddPermRoot, &dialect).unwrap();
    }
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let good = written(|out| Request::AddIndirectRoot(b"/a".to_vec()).write(out, &Dialect::default()));
    for at in 18..24 {
        let mut bytes = good.clone();
        bytes[at] = 1;
        let error = Request::read(&mut reader(&bytes), &Dialect::default()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Padding {
                    what: "the path of a root"
                }
            ),
            "{at}: {error}"
        );
    }
}

#[test]
fn unknown_operations_are_named_by_their_number() {
    for number in [0, 3, 16, 27, 48, 9999, u64::MAX] {
        let error = Request::read(&mut reader(&u64::to_le_bytes(number)), &Dialect::default()).unwrap_err();
        assert!(
            matches!(error, Error::UnknownOperation { number: found } if found == number),
            "{error}"
        );
        assert_eq!(error.cause(), Cause::Peer);
    }
}

#[test]
fn the_data_frames_of_old_servers_and_unknown_words_are_refused() {
    for (word, hint) in [
        (0x6461_7461, "wants data"),
        (0x6461_7416, "sends data"),
        (0, "out of step"),
        (26, "out of step"),
    ] {
        let error = Frame::read(&mut reader(&u64::to_le_bytes(word)), Version::CURRENT).unwrap_err();
        assert!(
            matches!(error, Error::Frame { word: found, .. } if found == word),
            "{error}"
        );
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn errors_of_a_form_that_clients_abort_over_are_errors_here() {
    let error = |kind: &[u8], position: u64| {
        let bytes = written(|out| {
            out.number(0x6378_7470)?;
            out.string(kind)?;
            out.number(0)?;
            out.string(b"Error")?;
            out.string(b"message")?;
            out.number(position)?;
            out.number(0)
        });
        Frame::read(&mut reader(&bytes), Version::CURRENT)
    };
    assert!(error(b"Error", 0).is_ok());
    assert!(matches!(
        error(b"Panic", 0),
        Err(Error::Value {
            what: "the type of an error",
            ..
        })
    ));
    assert!(matches!(
        error(b"Error", 1),
        Err(Error::Value {
            what: "the mark of a position",
            ..
        })
    ));
}

#[test]
fn numbers_that_are_none_of_few_are_refused() {
    let read = |words: &[u64], dialect: &Dialect| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Request::read(&mut reader(&bytes), dialect)
            .unwrap_err()
            .to_string()
    };
    let current = Dialect::default();
    assert_eq!(
        read(&[9, 0, 3], &current),
        "the build mode is `3`: expected 0, 1 or 2"
    );
    assert_eq!(
        read(&[20, 4], &current),
        "the collector's action is `4`: expected 0 to 3"
    );
    let reply = |words: &[u64], operation, dialect: &Dialect| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Reply::read(&mut reader(&bytes), operation, dialect)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        reply(&[15, 0], Operation::BuildDerivation, &current),
        "the status of a build is `15`: expected 0 to 14"
    );
    assert_eq!(
        reply(&[2], Operation::QueryPathInfo, &current),
        "the validity of a path is `2`: expected 0 or 1"
    );
    assert_eq!(
        reply(
            &[2],
            Operation::QueryRealisation,
            &with(Feature::RealisationWithPath)
        ),
        "the mark of a realisation is `2`: expected 0 or 1"
    );
}

#[test]
fn operations_that_were_not_agreed_on_are_refused_of_a_client() {
    let error = Request::read(&mut reader(&7_u64.to_le_bytes()), &version(24)).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotAgreed {
                operation: Operation::AddToStore,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(error.cause(), Cause::Peer);
    let error = Request::read(&mut reader(&1000_u64.to_le_bytes()), &Dialect::default()).unwrap_err();
    assert!(matches!(error, Error::NotAgreed { .. }), "{error}");
}

#[test]
fn a_path_outside_the_store_says_so() {
    let bytes = written(|out| {
        out.number(1)?;
        out.string(b"/etc/passwd")
    });
    let error = Request::read(&mut reader(&bytes), &Dialect::default()).unwrap_err();
    assert_eq!(error.to_string(), "the path is not valid");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("/etc/passwd") && source.contains("/nix/store"),
        "{source}"
    );
}

#[test]
fn a_failing_source_is_not_the_peers_fault() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
    let mut input = WireReader::new(Failing, NARROW);
    let error = Request::read(&mut input, &Dialect::default()).unwrap_err();
    assert_eq!(
        (error.cause(), error.io_kind()),
        (Cause::Transport, Some(io::ErrorKind::TimedOut))
    );
    let error = Frame::read(&mut input, Version::CURRENT).unwrap_err();
    assert_eq!(
        (error.cause(), error.io_kind()),
        (Cause::Transport, Some(io::ErrorKind::TimedOut))
    );
}

#[test]
fn a_text_of_nothing_but_separators_does_not_nest_without_end() {
    let target = format!(
        "/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c.drv{}",
        "!a".repeat(100_000)
    );
    let bytes = written(|out| {
        out.number(40)?;
        out.number(1)?;
        out.string(target.as_bytes())
    });
    let error = Request::read(&mut reader(&bytes), &Dialect::default()).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Value {
                what: "a derived path",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().len() < 300);
}
