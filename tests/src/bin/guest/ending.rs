// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a machine's work ended, and how that gets out of it.

use std::fmt;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use rustix::system::{RebootCommand, reboot};

/// Where the emulator listens for a byte to end with.
const EXIT_DEVICE: u64 = 0xf4;

/// How it ended. The starter reads these words on the console, and expects the byte that belongs to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Passed,
    Failed(String),
    Skipped(String),
}

/// The error of a part that cannot do its work on this kernel.
#[derive(Debug)]
pub(crate) struct Unfit(pub(crate) String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

impl Ending {
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        if let Some(unfit) = error.downcast_ref::<Unfit>() {
            return Self::Skipped(one_line(&unfit.0));
        }
        println!("{error:#}");
        Self::Failed(one_line(&format!("{error:#}")))
    }

    /// Reads what [`Display`](fmt::Display) writes.
    pub(crate) fn read(text: &str) -> Result<Self> {
        match text.split_once(": ") {
            None if text == "passed" => Ok(Self::Passed),
            Some(("failed", why)) => Ok(Self::Failed(why.to_owned())),
            Some(("skipped", why)) => Ok(Self::Skipped(why.to_owned())),
            _ => bail!("the part left no ending, but '{text}'"),
        }
    }

    fn byte(&self) -> u8 {
        match self {
            Self::Passed => 0x10,
            Self::Failed(_) => 0x11,
            Self::Skipped(_) => 0x12,
        }
    }

    /// Says it, and switches the machine off.
    pub(crate) fn announce(&self, nonce: &str) -> ExitCode {
        rustix::fs::sync();
        // A line of its own, whatever the last one to speak left behind.
        println!("\nsuperpose-guest {nonce}: {self}");
        let error = match self.end() {
            Ok(()) => anyhow!("the emulator did not end"),
            Err(error) => error.into(),
        };
        println!("{error:#}");
        // Without the byte this is no success, whatever the line says.
        reboot(RebootCommand::PowerOff).ok();
        ExitCode::FAILURE
    }

    fn end(&self) -> std::io::Result<()> {
        std::io::stdout().flush()?;
        let mut port = File::options().write(true).open("/dev/port")?;
        port.seek(SeekFrom::Start(EXIT_DEVICE))?;
        port.write_all(&[self.byte()])
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_travel_as_one_line() {
        let error = anyhow!("one\ntwo").context("three");
        let failed = Ending::of_error(&error);
        assert_eq!(failed, Ending::Failed("three: one two".to_owned()));
        let skipped = Ending::of_error(&anyhow::Error::new(Unfit("no such kernel".to_owned())));
        for ending in [Ending::Passed, failed, skipped] {
            assert_eq!(Ending::read(&ending.to_string()).unwrap(), ending);
        }
        assert!(Ending::read("passed by").is_err() && Ending::read("").is_err());
    }
}
