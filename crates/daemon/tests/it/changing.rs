// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads that succeed, fail and break off; what needs trust; what is kept for a client.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use superpose_daemon::{Delegate, ServeOptions};
use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::store_path::{
    ContentMethod, DerivationOutput, Hash, HashAlgorithm, HashPart, Name, StorePath, hash_bytes,
};
use superpose_worker_protocol::{
    AddFlags, AddMultipleWriter, AddToStore, BasicDerivation, Body, BuildMode, BuildResult, CollectGarbage,
    Collected, DerivedPath, Done, DrvOutput, FramedWriter, GcAction, KeyedBuildResult, MethodAlgorithm,
    Realisation, RemoteError, Request, UnkeyedRealisation, UnkeyedValidPathInfo, ValidPathInfo, read_reply,
};

use crate::served::{Client, Served, eventually, patient, short, trusting_nobody};

/// The archive of a file.
fn archive(contents: &[u8]) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("file"), contents).unwrap();
    let mut nar = Vec::new();
    superpose_overlay::nar::dump_path(scratch.path().join("file"), &mut nar).unwrap();
    nar
}

/// An object for which nobody vouches, and its archive.
pub(crate) fn object(number: u8, contents: &[u8]) -> (ValidPathInfo, Vec<u8>) {
    let nar = archive(contents);
    let path = StorePath::from_parts(HashPart::new([number; 20]), &Name::new(b"object").unwrap());
    let hash = hash_bytes(HashAlgorithm::Sha256, &nar);
    let info = UnkeyedValidPathInfo::new(hash, nar.len() as u64);
    (ValidPathInfo { path, info }, nar)
}

/// Objects of the same contents, for which nobody vouches either.
pub(crate) fn many_objects(count: u16, contents: &[u8]) -> Vec<(ValidPathInfo, Vec<u8>)> {
    let one = object(1, contents);
    let name = Name::new(b"object").unwrap();
    (0..count)
        .map(|number| {
            let mut part = [1; 20];
            part[..2].copy_from_slice(&number.to_be_bytes());
            let mut object = one.clone();
            object.0.path = StorePath::from_parts(HashPart::new(part), &name);
            object
        })
        .collect()
}

pub(crate) const VOUCHED: AddFlags = AddFlags {
    repair: false,
    without_signatures: true,
};

pub(crate) fn upload<T: Body>(
    client: &mut Client,
    request: &Request,
    bytes: &[u8],
) -> Result<T, RemoteError> {
    client.send(request);
    let mut stream = FramedWriter::new(&mut client.out);
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap();
    read_reply(&mut client.input, request.operation(), &client.dialect, |_| {}).unwrap()
}

fn add_one(client: &mut Client, (info, nar): &(ValidPathInfo, Vec<u8>)) -> Result<(), RemoteError> {
    let request = Request::AddToStoreNar {
        info: info.clone(),
        flags: VOUCHED,
    };
    upload(client, &request, nar)
}

pub(crate) fn list(client: &Client, objects: &[(ValidPathInfo, Vec<u8>)]) -> Vec<u8> {
    let mut writer = AddMultipleWriter::new(Vec::new(), objects.len() as u64, &client.dialect).unwrap();
    for (info, nar) in objects {
        writer.begin_object(info).unwrap();
        writer.write_all(nar).unwrap();
    }
    writer.finish().unwrap()
}

pub(crate) fn is_valid(client: &mut Client, path: &StorePath) -> bool {
    client.ask(Request::IsValidPath(path.clone())).unwrap()
}

/// How many names there are in the store directory.
fn names(served: &Served) -> usize {
    fs::read_dir(served.top.path().join("store/nix/store"))
        .unwrap()
        .count()
}

pub(crate) fn message(report: RemoteError) -> String {
    String::from_utf8(report.message).unwrap()
}

