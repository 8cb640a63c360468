// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that mean harm, or do not know what they do: the server lives on, and others do not notice.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use superpose_worker_protocol::{
    AddFlags, Operation, OutputNames, RawNar, Request, UnkeyedValidPathInfo, read_reply,
};

use crate::served::{Client, Served};

const NOISE: usize = 64 << 10;

/// Bytes that look like nothing: the same ones for the same seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    (0..length)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect()
}

/// How far a client behaves before it stops to.
fn stages(served: &Served) -> Vec<UnixStream> {
    let raw = |client: &Client| client.out.get_ref().get_ref().try_clone().unwrap();
    let greeting = |bytes: &[u8]| {
        let mut stream = served.stream();
        stream.write_all(bytes).unwrap();
        stream
    };
    let mut stages = vec![
        served.stream(),
        greeting(b"cxin\0\0\0\0"),
        greeting(b"cxin\0\0\0\0\x26\x01\0\0\0\0\0\0"),
        raw(&served.client()),
    ];
    // Within every operation, behind its number.
    for operation in Operation::ALL {
        let stream = raw(&served.client());
        (&stream).write_all(&operation.number().to_le_bytes()).unwrap();
        stages.push(stream);
    }
    // Within a stream.
    let mut client = served.client();
    client.send(&Request::AddMultipleToStore(AddFlags::default()));
    client.out.flush().unwrap();
    stages.push(raw(&client));
    stages
}

#[test]
fn noise_at_every_stage() {
    let served = Served::start();
    let mut witness = served.client();
    for seed in 0..3 {
        for (at, mut stream) in stages(&served).into_iter().enumerate() {
            // It may be given up before it has said everything.
            stream.write_all(&noise(seed * 100 + at as u64, NOISE)).ok();
            stream.shutdown(std::net::Shutdown::Write).ok();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).ok();
            let info =
                witness.ask::<Option<UnkeyedValidPathInfo>>(Request::QueryPathInfo(served.paths[0].clone()));
            assert!(info.unwrap().is_some(), "{at}");
        }
    }
    served.wait_for_connections(1);
    served.expect_alive();
}

#[test]
fn clients_that_go_in_the_middle() {
    let served = Served::start();
    for _ in 0..5 {
        for stream in stages(&served) {
            drop(stream);
        }
    }
    served.wait_for_connections(0);
    served.expect_alive();
}

/// Every length that is announced is compared with its bound before it is believed.
#[test]
fn lengths_that_no_memory_has() {
    let served = Served::start();
    for length in [5_000, 1 << 32, u64::MAX - 7, u64::MAX] {
        // A path; the count of a set; the length of a frame.
        for head in [&[1_u64][..], &[31], &[46], &[44, 0, 0]] {
            let mut client = served.client();
            let words = [head, &[length]].concat();
            let text: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut stream = client.out.get_ref().get_ref().try_clone().unwrap();
            stream.write_all(&text).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // It ends, by an error or for want of the rest.
            let mut said = Vec::new();
            client.input.get_mut().read_to_end(&mut said).ok();
        }
    }
    served.wait_for_connections(0);
    served.expect_alive();
}

/// A path outside the store, or below an object, is no path.
#[test]
fn paths_that_lead_elsewhere() {
    let served = Served::start();
    for path in [
        "/etc/passwd",
        "/nix/store/../../etc/passwd",
        "/nix/store/.links",
        "/nix/store",
        "/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c/../../etc",
        "0p6d6far7jx5ky739yfjf0d23nv1bbbm-c",
        "/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-c\0",
        "",
    ] {
        for number in [1_u64, 26, 38, 11] {
            let mut client = served.client();
            let mut stream = client.out.get_ref().get_ref().try_clone().unwrap();
            let mut text = [number.to_le_bytes(), (path.len() as u64).to_le_bytes()].concat();
            text.extend(path.as_bytes());
            text.resize(text.len().next_multiple_of(8), 0);
            stream.write_all(&text).unwrap();
            let answer =
                read_reply::<bool, _>(&mut client.input, Operation::IsValidPath, &client.dialect, |_| {});
            assert!(answer.unwrap().is_err(), "{number} {path}");
            // Where the next request begins nobody knows.
            assert!(client.is_closed());
        }
    }
    served.expect_alive();
}

/// An object that is a link is a link: nothing outside the layer is read through it.
#[test]
fn an_object_that_became_a_link_is_not_followed() {
    let served = Served::start();
    let path = served.paths[0].clone();
    let object = served.top.path().join("store/nix/store").join(path.base_name());
    std::fs::remove_file(&object).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &object).unwrap();
    let mut client = served.client();
    assert_eq!(client.ask(Request::NarFromPath(path)), Ok(RawNar));
    let mut expected = Vec::new();
    superpose_overlay::nar::dump_path(&object, &mut expected).unwrap();
    let mut found = vec![0; expected.len()];
    client.input.get_mut().read_exact(&mut found).unwrap();
    assert_eq!(found, expected);
    assert!(found.windows(11).any(|window| window == b"/etc/passwd"));
    assert!(!found.windows(5).any(|window| window == b"root:"));
}

/// The same for what is parsed: whoever could plant a link would learn what is in the files of others.
#[test]
fn a_derivation_that_became_a_link_is_not_followed() {
    let served = Served::start();
    let derivation = served.add_derivation();
    let object = served.object(&derivation);
    let elsewhere = served.top.path().join("elsewhere");
    std::fs::rename(&object, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &object).unwrap();
    let mut client = served.client();
    let report = client.fail::<OutputNames>(Request::QueryDerivationOutputNames(derivation.clone()));
    assert!(report.contains("cannot read the derivation"), "{report}");
    // A pipe would let the thread wait for ever.
    std::fs::remove_file(&object).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &object, rustix::fs::Mode::RUSR).unwrap();
    client.fail::<OutputNames>(Request::QueryDerivationOutputNames(derivation));
    served.expect_alive();
}

/// After an error in the middle of an upload the client sends nothing more, and goes on.
#[test]
fn a_refused_upload_leaves_the_connection_usable() {
    let served = Served::start();
    let mut client = served.client();
    for _ in 0..3 {
        client.send(&Request::AddBuildLog(
            superpose_overlay::store_path::StorePath::from_base_name(
                b"wbq4h7cc23rj88yb2ax7pksa3qy5cdn6-c.drv",
            )
            .unwrap(),
        ));
        let mut upload = superpose_worker_protocol::FramedWriter::new(&mut client.out);
        for _ in 0..100 {
            upload.write_all(&[7; 10_000]).unwrap();
        }
        upload.finish().unwrap();
        let reply = read_reply::<superpose_worker_protocol::Done, _>(
            &mut client.input,
            Operation::AddBuildLog,
            &client.dialect,
            |_| {},
        );
        reply.unwrap().ok();
        assert_eq!(
            client.ask(Request::IsValidPath(served.paths[0].clone())),
            Ok(true)
        );
    }
}
