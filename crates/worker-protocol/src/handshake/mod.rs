// SPDX-License-Identifier: MIT OR Apache-2.0
//! The beginning of a connection: each side says what it is, and both know what holds from there on.

mod client;
mod server;

use std::io::{Read, Write};

pub use client::{ClientOffer, connect};
pub use server::{ServerOffer, accept, admit, refuse};
use superpose_store_path::StoreDir;

use crate::codec::{WireReader, WireWriter, write_list};
use crate::dialect::Dialect;
use crate::error::{Error, Result, excerpt};
use crate::feature::{Feature, Features};
use crate::version::Version;

/// What a client begins with.
const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// What a server begins with.
const SERVER_MAGIC: u64 = 0x6478_696f;

/// Since when what is exchanged.
const HAS_TRUST: u8 = 35;
const HAS_DAEMON_VERSION: u8 = 33;
const HAS_FEATURES: u8 = 38;

/// Longest text that is shown of a peer that speaks something else, in bytes: a few lines of a wrapper.
const MAX_GREETING: usize = 1024;

/// Whether the server trusts the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Trust {
    /// The server did not say.
    #[default]
    Unknown,
    /// The client may do everything.
    Trusted,
    /// The client may do what any user may.
    NotTrusted,
}

/// What both sides know after the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The lower one of both sides' versions.
    pub version: Version,
    /// What both sides offered.
    pub features: Features,
    /// What the peer announced, which may be more.
    pub peer_version: Version,
    /// Whether the server trusts the client. Known from 1.35 on.
    pub trust: Trust,
    /// The release of the server, for people; empty before 1.33.
    pub daemon_version: Vec<u8>,
}

impl Session {
    /// Returns what decides the shape of everything that follows.
    #[must_use]
    pub fn dialect(&self, store_dir: StoreDir) -> Dialect {
        Dialect {
            store_dir,
            version: self.version,
            features: self.features,
        }
    }
}

/// Reads the first word. If it is another one the peer may be a wrapper that says in plain text why it cannot start the
/// real thing: then that text is read, up to its first line or a bound, and becomes the error.
fn read_magic<R: Read>(input: &mut WireReader<R>, magic: u64, expected: &'static str) -> Result<()> {
    const WHAT: &str = "the greeting";
    let mut greeting = vec![0; 8];
    let length = input.fill_what_is_there(WHAT, &mut greeting)?;
    greeting.truncate(length);
    if greeting == magic.to_le_bytes() {
        return Ok(());
    }
    if greeting.is_empty() {
        return Err(Error::UnexpectedEnd { what: WHAT });
    }
    let is_text = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|&byte| byte >= b' ' || byte.is_ascii_whitespace() || byte == 0x1b)
    };
    while length == 8 && is_text(&greeting) && !greeting.contains(&b'\n') && greeting.len() < MAX_GREETING {
        let mut byte = [0];
        // What has come so far says more than how the rest of it failed to come.
        match input.fill_what_is_there(WHAT, &mut byte) {
            Ok(1) => greeting.push(byte[0]),
            _ => break,
        }
    }
    Err(Error::Greeting {
        expected,
        found: excerpt(greeting.trim_ascii_end()),
    })
}

fn read_features<R: Read>(input: &mut WireReader<R>) -> Result<Features> {
    let mut features = Features::NONE;
    for _ in 0..input.count("the features of the peer")? {
        if let Some(feature) = Feature::from_name(input.word("a feature of the peer")?) {
            features = features.with(feature);
        }
    }
    Ok(features)
}

fn write_features<W: Write>(out: &mut WireWriter<W>, features: Features) -> Result<()> {
    let names: Vec<Feature> = features.iter().collect();
    write_list(out, names.into_iter(), |out, feature| {
        out.string(feature.as_str().as_bytes())
    })
}