#[test]
fn after_an_upload_that_is_refused_the_connection_goes_on() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let before = names(&served);
    let small = object(1, b"small");
    let large = object(2, &vec![7; 3 << 20]);
    for (good, number) in [(&small, 1), (&large, 2)] {
        let mut wrong = good.clone();
        wrong.0.info.nar_hash = Hash::sha256([number; 32]);
        let report = message(add_one(&mut client, &wrong).unwrap_err());
        assert!(report.contains("hash mismatch"), "{report}");
        let mut wrong = good.clone();
        wrong.0.info.nar_size = 0;
        let report = message(add_one(&mut client, &wrong).unwrap_err());
        assert!(report.contains("without its length"), "{report}");
        let mut wrong = good.clone();
        wrong.1.truncate(wrong.1.len() / 2);
        add_one(&mut client, &wrong).unwrap_err();
        let mut wrong = good.clone();
        wrong.1[20] ^= 1;
        add_one(&mut client, &wrong).unwrap_err();
        assert!(!is_valid(&mut client, &good.0.path));
        assert_eq!(names(&served), before);
    }
    // In a list, where the first would be good.
    let mut wrong = large.clone();
    wrong.0.info.nar_hash = Hash::sha256([0; 32]);
    let request = Request::AddMultipleToStore(VOUCHED);
    let bytes = list(&client, &[small.clone(), wrong]);
    upload::<()>(&mut client, &request, &bytes).unwrap_err();
    // What is no list at all, or too short a one.
    upload::<()>(&mut client, &request, &[0xff; 70_000]).unwrap_err();
    upload::<()>(&mut client, &request, &bytes[..bytes.len() - 9]).unwrap_err();
    assert!(!is_valid(&mut client, &small.0.path));
    assert_eq!(names(&served), before);
    // And what is right.
    let bytes = list(&client, &[small.clone(), large.clone()]);
    assert_eq!(upload(&mut client, &request, &bytes), Ok(()));
    assert_eq!(add_one(&mut client, &large), Ok(()), "what is valid already");
    for (info, _) in [&small, &large] {
        let found: Option<UnkeyedValidPathInfo> =
            client.ask(Request::QueryPathInfo(info.path.clone())).unwrap();
        let mut found = found.unwrap();
        assert!(found.registration_time > 0);
        found.registration_time = 0;
        assert_eq!(found, info.info);
    }
    assert_eq!(names(&served), before + 2);
}

/// Most clients read nothing while they send: who waited for one to hear how far it is would wait for ever.
#[test]
fn a_client_that_does_not_listen_can_send_much() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let objects = many_objects(1500, &[7; 2000]);
    let bytes = list(&client, &objects);
    let request = Request::AddMultipleToStore(VOUCHED);
    assert_eq!(upload(&mut client, &request, &bytes), Ok(()));
    assert!(is_valid(&mut client, &objects[1499].0.path));
}

