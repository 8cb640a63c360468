// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opening for reading and writing: what is made, what is left alone, what is refused.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rusqlite::Connection;
use superpose_metadata::{Database, Error, JournalMode, MetadataSource, MetadataSync, OpenDatabase};
use superpose_store_path::StoreDir;

use crate::fixture::{State, chain, path, read_sample, sample};

/// The tables as Nix 2.26 to 2.34 leave them in a new store.
const OLDER_TABLES: &str = "
    create table ValidPaths (id integer primary key autoincrement not null, path text unique not null, hash text not null,
        registrationTime integer not null, deriver text, narSize integer, ultimate integer, sigs text, ca text);
    create table Refs (referrer integer not null, reference integer not null, primary key (referrer, reference),
        foreign key (referrer) references ValidPaths(id) on delete cascade,
        foreign key (reference) references ValidPaths(id) on delete restrict);
    create index IndexReferrer on Refs(referrer);
    create index IndexReference on Refs(reference);
    create trigger DeleteSelfRefs before delete on ValidPaths
        begin delete from Refs where referrer = old.id and reference = old.id; end;
    create table DerivationOutputs (drv integer not null, id text not null, path text not null, primary key (drv, id),
        foreign key (drv) references ValidPaths(id) on delete cascade);
    create index IndexDerivationOutputs on DerivationOutputs(path);
";

fn names(connection: &Connection, statement: &str) -> Vec<String> {
    let mut statement = connection.prepare(statement).unwrap();
    statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn pragma(connection: &Connection, name: &str) -> String {
    let value: rusqlite::types::Value = connection
        .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
        .unwrap();
    match value {
        rusqlite::types::Value::Integer(value) => value.to_string(),
        rusqlite::types::Value::Text(value) => value,
        other => format!("{other:?}"),
    }
}

#[test]
fn a_new_store_is_that_of_nix() {
    let state = State::empty();
    drop(state.read_write());
    assert_eq!(fs::read(state.file("schema")).unwrap(), b"10");
    let reserved = fs::metadata(state.file("reserved")).unwrap();
    assert_eq!((reserved.len(), reserved.mode() & 0o777), (8 << 20, 0o600));
    let lock = fs::metadata(state.file("big-lock")).unwrap();
    assert_eq!((lock.len(), lock.mode() & 0o777), (0, 0o600));
    assert_eq!(fs::metadata(state.file("db.sqlite-wal")).unwrap().len(), 0);
    assert!(state.file("db.sqlite-shm").exists());
    let mut files: Vec<_> = fs::read_dir(state.dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "big-lock",
            "db.sqlite",
            "db.sqlite-shm",
            "db.sqlite-wal",
            "reserved",
            "schema"
        ]
    );

    let raw = state.raw();
    assert_eq!(pragma(&raw, "journal_mode"), "wal");
    assert_eq!(pragma(&raw, "page_size"), "4096");
    assert_eq!(pragma(&raw, "encoding"), "UTF-8");
    let tables = names(
        &raw,
        "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
    );
    assert_eq!(
        tables,
        [
            "DerivationOutputs",
            "Refs",
            "SchemaMigrations",
            "ValidPaths",
            "sqlite_sequence"
        ]
    );
    let rest = names(
        &raw,
        "SELECT name FROM sqlite_master WHERE type <> 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
    );
    assert_eq!(
        rest,
        ["DeleteSelfRefs", "IndexDerivationOutputs", "IndexReference"]
    );
    assert_eq!(
        names(&raw, "SELECT migration FROM SchemaMigrations"),
        ["20260309-drop-redundant-indexreferrer"]
    );
    // The columns are those of Nix, in order, type, nullability and key.
    let columns = |table| {
        let describe = format!(
            "SELECT name || ' ' || lower(type) || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info('{table}')"
        );
        names(&raw, &describe)
    };
    let older = Connection::open_in_memory().unwrap();
    older.execute_batch(OLDER_TABLES).unwrap();
    for table in ["ValidPaths", "Refs", "DerivationOutputs"] {
        let describe = format!(
            "SELECT name || ' ' || lower(type) || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info('{table}')"
        );
        assert_eq!(columns(table), names(&older, &describe));
        let keys = format!(
            "SELECT \"from\" || \"table\" || \"to\" || on_delete FROM pragma_foreign_key_list('{table}') ORDER BY 1"
        );
        assert_eq!(names(&raw, &keys), names(&older, &keys));
    }
}

