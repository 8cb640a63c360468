// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other users of the same store.

use std::fs::File;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use superpose_metadata::{Database, Error, MetadataSource};

use crate::fixture::{State, info, path, read_sample};

#[test]
fn a_writer_waits_and_then_gives_up_naming_the_database() {
    let state = State::with_sample();
    let mut options = state.write_options();
    options.busy_limit = Duration::from_millis(300);
    let mut waiting = Database::open(&options).unwrap();
    let mut holding = state.read_write();
    let transaction = holding.begin().unwrap();
    let start = Instant::now();
    let error = waiting
        .register(&[info("new", &[])], &mut read_sample)
        .unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("db.sqlite` was kept busy by other processes"),
        "{error}"
    );
    assert!(start.elapsed() >= options.busy_limit && start.elapsed() < Duration::from_secs(10));
    // Reading is possible meanwhile.
    assert_eq!(waiting.count().unwrap(), 6);
    drop(transaction);
    waiting.register(&[info("new", &[])], &mut read_sample).unwrap();
}

#[test]
fn writers_that_take_turns_all_get_through() {
    let state = State::with_sample();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let state = &state;
            scope.spawn(move || {
                let mut database = state.read_write();
                for number in 0..25 {
                    let name = format!("t{thread}-{number}");
                    database
                        .register(&[info(&name, &["base"])], &mut read_sample)
                        .unwrap();
                    assert_eq!(database.are_valid(&[path(&name)]).unwrap(), [true]);
                }
            });
        }
    });
    assert_eq!(state.read_write().count().unwrap(), 106);
}

#[test]
fn the_big_lock_is_shared_for_life() {
    let state = State::with_sample();
    let lock = File::open(state.file("big-lock")).unwrap();
    let exclusive = || flock(&lock, FlockOperation::NonBlockingLockExclusive);
    let (one, other) = (state.read_write(), state.read_write());
    assert!(exclusive().is_err());
    drop(one);
    assert!(exclusive().is_err());
    drop(other);
    exclusive().unwrap();

    let mut options = state.write_options();
    options.busy_limit = Duration::from_millis(200);
    let error = Database::open(&options).unwrap_err();
    assert!(error.to_string().contains("big-lock` was kept busy"), "{error}");
    // Reading only does not need it.
    assert_eq!(state.read_only().count().unwrap(), 6);
}
