// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that are not served are told why, without anybody waiting for them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::net::{SendFlags, send};
use superpose_worker_protocol::{RemoteError, ServerOffer, Session, Trust, Version, WireWriter, refuse};

/// How long a client has to read what it was told. Closed earlier, it would see a broken connection instead.
const LINGER: Duration = Duration::from_secs(2);

/// Most clients that are told at once; beyond them the first has had its time.
const MOST: usize = 32;

/// Clients that were told why they are not served.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    told: VecDeque<(OwnedFd, Instant)>,
}

impl Refused {
    /// Tells a client, in one write that does not wait, all that it will read, whatever it sends meanwhile.
    pub(crate) fn tell(&mut self, socket: OwnedFd, why: &str) {
        // A new socket has room for it; a client for which it has not cannot be told.
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Ok(text) = refusal(why)
            && send(&socket, &text, flags).is_ok()
        {
            self.told.push_back((socket, Instant::now()));
        }
        if self.told.len() > MOST {
            self.told.pop_front();
        }
    }

    /// Closes those who had their time.
    pub(crate) fn tidy(&mut self) {
        while self
            .told
            .front()
            .is_some_and(|(_, since)| since.elapsed() >= LINGER)
        {
            self.told.pop_front();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

/// A whole handshake that ends in an error, in the last version whose server needs to know nothing of the client.
fn refusal(why: &str) -> superpose_worker_protocol::Result<Vec<u8>> {
    let session = Session {
        version: Version::new(1, 37),
        features: superpose_worker_protocol::Features::NONE,
        peer_version: Version::CURRENT,
        trust: Trust::NotTrusted,
        daemon_version: Vec::new(),
    };
    // What a client says is not waited for: it is what any client of that version would say.
    let said = [
        0x6e69_7863_u64.to_le_bytes(),
        (u64::from(session.version.major) << 8 | u64::from(session.version.minor)).to_le_bytes(),
        [0; 8],
        [0; 8],
    ]
    .concat();
    let mut input = superpose_worker_protocol::WireReader::new(&said[..], Default::default());
    let mut out = WireWriter::new(Vec::new());
    let offer = ServerOffer {
        version: session.version,
        ..ServerOffer::default()
    };
    let session = superpose_worker_protocol::accept(&mut input, &mut out, &offer)?;
    refuse(&mut out, &session, &RemoteError::new(why))?;
    Ok(out.into_inner())
}
