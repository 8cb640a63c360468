// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side of the handshake.

use std::io::{Read, Write};

use super::{
    CLIENT_MAGIC, HAS_DAEMON_VERSION, HAS_FEATURES, HAS_TRUST, SERVER_MAGIC, Session, Trust, read_features,
    read_magic, write_features,
};
use crate::codec::{WireReader, WireWriter};
use crate::error::{Error, Result};
use crate::feature::Features;
use crate::frame::{Ending, LogFrame, read_until_end};
use crate::version::Version;

/// What a client can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientOffer {
    /// The version that it announces.
    pub version: Version,
    /// The features that it wants.
    pub features: Features,
}

impl Default for ClientOffer {
    /// Returns [`Version::CURRENT`] without features, as clients up to 2.34 offer.
    fn default() -> Self {
        Self {
            version: Version::CURRENT,
            features: Features::NONE,
        }
    }
}

fn greet<W: Write>(out: &mut WireWriter<W>, version: Version) -> Result<()> {
    out.number(CLIENT_MAGIC)?;
    out.number(version.word())?;
    out.flush()
}

/// Begins a connection as a client: all of the handshake, up to the server's consent.
///
/// `out` is flushed wherever the server has to answer before more can be said.
///
/// # Errors
/// [`Error::Greeting`] with its text if the peer is no daemon, [`Error::PeerVersion`] if its version is of another kind or
/// too old, [`Error::Refused`] if it does not want this client; and as [`crate::Frame::read`].
pub fn connect<R: Read, W: Write>(
    input: &mut WireReader<R>,
    out: &mut WireWriter<W>,
    offer: &ClientOffer,
    on_log: impl FnMut(LogFrame),
) -> Result<Session> {
    input.begin_message();
    let greeted = greet(out, offer.version);
    match (greeted, read_magic(input, SERVER_MAGIC, "Nix daemon")) {
        (Ok(()), answer) => answer?,
        // What it said before it went tells more than that it is gone.
        (Err(_), Err(text @ Error::Greeting { .. })) => return Err(text),
        (Err(gone), _) => return Err(gone),
    }
    let peer_version = Version::from_word(input.number("the protocol version")?)?;
    if peer_version.major != Version::CURRENT.major || peer_version < Version::MINIMUM {
        return Err(Error::PeerVersion {
            found: peer_version,
            expected: "1.18 or a later 1.x",
        });
    }
    let version = offer.version.min(peer_version);
    let mut features = Features::NONE;
    if version.has(HAS_FEATURES) {
        write_features(out, offer.features)?;
        // The server reads this before it writes its own, and writes its own before it reads on.
        out.flush()?;
        features = read_features(input)?.intersection(offer.features);
    }

    // No wish for a processor, and none for reserved disk space: both are of long ago.
    out.number(0)?;
    out.number(0)?;
    out.flush()?;
    let daemon_version = if version.has(HAS_DAEMON_VERSION) {
        input.word("the daemon's release")?.to_vec()
    } else {
        Vec::new()
    };
    let trust = if version.has(HAS_TRUST) {
        input.choice("the daemon's trust", "0, 1 or 2", |number| match number {
            0 => Some(Trust::Unknown),
            1 => Some(Trust::Trusted),
            2 => Some(Trust::NotTrusted),
            _ => None,
        })?
    } else {
        Trust::Unknown
    };
    if let Ending::Failure(report) = read_until_end(input, version, on_log)? {
        return Err(Error::Refused { report });
    }
    Ok(Session {
        version,
        features,
        peer_version,
        trust,
        daemon_version,
    })
}
