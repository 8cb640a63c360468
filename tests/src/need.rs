// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a trial may need of the machine, and whether it is there.

use std::process::{Command, Stdio};

use crate::StockNix;

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// User 0, in a mount namespace that is ours alone.
    Root,
    /// User namespaces that an ordinary user may create.
    UserNamespaces,
    /// A fetched stock Nix.
    Stock(StockNix),
}

impl Need {
    /// The word that stands for this need in `SUPERPOSE_REQUIRE`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::UserNamespaces => "userns",
            Self::Stock(_) => "stock",
        }
    }
}

/// What this machine lacks, found out once when a suite starts.
#[derive(Debug)]
pub struct Machine {
    private_mounts: Option<String>,
    user_namespaces: Option<String>,
    required: Vec<String>,
}

impl Machine {
    /// Tries what the needs stand for; `private_mounts` says why the suite has no mount namespace of its own.
    #[must_use]
    pub fn detect(private_mounts: Option<String>) -> Self {
        let required = std::env::var("SUPERPOSE_REQUIRE").unwrap_or_default();
        let required = required.split(',').map(|word| word.trim().to_owned()).collect();
        Self {
            private_mounts,
            user_namespaces: user_namespaces_missing(),
            required,
        }
    }

    /// Says why a need is not met, or `None` if it is.
    #[must_use]
    pub fn missing(&self, need: Need) -> Option<String> {
        match need {
            Need::Root => self.private_mounts.clone(),
            Need::UserNamespaces => self.user_namespaces.clone(),
            Need::Stock(stock) => stock.missing(),
        }
    }

    /// Whether a missing need of this kind is a failure instead of a skip.
    #[must_use]
    pub fn requires(&self, need: Need) -> bool {
        self.required.iter().any(|word| word == need.word())
    }
}

/// Makes a user and mount namespace with the program of util-linux, as a user would.
fn user_namespaces_missing() -> Option<String> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--map-root-user", "--mount", "true"]);
    match unshare
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => None,
        Ok(_) => Some("this machine does not let us create user namespaces".to_owned()),
        Err(error) => Some(format!("unshare cannot be started: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_need_keeps_its_reason() {
        let machine = Machine {
            private_mounts: Some("not root".to_owned()),
            user_namespaces: None,
            required: vec!["root".to_owned()],
        };
        assert_eq!(machine.missing(Need::Root).as_deref(), Some("not root"));
        assert_eq!(machine.missing(Need::UserNamespaces), None);
        assert!(machine.requires(Need::Root));
        assert!(!machine.requires(Need::UserNamespaces));
    }
}
