// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a store that must not be changed: every row is seen, and nothing is created or written.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use superpose_metadata::{Access, Database, Error, JournalMode, MetadataSource};

use crate::child::{Peer, read_without_privileges};
use crate::fixture::{State, chain, info, path, read_sample, sample};

/// Commits something that stays in the log, as if the writer had been killed.
pub(crate) fn leave_rows_in_log(state: &State) {
    let raw = state.raw();
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    raw.execute_batch("INSERT INTO SchemaMigrations VALUES ('of somebody else')")
        .unwrap();
    drop(raw);
    assert!(fs::metadata(state.file("db.sqlite-wal")).unwrap().len() > 0);
}

/// Registers a path that is only in the log.
fn register_in_log(state: &State) {
    let peer = {
        let mut peer = Peer::start(&state.dir());
        peer.register("in-log");
        peer
    };
    peer.kill();
    assert!(fs::metadata(state.file("db.sqlite-wal")).unwrap().len() > 0);
}

/// Reads a database in the given state, here and without privileges, and checks that nothing is different afterwards.
fn check(state: &State, expected: Access, in_log: bool) {
    let before = state.snapshot();
    let count = if in_log { 7 } else { 6 };
    let from_outside = state.snapshot_from_outside();
    {
        let database = state.read_only();
        assert_eq!(database.access(), expected);
        assert_eq!(database.count().unwrap(), count);
        assert_eq!(
            database.are_valid(&[path("in-log"), path("app")]).unwrap(),
            [in_log, true]
        );
        assert_eq!(
            database.path_infos(&[path("app")]).unwrap()[0]
                .as_ref()
                .unwrap()
                .references
                .len(),
            2
        );
        assert_eq!(state.snapshot_from_outside(), from_outside, "while open");
    }
    assert_eq!(state.snapshot(), before, "after closing");

    fs::set_permissions(state.dir(), Permissions::from_mode(0o555)).unwrap();
    let before = state.snapshot();
    assert_eq!(
        read_without_privileges(&state.dir()),
        format!("{expected:?} {count} {in_log}")
    );
    assert_eq!(state.snapshot(), before, "without privileges");
    fs::set_permissions(state.dir(), Permissions::from_mode(0o755)).unwrap();
}

fn remove(state: &State, suffix: &str) {
    fs::remove_file(state.file(&format!("db.sqlite{suffix}"))).unwrap();
}

#[test]
fn a_store_at_rest() {
    check(&State::with_sample(), Access::Immutable, false);
}

#[test]
fn a_store_without_log() {
    let state = State::with_sample();
    remove(&state, "-wal");
    check(&state, Access::Immutable, false);
    remove(&state, "-shm");
    check(&state, Access::Immutable, false);
    fs::write(state.file("db.sqlite-wal"), b"").unwrap();
    check(&state, Access::Immutable, false);
}

#[test]
fn a_store_whose_writer_was_killed() {
    let state = State::with_sample();
    register_in_log(&state);
    check(&state, state.shared_access(), true);
    remove(&state, "-shm");
    check(&state, Access::PrivateIndex, true);
    fs::write(state.file("db.sqlite-shm"), b"rubbish").unwrap();
    check(&state, state.shared_access(), true);
}

#[test]
fn shared_memory_that_we_may_not_read() {
    let state = State::with_sample();
    register_in_log(&state);
    fs::set_permissions(state.file("db.sqlite-shm"), Permissions::from_mode(0o000)).unwrap();
    let before = state.snapshot();
    assert_eq!(read_without_privileges(&state.dir()), "PrivateIndex 7 true");
    assert_eq!(state.snapshot(), before);
}

#[test]
fn files_that_we_may_not_read() {
    for name in ["db.sqlite", "db.sqlite-wal"] {
        let state = State::with_sample();
        register_in_log(&state);
        fs::set_permissions(state.file(name), Permissions::from_mode(0o000)).unwrap();
        let answer = read_without_privileges(&state.dir());
        assert!(answer.starts_with("error opening the database `/"), "{answer}");
    }
}

#[test]
fn a_log_that_ends_in_rubbish() {
    let state = State::with_sample();
    register_in_log(&state);
    let mut log = fs::read(state.file("db.sqlite-wal")).unwrap();
    log.extend_from_slice(&[0x5a; 5000]);
    fs::write(state.file("db.sqlite-wal"), log).unwrap();
    remove(&state, "-shm");
    check(&state, Access::PrivateIndex, true);
}

