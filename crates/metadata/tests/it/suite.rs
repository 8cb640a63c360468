// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every source has to answer, asked of all of them; of daemons in [`crate::daemon`].

use superpose_metadata::Access;

use crate::fixture::{State, sample, sample_in_memory};
use crate::questions::check;

#[test]
fn memory() {
    check(&sample_in_memory());
}

#[test]
fn read_write() {
    let state = State::with_sample();
    let database = state.read_write();
    assert_eq!(database.access(), Access::ReadWrite);
    check(&database);
}

#[test]
fn inside_a_transaction() {
    let state = State::with_sample();
    let mut database = state.read_write();
    let transaction = database.begin().unwrap();
    check(transaction.database());
}

#[test]
fn shared_memory() {
    let state = State::with_sample();
    crate::read_only::leave_rows_in_log(&state);
    let database = state.read_only();
    assert_eq!(database.access(), Access::SharedMemory);
    check(&database);
}

#[test]
fn immutable() {
    let state = State::with_sample();
    std::fs::remove_file(state.file("db.sqlite-wal")).unwrap();
    std::fs::remove_file(state.file("db.sqlite-shm")).unwrap();
    let database = state.read_only();
    assert_eq!(database.access(), Access::Immutable);
    check(&database);
}

#[test]
fn private_index() {
    let state = State::with_sample();
    crate::read_only::leave_rows_in_log(&state);
    std::fs::remove_file(state.file("db.sqlite-shm")).unwrap();
    let database = state.read_only();
    assert_eq!(database.access(), Access::PrivateIndex);
    check(&database);
}

#[test]
fn copied_database() {
    let state = State::empty();
    let mut database = state.read_write();
    database.copy_in(&sample(), &sample_in_memory()).unwrap();
    check(&database);
}
