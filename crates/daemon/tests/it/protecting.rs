// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept for clients, and what idle clients keep from nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use superpose_overlay::store_path::{DerivationOutput, HashPart, Name, StorePath};
use superpose_overlay::{CollectOptions, OpenOptions};
use superpose_worker_protocol::{
    BasicDerivation, BuildMode, BuildResult, BuildStatus, Done, GcRoot, Request,
};

use crate::served::{Served, eventually, patient};

/// Temporary roots last as long as the connection, and no longer; a collector meets nothing else of an idle client.
#[test]
fn a_client_keeps_what_it_protects_and_nothing_else() {
    let served = Served::start();
    let mut one = served.client();
    let mut other = served.client();
    assert_eq!(one.ask(Request::AddTempRoot(served.paths[0].clone())), Ok(Done));
    assert_eq!(other.ask(Request::AddTempRoot(served.paths[1].clone())), Ok(Done));

    // Waits for nothing: were a lock held by one of the idle clients, it would fail.
    let mut collector = served.other_process();
    let collected = collector.collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted, [served.paths[2].clone()]);

    drop(one);
    served.wait_for_connections(1);
    let collected = collector.collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted, [served.paths[0].clone()]);
    assert_eq!(other.ask(Request::IsValidPath(served.paths[1].clone())), Ok(true));
    assert_eq!(
        other.ask(Request::IsValidPath(served.paths[0].clone())),
        Ok(false)
    );
}

/// Nobody keeps more than he may; who wants to is told so, and goes on with what he has.
#[test]
fn a_client_keeps_so_many_paths_at_most() {
    let mut options = patient();
    options.max_temp_roots = 2;
    let served = Served::start_with(options);
    let mut client = served.client();
    let keep = |path: &StorePath| Request::AddTempRoot(path.clone());
    for path in [&served.paths[0], &served.paths[1], &served.paths[0]] {
        assert_eq!(client.ask(keep(path)), Ok(Done));
    }
    let report = client.fail::<Done>(keep(&served.paths[2]));
    assert!(
        report.contains("at most 2") && report.contains("found 3"),
        "{report}"
    );
    // Also where the store protects what it uses.
    let report = client.fail::<Done>(Request::EnsurePath(served.paths[2].clone()));
    assert!(report.contains("at most 2"), "{report}");
    assert_eq!(client.ask(keep(&served.paths[1])), Ok(Done));
    assert_eq!(served.client().ask(keep(&served.paths[2])), Ok(Done));
}

/// What was answered to be built already is there as long as the client.
#[test]
fn outputs_that_are_there_are_kept_for_who_wanted_them_built() {
    let served = Served::start();
    let mut client = served.client();
    let out = Name::new(b"out").unwrap();
    let path = served.paths[0].clone();
    let request = Request::BuildDerivation {
        path: StorePath::from_parts(HashPart::new([5; 20]), &Name::new(b"name.drv").unwrap()),
        derivation: BasicDerivation {
            outputs: [(out, DerivationOutput::InputAddressed { path: path.clone() })].into(),
            input_srcs: BTreeSet::new(),
            platform: b"builtin".to_vec(),
            builder: b"/bin/sh".to_vec(),
            args: Vec::new(),
            env: Default::default(),
        },
        mode: BuildMode::Normal,
    };
    let result: BuildResult = client.ask(request).unwrap();
    assert_eq!(result.status, BuildStatus::AlreadyValid);
    let mut collector = served.other_process();
    let collected = collector.collect(&CollectOptions::default()).unwrap();
    assert_eq!(collected.deleted.len(), 2);
    assert_eq!(client.ask(Request::IsValidPath(path)), Ok(true));
}

/// The limit of the server's waits holds for temporary roots, too.
#[test]
fn a_collection_is_waited_for_as_long_as_the_server_waits() {
    let mut open = OpenOptions::default();
    open.wait_limit = Some(Duration::from_millis(300));
    let served = Served::open_with(open, patient());
    let mut client = served.client();
    let lock = served.collector_lock();
    let request = Request::AddTempRoot(served.paths[0].clone());
    let report = client.fail::<Done>(request.clone());
    assert!(
        report.contains("gc.lock") && report.contains("is held"),
        "{report}"
    );
    drop(lock);
    assert_eq!(client.ask(request), Ok(Done));
}

/// The opened store that a client was lent keeps nothing of that client for the next one.
#[test]
fn what_is_kept_goes_with_its_client() {
    let served = Served::start();
    let mut one = served.client();
    let mut other = served.client();
    // It is lent the opened store last, and protects something while it has it.
    let link = served
        .top
        .path()
        .join("link")
        .into_os_string()
        .into_encoded_bytes();
    assert_eq!(one.ask(Request::AddTempRoot(served.paths[0].clone())), Ok(Done));
    assert_eq!(one.ask(Request::AddIndirectRoot(link)), Ok(Done));
    drop(one);
    served.wait_for_connections(1);
    let roots: Vec<GcRoot> = other.ask(Request::FindRoots).unwrap();
    assert_eq!(roots, []);
}

/// An indirect root is registered before its link is there, and holds once it is.
#[test]
fn an_indirect_root_holds_when_its_link_is_there() {
    let served = Served::start();
    let mut client = served.client();
    let link = served.top.path().join("link");
    let text = link.clone().into_os_string().into_encoded_bytes();
    assert_eq!(client.ask(Request::AddIndirectRoot(text.clone())), Ok(Done));
    let target = format!("/nix/store/{}", served.paths[0]);
    std::os::unix::fs::symlink(target, &link).unwrap();
    let roots: Vec<GcRoot> = client.ask(Request::FindRoots).unwrap();
    assert_eq!(
        roots,
        [GcRoot {
            link: text,
            path: served.paths[0].clone()
        }]
    );
    for bad in [&b"relative"[..], b"/with/\0nul", b""] {
        let report = client.fail::<Done>(Request::AddIndirectRoot(bad.to_vec()));
        assert!(report.contains("absolute path"), "{report}");
    }
    let collected = served
        .other_process()
        .collect(&CollectOptions::default())
        .unwrap();
    assert_eq!(collected.deleted.len(), 2);
}

/// A store that nobody uses is closed: an administrator can unmount it, and another process upgrade its database.
#[test]
fn an_opened_store_does_not_outlive_its_use() {
    let served = Served::start();
    let mut client = served.client();
    assert_eq!(
        client.ask(Request::IsValidPath(served.paths[0].clone())),
        Ok(true)
    );
    let database = served.top.path().join("store/nix/var/nix/db/db.sqlite");
    let is_open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .any(|target| target == database)
    };
    assert!(is_open());
    eventually(|| !is_open());
    assert_eq!(
        client.ask(Request::IsValidPath(served.paths[0].clone())),
        Ok(true)
    );
}
