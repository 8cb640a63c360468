// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is recorded besides objects: realisations, logs, permanent roots; and objects that are to be made good.

use std::collections::BTreeSet;
use std::fs;

use superpose_overlay::metadata::{
    Database, OpenDatabase, Realisation as Known, RealisationKey, RealisationKind,
};
use superpose_overlay::store_path::{Hash, Name, StoreDir, StorePath};
use superpose_worker_protocol::{
    AddFlags, CollectGarbage, Collected, Done, DrvOutput, GcAction, Operation, Realisation,
    RealisationAnswer, Request, RootPath, UnkeyedRealisation, UnkeyedValidPathInfo, read_reply,
};

use crate::changing::{VOUCHED, is_valid, message, object, upload};
use crate::served::{Client, Served, patient, signatures, trusting_nobody};

fn realisation(path: &StorePath, output: &str) -> Realisation {
    Realisation {
        id: DrvOutput::HashModulo {
            hash: Hash::sha256([5; 32]),
            output: Name::new(output.as_bytes()).unwrap(),
        },
        value: UnkeyedRealisation {
            path: path.clone(),
            signatures: BTreeSet::new(),
        },
        dependencies: Default::default(),
    }
}

fn known(client: &mut Client, id: &DrvOutput) -> Option<StorePath> {
    let answer: RealisationAnswer = client.ask(Request::QueryRealisation(id.clone())).unwrap();
    answer.path().cloned()
}

#[test]
fn what_an_output_turned_out_to_be_is_recorded_and_told() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let (first, second) = (
        realisation(&served.paths[0], "out"),
        realisation(&served.paths[1], "out"),
    );
    // A store that never had any has no place for one, as with Nix.
    client
        .ask::<()>(Request::RegisterDrvOutput(first.clone()))
        .unwrap_err();
    assert_eq!(known(&mut client, &first.id), None);
    let database = served.top.path().join("store/nix/var/nix/db");
    let mut database = Database::open(&OpenDatabase::read_write(database, StoreDir::default())).unwrap();
    let other = Known {
        key: RealisationKey {
            kind: RealisationKind::HashModulo,
            derivation: Hash::sha256([6; 32]).to_string(),
            output: "out".to_owned(),
        },
        output_path: served.paths[2].clone(),
        signatures: Vec::new(),
    };
    database.register_realisations(&[other]).unwrap();
    drop(database);
    for _ in 0..2 {
        let registered = client.ask::<()>(Request::RegisterDrvOutput(first.clone()));
        assert_eq!(registered, Ok(()));
        assert_eq!(known(&mut client, &first.id), Some(served.paths[0].clone()));
    }
    // Another word for the same output is refused, and the first one stays.
    client.ask::<()>(Request::RegisterDrvOutput(second)).unwrap_err();
    assert_eq!(known(&mut client, &first.id), Some(served.paths[0].clone()));
    let unknown = realisation(&served.paths[0], "dev");
    assert_eq!(known(&mut client, &unknown.id), None);
}

/// Trusted or not: everybody who asks about the path would have to take them all.
#[test]
fn a_path_has_so_many_signatures_at_most() {
    for options in [patient(), trusting_nobody()] {
        let served = Served::start_with(options);
        let mut client = served.client();
        let path = served.paths[0].clone();
        let sign = |numbers| Request::AddSignatures {
            path: path.clone(),
            signatures: signatures(numbers, 80).into_iter().collect(),
        };
        assert_eq!(client.ask(sign(0..1000)), Ok(Done));
        let report = client.fail::<Done>(sign(990..1025));
        for part in [path.base_name(), "at most 1024", "found 1025"] {
            assert!(report.contains(part), "{report}");
        }
        assert_eq!(client.ask(sign(990..1024)), Ok(Done));
        let info: Option<UnkeyedValidPathInfo> = client.ask(Request::QueryPathInfo(path.clone())).unwrap();
        assert_eq!(info.unwrap().signatures.len(), 1024);
        // More at once are not even read, so that where the next request begins nobody knows.
        client.out.number(Operation::AddSignatures.number()).unwrap();
        client.out.store_path(&path, &StoreDir::default()).unwrap();
        client.out.number(1025).unwrap();
        client.out.flush().unwrap();
        let answer = read_reply::<Done, _>(
            &mut client.input,
            Operation::AddSignatures,
            &client.dialect,
            |_| {},
        );
        let report = message(answer.unwrap().unwrap_err());
        assert!(report.contains("at most 1024, found 1025"), "{report}");
        assert!(client.is_closed());
        served.expect_alive();
    }
}

