// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is at the other end, and what that one may do.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fd::AsFd;
use superpose_worker_protocol::Trust;

use crate::error::{Error, Result};
use crate::options::ServeOptions;

/// Most of an account file that is read, in bytes: more than the largest ones have.
const MAX_FILE: u64 = 16 << 20;

/// The process at the other end of a connection, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
}

impl Peer {
    /// Asks the kernel who connected.
    pub(crate) fn of(socket: impl AsFd) -> Result<Self> {
        let found = rustix::net::sockopt::socket_peercred(socket)
            .map_err(|error| Error::io("ask who is at the other end of", "the socket", error))?;
        Ok(Self {
            uid: found.uid.as_raw(),
            gid: found.gid.as_raw(),
        })
    }
}

/// Users, as the settings `trusted-users` and `allowed-users` of Nix name them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserList {
    words: Vec<String>,
}

impl UserList {
    /// Parses a list separated by blanks: names, `@group`, `*` for everybody. What has no name is meant by its number.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self {
            words: text.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Everybody.
    #[must_use]
    pub fn everybody() -> Self {
        Self::parse("*")
    }

    /// Root, and the user of this process.
    ///
    /// # Deviation
    /// Nix's default is root alone: somebody who serves a store of his own is not trusted by it.
    #[must_use]
    pub fn root_and_self() -> Self {
        let own = rustix::process::geteuid().as_raw();
        let mut list = Self::parse("root");
        if own != 0 {
            list.words.push(own.to_string());
        }
        list
    }

    fn contains(&self, peer: Peer, accounts: &Accounts) -> bool {
        if self.words.iter().any(|word| word == "*") {
            return true;
        }
        // The number stands for itself also where there is a name: a name can change its owner.
        let number = peer.uid.to_string();
        if self.words.contains(&number) {
            return true;
        }
        let names = self.words.iter().filter(|word| !word.starts_with('@'));
        let has_names = names.clone().next().is_some();
        let user = accounts.user(peer.uid).unwrap_or(number);
        if has_names && names.into_iter().any(|word| *word == user) {
            return true;
        }
        let groups = self.words.iter().filter_map(|word| word.strip_prefix('@'));
        groups.into_iter().any(|group| accounts.is_in(peer, &user, group))
    }
}

/// The accounts of the machine.
///
/// # Limitations
/// They are those of the files in `/etc`. Who is known only to another service of names is compared by number.
#[derive(Debug)]
pub(crate) struct Accounts {
    passwd: PathBuf,
    group: PathBuf,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            passwd: PathBuf::from("/etc/passwd"),
            group: PathBuf::from("/etc/group"),
        }
    }
}

impl Accounts {
    fn user(&self, uid: u32) -> Option<String> {
        let uid = uid.to_string();
        lines(&self.passwd).find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
    }

    /// Whether `group` is the peer's primary group, or lists the user among its members.
    fn is_in(&self, peer: Peer, user: &str, group: &str) -> bool {
        let gid = peer.gid.to_string();
        group == gid
            || lines(&self.group).any(|line| {
                let mut fields = line.split(':');
                fields.next() == Some(group)
                    && (fields.nth(1) == Some(&gid)
                        || fields
                            .next()
                            .is_some_and(|members| members.split(',').any(|member| member.trim() == user)))
            })
    }

    /// Whether `group` is the peer's primary group.
    fn has_primary(&self, peer: Peer, group: &str) -> bool {
        let gid = peer.gid.to_string();
        lines(&self.group).any(|line| {
            let mut fields = line.split(':');
            fields.next() == Some(group) && fields.nth(1) == Some(&gid)
        })
    }
}

/// The lines of a file; none if it cannot be read, as then nobody has a name.
fn lines(path: &Path) -> impl Iterator<Item = String> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
    if let Err(error) = read {
        tracing::warn!(path = %path.display(), %error, "cannot read the accounts: users are known by number only");
    }
    String::from_utf8_lossy(&text)
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

/// What a peer may do; `None`: not even connect.
pub(crate) fn standing(options: &ServeOptions, peer: Peer, accounts: &Accounts) -> Option<Trust> {
    if let Some(group) = &options.build_users_group
        && accounts.has_primary(peer, group)
    {
        return None;
    }
    if options.trusted_users.contains(peer, accounts) {
        return Some(Trust::Trusted);
    }
    options
        .allowed_users
        .contains(peer, accounts)
        .then_some(Trust::NotTrusted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Peer = Peer { uid: 1000, gid: 100 };
    const NOBODY: Peer = Peer {
        uid: 65534,
        gid: 65534,
    };

    fn accounts(directory: &tempfile::TempDir) -> Accounts {
        let accounts = Accounts {
            passwd: directory.path().join("passwd"),
            group: directory.path().join("group"),
        };
        std::fs::write(
            &accounts.passwd,
            "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nhalf:x\n",
        )
        .unwrap();
        std::fs::write(
            &accounts.group,
            "root:x:0:\nusers:x:100:\nwheel:x:10:bob, alice\nnixbld:x:30000:nixbld1\nodd\n",
        )
        .unwrap();
        accounts
    }

    fn check(trusted: &str, allowed: &str, peer: Peer, expected: Option<Trust>) {
        let directory = tempfile::tempdir().unwrap();
        let options = ServeOptions {
            trusted_users: UserList::parse(trusted),
            allowed_users: UserList::parse(allowed),
            ..ServeOptions::default()
        };
        let found = standing(&options, peer, &accounts(&directory));
        assert_eq!(
            found, expected,
            "trusted `{trusted}`, allowed `{allowed}`, {peer:?}"
        );
    }

    #[test]
    fn names_numbers_groups_and_everybody() {
        use Trust::{NotTrusted, Trusted};
        check("root", "*", ALICE, Some(NotTrusted));
        check("root alice", "", ALICE, Some(Trusted));
        check("1000", "", ALICE, Some(Trusted));
        check("@wheel", "", ALICE, Some(Trusted));
        check("@users", "", ALICE, Some(Trusted));
        check("@100", "", ALICE, Some(Trusted));
        check("*", "", NOBODY, Some(Trusted));
        check("root", "alice", ALICE, Some(NotTrusted));
        check("root", "@wheel", NOBODY, None);
        check("root", "bob", ALICE, None);
        check("", "", ALICE, None);
        // A group is not a user of the same name, nor the other way round.
        check("wheel", "", ALICE, None);
        check("@alice", "", ALICE, None);
        check("65534", "", NOBODY, Some(Trusted));
    }

    #[test]
    fn builders_never_connect() {
        let builder = Peer {
            uid: 30001,
            gid: 30000,
        };
        check("*", "*", builder, None);
    }

    #[test]
    fn without_account_files_numbers_remain() {
        let accounts = Accounts {
            passwd: PathBuf::from("/nonexistent/passwd"),
            group: PathBuf::from("/nonexistent/group"),
        };
        assert!(UserList::parse("1000").contains(ALICE, &accounts));
        assert!(!UserList::parse("alice @users").contains(ALICE, &accounts));
    }
}
