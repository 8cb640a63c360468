// SPDX-License-Identifier: MIT OR Apache-2.0
//! A daemon's store, asked: what it answers, and what becomes of daemons that behave badly.

use std::time::{Duration, Instant};

use superpose_metadata::{
    Closure, DaemonSource, Error, MemorySource, MetadataSource, OpenDaemon, PathInfo, RealisationKey,
    RealisationKind,
};
use superpose_store_path::{Hash, HashPart, Name, StoreDir, StorePath};
use superpose_worker_protocol::{Operation, Version};

use crate::fixture::{chain, path, sample_in_memory};
use crate::peer::{Habits, Peer, something_else};
use crate::questions::check;

fn sample_with(habits: Habits) -> Peer {
    Peer::start(sample_in_memory(), habits)
}

#[test]
fn answers_are_those_of_every_source() {
    check(&sample_with(Habits::default()).source());
}

#[test]
fn daemons_of_every_version_are_asked() {
    for minor in [22, 25, 26, 27, 32, 34, 37] {
        let version = Version::new(1, minor);
        check(
            &sample_with(Habits {
                version,
                ..Habits::default()
            })
            .source(),
        );
    }
}

#[test]
fn what_a_daemon_says_meanwhile_is_no_answer() {
    check(
        &sample_with(Habits {
            talks: true,
            ..Habits::default()
        })
        .source(),
    );
}

#[test]
fn an_error_may_mean_that_a_path_is_not_valid() {
    let invalid = Some("path '\x1b[35;1m/nix/store/x\x1b[0m' is not valid");
    check(
        &sample_with(Habits {
            invalid,
            ..Habits::default()
        })
        .source(),
    );
}

#[test]
fn one_connection_is_kept() {
    let peer = sample_with(Habits::default());
    let source = peer.source();
    assert!(
        peer.asked().is_empty(),
        "nothing is connected before it is needed"
    );
    check(&source);
    assert_eq!(peer.asked().len(), 1);
}

#[test]
fn nothing_is_asked_that_changes_a_store() {
    let peer = sample_with(Habits::default());
    check(&peer.source());
    peer.source().roots().unwrap();
    use Operation as O;
    let harmless = [
        O::QueryPathInfo,
        O::QueryValidPaths,
        O::QueryReferrers,
        O::QueryValidDerivers,
        O::QueryDerivationOutputMap,
        O::QueryPathFromHashPart,
        O::QueryAllValidPaths,
        O::FindRoots,
    ];
    for operation in peer.asked().into_iter().flatten() {
        assert!(harmless.contains(&operation), "{operation}");
    }
}

#[test]
fn a_batch_of_nothing_asks_nothing() {
    let source = DaemonSource::new(OpenDaemon::new("/no/such/socket", StoreDir::default()));
    assert_eq!(source.path_infos(&[]).unwrap(), []);
    assert!(source.are_valid(&[]).unwrap().is_empty());
    assert!(source.closure(&[], Closure::Referrers).unwrap().is_empty());
}

#[test]
fn roots_are_those_of_the_daemon() {
    let roots = sample_with(Habits::default()).source().roots().unwrap();
    assert_eq!(roots.len(), 1);
    assert_eq!(
        (roots[0].link.as_slice(), &roots[0].path),
        (&b"/link"[..], &path("app"))
    );
}

/// Paths of a store that is larger than any buffer of a socket: a chain with something beside each link of it.
fn many(count: usize) -> (MemorySource, Vec<StorePath>) {
    let name = |number: usize| {
        let mut part = [0; 20];
        part[..8].copy_from_slice(&(number as u64).to_le_bytes());
        StorePath::from_parts(HashPart::new(part), &Name::new(b"one-of-many").unwrap())
    };
    let mut source = MemorySource::new(StoreDir::default());
    let paths: Vec<StorePath> = (0..count).map(name).collect();
    for (number, path) in paths.iter().enumerate() {
        let mut info = PathInfo::new(path.clone(), Hash::sha256([1; 32]), 120);
        let tenth = number / 10;
        info.references = paths[tenth..number.min(tenth + 10)].to_vec();
        source.insert(info);
    }
    (source, paths)
}

