// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arrives is compared with what is known of it, and somebody has to vouch for it.

use std::fs;

use superpose_overlay::metadata::{MetadataSource, PathInfo};
use superpose_overlay::nar::{HashingWriter, dump_path};
use superpose_overlay::store_path::{
    ContentAddress, ContentMethod, HashAlgorithm, HashPart, ModuloGeneration, ModuloHasher, Name, References,
    SecretKey, StoreDir, StorePath, StoreReference, TrustedKeys,
};
use superpose_overlay::{
    AddOptions, Error, NewObject, ObjectSource, OpenOptions, Outcome, SignatureCheck, Source, Store,
};

use crate::importing::{elsewhere, info, outcomes, three};
use crate::namespace::Named;
use crate::stage::{add_tree, is_valid, resolve};

pub(crate) const LOCAL_TRIALS: &[Named] = &[
    (
        "arriving::archives_are_compared_with_what_is_known",
        archives_are_compared_with_what_is_known,
    ),
    (
        "arriving::content_addresses_are_recomputed",
        content_addresses_are_recomputed,
    ),
    (
        "arriving::both_generations_of_self_references_are_known",
        both_generations_of_self_references_are_known,
    ),
    ("arriving::signatures_are_asked_for", signatures_are_asked_for),
];

pub(crate) fn archive(store: &Store, path: &StorePath) -> Vec<u8> {
    let mut nar = Vec::new();
    let real = store.layout().settings().real_dir.join(path.base_name());
    dump_path(real, &mut nar).unwrap();
    nar
}

pub(crate) fn object(info: &PathInfo, nar: &[u8]) -> NewObject<'static> {
    NewObject {
        info: info.clone(),
        source: ObjectSource::Nar(Box::new(std::io::Cursor::new(nar.to_vec()))),
    }
}

fn archives_are_compared_with_what_is_known() {
    let (_base, elsewhere, [library, ..]) = three();
    let right = info(&elsewhere.metadata(), &library);
    let nar = archive(&elsewhere, &library);
    let (_other, mut store) = crate::importing::elsewhere();
    let mut refused = |info: &PathInfo, nar: &[u8]| {
        let error = store
            .add_objects([object(info, nar)], SignatureCheck::Skipped)
            .unwrap_err();
        assert_eq!(store.metadata().count().unwrap(), 0);
        error
    };
    let mut wrong = right.clone();
    wrong.nar_hash = superpose_overlay::store_path::Hash::sha256([7; 32]);
    let error = refused(&wrong, &nar);
    assert!(
        matches!(&error, Error::HashMismatch { what: "hash", expected, .. } if *expected == wrong.nar_hash.to_string())
            || error
                .to_string()
                .contains("hash mismatch importing path '/nix/store/"),
        "{error}"
    );
    wrong = right.clone();
    wrong.nar_size += 8;
    assert!(matches!(refused(&wrong, &nar), Error::SizeMismatch { .. }));
    // A source that goes on beyond what was announced is not read to its end.
    wrong.nar_size = 200;
    let error = refused(&wrong, &nar);
    assert!(matches!(error, Error::CannotAdd { .. }), "{error}");
    for end in [0, 1, 100, nar.len() - 1] {
        assert!(matches!(refused(&right, &nar[..end]), Error::CannotAdd { .. }));
    }
    drop(
        store
            .add_objects([object(&right, &nar)], SignatureCheck::Required)
            .unwrap(),
    );
}

fn content_addresses_are_recomputed() {
    for (method, algorithm) in [
        (ContentMethod::Nar, HashAlgorithm::Sha256),
        (ContentMethod::Nar, HashAlgorithm::Sha1),
        (ContentMethod::Flat, HashAlgorithm::Sha256),
        (ContentMethod::Flat, HashAlgorithm::Md5),
        (ContentMethod::Text, HashAlgorithm::Sha256),
    ] {
        let (_base, mut elsewhere) = elsewhere();
        let mut add = |text: &str| {
            let options = AddOptions::source(Name::new(b"abc").unwrap()).with_method(method, algorithm);
            elsewhere
                .add(Source::Bytes(text.as_bytes()), &options)
                .unwrap()
                .path
        };
        let (one, other) = (add("abc"), add("abd"));
        let (right, nar) = (info(&elsewhere.metadata(), &one), archive(&elsewhere, &one));
        // The hash of the archive is right; the content is another one than the path follows from.
        let mut wrong = info(&elsewhere.metadata(), &other);
        wrong.nar_hash = right.nar_hash;
        let (_other, mut store) = crate::importing::elsewhere();
        let error = store
            .add_objects([object(&wrong, &nar)], SignatureCheck::Required)
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::HashMismatch {
                    what: "content address",
                    ..
                }
            ),
            "{method:?} {algorithm}: {error}"
        );
        assert_eq!(store.metadata().count().unwrap(), 0);
        store
            .add_objects([object(&right, &nar)], SignatureCheck::Required)
            .unwrap();
        let mut found = info(&store.metadata(), &one);
        found.registration_time = right.registration_time;
        assert_eq!(found, right);
        // A directory has no bare contents.
        if method != ContentMethod::Nar {
            let directory = add_tree(&mut elsewhere, "abc", &[("a", "1")]);
            let nar = archive(&elsewhere, &directory);
            wrong.nar_hash = info(&elsewhere.metadata(), &directory).nar_hash;
            wrong.nar_size = nar.len() as u64;
            let error = store
                .add_objects([object(&wrong, &nar)], SignatureCheck::Required)
                .unwrap_err();
            assert!(error.to_string().contains("found no regular file"), "{error}");
        }
    }
}

