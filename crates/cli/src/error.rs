// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every error as one of few kinds, each with its exit status, and how it is shown.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use superpose_overlay::mount_check::{self, Aspect, Outcome};
use superpose_overlay::{metadata, nar, store_path};

use crate::messages;

/// The result of what the program does.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means to whoever started the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The command was understood, and could not be done.
    Failed,
    /// The command line, the store URL or the environment is wrong: nothing was tried.
    Usage,
    /// The reader of our output went away: nobody needs the rest.
    NoReader,
    /// `run`: the program to run is there, but cannot be executed.
    NotExecutable,
    /// `run`: the program to run is not there.
    NotFound,
}

impl Kind {
    /// The exit status. 126 and 127 are those of the shells.
    fn status(self) -> u8 {
        match self {
            Kind::NoReader => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotExecutable => 126,
            Kind::NotFound => 127,
        }
    }
}

/// An error on its way to the user.
#[derive(Debug)]
pub(crate) struct Error {
    kind: Kind,
    source: Box<dyn StdError>,
    hint: Option<String>,
}

impl Error {
    /// An error of that kind.
    pub(crate) fn new(kind: Kind, source: impl Into<Box<dyn StdError>>) -> Self {
        Error {
            kind,
            source: source.into(),
            hint: None,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(source: impl Into<Box<dyn StdError>>) -> Self {
        Self::new(Kind::Usage, source)
    }

    /// The work could not be done.
    pub(crate) fn failed(source: impl Into<Box<dyn StdError>>) -> Self {
        Self::new(Kind::Failed, source)
    }

    /// A system call on `path` failed; `operation` fits between "cannot" and the path.
    pub(crate) fn io(operation: &str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::failed(SystemError {
            message: format!("cannot {operation} '{}'", path.display()),
            source: source.into(),
        })
    }

    /// Standard output could not be written.
    pub(crate) fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::NoReader, source);
        }
        Self::failed(SystemError {
            message: "cannot write to standard output".to_owned(),
            source,
        })
    }

    /// The same with a line that says what to do about it.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as another kind.
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The error itself, with its causes behind it.
    pub(crate) fn message(&self) -> &(dyn StdError + 'static) {
        self.source.as_ref()
    }

    /// What to do about it, if there is something.
    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Shows the error, and gives the exit status.
    pub(crate) fn report(&self) -> ExitCode {
        if self.kind != Kind::NoReader {
            messages::error(&self.text());
        }
        self.kind.status().into()
    }

    /// The message, then each cause on a line of its own, then the hint; what follows the first line is indented.
    fn text(&self) -> String {
        let mut text = indented(&self.source.to_string());
        let mut cause = self.source.source();
        while let Some(error) = cause {
            text.push_str("\n  caused by: ");
            text.push_str(&indented(&error.to_string()));
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }
}

fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n  ")
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| StdError::source(*error));
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error of the system, with what was attempted.
#[derive(Debug)]
struct SystemError {
    message: String,
    source: io::Error,
}

impl std::fmt::Display for SystemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for SystemError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

impl From<superpose_overlay::Error> for Error {
    fn from(error: superpose_overlay::Error) -> Self {
        use superpose_overlay::Error as E;
        let kind = match &error {
            // What the URL or an argument says cannot be meant.
            E::StorePath(_)
            | E::NoUpperLayer { .. }
            | E::NoStateOfItsOwn { .. }
            | E::SharedDirectory { .. }
            | E::StoreDirsDiffer { .. }
            | E::ForeignSource { .. }
            | E::TooDeep { .. }
            | E::DaemonStore { .. }
            | E::NoLayers { .. }
            | E::UnsupportedMethod { .. } => Kind::Usage,
            _ => Kind::Failed,
        };
        let hint = match &error {
            E::WrongMount { report, .. } if is_not_mounted(report) => Some(
                "`superpose mount` makes the mount; `superpose run -- COMMAND` makes one for one command, without root",
            ),
            E::Metadata(metadata::Error::MissingDatabase { .. }) => {
                Some("`superpose status` shows which directories the store URL stands for")
            }
            _ => None,
        };
        let error = Error::new(kind, error);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

fn is_not_mounted(report: &mount_check::Report) -> bool {
    matches!(&report.outcome, Outcome::Different(differences)
        if differences.iter().any(|difference| matches!(difference.what, Aspect::NotMounted | Aspect::MountPoint)))
}

impl From<superpose_daemon::Error> for Error {
    fn from(error: superpose_daemon::Error) -> Self {
        match error {
            superpose_daemon::Error::Store(error) => error.into(),
            error => Error::failed(error),
        }
    }
}

impl From<superpose_daemon::remote::Error> for Error {
    fn from(error: superpose_daemon::remote::Error) -> Self {
        use superpose_daemon::remote::Error as E;
        match error {
            E::Store(error) => error.into(),
            E::ForeignStore { .. } => Self::usage(error),
            error => Self::failed(error),
        }
    }
}

impl From<metadata::Error> for Error {
    fn from(error: metadata::Error) -> Self {
        superpose_overlay::Error::from(error).into()
    }
}

impl From<store_path::Error> for Error {
    fn from(error: store_path::Error) -> Self {
        superpose_overlay::Error::from(error).into()
    }
}

impl From<nar::Error> for Error {
    fn from(error: nar::Error) -> Self {
        superpose_overlay::Error::from(error).into()
    }
}

impl From<mount_check::Error> for Error {
    fn from(error: mount_check::Error) -> Self {
        superpose_overlay::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_indented_and_the_hint_comes_last() {
        let error =
            Error::io("read", Path::new("/x"), io::Error::other("first\nsecond")).with_hint("look elsewhere");
        assert_eq!(
            error.text(),
            "cannot read '/x'\n  caused by: first\n  second\nhint: look elsewhere"
        );
    }

    #[test]
    fn a_reader_that_went_away_is_success() {
        let check =
            |kind: io::ErrorKind, expected| assert_eq!(Error::output(kind.into()).kind.status(), expected);
        check(io::ErrorKind::BrokenPipe, 0);
        check(io::ErrorKind::StorageFull, 1);
    }
}
