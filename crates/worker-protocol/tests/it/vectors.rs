// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that Nix wrote, or would: read, and written the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io::{Read, Write};

use superpose_store_path::{ContentAddress, ContentMethod, Hash, HashAlgorithm, Name, StorePath};
use superpose_worker_protocol::*;

use crate::golden::golden;
use crate::sources::{path, reader, with, written};

pub(crate) const C: &str = "0p6d6far7jx5ky739yfjf0d23nv1bbbm-c";
pub(crate) const B: &str = "p4k4khpi4kvdrg4x47yxnli1g29nj2cg-b";
pub(crate) const DRV: &str = "wbq4h7cc23rj88yb2ax7pksa3qy5cdn6-c.drv";
const TXT: &str = "z3n6ml62lc6l9glpaz6fq7fvi2rks9vq-a.txt";
/// When the recorded path became valid.
const TIME: i64 = 0x6b02_9b76;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

pub(crate) fn sha256(digits: &str) -> Hash {
    Hash::parse_unprefixed(digits.as_bytes(), HashAlgorithm::Sha256).unwrap()
}

/// The file holds one request.
pub(crate) fn check_request(file: &str, dialect: &Dialect, request: &Request) {
    let bytes = golden(file);
    let mut input = reader(&bytes);
    assert_eq!(
        Request::read(&mut input, dialect).unwrap().as_ref(),
        Some(request)
    );
    assert_eq!(input.into_inner(), b"");
    assert_eq!(written(|out| request.write(out, dialect)), bytes);
}

/// The file holds a whole reply.
fn check_reply<T: Body + PartialEq + Debug>(file: &str, operation: Operation, said: &[LogFrame], body: &T) {
    let (bytes, dialect) = (golden(file), Dialect::default());
    let mut input = reader(&bytes);
    let mut heard = Vec::new();
    let found: Result<T, _> = read_reply(&mut input, operation, &dialect, |frame| heard.push(frame)).unwrap();
    assert_eq!((found.as_ref(), &heard[..]), (Ok(body), said));
    assert_eq!(input.into_inner(), b"");
    let again = written(|out| {
        said.iter()
            .try_for_each(|frame| frame.write(out, dialect.version))?;
        write_reply(out, operation, &dialect, body)
    });
    assert_eq!(again, bytes);
}

/// The file holds the body of a reply.
pub(crate) fn check_body(file: &str, operation: Operation, dialect: &Dialect, reply: &Reply) {
    let bytes = golden(file);
    let mut input = reader(&bytes);
    assert_eq!(Reply::read(&mut input, operation, dialect).unwrap(), *reply);
    assert_eq!(input.into_inner(), b"");
    assert_eq!(written(|out| reply.write(out, dialect)), bytes);
}

fn recorded_info() -> UnkeyedValidPathInfo {
    UnkeyedValidPathInfo {
        deriver: Some(path(DRV)),
        references: [path(B)].into(),
        registration_time: TIME,
        ultimate: true,
        ..UnkeyedValidPathInfo::new(
            sha256("b65d31f3acc111c1cfee1d74db9598f14118780315fc9c8612a2c8810ad1dbbb"),
            160,
        )
    }
}

#[test]
fn sizes_are_those_of_the_recording() {
    assert_eq!(
        (golden("session-client").len(), golden("session-server").len()),
        (216, 320)
    );
}

#[test]
fn path_info() {
    let (bytes, dialect) = (golden("session-server"), Dialect::default());
    let mut input = reader(&bytes[64..]);
    let found = read_reply(&mut input, Operation::QueryPathInfo, &dialect, |_| {}).unwrap();
    assert_eq!(found, Ok(Some(recorded_info())));
    assert_eq!(input.into_inner(), b"");
    check_reply(
        "path-info-invalid",
        Operation::QueryPathInfo,
        &[],
        &None::<UnkeyedValidPathInfo>,
    );
}

