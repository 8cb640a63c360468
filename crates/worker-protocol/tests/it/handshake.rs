// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handshake: who is refused, what is flushed when, and what a peer that speaks something else leads to.

use std::io::{self, ErrorKind, Write};

use superpose_worker_protocol::{
    Cause, ClientOffer, Error, Feature, Features, Limits, LogFrame, RemoteError, ServerOffer, Trust, Version,
    WireReader, WireWriter, accept, connect, refuse,
};

use crate::golden::golden;
use crate::peers::Scripted;
use crate::sources::{Counting, reader, written};

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The words that handshakes are made of.
const CLIENT: u64 = 0x6e69_7863;
const SERVER: u64 = 0x6478_696f;
const LAST: u64 = 0x616c_7473;

/// What a client makes of a server's bytes.
fn client_of(bytes: &[u8]) -> Result<superpose_worker_protocol::Session, Error> {
    connect(
        &mut reader(bytes),
        &mut WireWriter::new(Vec::new()),
        &ClientOffer::default(),
        |_| {},
    )
}

/// What a server makes of a client's bytes.
fn server_of(bytes: &[u8]) -> Result<superpose_worker_protocol::Session, Error> {
    accept(
        &mut reader(bytes),
        &mut WireWriter::new(Vec::new()),
        &ServerOffer::default(),
    )
}

#[test]
fn a_server_of_1_35_says_its_release_and_trust() {
    let session = client_of(&golden("daemon-foo")).unwrap();
    assert_eq!(session.version, Version::new(1, 35));
    assert_eq!(
        (&session.daemon_version[..], session.trust),
        (&b"foo"[..], Trust::Unknown)
    );
}

#[test]
fn each_word_of_trust_is_understood() {
    for (word, trust) in [(0, Trust::Unknown), (1, Trust::Trusted), (2, Trust::NotTrusted)] {
        let bytes = words(&[SERVER, 0x123, 0, word, LAST]);
        assert_eq!(client_of(&bytes).unwrap().trust, trust);
        let mut out = WireWriter::new(Vec::new());
        let offer = ServerOffer {
            version: Version::new(1, 35),
            trust,
            ..ServerOffer::default()
        };
        accept(&mut reader(&words(&[CLIENT, 0x126, 0, 0])), &mut out, &offer).unwrap();
        assert_eq!(out.get_ref()[..], bytes[..32]);
    }
    let error = client_of(&words(&[SERVER, 0x123, 0, 3, LAST])).unwrap_err();
    assert_eq!(error.to_string(), "the daemon's trust is `3`: expected 0, 1 or 2");
}

#[test]
fn features_meet_and_unknown_names_are_ignored() {
    let offered = Features::from_iter([Feature::DisableSetOptions, Feature::DeleteSpecificReferrers]);
    let names = written(|out| {
        out.number(4)?;
        out.string(b"submit-output")?;
        out.string(b"zzz")?;
        out.string(b"delete-dead-specific-referrers")?;
        out.string(b"a-thing-of-tomorrow")
    });
    let both = Features::NONE.with(Feature::DeleteSpecificReferrers);

    let ours = written(|out| {
        out.number(2)?;
        out.string(b"delete-dead-specific-referrers")?;
        out.string(b"disable-set-options")
    });
    let peer = Scripted::default()
        .send(&words(&[CLIENT, 0x126]))
        .expect(&words(&[SERVER, 0x126]))
        .send(&names)
        .expect(&ours)
        .send(&words(&[0, 0]));
    let (mut input, mut out) = peer.ends();
    let offer = ServerOffer {
        features: offered,
        ..ServerOffer::default()
    };
    assert_eq!(accept(&mut input, &mut out, &offer).unwrap().features, both);

    let peer = Scripted::default()
        .expect(&words(&[CLIENT, 0x126]))
        .send(&words(&[SERVER, 0x126]))
        .expect(&ours)
        .send(&names)
        .expect(&words(&[0, 0]))
        .send(&words(&[0, 0, LAST]));
    let (mut input, mut out) = peer.ends();
    let offer = ClientOffer {
        features: offered,
        ..ClientOffer::default()
    };
    assert_eq!(
        connect(&mut input, &mut out, &offer, |_| {}).unwrap().features,
        both
    );
    assert_eq!(peer.finish(), [16, 8 + 40 + 32, 16]);
}

#[test]
fn a_wish_for_a_processor_is_read_and_forgotten() {
    let bytes = words(&[CLIENT, 0x125, 1, 7, 1]);
    let mut input = reader(&bytes);
    let session = accept(
        &mut input,
        &mut WireWriter::new(Vec::new()),
        &ServerOffer::default(),
    )
    .unwrap();
    assert_eq!(session.version, Version::new(1, 37));
    assert!(input.into_inner().is_empty());
}

#[test]
fn newer_clients_are_accepted_and_carry_on_as_1_38() {
    for word in [0x127, 0x1ff, 0x226] {
        let session = server_of(&words(&[CLIENT, word, 0, 0, 0])).unwrap();
        assert_eq!(session.version, Version::CURRENT, "{word:x}");
        assert_ne!(session.peer_version, Version::CURRENT);
    }
}