#[test]
fn content_leads_to_paths() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let header = |method, references: BTreeSet<StorePath>| AddToStore {
        name: Name::new(b"name").unwrap(),
        method: MethodAlgorithm {
            method,
            algorithm: HashAlgorithm::Sha256,
        },
        references,
        repair: false,
    };
    let add = |client: &mut Client, header: AddToStore, bytes: &[u8]| {
        upload::<ValidPathInfo>(client, &Request::AddToStore(header), bytes)
    };
    let none = BTreeSet::new();
    let nar = archive(b"hello\n");
    let tree = add(&mut client, header(ContentMethod::Nar, none.clone()), &nar).unwrap();
    assert_eq!(tree.info.nar_size, nar.len() as u64);
    // What follows the archive is nobody's.
    let more = [&nar[..], b"more"].concat();
    let again = add(&mut client, header(ContentMethod::Nar, none.clone()), &more).unwrap();
    assert_eq!(again, tree);
    let references = BTreeSet::from([served.paths[0].clone()]);
    let text = add(
        &mut client,
        header(ContentMethod::Text, references.clone()),
        b"hello\n",
    )
    .unwrap();
    assert_eq!(text.info.references, references);
    let old: StorePath = client
        .ask(Request::AddTextToStore {
            name: Name::new(b"name").unwrap(),
            text: b"hello\n".to_vec(),
            references,
        })
        .unwrap();
    assert_eq!(old, text.path);
    add(&mut client, header(ContentMethod::Flat, none.clone()), b"hello\n").unwrap();
    // What cannot be.
    add(&mut client, header(ContentMethod::Nar, none.clone()), b"hello\n").unwrap_err();
    let report = message(add(&mut client, header(ContentMethod::Git, none.clone()), &nar).unwrap_err());
    assert!(
        report.contains("experimental Nix feature 'git-hashing' is disabled"),
        "{report}"
    );
    let nowhere = BTreeSet::from([object(9, b"").0.path]);
    add(&mut client, header(ContentMethod::Text, nowhere), b"nowhere\n").unwrap_err();
    let mut repair = header(ContentMethod::Nar, none);
    repair.repair = true;
    assert_eq!(add(&mut client, repair.clone(), &nar).unwrap(), tree);
    fs::remove_file(served.object(&tree.path)).unwrap();
    let report = message(add(&mut client, repair, &nar).unwrap_err());
    assert!(report.contains("not repaired by an upload"), "{report}");
    served.expect_alive();
}

#[test]
fn who_is_not_trusted_vouches_for_nothing() {
    let served = Served::start_with(trusting_nobody());
    let mut client = served.client();
    let unsigned = object(1, b"small");
    let report = message(add_one(&mut client, &unsigned).unwrap_err());
    assert!(report.contains("lacks a signature by a trusted key"), "{report}");
    let request = Request::AddMultipleToStore(VOUCHED);
    let bytes = list(&client, std::slice::from_ref(&unsigned));
    upload::<()>(&mut client, &request, &bytes).unwrap_err();
    assert!(!is_valid(&mut client, &unsigned.0.path));
    let mut collection = CollectGarbage::delete(BTreeSet::from([served.paths[0].clone()]));
    collection.ignore_liveness = true;
    let report = client.fail::<Collected>(Request::CollectGarbage(collection));
    assert!(report.contains("for trusted users only"), "{report}");
    let request = Request::VerifyStore {
        check_contents: false,
        repair: true,
    };
    assert!(client.fail::<bool>(request).contains("for trusted users only"));
    let request = Request::BuildPaths {
        targets: vec![DerivedPath::Opaque(served.paths[0].clone())],
        mode: BuildMode::Repair,
    };
    assert!(client.fail::<Done>(request).contains("for trusted users only"));
    assert!(is_valid(&mut client, &served.paths[0]));
    // What anybody may.
    let found: Collected = client
        .ask(Request::CollectGarbage(CollectGarbage::whole_store(
            GcAction::DeleteDead,
        )))
        .unwrap();
    assert_eq!(found.paths.len(), 3, "{found:?}");
}

#[test]
fn who_is_not_trusted_builds_and_records_nothing() {
    let served = Served::start_with(trusting_nobody());
    let mut client = served.client();
    let out = Name::new(b"out").unwrap();
    let derivation = |output| Request::BuildDerivation {
        path: StorePath::from_parts(HashPart::new([5; 20]), &Name::new(b"name.drv").unwrap()),
        derivation: BasicDerivation {
            outputs: [(out.clone(), output)].into(),
            input_srcs: BTreeSet::new(),
            platform: b"builtin".to_vec(),
            builder: b"/bin/sh".to_vec(),
            args: Vec::new(),
            env: Default::default(),
        },
        mode: BuildMode::Check,
    };
    let path = object(6, b"").0.path;
    let report = client.fail::<BuildResult>(derivation(DerivationOutput::InputAddressed { path }));
    assert!(report.contains("for trusted users only"), "{report}");
    // What its content says may be made for anybody, if anybody makes anything.
    let floating = DerivationOutput::Floating {
        method: ContentMethod::Nar,
        algorithm: HashAlgorithm::Sha256,
    };
    let report = client.fail::<BuildResult>(derivation(floating));
    assert!(report.contains("--delegate nix-daemon"), "{report}");
    let realisation = Realisation {
        id: DrvOutput::HashModulo {
            hash: Hash::sha256([5; 32]),
            output: Name::new(b"out").unwrap(),
        },
        value: UnkeyedRealisation {
            path: served.paths[0].clone(),
            signatures: BTreeSet::new(),
        },
        dependencies: Default::default(),
    };
    let report = client.fail::<()>(Request::RegisterDrvOutput(realisation));
    assert!(report.contains("for trusted users only"), "{report}");
}

