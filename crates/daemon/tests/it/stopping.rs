// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that is stopped ends what it has begun, and nothing more.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use superpose_worker_protocol::{Operation, RawNar, Request, read_reply};

use crate::served::{Served, eventually, patient};

const SIZE: usize = 8 << 20;

/// A served store with an object that no socket holds.
fn served_with_large(mut grace: Option<Duration>) -> (Served, Request) {
    let mut options = patient();
    if let Some(grace) = grace.take() {
        options.grace = grace;
    }
    let served = Served::start_with(options);
    let path = served.paths[0].clone();
    let object = served.top.path().join("store/nix/store").join(path.base_name());
    std::fs::remove_file(&object).unwrap();
    std::fs::write(&object, vec![7; SIZE]).unwrap();
    (served, Request::NarFromPath(path))
}

#[test]
fn idle_connections_are_closed_at_once() {
    let mut served = Served::start_with(patient());
    let mut clients = [served.client(), served.client()];
    // One that has not even introduced itself.
    let mut nobody = served.stream();
    served.wait_for_connections(3);
    let begun = Instant::now();
    served.stop();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(clients.iter_mut().all(crate::served::Client::is_closed));
    assert_eq!(nobody.read(&mut [0]).unwrap(), 0);
    assert!(!served.socket().exists());
}

#[test]
fn a_request_in_work_ends_first() {
    let (mut served, request) = served_with_large(None);
    let mut client = served.client();
    assert_eq!(client.ask(request), Ok(RawNar));
    served.begin_to_stop();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!served.is_over());
    // Larger than the object by what an archive has around it.
    let mut rest = Vec::new();
    client.input.get_mut().read_to_end(&mut rest).unwrap();
    assert!(rest.len() > SIZE);
    served.stop();
}

/// A request that has begun to arrive is in work.
#[test]
fn half_a_request_is_waited_for() {
    let mut served = Served::start_with(patient());
    let mut client = served.client();
    let mut request = superpose_worker_protocol::WireWriter::new(Vec::new());
    Request::IsValidPath(served.paths[0].clone())
        .write(&mut request, &client.dialect)
        .unwrap();
    let request = request.into_inner();
    let mut stream = client.out.get_ref().get_ref().try_clone().unwrap();
    stream.write_all(&request[..20]).unwrap();
    // Until it has been read.
    std::thread::sleep(Duration::from_millis(300));
    served.begin_to_stop();
    std::thread::sleep(Duration::from_millis(300));
    stream.write_all(&request[20..]).unwrap();
    let answer = read_reply::<bool, _>(&mut client.input, Operation::IsValidPath, &client.dialect, |_| {});
    assert_eq!(answer.unwrap(), Ok(true));
    served.stop();
}

#[test]
fn grace_has_an_end() {
    let (mut served, request) = served_with_large(Some(Duration::from_millis(300)));
    let mut client = served.client();
    assert_eq!(client.ask(request), Ok(RawNar));
    let begun = Instant::now();
    served.stop();
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// Who waits for a lock of somebody else does not see that his connection was cut, and keeps nobody from going.
#[test]
fn a_request_that_waits_for_others_is_left() {
    let mut options = patient();
    options.grace = Duration::from_millis(100);
    let mut served = Served::start_with(options);
    let mut client = served.client();
    let lock = served.collector_lock();
    client.send(&Request::AddTempRoot(served.paths[0].clone()));
    client.out.flush().unwrap();
    // Until it waits.
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    served.begin_to_stop();
    eventually(|| served.is_over());
    // It had some time to end.
    assert!(begun.elapsed() > Duration::from_secs(5));
    assert_eq!(served.server.connections(), 1);
    served.stop();
    drop(lock);
    served.wait_for_connections(0);
}
