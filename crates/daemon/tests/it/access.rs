// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may do what.

use superpose_daemon::{Access, UserList};
use superpose_worker_protocol::{
    AddFlags, CollectGarbage, Collected, Done, FramedWriter, GcAction, GcRoot, Operation, Request, RootPath,
    Trust, read_reply,
};

use crate::served::{Client, Served, short, trusting_nobody};

#[test]
fn trust_is_told() {
    assert_eq!(Served::start().client().trust, Trust::Trusted);
    let served = Served::start_with(trusting_nobody());
    assert_eq!(served.client().trust, Trust::NotTrusted);
}

#[test]
fn who_may_not_connect_is_told_so() {
    let mut options = trusting_nobody();
    options.allowed_users = UserList::default();
    let served = Served::start_with(options);
    for _ in 0..50 {
        let error = Client::greet(served.stream()).err().unwrap();
        let superpose_worker_protocol::Error::Refused { report } = error else {
            panic!("{error:?}");
        };
        assert!(report.message.ends_with(b"see `--allowed-users` of the server"));
    }
    assert_eq!(served.server.connections(), 0);
}

#[test]
fn roots_are_for_trusted_users() {
    let served = Served::start_with(trusting_nobody());
    let mut client = served.client();
    let report = client.fail::<RootPath>(Request::AddPermRoot {
        path: served.paths[0].clone(),
        root: b"/tmp/root".to_vec(),
    });
    assert!(report.contains("trusted users only"), "{report}");
    // What others are about to use does not concern him.
    assert_eq!(
        client.ask(Request::AddTempRoot(served.paths[0].clone())),
        Ok(Done)
    );
    let roots: Vec<GcRoot> = client.ask(Request::FindRoots).unwrap();
    assert!(roots.iter().any(|root| root.link == b"{censored}"), "{roots:?}");
    assert!(
        roots.iter().all(|root| !root.link.starts_with(b"{temp")),
        "{roots:?}"
    );

    let served = Served::start();
    let mut client = served.client();
    assert_eq!(
        client.ask(Request::AddTempRoot(served.paths[0].clone())),
        Ok(Done)
    );
    let roots: Vec<GcRoot> = client.ask(Request::FindRoots).unwrap();
    assert!(
        roots.iter().any(|root| root.link.starts_with(b"{temp:")),
        "{roots:?}"
    );
}

/// A server that only answers questions writes nothing, whoever asks for it, and its clients can go on.
#[test]
fn a_server_that_only_asks_changes_nothing() {
    let mut options = short();
    options.access = Access::ReadOnly;
    let served = Served::start_with(options);
    let state = served.top.path().join("store/nix/var/nix");
    let before = listing(&state);
    let mut client = served.client();
    assert_eq!(client.trust, Trust::Trusted);
    assert_eq!(
        client.ask(Request::AddTempRoot(served.paths[0].clone())),
        Ok(Done)
    );
    assert_eq!(client.ask(Request::EnsurePath(served.paths[0].clone())), Ok(Done));
    assert_eq!(client.ask(Request::FindRoots), Ok(Vec::<GcRoot>::new()));
    let report = client.fail::<Done>(Request::AddIndirectRoot(b"/tmp/root".to_vec()));
    assert!(report.contains("--read-only"), "{report}");
    let request = Request::CollectGarbage(CollectGarbage::whole_store(GcAction::DeleteDead));
    assert!(client.fail::<Collected>(request).contains("--read-only"));
    assert!(
        client
            .fail::<Done>(Request::OptimiseStore)
            .contains("--read-only")
    );

    // An upload is read to its end although nobody wants it.
    Request::AddMultipleToStore(AddFlags::default())
        .write(&mut client.out, &client.dialect)
        .unwrap();
    let mut upload = FramedWriter::new(&mut client.out);
    std::io::Write::write_all(&mut upload, &[7; 100_000]).unwrap();
    upload.finish().unwrap();
    let report = read_reply::<(), _>(
        &mut client.input,
        Operation::AddMultipleToStore,
        &client.dialect,
        |_| {},
    );
    assert!(report.unwrap().is_err());
    assert_eq!(
        client.ask(Request::IsValidPath(served.paths[0].clone())),
        Ok(true)
    );
    assert_eq!(listing(&state), before);
}

fn listing(top: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let mut found = Vec::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                pending.push(path.clone());
            }
            found.push((path, if metadata.is_file() { metadata.len() } else { 0 }));
        }
    }
    found.sort();
    found
}
