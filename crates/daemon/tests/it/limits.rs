// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many, how much, how long.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use superpose_overlay::store_path::StorePath;
use superpose_worker_protocol::{
    Done, OutputNames, RawNar, RemoteError, Request, UnkeyedValidPathInfo, read_reply,
};

use crate::changing::{VOUCHED, is_valid, list, many_objects, message, object, upload};
use crate::served::{Client, Served, eventually, patient, short, signatures, trusting_nobody};

const BUSY: &str = "other large requests";

/// The next client waits until another one goes.
#[test]
fn one_connection_too_many_waits() {
    let mut options = patient();
    options.max_connections = 2;
    let served = Served::start_with(options);
    let one = served.client();
    let _other = served.client();
    let stream = served.stream();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = Client::greet(stream.try_clone().unwrap()).err().unwrap();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::WouldBlock), "{error:?}");
    drop(one);
    stream.set_read_timeout(Some(crate::served::LONG)).unwrap();
    // It has sent its greeting already; the answer comes now.
    let mut magic = [0; 8];
    (&stream).read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"oixd\0\0\0\0");
}

/// One user who is not trusted cannot have all of them.
#[test]
fn nobody_has_all_connections() {
    let mut options = trusting_nobody();
    options.max_connections = 4;
    let served = Served::start_with(options);
    let _clients = [served.client(), served.client()];
    let error = Client::greet(served.stream()).err().unwrap();
    let superpose_worker_protocol::Error::Refused { report } = error else {
        panic!("{error:?}");
    };
    assert!(report.message.starts_with(b"you have too many connections"));
}

/// An opened store is closed when nobody has used it for a while, also after a question of a client who has been there all
/// the time: nobody comes or goes then, so that nothing else wakes the server.
#[test]
fn an_idle_client_keeps_no_store_open() {
    let served = Served::start_with(patient());
    let database = served.top.path().join("store/nix/var/nix/db/db.sqlite");
    let is_open = || {
        let fds = std::fs::read_dir("/proc/self/fd").unwrap();
        fds.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|target| target == database)
    };
    let mut client = served.client();
    for _ in 0..2 {
        let request = Request::IsValidPath(served.paths[0].clone());
        assert_eq!(client.ask(request), Ok(true));
        assert!(is_open());
        eventually(|| !is_open());
        // Longer than the server looks again and again by itself.
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// Half a greeting and half a request are given up in time, while a client that says nothing may stay.
#[test]
fn half_a_request_is_given_up() {
    let served = Served::start();
    let mut silent = served.client();
    let begun = Instant::now();
    let mut half = served.stream();
    half.write_all(b"cxin").unwrap();
    assert_eq!(half.read(&mut [0; 8]).unwrap_or(0), 0);

    // A byte from time to time does not help.
    let mut slow = served.client();
    slow.send(&Request::IsValidPath(served.paths[0].clone()));
    let stream = slow.out.get_ref().get_ref().try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        let text = [1_u64.to_le_bytes(), 60_u64.to_le_bytes()].concat();
        text.iter()
            .take_while(|&&byte| {
                std::thread::sleep(Duration::from_millis(50));
                (&stream).write_all(&[byte]).is_ok()
            })
            .count()
    });
    assert!(dripping.join().unwrap() < 16);
    assert!(begun.elapsed() < Duration::from_secs(10));
    served.wait_for_connections(1);
    std::thread::sleep(2 * short().request_limit);
    assert_eq!(silent.ask(Request::SyncWithGC), Ok(Done));
}

/// Who does not take what he asked for loses his connection, and keeps nobody else waiting meanwhile.
#[test]
fn a_reader_that_stalls_is_given_up() {
    let served = Served::start();
    let mut reader = served.client();
    let stream = reader.out.get_ref().get_ref().try_clone().unwrap();
    let path = served.paths[0].clone();
    let dialect = reader.dialect.clone();
    let sending = std::thread::spawn(move || {
        let mut out = superpose_worker_protocol::WireWriter::new(stream);
        while Request::QueryPathInfo(path.clone())
            .write(&mut out, &dialect)
            .is_ok()
        {}
    });
    for _ in 0..20 {
        served.expect_alive();
    }
    sending.join().unwrap();
    served.wait_for_connections(0);
    // What had arrived can be read; then it ends.
    let mut rest = Vec::new();
    reader.input.get_mut().read_to_end(&mut rest).ok();
    assert!(!rest.is_empty());
}

/// Large requests of all clients together are bounded; the one that is too much is told so.
#[test]
fn large_requests_share_what_there_is() {
    let mut options = patient();
    options.large_messages = 1 << 20;
    let served = Served::start_with(options);
    let ask = |count: u32| {
        let paths: BTreeSet<StorePath> = (0..count)
            .map(|number| StorePath::from_base_name(format!("{number:0>32}-x").as_bytes()).unwrap())
            .collect();
        let mut client = served.client();
        let request = Request::QueryValidPaths {
            paths,
            substitute: false,
        };
        let dialect = client.dialect.clone();
        let stream = client.out.get_ref().get_ref().try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let mut out = superpose_worker_protocol::WireWriter::new(std::io::BufWriter::new(stream));
            // A server that gives up does not read the rest.
            request.write(&mut out, &dialect).and_then(|()| out.flush()).ok();
        });
        let answer = superpose_worker_protocol::read_reply::<BTreeSet<StorePath>, _>(
            &mut client.input,
            superpose_worker_protocol::Operation::QueryValidPaths,
            &client.dialect,
            |_| {},
        );
        sending.join().unwrap();
        answer.unwrap()
    };
    assert_eq!(ask(10_000), Ok(BTreeSet::new()));
    let report = ask(30_000).unwrap_err();
    assert!(
        String::from_utf8_lossy(&report.message).contains(BUSY),
        "{report:?}"
    );
    // What was taken was given back.
    assert_eq!(ask(10_000), Ok(BTreeSet::new()));
}