/// An object that refers to itself, as that generation of Nix makes it.
fn self_referential(generation: ModuloGeneration) -> (PathInfo, Vec<u8>) {
    let dir = StoreDir::default();
    let name = Name::new(b"self").unwrap();
    let nar = |path: &StorePath| {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("self"), format!("me={}\n", dir.display(path))).unwrap();
        let mut nar = HashingWriter::new(Vec::new());
        dump_path(scratch.path().join("self"), &mut nar).unwrap();
        nar.finish()
    };
    let nobody = StorePath::from_parts(HashPart::new([0; 20]), &name);
    let mut hasher = ModuloHasher::new(HashAlgorithm::Sha256, nobody.hash_part(), generation);
    hasher.update(&nar(&nobody).0);
    let address = ContentAddress {
        method: ContentMethod::Nar,
        hash: hasher.finish(),
    };
    let references = References {
        itself: true,
        ..References::default()
    };
    let path = dir.content_path(&name, &address, &references).unwrap();
    let (nar, found) = nar(&path);
    let mut info = PathInfo::new(path.clone(), found.hash, found.size);
    info.references = vec![path];
    info.content_address = Some(address);
    (info, nar)
}

fn both_generations_of_self_references_are_known() {
    let (old, old_nar) = self_referential(ModuloGeneration::Plain);
    // What Nix 2.34 makes of it.
    assert_eq!(old.path.base_name(), "cpv036s16plfxg66s29rvfz3bn0cd63k-self");
    let (new, new_nar) = self_referential(ModuloGeneration::WithOffsets);
    assert_ne!(old.path, new.path);
    let (_base, mut store) = elsewhere();
    let objects = [object(&old, &old_nar), object(&new, &new_nar)];
    let imported = store.add_objects(objects, SignatureCheck::Required).unwrap();
    assert_eq!(outcomes(&imported), [Outcome::Stored; 2]);
    // Neither is taken for the other.
    let (_base, mut store) = elsewhere();
    let mut wrong = new.clone();
    (wrong.nar_hash, wrong.nar_size) = (old.nar_hash, old.nar_size);
    let error = store
        .add_objects([object(&wrong, &old_nar)], SignatureCheck::Required)
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::HashMismatch {
                what: "content address",
                ..
            }
        ),
        "{error}"
    );
}

/// A key of nobody, for tests.
pub(crate) fn key() -> SecretKey {
    SecretKey::parse(
        b"test-1:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==",
    )
    .unwrap()
}

pub(crate) fn trusting() -> OpenOptions {
    let mut options = OpenOptions::default();
    options.trusted_keys = TrustedKeys::from_iter([key().public()]);
    options
}

fn signatures_are_asked_for() {
    let (_base, elsewhere, [library, ..]) = three();
    let nar = archive(&elsewhere, &library);
    let addressed = info(&elsewhere.metadata(), &library);
    let mut unsigned = addressed.clone();
    unsigned.content_address = None;
    let mut signed = unsigned.clone();
    let text = StoreDir::default().fingerprint(
        &signed.path,
        &signed.nar_hash,
        signed.nar_size,
        &signed.references,
    );
    signed.signatures = vec![key().sign(text.as_bytes())];

    let check =
        |info: &PathInfo, options: OpenOptions, setting: &[u8], check: SignatureCheck, is_added: bool| {
            let base = tempfile::tempdir().unwrap();
            let reference = StoreReference::local(base.path()).with_param("require-sigs", setting);
            let mut store = Store::open(resolve(&reference), options).unwrap();
            let added = store.add_objects([object(info, &nar)], check);
            match added {
                Ok(_) => assert!(is_added, "{info:?}"),
                Err(Error::Untrusted { .. }) => assert!(!is_added, "{info:?}"),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(is_valid(&store.metadata(), &info.path), is_added);
            let there = base.path().join("nix/store").join(info.path.base_name());
            assert_eq!(there.exists(), is_added);
            if is_added {
                let found = crate::importing::info(&store.metadata(), &info.path);
                assert_eq!(
                    (found.signatures, found.ultimate),
                    (info.signatures.clone(), false)
                );
            }
        };
    let default = OpenOptions::default;
    check(&addressed, default(), b"true", SignatureCheck::Required, true);
    check(&unsigned, default(), b"true", SignatureCheck::Required, false);
    check(&unsigned, default(), b"false", SignatureCheck::Required, true);
    check(&unsigned, default(), b"true", SignatureCheck::Skipped, true);
    check(&signed, default(), b"true", SignatureCheck::Required, false);
    check(&signed, trusting(), b"true", SignatureCheck::Required, true);
    // That it was built there is no reason to trust it here.
    let mut built = unsigned.clone();
    built.ultimate = true;
    check(&built, trusting(), b"true", SignatureCheck::Required, false);
    check(&built, trusting(), b"false", SignatureCheck::Required, true);
    // The signature is over something else.
    let mut other = signed.clone();
    other.references = vec![other.path.clone()];
    check(&other, trusting(), b"true", SignatureCheck::Required, false);
    // A content address from which the path does not follow vouches for nothing, nor does one that is not recomputed.
    let mut claimed = addressed.clone();
    claimed.references = vec![claimed.path.clone()];
    check(&claimed, default(), b"true", SignatureCheck::Required, false);
    let address = ContentAddress {
        method: ContentMethod::Git,
        hash: superpose_overlay::store_path::hash_bytes(HashAlgorithm::Sha1, b"x"),
    };
    let name = Name::new(library.name().as_bytes()).unwrap();
    let mut git = unsigned;
    git.path = StoreDir::default()
        .content_path(&name, &address, &References::default())
        .unwrap();
    git.content_address = Some(address);
    check(&git, default(), b"true", SignatureCheck::Required, false);
}
