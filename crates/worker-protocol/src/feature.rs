// SPDX-License-Identifier: MIT OR Apache-2.0
//! Features: what two sides of the same version may agree on besides.

use std::fmt;

/// Something that a side can do beyond its version. Names that are not known here are ignored, as both sides must.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// `add-to-store-scanning`: operation 1001. Nix 2.36, offered within builds only.
    AddToStoreScanning,
    /// `delete-dead-specific-referrers`: another form of `CollectGarbage`. Nix 2.35.
    DeleteSpecificReferrers,
    /// `disable-set-options`: the client sends no `SetOptions`. Nix 2.35, offered within builds only.
    DisableSetOptions,
    /// `realisation-with-path-not-hash`: realisations are found by the derivation's path. Nix 2.35.
    RealisationWithPath,
    /// `submit-output`: operation 1000. Nix 2.36, offered within builds only.
    SubmitOutput,
}

impl Feature {
    /// Every feature that is known here, in the order of their names.
    pub const ALL: [Self; 5] = [
        Self::AddToStoreScanning,
        Self::DeleteSpecificReferrers,
        Self::DisableSetOptions,
        Self::RealisationWithPath,
        Self::SubmitOutput,
    ];

    /// Returns the name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AddToStoreScanning => "add-to-store-scanning",
            Self::DeleteSpecificReferrers => "delete-dead-specific-referrers",
            Self::DisableSetOptions => "disable-set-options",
            Self::RealisationWithPath => "realisation-with-path-not-hash",
            Self::SubmitOutput => "submit-output",
        }
    }

    /// Finds the feature of a name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|feature| feature.as_str().as_bytes() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(u8);

impl Features {
    /// No feature: the dialect that every client from 2.26 to 2.36 speaks.
    pub const NONE: Self = Self(0);

    /// Returns the set with one feature more.
    #[must_use]
    pub const fn with(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// Tells whether a feature is in the set.
    #[must_use]
    pub const fn contains(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Returns what both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns the features, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL
            .into_iter()
            .filter(move |&feature| self.contains(feature))
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        features.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Feature::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_lead_back() {
        assert!(Feature::ALL.is_sorted_by_key(|feature| feature.as_str()));
        for feature in Feature::ALL {
            assert_eq!(Feature::from_name(feature.as_str().as_bytes()), Some(feature));
        }
        assert_eq!(Feature::from_name(b"made-up"), None);
    }

    #[test]
    fn sets_meet() {
        let two = Features::from_iter([Feature::SubmitOutput, Feature::DisableSetOptions]);
        let one = Features::NONE.with(Feature::SubmitOutput);
        assert_eq!(two.intersection(one), one);
        assert_eq!(format!("{two:?}"), r#"{"disable-set-options", "submit-output"}"#);
        assert!(!one.contains(Feature::DisableSetOptions));
    }
}
