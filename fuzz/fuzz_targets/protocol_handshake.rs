// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handshake of both roles: any peer is a session or an error, and what was agreed on is within what was offered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use superpose_worker_protocol::{
    ClientOffer, Feature, Features, Limits, ServerOffer, Version, WireReader, WireWriter, accept, connect,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, peer)) = bytes.split_first() else {
        return;
    };
    let version = Version::new(1, 18 + choice % 21);
    let features: Features = Feature::ALL
        .into_iter()
        .filter(|&feature| choice >> (feature as u8) & 1 == 1)
        .collect();
    let mut out = WireWriter::new(Vec::new());
    let client = ClientOffer { version, features };
    let mut input = WireReader::new(peer, Limits::for_requests());
    if let Ok(session) = connect(&mut input, &mut out, &client, |_| {}) {
        assert!((Version::MINIMUM..=version).contains(&session.version));
        assert_eq!(session.features.intersection(features), session.features);
    }
    let server = ServerOffer {
        version,
        features,
        ..ServerOffer::default()
    };
    let mut input = WireReader::new(peer, Limits::for_requests());
    if let Ok(session) = accept(&mut input, &mut out, &server) {
        assert!((Version::MINIMUM..=version).contains(&session.version));
        assert_eq!(session.features.intersection(features), session.features);
    }
});
