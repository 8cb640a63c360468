// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that walks along references is answered ahead, and never told what was.

use std::collections::BTreeSet;

use superpose_overlay::store_path::{ContentMethod, HashAlgorithm, Name, References, SecretKey, StorePath};
use superpose_overlay::{AddOptions, DeleteOptions, Liveness, Source};
use superpose_worker_protocol::{Request, UnkeyedValidPathInfo};

use crate::served::{Client, Served};

/// How long the chain is: long enough for a server to know a walk when it sees one.
const LENGTH: usize = 12;

/// Signs nothing but paths of these tests.
const KEY: &[u8] =
    b"k1:9DGFYRm0owKiMqsAdOwykae8XJzefyUn75OUb4uovj8s0887pONLSXKVTs+L+KvwcS8Dar8ZBU4Jw6nSZAuQUg==";

/// Adds paths each of which refers to the one before and to a leaf of its own. The last of the chain comes last.
fn add_chain(served: &Served) -> (Vec<StorePath>, Vec<StorePath>) {
    let mut store = served.other_process();
    let mut add = |name: String, others: BTreeSet<StorePath>| {
        let options = AddOptions::source(Name::new(name.as_bytes()).unwrap())
            .with_method(ContentMethod::Text, HashAlgorithm::Sha256)
            .with_references(References {
                others,
                ..References::default()
            });
        store.add(Source::Bytes(name.as_bytes()), &options).unwrap().path
    };
    let (mut chain, mut leaves) = (Vec::<StorePath>::new(), Vec::new());
    for number in 0..LENGTH {
        let leaf = add(format!("leaf-{number}"), BTreeSet::new());
        let others = chain.last().cloned().into_iter().chain([leaf.clone()]);
        let node = add(format!("node-{number}"), others.collect());
        chain.push(node);
        leaves.push(leaf);
    }
    (chain, leaves)
}

fn ask(client: &mut Client, path: &StorePath) -> Option<UnkeyedValidPathInfo> {
    client.ask(Request::QueryPathInfo(path.clone())).unwrap()
}

/// Walks from the top to the node of that number, which is asked for too.
fn walk(client: &mut Client, chain: &[StorePath], to: usize) {
    for path in chain[to..].iter().rev() {
        assert!(ask(client, path).is_some(), "{path}");
    }
}

fn delete(served: &Served, paths: &[StorePath]) {
    let options = DeleteOptions::default().with_liveness(Liveness::Ignore);
    served.other_process().delete(paths, &options).unwrap();
}

#[test]
fn a_walk_is_answered_as_any_questions() {
    let served = Served::start();
    let (chain, leaves) = add_chain(&served);
    let mut walking = served.client();
    for (number, path) in chain.iter().enumerate().rev() {
        // From another connection, which has asked for nothing before.
        let expected = ask(&mut served.client(), path);
        assert_eq!(ask(&mut walking, path), expected, "node {number}");
        let info = expected.unwrap();
        assert!(info.references.contains(&leaves[number]));
    }
    for leaf in leaves.iter().chain(&leaves) {
        assert_eq!(ask(&mut walking, leaf), ask(&mut served.client(), leaf), "{leaf}");
    }
}

#[test]
fn what_was_deleted_meanwhile_is_not_told() {
    let served = Served::start();
    let (chain, leaves) = add_chain(&served);
    let mut client = served.client();
    walk(&mut client, &chain, 4);
    // All that refers to the leaf goes with it.
    let mut going: Vec<StorePath> = chain[6..].to_vec();
    going.push(leaves[6].clone());
    delete(&served, &going);
    assert_eq!(ask(&mut client, &leaves[6]), None);
    // What was read ahead beside it is still there.
    assert!(ask(&mut client, &leaves[4]).is_some());
    walk(&mut client, &chain[..5], 0);
}

#[test]
fn what_was_signed_meanwhile_is_told_with_its_signature() {
    let served = Served::start();
    let (chain, leaves) = add_chain(&served);
    let mut client = served.client();
    walk(&mut client, &chain, 4);
    assert!(ask(&mut client, &leaves[9]).unwrap().signatures.is_empty());
    let key = SecretKey::parse(KEY).unwrap();
    let signed = served.other_process().sign(&leaves[7..8], &key).unwrap();
    assert_eq!(signed, 1);
    assert_eq!(ask(&mut client, &leaves[7]).unwrap().signatures.len(), 1);
}
