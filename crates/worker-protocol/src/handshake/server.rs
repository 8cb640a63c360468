// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server's side of the handshake.

use std::io::{Read, Write};

use super::{
    CLIENT_MAGIC, HAS_DAEMON_VERSION, HAS_FEATURES, HAS_TRUST, SERVER_MAGIC, Session, Trust, read_features,
    read_magic, write_features,
};
use crate::codec::{WireReader, WireWriter};
use crate::error::{Error, Result};
use crate::feature::Features;
use crate::frame::{Frame, RemoteError};
use crate::version::Version;

/// What a server can do, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOffer {
    /// The version that it announces.
    pub version: Version,
    /// The features that it has.
    pub features: Features,
    /// Whether it trusts this client.
    pub trust: Trust,
    /// Its release, for people.
    pub daemon_version: Vec<u8>,
}

impl Default for ServerOffer {
    /// Returns [`Version::CURRENT`] without features, which every client from 2.26 to 2.36 understands; no trust, and no
    /// release.
    fn default() -> Self {
        Self {
            version: Version::CURRENT,
            features: Features::NONE,
            trust: Trust::NotTrusted,
            daemon_version: Vec::new(),
        }
    }
}

/// Begins a connection as a server: the handshake up to the consent, which [`admit`] or [`refuse`] has to follow. What the
/// client is told besides travels with that.
///
/// # Errors
/// [`Error::Greeting`] if the peer is no client, [`Error::PeerVersion`] if its version is too old: then close. Nothing that
/// it understands could be said.
pub fn accept<R: Read, W: Write>(
    input: &mut WireReader<R>,
    out: &mut WireWriter<W>,
    offer: &ServerOffer,
) -> Result<Session> {
    input.begin_message();
    read_magic(input, CLIENT_MAGIC, "Nix client")?;
    let peer_version = Version::from_word(input.number("the protocol version")?)?;
    out.number(SERVER_MAGIC)?;
    out.number(offer.version.word())?;
    out.flush()?;
    // A higher major version is the client's to refuse, as it knows what that means.
    if peer_version < Version::MINIMUM {
        return Err(Error::PeerVersion {
            found: peer_version,
            expected: "1.18 or later",
        });
    }

    let version = offer.version.min(peer_version);
    let mut features = Features::NONE;
    if version.has(HAS_FEATURES) {
        features = read_features(input)?.intersection(offer.features);
        write_features(out, offer.features)?;
        // The client waits for this before it says more; held back, both sides would wait.
        out.flush()?;
    }
    if input.flag("the wish for a processor")? {
        input.number("the number of a processor")?;
    }
    input.number("the wish for reserved space")?;
    if version.has(HAS_DAEMON_VERSION) {
        out.string(&offer.daemon_version)?;
    }
    if version.has(HAS_TRUST) {
        out.number(match offer.trust {
            Trust::Unknown => 0,
            Trust::Trusted => 1,
            Trust::NotTrusted => 2,
        })?;
    }
    Ok(Session {
        version,
        features,
        peer_version,
        trust: offer.trust,
        daemon_version: offer.daemon_version.clone(),
    })
}

/// Ends the handshake: the client may send requests.
///
/// # Errors
/// If the receiver fails.
pub fn admit<W: Write>(out: &mut WireWriter<W>, session: &Session) -> Result<()> {
    Frame::Last.write(out, session.version)?;
    out.flush()
}

/// Ends the handshake and the connection: the client is shown why. Close it then.
///
/// # Errors
/// If the receiver fails.
pub fn refuse<W: Write>(out: &mut WireWriter<W>, session: &Session, report: &RemoteError) -> Result<()> {
    Frame::Error(report.clone()).write(out, session.version)?;
    out.flush()
}