#[test]
fn bursts_are_larger_than_the_buffers() {
    const COUNT: usize = 20_000;
    let (memory, paths) = many(COUNT);
    for (is_narrow, reads_first) in [(true, None), (false, Some(COUNT)), (true, Some(COUNT))] {
        let habits = Habits {
            is_narrow,
            reads_first,
            ..Habits::default()
        };
        let peer = Peer::start(memory.clone(), habits);
        let infos = peer.source().path_infos(&paths).unwrap();
        assert_eq!(infos, memory.path_infos(&paths).unwrap());
    }
}

#[test]
fn a_large_batch_is_spread_over_the_connections_that_are_allowed() {
    const COUNT: usize = 20_000;
    let (memory, paths) = many(COUNT);
    for (is_narrow, reads_first) in [(false, None), (true, None), (true, Some(COUNT / 4))] {
        let habits = Habits {
            is_narrow,
            reads_first,
            ..Habits::default()
        };
        let peer = Peer::start(memory.clone(), habits);
        let mut options = peer.options();
        options.connections = 3;
        let source = DaemonSource::new(options);
        let infos = source.path_infos(&paths).unwrap();
        assert_eq!(infos, memory.path_infos(&paths).unwrap());
        let asked: Vec<usize> = peer.asked().iter().map(Vec::len).collect();
        assert!(
            asked.len() == 3 && asked.iter().all(|&count| count > COUNT / 4),
            "{asked:?}"
        );
        // A small one is not.
        source.path_infos(&paths[..100]).unwrap();
        let again: Vec<usize> = peer.asked().iter().map(Vec::len).collect();
        assert_eq!((again[1], again[2]), (asked[1], asked[2]));
    }
}

#[test]
fn one_of_several_connections_that_ends_costs_no_answer() {
    let (memory, paths) = many(5000);
    let peer = Peer::start(
        memory.clone(),
        Habits {
            ends_after: vec![1_000_000, 700],
            ..Habits::default()
        },
    );
    let mut options = peer.options();
    options.connections = 2;
    let infos = DaemonSource::new(options).path_infos(&paths).unwrap();
    assert_eq!(infos, memory.path_infos(&paths).unwrap());
    assert_eq!(peer.asked().len(), 3);
}