#[test]
fn opening_again_changes_nothing() {
    let state = State::with_sample();
    // The log and its index are the connection's own business.
    let snapshot = || {
        state
            .snapshot()
            .without("db.sqlite-shm")
            .without("db.sqlite-wal")
            .without("db")
    };
    let before = snapshot();
    drop(state.read_write());
    assert_eq!(snapshot(), before);
}

#[test]
fn a_store_of_older_nix_works_and_keeps_its_index() {
    for migrations in [
        "",
        "create table SchemaMigrations (migration text primary key not null);",
    ] {
        let state = State::empty();
        let raw = Connection::open(state.file("db.sqlite")).unwrap();
        raw.execute_batch(OLDER_TABLES).unwrap();
        raw.execute_batch(migrations).unwrap();
        drop(raw);
        fs::write(state.file("schema"), "10").unwrap();
        let tables = "SELECT group_concat(name || coalesce(sql, ''), ';' ORDER BY name) FROM sqlite_master";
        let before = names(&state.raw(), tables);

        let mut database = state.read_write();
        database.register(&sample(), &mut read_sample).unwrap();
        assert_eq!(database.referrers(&[path("lib")]).unwrap(), [vec![path("app")]]);
        assert_eq!(database.invalidate(&[path("app")]).unwrap(), 1);
        drop(database);
        assert_eq!(names(&state.raw(), tables), before);
        assert_eq!(state.read_only().count().unwrap(), 5);
    }
}

#[test]
fn a_lost_schema_file_is_written_again() {
    let state = State::with_sample();
    state
        .raw()
        .execute_batch("CREATE INDEX IndexReferrer ON Refs(referrer); DELETE FROM SchemaMigrations")
        .unwrap();
    fs::remove_file(state.file("schema")).unwrap();
    assert_eq!(state.read_write().count().unwrap(), 6);
    assert_eq!(fs::read(state.file("schema")).unwrap(), b"10");
    // The index may be in use by a Nix that has the store open: to drop it is for a later Nix.
    let count = |statement| names(&state.raw(), statement);
    assert_eq!(
        count("SELECT name FROM sqlite_master WHERE name = 'IndexReferrer'"),
        ["IndexReferrer"]
    );
    assert_eq!(count("SELECT migration FROM SchemaMigrations"), [""; 0]);
}

#[test]
fn the_reserve_has_the_wanted_size() {
    let state = State::with_sample();
    let inode = || fs::metadata(state.file("reserved")).unwrap().ino();
    let length = || fs::metadata(state.file("reserved")).unwrap().len();
    let changed = || fs::metadata(state.file("reserved")).unwrap().ctime_nsec();
    let (first_inode, first_changed) = (inode(), changed());
    let database = state.read_write();
    assert_eq!(
        (inode(), changed()),
        (first_inode, first_changed),
        "one of the right size is left alone"
    );
    database.release_reserved_space().unwrap();
    assert!(!state.file("reserved").exists());
    database.release_reserved_space().unwrap();
    drop(database);
    for size in [1 << 16, 100, 0, 8 << 20] {
        let mut options = state.write_options();
        options.reserved_space = size;
        drop(Database::open(&options).unwrap());
        assert_eq!(length(), size);
    }
    let error = state.read_only().release_reserved_space().unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }));
}

#[test]
fn other_modes_are_honoured() {
    let state = State::empty();
    let mut options = state.write_options();
    options.journal_mode = JournalMode::Truncate;
    options.sync = MetadataSync::Off;
    let mut database = Database::open(&options).unwrap();
    database.register(&sample(), &mut read_sample).unwrap();
    assert_eq!(database.count().unwrap(), 6);
    drop(database);
    assert_eq!(
        pragma(&state.raw(), "journal_mode"),
        "delete",
        "the file itself says only that there is no log"
    );
    assert_eq!(fs::metadata(state.file("db.sqlite-journal")).unwrap().len(), 0);
    assert!(!state.file("db.sqlite-wal").exists() && !state.file("db.sqlite.lock").exists());
    // And back again.
    assert_eq!(state.read_write().count().unwrap(), 6);
    assert_eq!(pragma(&state.raw(), "journal_mode"), "wal");
}

