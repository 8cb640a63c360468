// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of a guest, and where the guest mounts it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::guest::escaped;

/// A file that a guest sees as a disk with a serial, by which it knows it. The kernel keeps 20 letters of one.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    serial: String,
    image: PathBuf,
    is_read_only: bool,
    is_covered: bool,
    /// Where all writes are logged.
    log: Option<PathBuf>,
    /// Where, and as what.
    mount: Option<(PathBuf, &'static str)>,
}

impl Disk {
    /// A disk that any number of guests may have at once.
    pub(crate) fn read_only(serial: &str, image: &Path) -> Self {
        Self {
            serial: serial.to_owned(),
            image: image.to_owned(),
            is_read_only: true,
            is_covered: false,
            log: None,
            mount: None,
        }
    }

    /// A disk of one guest.
    pub(crate) fn writable(serial: &str, image: &Path) -> Self {
        Self {
            is_read_only: false,
            ..Self::read_only(serial, image)
        }
    }

    /// Has the guest mount it.
    pub(crate) fn at(mut self, place: impl Into<PathBuf>, kind: &'static str) -> Self {
        self.mount = Some((place.into(), kind));
        self
    }

    /// Has the emulator log all writes and flushes in a file, which is empty.
    pub(crate) fn logged(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Has what is written there go into the guest's memory.
    pub(crate) fn covered(mut self) -> Self {
        self.is_covered = true;
        self
    }

    /// The emulator's options. A guest is killed but its host is not: what the emulator passed on is safe without a sync.
    pub(crate) fn arguments(&self, index: usize) -> Result<Vec<String>> {
        let Self {
            serial,
            image,
            is_read_only,
            ..
        } = self;
        let device = format!("virtio-blk-pci,drive=disk{index},serial={serial}");
        if let Some(log) = &self.log {
            let (image, log) = (escaped(image)?, escaped(log)?);
            return Ok(vec![
                "-blockdev".to_owned(),
                format!("driver=file,filename={image},node-name=file{index}"),
                "-blockdev".to_owned(),
                format!("driver=file,filename={log},node-name=log{index}"),
                "-blockdev".to_owned(),
                format!(
                    "driver=blklogwrites,file=file{index},log=log{index},log-sector-size=512,\
                     log-super-update-interval=1,node-name=disk{index}"
                ),
                "-device".to_owned(),
                device,
            ]);
        }
        let read_only = if *is_read_only { "on" } else { "off" };
        Ok(vec![
            "-drive".to_owned(),
            format!(
                "if=none,id=disk{index},format=raw,cache=unsafe,readonly={read_only},file={}",
                escaped(image)?
            ),
            "-device".to_owned(),
            device,
        ])
    }

    /// What the order says of it.
    pub(crate) fn order(&self) -> Option<Value> {
        let (place, kind) = self.mount.as_ref()?;
        Some(json!({
            "serial": self.serial,
            "at": place.to_str(),
            "type": kind,
            "covered": self.is_covered,
            "read-only": self.is_read_only,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_place_is_mounted() {
        let disk = Disk::read_only("lower", Path::new("/l,.img"));
        assert_eq!(disk.order(), None);
        let arguments = disk.arguments(3).unwrap();
        assert!(
            arguments[1].ends_with("readonly=on,file=/l,,.img"),
            "{arguments:?}"
        );
        assert_eq!(arguments[3], "virtio-blk-pci,drive=disk3,serial=lower");
        let order = disk.at("/lower", "erofs").covered().order().unwrap();
        assert_eq!(
            (&order["at"], &order["covered"]),
            (&json!("/lower"), &json!(true))
        );
    }
}