#[test]
fn a_closure_asks_about_each_path_once() {
    let (memory, paths) = many(2000);
    let peer = Peer::start(memory.clone(), Habits::default());
    let roots = &paths[1990..];
    let infos = peer
        .source()
        .closure_infos(roots, &mut |paths| Ok(vec![false; paths.len()]))
        .unwrap();
    let asked = peer.asked();
    assert_eq!((asked.len(), asked[0].len()), (1, infos.len()));
    let mut found: Vec<StorePath> = infos.into_iter().map(|info| info.path).collect();
    let mut expected = memory.closure(roots, Closure::References).unwrap();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn validity_is_asked_of_many_at_once() {
    let (memory, mut paths) = many(9000);
    paths.extend([path("unknown"), paths[0].clone()]);
    let peer = Peer::start(memory, Habits::default());
    let valid = peer.source().are_valid(&paths).unwrap();
    assert_eq!(valid.len(), 9002);
    assert_eq!(valid.iter().position(|valid| !valid), Some(9000));
    assert!(valid[9001]);
    assert_eq!(peer.asked(), [[Operation::QueryValidPaths; 3]]);
}

#[test]
fn an_error_is_that_of_one_question_and_the_connection_goes_on() {
    let peer = sample_with(Habits {
        fails_on: Some(path("lib")),
        ..Habits::default()
    });
    let source = peer.source();
    let error = source
        .path_infos(&[path("app"), path("lib"), path("base")])
        .unwrap_err();
    let text = chain(&error);
    assert!(
        text.contains("-lib`; it says: the disk is on fire") && text.contains("socket"),
        "{text}"
    );
    assert!(source.path_infos(&[path("app")]).unwrap()[0].is_some());
    assert_eq!(peer.asked().len(), 1, "no question of the burst was lost");
}

/// A daemon that was started anew: the questions that were answered are not asked again.
#[test]
fn a_connection_that_ends_is_replaced_once() {
    let peer = sample_with(Habits {
        ends_after: vec![2],
        ..Habits::default()
    });
    let source = peer.source();
    let paths = [path("app"), path("lib"), path("self"), path("base")];
    let infos = source.path_infos(&paths).unwrap();
    assert_eq!(infos, sample_in_memory().path_infos(&paths).unwrap());
    let asked: Vec<usize> = peer.asked().iter().map(Vec::len).collect();
    assert_eq!(asked, [3, 2]);
}

#[test]
fn a_connection_that_ended_while_nobody_asked_is_replaced() {
    let peer = sample_with(Habits {
        ends_after: vec![1],
        ..Habits::default()
    });
    let source = peer.source();
    for _ in 0..3 {
        assert_eq!(source.are_valid(&[path("app")]).unwrap(), [true]);
    }
    assert_eq!(peer.asked().len(), 2);
}

#[test]
fn nothing_is_tried_a_third_time() {
    let peer = sample_with(Habits {
        ends_after: vec![1, 1],
        ..Habits::default()
    });
    let paths = [path("app"), path("lib"), path("self"), path("base")];
    let error = peer.source().path_infos(&paths).unwrap_err();
    assert!(matches!(error, Error::Daemon { .. }), "{error}");
    assert!(
        chain(&error).contains("closed the connection"),
        "{}",
        chain(&error)
    );
    assert_eq!(peer.asked().len(), 2);
}

#[test]
fn a_silent_daemon_is_given_up() {
    let peer = sample_with(Habits {
        is_silent: true,
        ..Habits::default()
    });
    let mut options = peer.options();
    options.reply_limit = Duration::from_millis(100);
    let started = Instant::now();
    let error = DaemonSource::new(options).are_valid(&[path("app")]).unwrap_err();
    assert!(matches!(error, Error::DaemonSilent { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(peer.asked().len(), 1, "it is not asked again");
}

#[test]
fn who_is_no_daemon_is_shown() {
    let ask = |says| {
        let (_temp, options) = something_else(says);
        chain(&DaemonSource::new(options).count().unwrap_err())
    };
    let text = ask(b"sh: nix-daemon: not found\n");
    assert!(text.contains("sh: nix-daemon: not found"), "{text}");
    assert!(ask(b"").contains("closed the connection within the greeting"));
    // It speaks the protocol, but an older version than anybody has.
    assert!(ask(b"oixd\0\0\0\0\x0a\x01\0\0\0\0\0\0").contains("version 1.10"));
}

#[test]
fn where_nobody_listens_the_socket_is_named() {
    let temp = tempfile::TempDir::new().unwrap();
    let socket = temp.path().join("socket");
    let ask = || {
        let source = DaemonSource::new(OpenDaemon::new(&socket, StoreDir::default()));
        let error = source.count().unwrap_err();
        assert!(matches!(error, Error::DaemonUnreachable { .. }), "{error}");
        chain(&error)
    };
    let text = ask();
    assert!(
        text.contains(socket.to_str().unwrap()) && text.contains("No such file"),
        "{text}"
    );
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(ask().contains("refused"));
}

#[test]
fn a_socket_may_have_a_long_path() {
    let peer = sample_with(Habits::default());
    let temp = tempfile::TempDir::new().unwrap();
    let deep = temp.path().join("x".repeat(200));
    std::fs::create_dir(&deep).unwrap();
    let socket = deep.join("socket");
    std::os::unix::fs::symlink(&peer.socket, &socket).unwrap();
    check(&DaemonSource::new(OpenDaemon::new(socket, StoreDir::default())));
}

/// A daemon whose experimental feature is off ends the connection over this question: nothing else may suffer.
#[test]
fn realisations_are_asked_for_apart_and_only_by_name() {
    let peer = sample_with(Habits {
        ends_after: vec![1_000_000, 0],
        ..Habits::default()
    });
    let source = peer.source();
    assert_eq!(source.realisations_of(&[path("app")]).unwrap(), []);
    assert_eq!(source.are_valid(&[path("app")]).unwrap(), [true]);
    let key = |kind, derivation: &str| RealisationKey {
        kind,
        derivation: derivation.to_owned(),
        output: "out".to_owned(),
    };
    let hash = format!("sha256:{}", "0".repeat(64));
    let trace = key(RealisationKind::BuildTrace, "x.drv");
    assert_eq!(source.realisations(std::slice::from_ref(&trace)).unwrap(), [None]);
    assert_eq!(peer.asked().len(), 1, "what has no form there is not asked for");
    let keys = [key(RealisationKind::HashModulo, &hash), trace];
    assert_eq!(source.realisations(&keys).unwrap(), [None, None]);
    assert_eq!(source.are_valid(&[path("app")]).unwrap(), [true]);
    assert_eq!(
        peer.asked(),
        [
            vec![Operation::QueryValidPaths; 2],
            vec![Operation::QueryRealisation]
        ]
    );
}
