// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a check found: the outcome, what it rests on, and how to mend what is wrong. `Display` explains all
//! of it.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::describe::MountDescription;
use crate::proof::{Handles, VerifiedMount};
use crate::quote;
use crate::warning::Warning;

/// The result of [`check`](crate::check()).
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The directory that was checked, as the caller named it.
    pub mount_point: PathBuf,
    /// The answer.
    pub outcome: Outcome,
    /// The mount that covers the directory; `None` when the directory itself is missing.
    pub mount: Option<MountDescription>,
    /// What works but endangers the layers.
    pub warnings: Vec<Warning>,
    /// What the answer rests on, layer by layer: the upper one, then the lower ones from the top.
    pub evidence: Vec<Evidence>,
    /// The directories that were looked at, held open; present when all of them could be opened.
    pub(crate) handles: Option<Handles>,
}

/// Is it the expected mount?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every expected layer is there, in order, and nothing else.
    AsExpected,
    /// At least one thing is not as expected; never empty.
    Different(Vec<Difference>),
    /// Nothing contradicts the expectation, but not everything could be seen; never empty.
    CannotTell(Vec<Reason>),
}

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub what: Aspect,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// How to mend it, the best way first.
    pub mend: Vec<Mend>,
}

/// The part of a mount that a [`Difference`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aspect {
    /// The mount point does not exist or is not a directory.
    MountPoint,
    /// No file system is mounted at the mount point.
    NotMounted,
    /// Something that is not OverlayFS is mounted at the mount point.
    FileSystem,
    /// An overlay is mounted at the mount point, but another mount hides it.
    Hidden,
    /// The upper layer.
    Upper,
    /// The lower directory with this index (0 is the top-most).
    Lower(usize),
    /// The order of the lower directories.
    LowerOrder,
    /// Lower directories nobody asked for.
    AdditionalLower,
    /// The mount cannot be written.
    ReadOnly,
}

/// A way to mend a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mend {
    /// A command to run, word by word.
    Run(Vec<OsString>),
    /// Advice in words.
    Advice(String),
}

/// Why a check could not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reason {
    /// What could not be seen.
    pub why: String,
    /// What would let it be seen.
    pub remedy: String,
}

/// Which layer an [`Evidence`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The upper layer.
    Upper,
    /// The lower directory with this index (0 is the top-most).
    Lower(usize),
}

/// How well a layer is known to be part of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Objects seen through the mount are this directory's own, by file handle or by inode number.
    Proven,
    /// All that can be compared agrees (times, sizes, names), but twins cannot be excluded.
    Consistent,
    /// Nothing could be compared.
    Unknown,
    /// Objects seen through the mount are not this directory's.
    Refuted,
}

/// What the mount options' text says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// A path of the options leads to the expected directory.
    Names,
    /// A relative path of the options ends like the expected one.
    Resembles,
    /// The options name other directories.
    NamesOther,
    /// The options cannot be followed from here: relative, missing, of another namespace, or not shown.
    Unusable,
}

/// What is known of one expected layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// Which layer.
    pub layer: Layer,
    /// The directory that was expected.
    pub expected: PathBuf,
    /// What the objects say. This decides.
    pub certainty: Certainty,
    /// What the comparison was, in words.
    pub how: String,
    /// What the mount options say. This decides only where the objects are silent.
    pub text: Text,
}

impl Report {
    /// Turns an [`Outcome::AsExpected`] into the proof of it.
    ///
    /// # Errors
    /// The report itself, for any other outcome.
    pub fn into_proof(mut self) -> Result<VerifiedMount, Box<Self>> {
        match (&self.outcome, self.handles.take()) {
            (Outcome::AsExpected, Some(handles)) => Ok(VerifiedMount::new(handles, self)),
            (_, handles) => {
                self.handles = handles;
                Err(Box::new(self))
            }
        }
    }

    /// Is everything as expected?
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.outcome == Outcome::AsExpected
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = quote::path(&self.mount_point);
        match &self.outcome {
            Outcome::AsExpected => writeln!(f, "{place} is the expected overlay mount")?,
            Outcome::Different(differences) => {
                writeln!(f, "{place} is not the expected overlay mount")?;
                for difference in differences {
                    write!(f, "{difference}")?;
                }
            }
            Outcome::CannotTell(reasons) => {
                writeln!(f, "cannot tell whether {place} is the expected overlay mount")?;
                for reason in reasons {
                    writeln!(f, "  why: {}", reason.why)?;
                    writeln!(f, "    to find out: {}", reason.remedy)?;
                }
            }
        }
        for evidence in &self.evidence {
            writeln!(f, "  {evidence}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  warning: {warning}")?;
        }
        if let Some(mount) = &self.mount {
            write!(f, "{mount}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.what)?;
        writeln!(f, "    expected: {}", self.expected)?;
        writeln!(f, "    found:    {}", self.found)?;
        for mend in &self.mend {
            writeln!(f, "    to mend:  {mend}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MountPoint => f.write_str("the mount point is missing"),
            Self::NotMounted => f.write_str("nothing is mounted there"),
            Self::FileSystem => f.write_str("the file system is another one"),
            Self::Hidden => f.write_str("another mount hides the overlay"),
            Self::Upper => f.write_str("the upper layer differs"),
            Self::Lower(index) => write!(f, "lower directory {} differs", index + 1),
            Self::LowerOrder => f.write_str("the lower directories are in another order"),
            Self::AdditionalLower => f.write_str("there are additional lower directories"),
            Self::ReadOnly => f.write_str("the mount is read-only"),
        }
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(words) => f.write_str(&quote::command(words)),
            Self::Advice(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upper => f.write_str("upper layer"),
            Self::Lower(index) => write!(f, "lower directory {}", index + 1),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.certainty {
            Certainty::Proven => "proven",
            Certainty::Consistent => "consistent",
            Certainty::Unknown => "not comparable",
            Certainty::Refuted => "refuted",
        };
        let text = match self.text {
            Text::Names => "the mount options name it",
            Text::Resembles => "the mount options name a relative path that ends like it",
            Text::NamesOther => "the mount options name others",
            Text::Unusable => "the mount options do not help",
        };
        write!(
            f,
            "{} {}: {verdict} ({}); {text}",
            self.layer,
            quote::path(&self.expected),
            self.how
        )
    }
}