#[test]
fn a_log_with_nothing_in_it_is_not_waited_for() {
    let state = State::with_sample();
    register_in_log(&state);
    let log = fs::read(state.file("db.sqlite-wal")).unwrap();
    let (header, part) = (&log[..32], &log[..100]);
    for (log, access) in [
        (&b"no log at all"[..], Access::Immutable),
        (&[0x5a; 5000], Access::Immutable),
        // The power was cut when the header was on the disk, and the rows were not.
        (header, Access::Immutable),
        (part, state.shared_access()),
    ] {
        fs::write(state.file("db.sqlite-wal"), log).unwrap();
        let began = Instant::now();
        check(&state, access, false);
        // By shared memory SQLite tries for ten seconds.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    let mut peer = Peer::start(&state.dir());
    let database = state.read_only();
    peer.register("later");
    assert_eq!(
        database.count().unwrap(),
        7,
        "a writer is followed, who puts it right"
    );
}

#[test]
fn a_live_writer_is_followed() {
    let state = State::with_sample();
    let mut peer = Peer::start(&state.dir());
    let database = state.read_only();
    for round in 0..20 {
        let name = format!("round-{round}");
        assert_eq!(database.are_valid(&[path(&name)]).unwrap(), [false]);
        peer.register(&name);
        let before = state.snapshot_from_outside();
        assert_eq!(database.are_valid(&[path(&name)]).unwrap(), [true]);
        assert_eq!(state.snapshot_from_outside(), before);
    }
    peer.finish();
    assert_eq!(database.count().unwrap(), 26, "the log was emptied");
    let mut peer = Peer::start(&state.dir());
    peer.register("later");
    assert_eq!(database.count().unwrap(), 27);
    peer.kill();
    assert_eq!(database.count().unwrap(), 27);
}

#[test]
fn writers_in_the_same_process_are_followed() {
    let state = State::with_sample();
    let reader = state.read_only();
    let mut writer = state.read_write();
    for round in 0..20 {
        let name = format!("round-{round}");
        writer
            .register(&[info(&name, &["base"])], &mut read_sample)
            .unwrap();
        assert_eq!(reader.are_valid(&[path(&name)]).unwrap(), [true]);
    }
    assert_eq!(state.read_only().count().unwrap(), 26);
    drop(writer);
    assert_eq!(reader.count().unwrap(), 26);
    let mut writer = state.read_write();
    writer.invalidate(&[path("round-7")]).unwrap();
    assert_eq!(reader.count().unwrap(), 25);
    drop(reader);
    writer.invalidate(&[path("round-8")]).unwrap();
    assert_eq!(state.read_only().count().unwrap(), 24);
}

#[test]
fn a_database_opened_at_rest_follows_what_is_written_later() {
    for files in [&["-wal", "-shm"][..], &["-shm"]] {
        let state = State::with_sample();
        for file in files {
            remove(&state, file);
        }
        let database = state.read_only();
        assert_eq!(database.access(), Access::Immutable);
        assert_eq!(database.count().unwrap(), 6);
        let mut peer = Peer::start(&state.dir());
        peer.register("one");
        assert_eq!(database.count().unwrap(), 7);
        assert_eq!(database.access(), state.shared_access());
        peer.register("two");
        assert_eq!(database.count().unwrap(), 8);
        peer.kill();
        remove(&state, "-shm");
        assert_eq!(database.count().unwrap(), 8);
        assert_eq!(database.access(), Access::PrivateIndex);
        Peer::start(&state.dir()).finish();
        assert_eq!(database.count().unwrap(), 8);
        assert_eq!(database.access(), Access::Immutable);
    }
}

#[test]
fn a_database_that_is_replaced_is_opened_again() {
    let (state, other) = (State::with_sample(), State::empty());
    other
        .read_write()
        .register(&sample()[3..4], &mut read_sample)
        .unwrap();
    let database = state.read_only();
    assert_eq!(database.count().unwrap(), 6);
    for name in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
        fs::rename(other.file(name), state.file(name)).unwrap();
    }
    assert_eq!(database.count().unwrap(), 1);
    remove(&state, "");
    assert!(matches!(database.count(), Err(Error::MissingDatabase { .. })));
}

/// Makes a store that does without a log.
fn without_log() -> State {
    let state = State::empty();
    let mut options = state.write_options();
    options.journal_mode = JournalMode::Truncate;
    Database::open(&options)
        .unwrap()
        .register(&sample(), &mut read_sample)
        .unwrap();
    state
}

#[test]
fn a_store_that_keeps_no_log() {
    let state = without_log();
    check(&state, Access::Immutable, false);
    // A journal whose beginning was cleared is done with.
    fs::write(state.file("db.sqlite-journal"), [0; 512]).unwrap();
    check(&state, Access::Immutable, false);

    let database = state.read_only();
    let mut options = state.write_options();
    options.journal_mode = JournalMode::Truncate;
    Database::open(&options)
        .unwrap()
        .register(&[info("later", &[])], &mut read_sample)
        .unwrap();
    assert_eq!(database.count().unwrap(), 7);
}

