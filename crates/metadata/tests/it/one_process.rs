// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading and writing the same database in one process, whose locks on a file all go when any descriptor of it is
//! closed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;

use superpose_metadata::{Access, Database, Error, MetadataSource};

use crate::fixture::{State, info, path, read_sample};
use crate::read_only::leave_rows_in_log;

/// Counts the locks that this process has on the database.
fn locks(state: &State) -> usize {
    let inode = fs::metadata(state.file("db.sqlite")).unwrap().ino();
    let all = fs::read_to_string("/proc/locks").unwrap();
    all.lines()
        .filter(|line| line.contains("POSIX") && line.contains(&format!(":{inode} ")))
        .count()
}

/// A store that was left with a log, but without the index of it.
fn with_log_alone() -> State {
    let state = State::with_sample();
    leave_rows_in_log(&state);
    fs::remove_file(state.file("db.sqlite-shm")).unwrap();
    state
}

#[test]
fn a_private_reader_does_not_take_the_locks_of_a_later_writer() {
    for asked_again in [false, true] {
        let state = with_log_alone();
        let reader = state.read_only();
        assert_eq!(reader.access(), Access::PrivateIndex);
        let mut writer = state.read_write();
        writer.register(&[info("new", &[])], &mut read_sample).unwrap();
        assert_eq!(locks(&state), 1);
        if asked_again {
            assert_eq!(reader.are_valid(&[path("new")]).unwrap(), [true]);
            assert_eq!(reader.access(), Access::SharedMemory);
            assert_eq!(locks(&state), 1, "after reopening");
        }
        drop(reader);
        assert_eq!(locks(&state), 1, "after dropping");
        writer.register(&[info("newer", &[])], &mut read_sample).unwrap();
        drop(writer);
        assert_eq!(locks(&state), 0);
        assert_eq!(state.read_only().count().unwrap(), 8);
    }
}

#[test]
fn an_immutable_reader_does_not_take_them_either() {
    let state = State::with_sample();
    let reader = state.read_only();
    assert_eq!(reader.access(), Access::Immutable);
    let mut writer = state.read_write();
    writer.register(&[info("new", &[])], &mut read_sample).unwrap();
    assert_eq!(locks(&state), 1);
    assert_eq!(reader.count().unwrap(), 7);
    assert_eq!(locks(&state), 1);
    drop(reader);
    assert_eq!(locks(&state), 1);
}

#[test]
fn a_reader_after_the_writer_shares_its_memory() {
    let state = with_log_alone();
    let mut writer = state.read_write();
    writer.register(&[info("new", &[])], &mut read_sample).unwrap();
    // On disk it is gone, but not in this process.
    fs::remove_file(state.file("db.sqlite-shm")).unwrap();
    let reader = state.read_only();
    assert_eq!(reader.access(), Access::SharedMemory);
    assert_eq!(reader.count().unwrap(), 7);
    drop(reader);
    assert_eq!(locks(&state), 1);
}

#[test]
fn a_file_that_is_written_otherwise_is_not_read_privately() {
    let state = with_log_alone();
    let file = OpenOptions::new()
        .write(true)
        .open(state.file("db.sqlite"))
        .unwrap();
    let error = Database::open(&state.read_options()).unwrap_err();
    assert!(matches!(error, Error::OpenInThisProcess { .. }), "{error}");
    drop(file);
    assert_eq!(state.read_only().access(), Access::PrivateIndex);
}

#[test]
fn a_reader_before_the_writer_has_to_be_closed() {
    let state = State::with_sample();
    leave_rows_in_log(&state);
    let reader = state.read_only();
    if reader.access() != Access::SharedMemory {
        return;
    }
    let mut writer = state.read_write();
    let error = writer
        .register(&[info("new", &[])], &mut read_sample)
        .unwrap_err();
    assert!(matches!(error, Error::ReaderInThisProcess { .. }), "{error}");
    assert!(error.to_string().contains("close what reads it first"), "{error}");
    drop((reader, writer));
    let mut writer = state.read_write();
    writer.register(&[info("new", &[])], &mut read_sample).unwrap();
}

#[test]
fn a_visit_during_which_the_database_changes_ends_at_once() {
    let state = with_log_alone();
    let reader = state.read_only();
    assert_eq!(reader.access(), Access::PrivateIndex);
    let mut shown = 0;
    let mut nested = None;
    let start = std::time::Instant::now();
    let error = reader
        .for_each_valid_path(&mut |path| {
            shown += 1;
            if shown == 1 {
                // As a writer elsewhere would change it.
                let log = OpenOptions::new()
                    .append(true)
                    .open(state.file("db.sqlite-wal"))
                    .unwrap();
                std::io::Write::write_all(&mut &log, &[0x5a; 100]).unwrap();
                nested = Some(reader.are_valid(&[path]));
            }
            Ok(())
        })
        .unwrap_err();
    for error in [error, nested.unwrap().unwrap_err()] {
        assert!(matches!(error, Error::ChangedDuringVisit { .. }), "{error}");
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
    assert_eq!(reader.count().unwrap(), 6);
}
