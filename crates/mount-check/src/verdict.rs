// SPDX-License-Identifier: MIT OR Apache-2.0
//! From evidence to an outcome. Objects decide; the text of the mount options speaks only where they are
//! silent.

use crate::check::{Access, Expected};
use crate::covering::Covering;
use crate::describe::MountKind;
use crate::evidence::LayerDirectory;
use crate::mend::Mender;
use crate::quote;
use crate::report::{Aspect, Certainty, Difference, Evidence, Layer, Outcome, Reason, Text};
use crate::text::FollowedOptions;

/// Everything a verdict rests on.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) expected: &'a Expected<'a>,
    pub(crate) covering: &'a Covering,
    pub(crate) evidence: &'a [Evidence],
    pub(crate) followed: Option<&'a FollowedOptions>,
    pub(crate) lower: &'a [LayerDirectory],
    pub(crate) access: Access,
}

/// What one layer comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Present,
    Absent,
    Open,
}

impl Findings<'_> {
    pub(crate) fn outcome(&self, mender: &Mender<'_>) -> Outcome {
        // Its objects are the daemon's copies, which may be stale, so they do not refute either.
        if self.covering.description.kind == MountKind::FuseOverlay {
            return Outcome::CannotTell(vec![Reason {
                why: "fuse-overlayfs does not tell its layers".to_owned(),
                remedy: "mount with the kernel's OverlayFS (without root: in a user namespace, with userxattr), or use the mount unchecked"
                    .to_owned(),
            }]);
        }
        let mut differences: Vec<_> = self
            .evidence
            .iter()
            .filter(|evidence| standing(evidence) == Standing::Absent)
            .map(|evidence| self.absent(evidence, mender))
            .collect();
        differences.extend(self.additional(mender));
        if differences.is_empty() {
            differences.extend(self.order(mender));
        }
        if self.covering.description.is_read_only && self.access == Access::ReadWrite {
            differences.push(Difference {
                what: Aspect::ReadOnly,
                expected: "a writable mount".to_owned(),
                found: mender.describe_read_only(),
                mend: mender.make_writable(),
            });
        }
        if !differences.is_empty() {
            return Outcome::Different(differences);
        }
        let reasons: Vec<_> = self
            .evidence
            .iter()
            .filter(|evidence| standing(evidence) == Standing::Open)
            .map(open_reason)
            .collect();
        if reasons.is_empty() {
            Outcome::AsExpected
        } else {
            Outcome::CannotTell(reasons)
        }
    }

    fn absent(&self, evidence: &Evidence, mender: &Mender<'_>) -> Difference {
        let overlay = self.covering.description.overlay.as_ref();
        let shown = match evidence.layer {
            Layer::Upper => overlay
                .and_then(|overlay| overlay.upper.as_ref())
                .map(ToString::to_string),
            Layer::Lower(_) => overlay.map(|overlay| {
                let lower: Vec<_> = overlay.lower.iter().map(ToString::to_string).collect();
                lower.join(", ")
            }),
        };
        let named = shown.unwrap_or_else(|| "a directory that is not shown".to_owned());
        let found = match (evidence.certainty, evidence.text) {
            (Certainty::Refuted, Text::Names | Text::Resembles) => {
                format!(
                    "another directory that was once called {named} ({})",
                    evidence.how
                )
            }
            (Certainty::Refuted, _) => format!("{named} ({})", evidence.how),
            _ => named,
        };
        Difference {
            what: match evidence.layer {
                Layer::Upper => Aspect::Upper,
                Layer::Lower(index) => Aspect::Lower(index),
            },
            expected: quote::path(&evidence.expected),
            found,
            mend: mender.mend_layer(evidence.layer),
        }
    }

    /// Lower directories that nobody asked for.
    fn additional(&self, mender: &Mender<'_>) -> Option<Difference> {
        let contributing: Vec<_> = self.followed?.contributing_lower().collect();
        let wanted = self.expected.lower.len();
        if contributing.len() <= wanted {
            return None;
        }
        let matches = |layer: &LayerDirectory, lower: &crate::text::Followed| {
            matches!(lower.compare(layer), Text::Names | Text::Resembles)
        };
        let extra: Vec<_> = contributing
            .iter()
            .filter(|lower| !self.lower.iter().any(|layer| matches(layer, lower)))
            .map(|lower| quote::path(&lower.text))
            .collect();
        // An expected data-only directory contributes no names.
        if extra.is_empty() {
            return None;
        }
        Some(Difference {
            what: Aspect::AdditionalLower,
            expected: count(wanted),
            found: format!("{}, additionally {}", count(contributing.len()), extra.join(", ")),
            mend: mender.mend_lower_list(),
        })
    }

    /// Do the lower directories stand in the expected order, as far as the text can be followed?
    fn order(&self, mender: &Mender<'_>) -> Option<Difference> {
        let followed = self.followed?;
        let positions: Vec<_> = self
            .lower
            .iter()
            .filter_map(|layer| followed.lower_position(layer))
            .collect();
        if positions.is_sorted() {
            return None;
        }
        let list = |paths: &mut dyn Iterator<Item = String>| paths.collect::<Vec<_>>().join(", ");
        Some(Difference {
            what: Aspect::LowerOrder,
            expected: list(&mut self.expected.lower.iter().map(|path| quote::path(path))),
            found: list(
                &mut followed
                    .contributing_lower()
                    .map(|lower| quote::path(&lower.text)),
            ),
            mend: mender.mend_lower_list(),
        })
    }
}