#[test]
fn a_journal_that_has_to_be_rolled_back_is_refused() {
    let state = without_log();
    fs::write(state.file("db.sqlite-journal"), [0xd9; 512]).unwrap();
    let before = state.snapshot();
    let error = Database::open(&state.read_options()).unwrap_err();
    assert!(matches!(error, Error::HotJournal { .. }));
    assert!(chain(&error).ends_with(
        "db.sqlite-journal` holds an unfinished transaction; open the store once for writing, which rolls it back"
    ));
    assert_eq!(state.snapshot(), before);
}

#[test]
fn a_journal_beside_an_empty_log_is_refused_too() {
    let state = without_log();
    fs::write(state.file("db.sqlite-wal"), b"").unwrap();
    fs::write(state.file("db.sqlite-journal"), [0xd9; 512]).unwrap();
    let error = Database::open(&state.read_options()).unwrap_err();
    assert!(matches!(error, Error::HotJournal { .. }), "{error}");
}

/// Moves the database with its log elsewhere, and leaves a link.
fn move_away(state: &State, to: &str) {
    fs::create_dir(state.file(to)).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("db.sqlite{suffix}");
        fs::rename(state.file(&name), state.file(to).join(name)).unwrap();
    }
    symlink(Path::new(to).join("db.sqlite"), state.file("db.sqlite")).unwrap();
}

#[test]
fn the_log_of_a_linked_database_lies_beside_the_target() {
    let state = State::with_sample();
    register_in_log(&state);
    move_away(&state, "one");
    check(&state, state.shared_access(), true);

    // A link that leads elsewhere is followed there.
    let other = State::empty();
    other
        .read_write()
        .register(&sample()[3..4], &mut read_sample)
        .unwrap();
    register_in_log(&other);
    let database = state.read_only();
    assert_eq!(database.count().unwrap(), 7);
    remove(&state, "");
    symlink(other.file("db.sqlite"), state.file("db.sqlite")).unwrap();
    assert_eq!(database.count().unwrap(), 2);
    remove(&state, "");
    symlink(state.file("nowhere"), state.file("db.sqlite")).unwrap();
    assert!(matches!(database.count(), Err(Error::MissingDatabase { .. })));
}

#[test]
fn a_log_that_somebody_keeps_to_himself_is_read_without_locks() {
    let state = State::with_sample();
    let peer = Peer::start_alone(&state.dir());
    assert!(fs::metadata(state.file("db.sqlite-wal")).unwrap().len() > 0);
    fs::write(state.file("db.sqlite-shm"), b"").unwrap();
    let mut options = state.read_options();
    options.busy_limit = Duration::from_secs(60);
    let start = Instant::now();
    let database = Database::open(&options).unwrap();
    assert_eq!(database.access(), Access::PrivateIndex);
    assert_eq!(database.count().unwrap(), 6);
    assert!(start.elapsed() < Duration::from_secs(30));
    peer.finish();
}

#[test]
fn views_and_triggers_of_others_do_not_run() {
    const COLUMNS: &str = "id, '/nix/store/' || id AS path, '' AS hash, 0 AS registrationTime, NULL AS deriver, \
        0 AS narSize, 0 AS ultimate, '' AS sigs, '' AS ca";
    for rows in [
        "WITH RECURSIVE rows(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM rows)",
        "WITH rows(id) AS (SELECT 1)",
    ] {
        let state = State::with_sample();
        let view = format!(
            "DROP TRIGGER DeleteSelfRefs; ALTER TABLE ValidPaths RENAME TO Elsewhere;
            CREATE VIEW ValidPaths AS {rows} SELECT {COLUMNS} FROM rows"
        );
        state.raw().execute_batch(&view).unwrap();
        let error = Database::open(&state.read_options()).unwrap_err();
        assert!(
            matches!(error, Error::MissingTables { .. } | Error::Sqlite { .. }),
            "{error}"
        );
    }
}

#[test]
fn refusals_change_nothing_either() {
    for (name, content) in [
        ("schema", &b"11"[..]),
        ("db.sqlite", b"rubbish"),
        ("db.sqlite", b""),
    ] {
        let state = State::with_sample();
        fs::write(state.file(name), content).unwrap();
        let before = state.snapshot();
        assert!(Database::open(&state.read_options()).is_err());
        assert_eq!(state.snapshot(), before);
    }
}
