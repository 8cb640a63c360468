// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest has of its host besides disks: a directory, over 9p or virtiofs, and a socket through a network that leads
//! nowhere else.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::guest::escaped;

/// Where a guest finds the socket of its host: an address inside the emulator.
pub(crate) const ADDRESS: &str = "10.0.2.100:7000";

/// A directory of the host.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    tag: &'static str,
    at: &'static str,
    kind: &'static str,
    options: &'static str,
    arguments: Vec<String>,
}

impl Share {
    /// Shares a directory, which cannot be written, under a tag, to be mounted at a place. The emulator does it itself.
    pub(crate) fn over_9p(tag: &'static str, dir: &Path, at: &'static str) -> Result<Self> {
        let arguments = vec![
            "-fsdev".to_owned(),
            format!(
                "local,id={tag},security_model=none,readonly=on,path={}",
                escaped(dir)?
            ),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        ];
        Ok(Self {
            tag,
            at,
            kind: "9p",
            options: "trans=virtio,version=9p2000.L,msize=262144",
            arguments,
        })
    }

    /// The same by a program that listens at a socket, for one guest with so much memory, and reads it. Read-only is the
    /// guest's own mount.
    pub(crate) fn over_virtiofs(
        tag: &'static str,
        socket: &Path,
        at: &'static str,
        mebibytes: u32,
    ) -> Result<Self> {
        let arguments = vec![
            "-object".to_owned(),
            format!("memory-backend-memfd,id=memory,size={mebibytes}M,share=on"),
            "-numa".to_owned(),
            "node,memdev=memory".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id={tag},path={}", escaped(socket)?),
            "-device".to_owned(),
            format!("vhost-user-fs-pci,chardev={tag},tag={tag}"),
        ];
        Ok(Self {
            tag,
            at,
            kind: "virtiofs",
            options: "",
            arguments,
        })
    }

    /// The emulator's options.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// What the order says of it.
    pub(crate) fn order(&self) -> Value {
        json!({
            "tag": self.tag,
            "at": self.at,
            "type": self.kind,
            "options": self.options,
            "read-only": true,
        })
    }
}

/// The emulator's options for a network in which only the address is somebody: `program` is started for each conversation, and
/// carries it to the socket.
pub(crate) fn network(program: &Path, socket: &Path) -> Result<[String; 4]> {
    let (program, socket) = (escaped(program)?, escaped(socket)?);
    ensure!(
        !program.contains('\'') && !socket.contains('\''),
        "the emulator cannot be given a command with a quote: {program} {socket}"
    );
    Ok([
        "-netdev".to_owned(),
        format!("user,id=net,restrict=on,guestfwd=tcp:{ADDRESS}-cmd:'{program}' relay '{socket}'"),
        "-device".to_owned(),
        "virtio-net-pci,netdev=net".to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_whole() {
        let share = Share::over_9p("lower", Path::new("/a,b"), "/lower").unwrap();
        assert!(share.arguments()[1].ends_with("readonly=on,path=/a,,b"));
        let share = Share::over_virtiofs("lower", Path::new("/s,1"), "/lower", 512).unwrap();
        assert!(share.arguments()[5].ends_with("path=/s,,1"), "{share:?}");
        assert_eq!(share.order()["type"], "virtiofs");
        let network = network(Path::new("/x y/guest"), Path::new("/s,1")).unwrap();
        assert!(
            network[1].ends_with("-cmd:'/x y/guest' relay '/s,,1'"),
            "{network:?}"
        );
        assert!(super::network(Path::new("/it's"), Path::new("/s")).is_err());
    }
}