fn standing(evidence: &Evidence) -> Standing {
    match (evidence.certainty, evidence.text) {
        (Certainty::Proven, _) => Standing::Present,
        (Certainty::Refuted, _) => Standing::Absent,
        (Certainty::Consistent | Certainty::Unknown, Text::Names | Text::Resembles) => Standing::Present,
        (Certainty::Consistent, Text::Unusable) => Standing::Present,
        // Times agree and the text does not: a twin made in the same instant, or a text of another root
        // directory.
        (Certainty::Consistent, Text::NamesOther) => Standing::Open,
        (Certainty::Unknown, Text::NamesOther) => Standing::Absent,
        (Certainty::Unknown, Text::Unusable) => Standing::Open,
    }
}

fn open_reason(evidence: &Evidence) -> Reason {
    let path = quote::path(&evidence.expected);
    let text = match evidence.text {
        Text::NamesOther => "the mount options name another",
        _ => "the mount options cannot be followed from here",
    };
    Reason {
        why: format!(
            "whether {path} is the {}: {}, and {text}",
            evidence.layer, evidence.how
        ),
        remedy: match evidence.layer {
            Layer::Upper => {
                "allow the active probe (it writes a file and removes it), or mount with absolute paths"
                    .to_owned()
            }
            Layer::Lower(_) => {
                "put an object into the lower directory before mounting, or mount with absolute paths"
                    .to_owned()
            }
        },
    }
}

fn count(directories: usize) -> String {
    match directories {
        1 => "1 lower directory".to_owned(),
        n => format!("{n} lower directories"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn objects_decide_and_text_only_where_they_are_silent() {
        use Certainty::{Consistent, Proven, Refuted, Unknown};
        use Standing::{Absent, Open, Present};
        use Text::{Names, NamesOther, Resembles, Unusable};
        let check = |certainty, wants: [Standing; 4]| {
            for (text, want) in [Names, Resembles, NamesOther, Unusable].into_iter().zip(wants) {
                let evidence = Evidence {
                    layer: Layer::Upper,
                    expected: PathBuf::new(),
                    certainty,
                    how: String::new(),
                    text,
                };
                assert_eq!(standing(&evidence), want, "{certainty:?} {text:?}");
            }
        };
        check(Proven, [Present, Present, Present, Present]);
        check(Refuted, [Absent, Absent, Absent, Absent]);
        check(Consistent, [Present, Present, Open, Present]);
        check(Unknown, [Present, Present, Absent, Open]);
    }
}