/// Answers in one burst, as they come.
fn infos(
    client: &mut Client,
    paths: &[&StorePath],
) -> Vec<Result<Option<UnkeyedValidPathInfo>, RemoteError>> {
    let request = |path: &StorePath| Request::QueryPathInfo(path.clone());
    for path in paths {
        client.send(&request(path));
    }
    client.out.flush().unwrap();
    let answers = paths.iter().map(|path| {
        let operation = request(path).operation();
        read_reply(&mut client.input, operation, &client.dialect, |_| {}).unwrap()
    });
    answers.collect()
}

/// Answers that are too much for the memory that there is are given one after the other; only what is too much by itself is
/// refused, each time that it is asked for.
#[test]
fn answers_that_are_too_much_together_are_given_one_by_one() {
    let mut options = patient();
    options.large_messages = 300 << 10;
    let served = Served::start_with(options);
    let [one, two, large] = &served.paths[..] else {
        panic!("three paths: {:?}", served.paths);
    };
    served.sign(one, 1000, 250);
    served.sign(two, 900, 250);
    served.sign(large, 1000, 800);
    let mut client = served.client();
    for _ in 0..2 {
        let found = infos(&mut client, &[one, two, one, large, large, two]);
        let counts = found.into_iter().map(|answer| match answer {
            Ok(info) => info.unwrap().signatures.len(),
            Err(report) => {
                let text = message(report);
                assert!(text.contains(BUSY), "{text}");
                0
            }
        });
        assert_eq!(counts.collect::<Vec<_>>(), [1000, 900, 1000, 0, 0, 900]);
    }
    // Alone it is not different.
    let report = client.fail::<Option<UnkeyedValidPathInfo>>(Request::QueryPathInfo(large.clone()));
    assert!(report.contains(BUSY), "{report}");
    assert!(is_valid(&mut client, large));
}

/// One row that cannot be read spoils the answers about it, and no other of the same burst.
#[test]
fn a_bad_row_in_a_burst_hurts_no_other() {
    let served = Served::start();
    let [one, bad, three] = &served.paths[..] else {
        panic!("three paths: {:?}", served.paths);
    };
    let mut client = served.client();
    for path in [one, bad, three] {
        assert!(infos(&mut client, &[path])[0].is_ok());
    }
    served.damage(bad);
    let found = infos(&mut client, &[one, bad, bad, three, one, bad]);
    let good: Vec<bool> = found.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, false, true, true, false]);
    let report = message(found.into_iter().nth(1).unwrap().unwrap_err());
    assert!(report.contains(bad.base_name()), "{report}");
}

/// What is known of the objects of an upload is held until their batch is registered: it has a share of what there is, which
/// each batch gives back.
#[test]
fn what_is_known_of_uploads_shares_what_there_is() {
    let mut options = patient();
    options.large_messages = 1 << 20;
    let served = Served::start_with(options);
    let mut client = served.client();
    let request = Request::AddMultipleToStore(VOUCHED);
    // About a megabyte a batch, of which there are three.
    let mut objects = many_objects(1200, b"small");
    for (info, _) in &mut objects {
        info.info.signatures = signatures(0..15, 90).into_iter().collect();
    }
    let bytes = list(&client, &objects);
    assert_eq!(upload(&mut client, &request, &bytes), Ok(()));
    assert!(is_valid(&mut client, &objects[1199].0.path));
    let mut large = object(200, b"large");
    large.0.info.signatures = signatures(0..1000, 2000).into_iter().collect();
    let bytes = list(&client, &[object(201, b"small"), large.clone()]);
    let report = message(upload::<()>(&mut client, &request, &bytes).unwrap_err());
    assert!(
        report.starts_with("the server is busy") && report.contains(BUSY),
        "{report}"
    );
    assert!(!is_valid(&mut client, &large.0.path));
    // Its archive is behind it in the stream, which was read to its end.
    let bytes = list(&client, &[object(201, b"small")]);
    assert_eq!(upload(&mut client, &request, &bytes), Ok(()));
}

/// A derivation takes several times its length while it is parsed.
#[test]
fn derivations_that_are_parsed_share_what_there_is() {
    let mut options = patient();
    options.large_messages = 1 << 20;
    let served = Served::start_with(options);
    let [small, large] = [100, 400].map(|kibibytes| served.add_derivation_of(kibibytes << 10));
    let mut client = served.client();
    let names: OutputNames = client.ask(Request::QueryDerivationOutputNames(small)).unwrap();
    assert_eq!(names.0.len(), 1);
    let report = client.fail::<OutputNames>(Request::QueryDerivationOutputNames(large));
    assert!(report.contains(BUSY), "{report}");
}

/// While an archive waits for its reader nothing of the store is held.
#[test]
fn an_archive_that_waits_holds_nothing() {
    let served = Served::start_with(patient());
    let path = served.paths[2].clone();
    let object = served.top.path().join("store/nix/store").join(path.base_name());
    // Larger than what a socket holds.
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, vec![7; 4 << 20]).unwrap();
    let mut reader = served.client();
    assert_eq!(reader.ask(Request::NarFromPath(path)), Ok(RawNar));
    let mut collector = served.other_process();
    collector
        .collect(&superpose_overlay::CollectOptions::default())
        .unwrap();
    let mut rest = vec![0; 4 << 20];
    reader.input.get_mut().read_exact(&mut rest).unwrap();
}