fn added() -> ValidPathInfo {
    let hash = sha256("1c37d01af40be2e80691de3cc3df44377a699afbb17c68f080964b2fd071fc13");
    ValidPathInfo {
        path: path(TXT),
        info: UnkeyedValidPathInfo {
            registration_time: TIME,
            content_address: Some(ContentAddress {
                method: ContentMethod::Nar,
                hash,
            }),
            ..UnkeyedValidPathInfo::new(hash, 120)
        },
    }
}

#[test]
fn add_to_store() {
    let (bytes, dialect) = (golden("add-to-store-request"), Dialect::default());
    let mut input = reader(&bytes);
    let request = Request::read(&mut input, &dialect).unwrap().unwrap();
    let expected = Request::AddToStore(AddToStore {
        name: name("a.txt"),
        method: MethodAlgorithm {
            method: ContentMethod::Nar,
            algorithm: HashAlgorithm::Sha256,
        },
        references: BTreeSet::new(),
        repair: false,
    });
    assert_eq!(request, expected);
    assert!(request.operation().has_stream());
    let mut archive = Vec::new();
    FramedReader::new(&mut input).read_to_end(&mut archive).unwrap();
    assert_eq!(archive, golden("nar"));
    assert_eq!(input.into_inner(), b"");

    let again = written(|out| {
        request.write(out, &dialect)?;
        let mut stream = FramedWriter::new(out);
        stream.write_all(&archive).unwrap();
        stream.finish()
    });
    assert_eq!(again, bytes);
    check_reply("add-to-store-reply", Operation::AddToStore, &[], &added());
}

#[test]
fn add_multiple_to_store() {
    let (bytes, dialect) = (golden("add-multiple-request"), Dialect::default());
    let mut input = reader(&bytes);
    let request = Request::read(&mut input, &dialect).unwrap().unwrap();
    let flags = AddFlags {
        repair: false,
        without_signatures: true,
    };
    assert_eq!(request, Request::AddMultipleToStore(flags));
    let mut objects =
        AddMultipleReader::new(FramedReader::new(&mut input), Limits::for_requests(), &dialect).unwrap();
    assert_eq!(objects.remaining(), 1);
    let mut expected = added();
    expected.info.registration_time = 0;
    assert_eq!(objects.next_object().unwrap(), Some(expected.clone()));
    let mut archive = Vec::new();
    objects.read_to_end(&mut archive).unwrap();
    assert_eq!(archive, golden("nar"));
    assert_eq!(objects.next_object().unwrap(), None);
    assert_eq!(objects.into_inner().drain().unwrap(), 0);
    assert_eq!(input.into_inner(), b"");

    // Stock clients put the borders elsewhere; what is inside is the same.
    let again = written(|out| {
        request.write(out, &dialect)?;
        let mut objects = AddMultipleWriter::new(FramedWriter::new(out), 1, &dialect)?;
        objects.begin_object(&expected)?;
        objects.write_all(&archive).unwrap();
        objects.finish()?.finish()
    });
    let mut input = reader(&again);
    assert_eq!(Request::read(&mut input, &dialect).unwrap(), Some(request));
    let mut inside = Vec::new();
    FramedReader::new(&mut input).read_to_end(&mut inside).unwrap();
    let mut input = reader(&bytes[24..]);
    let mut expected = Vec::new();
    FramedReader::new(&mut input).read_to_end(&mut expected).unwrap();
    assert_eq!(inside, expected);
}

#[test]
fn query_missing_with_its_activity() {
    let id = 0x6127_0000_0000;
    let start = LogFrame::StartActivity(Activity {
        id,
        level: Level::Debug,
        kind: ActivityType::Unknown,
        text: b"querying info about missing paths".to_vec(),
        fields: Vec::new(),
        parent: 0,
    });
    let said = [start, LogFrame::StopActivity(id)];
    check_reply(
        "query-missing-reply",
        Operation::QueryMissing,
        &said,
        &Missing::default(),
    );
}

