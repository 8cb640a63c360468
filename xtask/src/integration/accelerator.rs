// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes guests run: the processor itself, where that works, or emulation. That `/dev/kvm` opens proves nothing, and
//! the emulator's own choice looks at no more: a kernel has to have run, within a time.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::guest::Guest;
use super::kernel::Kernel;
use super::room::Room;
use super::verdict::Verdict;
use crate::workspace;

/// A guest with the processor's help is there in two seconds; where the help is broken, it never comes.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What makes guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => bail!("an accelerator is kvm or tcg, not '{text}'"),
        }
    }

    /// The emulator's options.
    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg"],
        }
    }

    /// What the environment asks for, what was found out since this machine started, or what is found out now.
    pub(crate) fn choose(room: &Room, kernel: &Kernel) -> Result<Self> {
        if let Some(text) = workspace::accelerator() {
            return Self::parse(&text);
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let cache = room.base.join("accelerator");
        let cached = fs::read_to_string(&cache).unwrap_or_default();
        if let Some((of, name)) = cached.split_once(' ')
            && of == boot.trim()
        {
            return Self::parse(name);
        }
        let found = Self::probe(room, kernel)?;
        fs::write(&cache, format!("{} {}", boot.trim(), found.name()))?;
        Ok(found)
    }

    fn probe(room: &Room, kernel: &Kernel) -> Result<Self> {
        let has_module = ["kvm_intel", "kvm_amd"]
            .iter()
            .any(|name| Path::new("/sys/module").join(name).exists());
        if !has_module || !Path::new("/dev/kvm").exists() {
            return Ok(Self::Tcg);
        }
        let guest = Guest::new(room, kernel, "accelerator", "hello");
        let ended = guest.accelerator(Self::Kvm).limit(TIME_LIMIT).run()?;
        Ok(match ended.verdict {
            Verdict::Passed => Self::Kvm,
            _ => Self::Tcg,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
            assert_eq!(Accelerator::parse(accelerator.name()).unwrap(), accelerator);
        }
        assert!(Accelerator::parse("").is_err());
    }
}
