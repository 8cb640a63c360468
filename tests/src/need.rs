// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a trial may need of the machine, and whether it is there.

use std::path::Path;

use crate::{StockNix, ordinary_user, program};

/// Something that a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// User 0, in a mount namespace that is ours alone.
    Root,
    /// User namespaces that an ordinary user may create.
    UserNamespaces,
    /// Loop devices, and the program that makes an ext4 file system.
    LoopDevices,
    /// The program built so that it can be killed at each crash point.
    CrashPoints,
    /// A fetched stock Nix.
    Stock(StockNix),
}

impl Need {
    /// The word that stands for this need in `SUPERPOSE_REQUIRE`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            // Wherever root may mount, it is expected to be able to kill a program.
            Self::Root | Self::CrashPoints => "root",
            Self::UserNamespaces => "userns",
            Self::LoopDevices => "loop",
            Self::Stock(_) => "stock",
        }
    }
}

/// What this machine lacks, found out once when a suite starts.
#[derive(Debug)]
pub struct Machine {
    private_mounts: Option<String>,
    user_namespaces: Option<String>,
    loop_devices: Option<String>,
    crash_points: Option<String>,
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
            user_namespaces: ordinary_user::user_namespaces_missing(),
            loop_devices: loop_devices_missing(),
            crash_points: program::crashing_missing(),
            required,
        }
    }

    /// Says why a need is not met, or `None` if it is.
    #[must_use]
    pub fn missing(&self, need: Need) -> Option<String> {
        match need {
            Need::Root => self.private_mounts.clone(),
            Need::UserNamespaces => self.user_namespaces.clone(),
            Need::LoopDevices => self.loop_devices.clone(),
            Need::CrashPoints => self.crash_points.clone(),
            Need::Stock(stock) => stock.missing(),
        }
    }

    /// Whether a missing need of this kind is a failure instead of a skip.
    #[must_use]
    pub fn requires(&self, need: Need) -> bool {
        self.required.iter().any(|word| word == need.word())
    }
}

fn loop_devices_missing() -> Option<String> {
    if !Path::new("/dev/loop-control").exists() {
        return Some("this machine has no loop devices".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|dir| dir.join("mkfs.ext4").is_file());
    (!is_there).then(|| "mkfs.ext4 is not installed (package e2fsprogs)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_need_keeps_its_reason() {
        let machine = Machine {
            private_mounts: Some("not root".to_owned()),
            user_namespaces: None,
            loop_devices: None,
            crash_points: None,
            required: vec!["root".to_owned()],
        };
        assert_eq!(machine.missing(Need::Root).as_deref(), Some("not root"));
        assert_eq!(machine.missing(Need::UserNamespaces), None);
        assert!(machine.requires(Need::Root));
        assert!(!machine.requires(Need::UserNamespaces));
    }
}