#[test]
fn the_log_of_a_build() {
    let bytes = golden("build-log");
    let expected = [
        LogFrame::Next(b"building\n".to_vec()),
        LogFrame::StartActivity(Activity {
            id: 7,
            level: Level::Info,
            kind: ActivityType::Build,
            text: b"building c".to_vec(),
            fields: vec![
                Field::Text(format!("/nix/store/{DRV}").into_bytes()),
                Field::Text(Vec::new()),
                Field::Number(1),
                Field::Number(1),
            ],
            parent: 2,
        }),
        LogFrame::Result(ActivityResult {
            id: 7,
            kind: ResultType::BuildLogLine,
            fields: vec![Field::Text(b"line".to_vec())],
        }),
        LogFrame::Result(ActivityResult {
            id: 2,
            kind: ResultType::Progress,
            fields: (1..=4).map(Field::Number).collect(),
        }),
        LogFrame::StopActivity(7),
    ];
    let mut input = reader(&bytes);
    let mut heard = Vec::new();
    let ending = read_until_end(&mut input, Version::CURRENT, |frame| heard.push(frame)).unwrap();
    assert_eq!((ending, &heard[..]), (Ending::Success, &expected[..]));
    let again = written(|out| {
        expected
            .iter()
            .try_for_each(|frame| frame.write(out, Version::CURRENT))?;
        Frame::Last.write(out, Version::CURRENT)
    });
    assert_eq!(again, bytes);
}

fn check_error(file: &str, minor: u8, report: &RemoteError) {
    let (bytes, version) = (golden(file), Version::new(1, minor));
    let mut input = reader(&bytes);
    assert_eq!(
        Frame::read(&mut input, version).unwrap(),
        Frame::Error(report.clone())
    );
    assert_eq!(input.into_inner(), b"");
    assert_eq!(
        written(|out| Frame::Error(report.clone()).write(out, version)),
        bytes
    );
}

#[test]
fn errors() {
    let report = RemoteError::new("invalid operation \x1b[35;1m9999\x1b[0m");
    check_error("unknown-operation", 38, &report);
    check_error("unknown-operation", 26, &report);
    let mut report = RemoteError::new("no");
    report.traces = vec![b"while building".to_vec(), b"while asking".to_vec()];
    check_error("error-with-traces", 38, &report);
    let mut report = RemoteError::new("no such path");
    report.exit_status = 100;
    check_error("error-before-1.26", 25, &report);
}

#[test]
fn a_level_that_clients_abort_over_is_not_written() {
    let mut report = RemoteError::new("invalid operation \x1b[35;1m9999\x1b[0m");
    report.level = Level::Other(8);
    let bytes = written(|out| Frame::Error(report).write(out, Version::CURRENT));
    assert_eq!(bytes, golden("unknown-operation"));
}

#[test]
fn outputs_by_name() {
    let outputs: BTreeMap<Name, Option<StorePath>> = [
        (name("dev"), Some(path("b24h829hy0ly695y2i65b10v7x7rvimv-c-dev"))),
        (name("out"), Some(path(C))),
    ]
    .into();
    check_reply(
        "output-map-reply",
        Operation::QueryDerivationOutputMap,
        &[],
        &outputs,
    );
}

#[test]
fn collect_garbage_in_both_forms() {
    let request = Request::CollectGarbage(CollectGarbage::whole_store(GcAction::DeleteDead));
    check_request("collect-garbage", &Dialect::default(), &request);
    let request = Request::CollectGarbage(CollectGarbage {
        target: GcTarget::Paths {
            paths: [path(C)].into(),
            with_referrers: true,
        },
        max_freed: 1024,
        ..CollectGarbage::delete(BTreeSet::new())
    });
    let dialect = with(Feature::DeleteSpecificReferrers);
    check_request("collect-garbage-with-referrers", &dialect, &request);
}
