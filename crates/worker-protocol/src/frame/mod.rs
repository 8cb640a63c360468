// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server says while it works: log frames, then success or an error.

mod activity;
mod failure;

use std::io::{Read, Write};

pub use activity::{Activity, ActivityResult, ActivityType, Field, Level, ResultType};
pub use failure::RemoteError;

use crate::codec::{WireReader, WireWriter};
use crate::error::{Error, Result};
use crate::version::Version;

const NEXT: u64 = 0x6f6c_6d67;
const READ: u64 = 0x6461_7461;
const WRITE: u64 = 0x6461_7416;
const LAST: u64 = 0x616c_7473;
const ERROR: u64 = 0x6378_7470;
const START_ACTIVITY: u64 = 0x5354_5254;
const STOP_ACTIVITY: u64 = 0x5354_4f50;
const RESULT: u64 = 0x5253_4c54;

/// The version from which on there are activities.
const HAS_ACTIVITIES: u8 = 20;

/// Something that a server says while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFrame {
    /// A text for people, usually with a newline at its end. Clients print it whatever their verbosity: the server
    /// leaves out what is above it.
    Next(Vec<u8>),
    /// Something began.
    StartActivity(Activity),
    /// Something ended. Clients ignore an id that they do not know.
    StopActivity(u64),
    /// Something that goes on has news. Clients of every release up to 2.36 crash over most of them if the activity
    /// is not open.
    Result(ActivityResult),
}

/// Anything that may come between a request and the body of its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// The server goes on.
    Log(LogFrame),
    /// The server is done; the body of the reply follows.
    Last,
    /// The operation failed; no body follows, and the connection stays usable.
    Error(RemoteError),
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the body of the reply follows only after success"]
pub enum Ending {
    /// The body of the reply follows.
    Success,
    /// The operation failed; no body follows, and the connection stays usable.
    Failure(RemoteError),
}

impl Ending {
    /// Returns the error as an error.
    ///
    /// # Errors
    /// If the operation failed.
    pub fn into_result(self) -> Result<(), RemoteError> {
        match self {
            Self::Success => Ok(()),
            Self::Failure(report) => Err(report),
        }
    }
}

impl LogFrame {
    /// Writes the frame. To peers below 1.20 activities mean nothing: of those nothing is written.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn write<W: Write>(&self, out: &mut WireWriter<W>, version: Version) -> Result<()> {
        if !version.has(HAS_ACTIVITIES) && !matches!(self, Self::Next(_)) {
            return Ok(());
        }
        match self {
            Self::Next(text) => {
                out.number(NEXT)?;
                out.string(text)
            }
            Self::StartActivity(activity) => {
                out.number(START_ACTIVITY)?;
                activity.write(out)
            }
            Self::StopActivity(id) => {
                out.number(STOP_ACTIVITY)?;
                out.number(*id)
            }
            Self::Result(result) => {
                out.number(RESULT)?;
                result.write(out)
            }
        }
    }
}

impl Frame {
    /// Reads the next frame, as a message of its own towards the limits.
    ///
    /// # Errors
    /// If the source fails or ends, a field is not valid, or the word is none of a frame that may come. The frames with
    /// which servers below 1.23 moved data are refused.
    pub fn read<R: Read>(input: &mut WireReader<R>, version: Version) -> Result<Self> {
        input.begin_message();
        Ok(match input.number("the word of a frame")? {
            NEXT => Self::Log(LogFrame::Next(input.text("a log text")?)),
            START_ACTIVITY => Self::Log(LogFrame::StartActivity(Activity::read(input)?)),
            STOP_ACTIVITY => Self::Log(LogFrame::StopActivity(input.number("the id of an activity")?)),
            RESULT => Self::Log(LogFrame::Result(ActivityResult::read(input)?)),
            LAST => Self::Last,
            ERROR => Self::Error(RemoteError::read(input, version)?),
            word => {
                let found = match word {
                    READ => "the server wants data, which only servers below 1.23 do",
                    WRITE => "the server sends data, which only servers of long ago do",
                    _ => "no frame of this protocol: the peer is out of step",
                };
                return Err(Error::Frame { word, found });
            }
        })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// If the receiver fails.
    pub fn write<W: Write>(&self, out: &mut WireWriter<W>, version: Version) -> Result<()> {
        match self {
            Self::Log(frame) => frame.write(out, version),
            Self::Last => out.number(LAST),
            Self::Error(report) => {
                out.number(ERROR)?;
                report.write(out, version)
            }
        }
    }
}

/// Reads frames until the operation has ended, and hands over what the server says on the way.
///
/// # Errors
/// As [`Frame::read`].
pub fn read_until_end<R: Read>(
    input: &mut WireReader<R>,
    version: Version,
    mut on_log: impl FnMut(LogFrame),
) -> Result<Ending> {
    loop {
        match Frame::read(input, version)? {
            Frame::Log(frame) => on_log(frame),
            Frame::Last => return Ok(Ending::Success),
            Frame::Error(report) => return Ok(Ending::Failure(report)),
        }
    }
}