#[test]
fn paths_with_odd_names_work() {
    let state = State::empty();
    let dir = state.file("a b?c#d%25&é");
    fs::create_dir(&dir).unwrap();
    drop(Database::open(&OpenDatabase::read_write(&dir, StoreDir::default())).unwrap());
    assert!(dir.join("db.sqlite").exists());
    assert_eq!(
        Database::open(&OpenDatabase::read_only(&dir, StoreDir::default()))
            .unwrap()
            .count()
            .unwrap(),
        0
    );
}

/// Opens after something was done to a store, and compares the errors.
fn check_refused(spoil: impl Fn(&State), read_write: &str, read_only: &str) {
    let state = State::with_sample();
    spoil(&state);
    let dir = state.dir().display().to_string();
    for (options, expected) in [
        (state.read_options(), read_only),
        (state.write_options(), read_write),
    ] {
        match Database::open(&options) {
            Ok(_) => assert_eq!("", expected),
            Err(error) => assert_eq!(chain(&error).replace(&dir, "DB"), expected),
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let write = |name: &'static str, content: &'static [u8]| {
        move |state: &State| fs::write(state.file(name), content).unwrap()
    };
    let newer = "schema file `DB/schema` says 11: expected 10; use a newer release of this program";
    check_refused(write("schema", b"11"), newer, newer);
    let older =
        "schema file `DB/schema` says 4: expected 10; open the store once with Nix, which upgrades it";
    check_refused(write("schema", b"4"), older, older);
    check_refused(
        write("schema", b"9"),
        "schema file `DB/schema` says 9: expected 10; open the store once with Nix, which upgrades it",
        "",
    );
    let corrupt = "schema file `DB/schema` is corrupt: it holds `10\\n`, expected `10` without a newline";
    check_refused(write("schema", b"10\n"), corrupt, corrupt);
    check_refused(
        |state| fs::remove_file(state.file("schema")).unwrap(),
        "",
        "schema file `DB/schema` does not exist; check the state directory, or open the store once with Nix, which writes it",
    );
    let missing = "database `DB/db.sqlite` does not exist; check the state directory of the store";
    check_refused(
        |state| fs::remove_file(state.file("db.sqlite")).unwrap(),
        missing,
        missing,
    );
    let other =
        "`DB/db.sqlite` is not an SQLite database; restore it from a backup or from `nix-store --dump-db`";
    check_refused(write("db.sqlite", &[b'x'; 8192]), other, other);
}

#[test]
fn old_or_foreign_tables_are_refused_when_they_are_read() {
    let state = State::with_sample();
    fs::write(state.file("schema"), "9").unwrap();
    state
        .raw()
        .execute_batch("ALTER TABLE ValidPaths DROP COLUMN ca")
        .unwrap();
    let error = Database::open(&state.read_options()).unwrap_err();
    assert!(matches!(error, Error::MissingTables { .. }), "{error}");
    assert!(chain(&error).contains("no such column: ca"), "{}", chain(&error));
    let state = State::with_sample();
    fs::write(state.file("db.sqlite"), b"").unwrap();
    let error = Database::open(&state.read_options()).unwrap_err();
    assert!(matches!(error, Error::MissingTables { .. }), "{error}");
}

#[test]
fn damage_is_told_from_other_failures() {
    let state = State::with_sample();
    let mut bytes = fs::read(state.file("db.sqlite")).unwrap();
    bytes[4096..].fill(0xa5);
    fs::write(state.file("db.sqlite"), bytes).unwrap();
    let database = state.read_only();
    let error = database.path_infos(&[path("app")]).unwrap_err();
    assert!(
        matches!(error, Error::DamagedDatabase { .. }),
        "{}",
        chain(&error)
    );
    let error = state
        .read_write()
        .register(&sample(), &mut read_sample)
        .unwrap_err();
    assert!(
        matches!(error, Error::DamagedDatabase { .. }),
        "{}",
        chain(&error)
    );
}

#[test]
fn a_missing_directory_is_an_error() {
    let state = State::empty();
    let nowhere = state.file("nowhere");
    for options in [
        OpenDatabase::read_write(&nowhere, StoreDir::default()),
        OpenDatabase::read_only(&nowhere, StoreDir::default()),
    ] {
        let error = Database::open(&options).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
    assert!(!nowhere.exists());
}

#[test]
fn databases_can_be_sent_to_other_threads() {
    fn check<T: Send>() {}
    check::<Database>();
    check::<superpose_metadata::MemorySource>();
}