#[test]
fn what_a_client_adds_is_kept_until_it_goes() {
    let served = Served::start_with(patient());
    let mut client = served.client();
    let added = object(1, b"small");
    add_one(&mut client, &added).unwrap();
    let collect = |client: &mut Client| -> usize {
        let request = CollectGarbage::whole_store(GcAction::DeleteDead);
        let found: Collected = client.ask(Request::CollectGarbage(request)).unwrap();
        found.paths.len()
    };
    let mut other = served.client();
    assert_eq!(collect(&mut other), 3, "those that nobody keeps");
    assert!(is_valid(&mut other, &added.0.path));
    drop(client);
    served.wait_for_connections(1);
    assert_eq!(collect(&mut other), 1);
    assert!(!is_valid(&mut other, &added.0.path));
}

#[test]
fn half_an_upload_leaves_nothing() {
    let served = Served::start_with(short());
    let before = names(&served);
    let (info, nar) = object(2, &vec![7; 8 << 20]);
    for goes in [true, false] {
        let mut client = served.client();
        let request = Request::AddToStoreNar {
            info: info.clone(),
            flags: VOUCHED,
        };
        client.send(&request);
        let half = &nar[..nar.len() / 2];
        client.out.number(half.len() as u64).unwrap();
        client.out.get_mut().write_all(half).unwrap();
        client.out.flush().unwrap();
        eventually(|| names(&served) > before);
        // Nobody else notices.
        served.expect_alive();
        let mut other = served.client();
        add_one(&mut other, &object(3, b"small")).unwrap();
        let request = CollectGarbage::delete(BTreeSet::from([object(3, b"").0.path]));
        drop(other);
        served.wait_for_connections(1);
        let deleted: Collected = served.client().ask(Request::CollectGarbage(request)).unwrap();
        assert_eq!(deleted.paths.len(), 1);
        // It goes, or it stays and says nothing more.
        let silent = (!goes).then_some(client);
        eventually(|| names(&served) == before);
        drop(silent);
        served.wait_for_connections(0);
    }
    assert_eq!(served.other_process().metadata().count().unwrap(), 3);
}

#[test]
fn a_program_that_is_no_nix_is_named() {
    let top = tempfile::tempdir().unwrap();
    let program = top.path().join("no-nix");
    fs::write(&program, "#!/bin/sh\necho I am no Nix\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let mut options: ServeOptions = patient();
    options.delegate = Some(Delegate::new(&program));
    let served = Served::start_with(options);
    let mut client = served.client();
    let nowhere = object(1, b"").0.path;
    let report = client.fail::<Done>(Request::EnsurePath(nowhere.clone()));
    assert!(
        report.contains("no-nix") && report.contains("I am no Nix"),
        "{report}"
    );
    // What is there needs nobody.
    assert_eq!(client.ask(Request::EnsurePath(served.paths[0].clone())), Ok(Done));
    let targets = vec![DerivedPath::Opaque(served.paths[0].clone())];
    let request = Request::BuildPathsWithResults {
        targets,
        mode: BuildMode::Normal,
    };
    let results: Vec<KeyedBuildResult> = client.ask(request).unwrap();
    assert!(results[0].result.status.is_success());
}