#[test]
fn a_permanent_root_keeps_what_it_names() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let link = served.top.path().join("root");
    let root = link.to_str().unwrap().as_bytes().to_vec();
    let request = |path: &StorePath| Request::AddPermRoot {
        path: path.clone(),
        root: root.clone(),
    };
    let made: RootPath = client.ask(request(&served.paths[0])).unwrap();
    assert_eq!(made.0, root);
    assert!(
        fs::read_link(&link)
            .unwrap()
            .ends_with(served.paths[0].base_name())
    );
    let collection = CollectGarbage::whole_store(GcAction::DeleteDead);
    let collected: Collected = client.ask(Request::CollectGarbage(collection)).unwrap();
    assert_eq!(collected.paths.len(), 2, "{collected:?}");
    assert!(is_valid(&mut client, &served.paths[0]));
    client
        .ask::<RootPath>(request(&object(9, b"").0.path))
        .unwrap_err();
    let served = Served::start_with(trusting_nobody());
    let report = served.client().fail::<RootPath>(request(&served.paths[0]));
    assert!(report.contains("for trusted users only"), "{report}");
}

#[test]
fn a_log_is_kept_where_clients_look_for_it() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let drv = served.add_derivation();
    let (fan, name) = drv.base_name().split_at(2);
    let logs = served.top.path().join("store/nix/var/log/nix/drvs").join(fan);
    let request = Request::AddBuildLog(drv.clone());
    let log = b"a line\n".repeat(100_000);
    assert_eq!(upload::<Done>(&mut client, &request, &log), Ok(Done));
    assert_eq!(fs::read(logs.join(name)).unwrap(), log);
    // The first one stays, and so does one that Nix has compressed.
    assert_eq!(upload::<Done>(&mut client, &request, b"other"), Ok(Done));
    assert_eq!(fs::read(logs.join(name)).unwrap(), log);
    let compressed = logs.join(format!("{name}.bz2"));
    fs::rename(logs.join(name), &compressed).unwrap();
    assert_eq!(upload::<Done>(&mut client, &request, b"other"), Ok(Done));
    assert_eq!(
        fs::read_dir(&logs).unwrap().count(),
        1,
        "nothing is left beside it"
    );
    let request = Request::AddBuildLog(served.paths[0].clone());
    let report = message(upload::<Done>(&mut client, &request, &log).unwrap_err());
    assert!(report.contains("expected the path of a derivation"), "{report}");
    assert!(is_valid(&mut client, &served.paths[0]));
    // What a client sends whom nobody trusts is read to its end.
    let served = Served::start_with(trusting_nobody());
    let mut client = served.client();
    let report = message(upload::<Done>(&mut client, &Request::AddBuildLog(drv), &log).unwrap_err());
    assert!(report.contains("for trusted users only"), "{report}");
    assert!(is_valid(&mut client, &served.paths[0]));
    assert!(!served.top.path().join("store/nix/var/log").exists());
}

/// A client that wants repairs sends whatever it has: what is right needs nothing, and what is not stays as it is.
#[test]
fn what_is_sent_to_be_repaired_is_compared() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let (info, nar) = object(1, b"small");
    let request = Request::AddToStoreNar {
        info: info.clone(),
        flags: AddFlags {
            repair: true,
            ..VOUCHED
        },
    };
    for _ in 0..2 {
        assert_eq!(upload::<()>(&mut client, &request, &nar), Ok(()));
    }
    let file = served.object(&info.path);
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(&file, permissions).unwrap();
    fs::write(&file, "damaged").unwrap();
    let report = message(upload::<()>(&mut client, &request, &nar).unwrap_err());
    assert!(report.contains("not repaired by an upload"), "{report}");
    assert_eq!(fs::read(&file).unwrap(), b"damaged");
    // Nobody has a good one.
    let verify = |repair| Request::VerifyStore {
        check_contents: true,
        repair,
    };
    for repair in [false, true] {
        assert_eq!(client.ask::<bool>(verify(repair)), Ok(true));
    }
    fs::write(&file, "small").unwrap();
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o444);
    fs::set_permissions(&file, permissions).unwrap();
    assert_eq!(client.ask::<bool>(verify(true)), Ok(false));
}
