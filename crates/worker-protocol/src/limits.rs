// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of a peer's talk this side is willing to take.

/// Most signatures of one path that a server takes, each time and altogether. Real paths have a handful, and each one more
/// is read and told whenever somebody asks about the path.
pub const MAX_SIGNATURES: usize = 1024;

/// Bounds on what is read. Each length is compared with its bound before anything is allocated, and memory grows with
/// what has arrived, not with what was announced.
///
/// Framed streams and raw archives are not bounded: they are passed on, never gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of what is one word by nature: store paths, hashes, names, signatures. They are below 4 KiB on any system.
    pub word: usize,
    /// Bytes of a text: a log line, a message, a setting, the path of a root, a derived path with its outputs.
    pub text: usize,
    /// Bytes of content that travels within a request: the text of a derivation, a variable of a builder.
    pub content: usize,
    /// Elements of a list, set or map.
    pub elements: usize,
    /// Signatures of one path or realisation.
    pub signatures: usize,
    /// Bytes of one message altogether: of a request, a reply, or a log frame.
    pub message: u64,
}

impl Limits {
    /// For the requests of clients whom nobody vouches for. A request of 500,000 paths passes; what a connection can
    /// make this side hold stays in proportion to `message`.
    #[must_use]
    pub const fn for_requests() -> Self {
        Self {
            word: 4 << 10,
            text: 1 << 20,
            content: 32 << 20,
            elements: 1 << 20,
            signatures: MAX_SIGNATURES,
            message: 64 << 20,
        }
    }

    /// For the replies of a daemon that this side chose: all paths of a store of ten million objects pass. So does a path with
    /// more signatures than a server here takes: any user of a stock daemon can add them, and would else keep others from
    /// asking about the path.
    #[must_use]
    pub const fn for_replies() -> Self {
        Self {
            word: 4 << 10,
            text: 16 << 20,
            content: 32 << 20,
            elements: 1 << 24,
            signatures: 1 << 16,
            message: 2 << 30,
        }
    }
}

impl Default for Limits {
    /// Returns the narrower ones: [`Limits::for_requests`].
    fn default() -> Self {
        Self::for_requests()
    }
}
