// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written is read back: by readers that get everything at once, by those that get it byte by byte, and those
//! that do not get all of it find that out.

use std::fmt::Debug;
use std::io::Read;

use proptest::prelude::*;
use superpose_worker_protocol::{Error, Frame, Limits, Reply, Request, Result, WireReader, WireWriter};

use crate::sources::{Trickle, reader, written};
use crate::strategies;

/// `bytes` hold the value and nothing else; each part of them holds less than a value.
fn check<T: PartialEq + Debug>(
    bytes: &[u8],
    value: &T,
    read: impl Fn(&mut WireReader<Box<dyn Read + '_>>) -> Result<T>,
) {
    let rest = b"rest";
    let mut all = input(bytes.chain(&rest[..]));
    assert_eq!(read(&mut all).unwrap(), *value);
    let mut left = Vec::new();
    all.get_mut().read_to_end(&mut left).unwrap();
    assert_eq!(left, rest);

    assert_eq!(read(&mut input(Trickle::new(bytes))).unwrap(), *value);
    for cut in 0..bytes.len() {
        let found = read(&mut input(&bytes[..cut]));
        assert!(
            matches!(found, Err(Error::UnexpectedEnd { .. })),
            "cut at {cut} of {}: {found:?}",
            bytes.len()
        );
    }
}

fn input<'a>(source: impl Read + 'a) -> WireReader<Box<dyn Read + 'a>> {
    WireReader::new(Box::new(source), Limits::for_requests())
}

proptest! {
    #[test]
    fn requests((dialect, request) in strategies::request()) {
        let bytes = written(|out| request.write(out, &dialect));
        check(&bytes, &request, |input| match Request::read(input, &dialect) {
            // No request at all is how connections end.
            Ok(None) => Err(Error::UnexpectedEnd { what: "a request" }),
            other => other.map(Option::unwrap),
        });
    }

    #[test]
    fn replies((dialect, operation, reply) in strategies::reply()) {
        prop_assert_eq!(reply.shape(), operation.shape());
        let bytes = written(|out| reply.write(out, &dialect));
        check(&bytes, &reply, |input| Reply::read(input, operation, &dialect));
    }

    #[test]
    fn frames((version, frame) in strategies::frame()) {
        let bytes = written(|out| frame.write(out, version));
        check(&bytes, &frame, |input| Frame::read(input, version));
    }

    #[test]
    fn primitives(number in any::<u64>(), flag in any::<bool>(), text in strategies::bytes(), path in strategies::path()) {
        let dir = superpose_store_path::StoreDir::default();
        let mut out = WireWriter::new(Vec::new());
        out.number(number).unwrap();
        out.signed(number.cast_signed()).unwrap();
        out.flag(flag).unwrap();
        out.string(&text).unwrap();
        out.store_path(&path, &dir).unwrap();
        out.optional_store_path(None, &dir).unwrap();
        let bytes = out.into_inner();
        prop_assert_eq!(bytes.len() % 8, 0);
        let mut input = reader(&bytes);
        prop_assert_eq!(input.number("a").unwrap(), number);
        prop_assert_eq!(input.signed("b").unwrap(), number.cast_signed());
        prop_assert_eq!(input.flag("c").unwrap(), flag);
        prop_assert_eq!(input.text("d").unwrap(), text);
        prop_assert_eq!(input.store_path("e", &dir).unwrap(), path);
        prop_assert_eq!(input.optional_store_path("f", &dir).unwrap(), None);
        prop_assert_eq!(input.number_or_end("g").unwrap(), None);
    }

    /// Elements of sets and maps come in any order, and more than once; they are written in order.
    #[test]
    fn sets_are_read_in_any_order(paths in proptest::collection::vec(strategies::path(), 0..6)) {
        let dialect = superpose_worker_protocol::Dialect::default();
        let shuffled = written(|out| {
            out.number(2 * paths.len() as u64)?;
            paths.iter().rev().chain(&paths).try_for_each(|path| out.store_path(path, &dialect.store_dir))
        });
        let operation = superpose_worker_protocol::Operation::QueryReferrers;
        let reply = Reply::read(&mut reader(&shuffled), operation, &dialect).unwrap();
        prop_assert_eq!(&reply, &Reply::Paths(paths.iter().cloned().collect()));
        let sorted = written(|out| reply.write(out, &dialect));
        let mut distinct: Vec<_> = paths.iter().map(|path| dialect.store_dir.join(path)).collect();
        distinct.sort();
        distinct.dedup();
        let expected = written(|out| {
            out.number(distinct.len() as u64)?;
            distinct.iter().try_for_each(|path| out.string(path.as_bytes()))
        });
        prop_assert_eq!(sorted, expected);
    }
}
