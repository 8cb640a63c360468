// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every question gets its answer, alone and in bursts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use superpose_overlay::nar;
use superpose_overlay::store_path::{HashPart, Name, StorePath};
use superpose_worker_protocol::{
    ClientOptions, DerivedPath, Done, Level, LogFrame, Missing, OutputNames, RawNar, Request,
    SubstitutablePathInfo, UnkeyedValidPathInfo, read_reply,
};

use crate::served::{Served, patient, trusting_nobody};

const ABSENT: &[u8] = b"0p6d6far7jx5ky739yfjf0d23nv1bbbm-absent";

fn absent() -> StorePath {
    StorePath::from_base_name(ABSENT).unwrap()
}

#[test]
fn questions_about_paths() {
    let served = Served::start();
    let mut client = served.client();
    let path = served.paths[0].clone();
    let all: BTreeSet<StorePath> = served.paths.iter().cloned().collect();

    assert_eq!(client.ask(Request::IsValidPath(path.clone())), Ok(true));
    assert_eq!(client.ask(Request::IsValidPath(absent())), Ok(false));
    let info: Option<UnkeyedValidPathInfo> = client.ask(Request::QueryPathInfo(path.clone())).unwrap();
    assert_eq!(info.unwrap().nar_size, 120);
    assert_eq!(
        client.ask::<Option<UnkeyedValidPathInfo>>(Request::QueryPathInfo(absent())),
        Ok(None)
    );
    assert_eq!(client.ask(Request::QueryAllValidPaths), Ok(all.clone()));
    let mut some = all.clone();
    some.insert(absent());
    let some = Request::QueryValidPaths {
        paths: some,
        substitute: true,
    };
    assert_eq!(client.ask(some), Ok(all));
    for of_unknown in [
        Request::QueryReferrers(absent()),
        Request::QueryValidDerivers(absent()),
        Request::QuerySubstitutablePaths(BTreeSet::from([absent()])),
    ] {
        assert_eq!(client.ask(of_unknown), Ok(BTreeSet::<StorePath>::new()));
    }
    let part = path.hash_part();
    assert_eq!(
        client.ask(Request::QueryPathFromHashPart(part)),
        Ok(Some(path.clone()))
    );
    let part = HashPart::parse(&ABSENT[..32]).unwrap();
    assert_eq!(
        client.ask(Request::QueryPathFromHashPart(part)),
        Ok(None::<StorePath>)
    );
    assert_eq!(
        client.ask(Request::QueryDeriver(path.clone())),
        Ok(None::<StorePath>)
    );
    assert!(
        client
            .fail::<Option<StorePath>>(Request::QueryDeriver(absent()))
            .contains("not valid")
    );
    assert_eq!(client.ask(Request::SyncWithGC), Ok(Done));
    assert_eq!(client.ask(Request::EnsurePath(path.clone())), Ok(Done));
    assert!(
        client
            .fail::<Done>(Request::EnsurePath(absent()))
            .contains("built or fetched")
    );
    assert_eq!(
        client.ask(Request::QuerySubstitutablePathInfo(path)),
        Ok(None::<SubstitutablePathInfo>)
    );
}

#[test]
fn questions_about_derivations() {
    let served = Served::start();
    let mut client = served.client();
    let path = served.paths[0].clone();
    assert_eq!(
        client.ask(Request::QueryDerivationOutputMap(path.clone())),
        Ok(BTreeMap::<Name, Option<StorePath>>::new())
    );
    assert_eq!(
        client.ask(Request::QueryDerivationOutputNames(path.clone())),
        Ok(OutputNames::default())
    );
    let report =
        client.fail::<BTreeMap<Name, Option<StorePath>>>(Request::QueryDerivationOutputMap(absent()));
    assert!(report.contains("not valid"), "{report}");
    let missing = Missing {
        unknown: BTreeSet::from([absent()]),
        ..Missing::default()
    };
    let targets = vec![DerivedPath::Opaque(path), DerivedPath::Opaque(absent())];
    assert_eq!(client.ask(Request::QueryMissing(targets)), Ok(missing));
}