#[test]
fn versions_that_are_too_old_or_of_another_kind_are_refused() {
    for word in [0x111, 0x10a, 0x026, 0] {
        let error = server_of(&words(&[CLIENT, word])).unwrap_err();
        assert!(matches!(error, Error::PeerVersion { .. }), "{word:x}: {error}");
        let error = client_of(&words(&[SERVER, word])).unwrap_err();
        assert!(matches!(error, Error::PeerVersion { .. }), "{word:x}: {error}");
    }
    assert!(server_of(&words(&[CLIENT, 0x112, 0, 0])).is_ok());
    assert!(client_of(&words(&[SERVER, 0x112, LAST])).is_ok());
    // A server of another major version means something else by every word.
    let error = client_of(&words(&[SERVER, 0x226])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer speaks protocol version 2.38: expected 1.18 or a later 1.x"
    );
    assert!(client_of(&words(&[SERVER, 0x1_0126])).is_err());
}

#[test]
fn a_daemon_that_refuses_says_why() {
    let session = server_of(&words(&[CLIENT, 0x126, 0, 0, 0])).unwrap();
    let report = RemoteError::new("you are not welcome");
    let refusal = written(|out| refuse(out, &session, &report));
    let mut bytes = words(&[SERVER, 0x126, 0, 0, 2]);
    bytes.extend(written(|out| {
        LogFrame::Next(b"hm\n".to_vec()).write(out, Version::CURRENT)
    }));
    bytes.extend(refusal);
    let mut said = Vec::new();
    let mut out = WireWriter::new(Vec::new());
    let error = connect(&mut reader(&bytes), &mut out, &ClientOffer::default(), |frame| {
        said.push(frame)
    })
    .unwrap_err();
    assert!(
        matches!(&error, Error::Refused { report: found } if *found == report),
        "{error}"
    );
    assert_eq!(error.cause(), Cause::Peer);
    assert_eq!(said, [LogFrame::Next(b"hm\n".to_vec())]);
}

fn greeting(bytes: &[u8]) -> String {
    match client_of(bytes).unwrap_err() {
        Error::Greeting { found, .. } => found,
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrapper_that_speaks_plain_text_is_quoted() {
    assert_eq!(
        greeting(b"sh: nix-daemon: not found\n"),
        "sh: nix-daemon: not found"
    );
    assert_eq!(greeting(b"no\n"), "no");
    assert_eq!(greeting(b"no entry"), "no entry");
    assert_eq!(
        greeting(b"\x1b[31mstop\x1b[0m\nand more"),
        "\\x1b[31mstop\\x1b[0m"
    );
    let error = client_of(b"This account is not available.\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol mismatch: expected the greeting of a Nix daemon, found `This account is not available.`"
    );
    assert_eq!(error.cause(), Cause::Peer);
}

#[test]
fn what_a_peer_said_before_it_went_is_told() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = |said: &[u8]| {
        let mut input = WireReader::new(said, Limits::for_replies());
        let mut out = WireWriter::new(Gone);
        connect(&mut input, &mut out, &ClientOffer::default(), |_| {}).unwrap_err()
    };
    let text = error(b"This account is not available.\n");
    assert!(
        matches!(&text, Error::Greeting { found, .. } if found.contains("not available")),
        "{text}"
    );
    for nothing in [b"".as_slice(), &words(&[SERVER, 0x126])] {
        let gone = error(nothing);
        assert!(matches!(gone, Error::Write { .. }), "{gone}");
    }
}

#[test]
fn what_is_quoted_is_bounded() {
    let source = Counting::new(std::io::repeat(b'x'));
    let mut input = WireReader::new(source, Limits::for_replies());
    let mut out = WireWriter::new(Vec::new());
    let error = connect(&mut input, &mut out, &ClientOffer::default(), |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Greeting { found, .. } if found.len() < 200),
        "{error}"
    );
    assert_eq!(input.into_inner().taken, 1024);
}

#[test]
fn garbage_is_not_waited_on() {
    // The script panics if more is read than the first word.
    let peer = Scripted::default()
        .expect(&words(&[CLIENT, 0x126]))
        .send(&[0, 1, 2, 3, 4, 5, 6, 7])
        .expect(b"never");
    let (mut input, mut out) = peer.ends();
    let error = connect(&mut input, &mut out, &ClientOffer::default(), |_| {}).unwrap_err();
    assert!(matches!(error, Error::Greeting { .. }), "{error}");
    let error = server_of(&words(&[SERVER, 0x126])).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Greeting {
                expected: "Nix client",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_peer_that_goes_away_is_noticed_at_every_byte() {
    let (client, server) = (golden("session-client"), golden("session-server"));
    for cut in 0..40 {
        let error = server_of(&client[..cut]).unwrap_err();
        let is_short_greeting = (1..8).contains(&cut) && matches!(error, Error::Greeting { .. });
        assert!(
            is_short_greeting || matches!(error, Error::UnexpectedEnd { .. }),
            "{cut}: {error}"
        );
    }
    for cut in 0..56 {
        let error = client_of(&server[..cut]).unwrap_err();
        let is_short_greeting = (1..8).contains(&cut) && matches!(error, Error::Greeting { .. });
        assert!(
            is_short_greeting || matches!(error, Error::UnexpectedEnd { .. }),
            "{cut}: {error}"
        );
    }
}