/// What the database does not know of a derivation is in the derivation.
#[test]
fn a_derivation_says_itself_what_is_not_recorded() {
    let served = Served::start();
    let derivation = served.add_derivation();
    let mut client = served.client();
    let out = Name::new(b"out").unwrap();
    assert_eq!(
        client.ask(Request::QueryDerivationOutputMap(derivation.clone())),
        Ok(BTreeMap::from([(out.clone(), None::<StorePath>)]))
    );
    assert_eq!(
        client.ask(Request::QueryDerivationOutputNames(derivation.clone())),
        Ok(OutputNames(vec![out]))
    );
    let target = DerivedPath::parse(format!("/nix/store/{derivation}!out").as_bytes(), &client.dialect);
    let missing = Missing {
        will_build: BTreeSet::from([derivation.clone()]),
        ..Missing::default()
    };
    assert_eq!(
        client.ask(Request::QueryMissing(vec![target.unwrap()])),
        Ok(missing)
    );
    // The file itself is there.
    assert_eq!(
        client.ask(Request::QueryMissing(vec![DerivedPath::Opaque(derivation)])),
        Ok(Missing::default())
    );
}

#[test]
fn an_archive_is_that_of_the_object() {
    let served = Served::start();
    let mut client = served.client();
    let path = served.paths[1].clone();
    let mut expected = Vec::new();
    nar::dump_path(
        served.top.path().join("store/nix/store").join(path.base_name()),
        &mut expected,
    )
    .unwrap();
    for _ in 0..2 {
        assert_eq!(client.ask(Request::NarFromPath(path.clone())), Ok(RawNar));
        let mut found = vec![0; expected.len()];
        client.input.get_mut().read_exact(&mut found).unwrap();
        assert_eq!(found, expected);
    }
    // What is not valid is said before an archive is promised, and the connection goes on.
    assert!(
        client
            .fail::<RawNar>(Request::NarFromPath(absent()))
            .contains("not valid")
    );
    std::fs::remove_file(served.top.path().join("store/nix/store").join(path.base_name())).unwrap();
    assert!(
        client
            .fail::<RawNar>(Request::NarFromPath(path))
            .contains("cannot find the object")
    );
    assert_eq!(client.ask(Request::SyncWithGC), Ok(Done));
}

/// A thousand questions in one burst are answered in order, among them such as need another question to the store.
#[test]
fn a_burst_is_answered_in_order() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let writer = client.out.get_ref().get_ref().try_clone().unwrap();
    let requests: Vec<Request> = (0..1000)
        .map(|number| match number % 7 {
            0 => Request::IsValidPath(absent()),
            1 => Request::QueryPathInfo(absent()),
            2 => Request::QueryReferrers(served.paths[0].clone()),
            3 => Request::IsValidPath(served.paths[1].clone()),
            _ => Request::QueryPathInfo(served.paths[number % 3].clone()),
        })
        .collect();
    let dialect = client.dialect.clone();
    let burst = requests.clone();
    let sender = std::thread::spawn(move || {
        let mut out = superpose_worker_protocol::WireWriter::new(std::io::BufWriter::new(writer));
        for request in &burst {
            request.write(&mut out, &dialect).unwrap();
        }
        out.flush().unwrap();
    });
    for request in &requests {
        let operation = request.operation();
        match request {
            Request::IsValidPath(path) => {
                let valid: bool = read_reply(&mut client.input, operation, &client.dialect, |_| {})
                    .unwrap()
                    .unwrap();
                assert_eq!(valid, *path != absent());
            }
            Request::QueryPathInfo(path) => {
                let info: Option<UnkeyedValidPathInfo> =
                    read_reply(&mut client.input, operation, &client.dialect, |_| {})
                        .unwrap()
                        .unwrap();
                assert_eq!(info.is_some(), *path != absent());
            }
            _ => {
                let found: BTreeSet<StorePath> =
                    read_reply(&mut client.input, operation, &client.dialect, |_| {})
                        .unwrap()
                        .unwrap();
                assert!(found.is_empty());
            }
        }
    }
    sender.join().unwrap();
}

/// What the client wants to hear decides what it is told: clients print whatever comes.
#[test]
fn texts_are_told_up_to_the_verbosity() {
    let served = Served::start_with(trusting_nobody());
    let mut client = served.client();
    for (verbosity, expected) in [(Level::Error, 0), (Level::Info, 1)] {
        let request = Request::SetOptions(ClientOptions {
            verbosity,
            overrides: BTreeMap::from([(b"sandbox".to_vec(), b"false".to_vec())]),
            ..ClientOptions::default()
        });
        client.send(&request);
        client.out.flush().unwrap();
        let mut said = Vec::new();
        read_reply::<(), _>(&mut client.input, request.operation(), &client.dialect, |frame| {
            said.push(frame)
        })
        .unwrap()
        .unwrap();
        assert_eq!(said.len(), expected, "{said:?}");
        assert!(
            said.iter()
                .all(|frame| { matches!(frame, LogFrame::Next(text) if text.ends_with(b"not trusted\n")) })
        );
    }
}
