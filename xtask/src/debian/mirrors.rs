// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Debian mirrors that the machine itself is set up to use, read from apt's source lists in both of
//! their forms. No mirror is named in the project.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Debian's own keyring; used where a source does not name another.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One mirror of the Debian archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// Where it is, without a slash at the end.
    pub(crate) uri: String,
    /// The keys that sign its release files.
    keyring: String,
}

impl Mirror {
    /// The one-line source for a suite of this mirror; only the package index is fetched.
    pub(crate) fn source_line(&self, suite: &str, architecture: &str) -> String {
        let Self { uri, keyring } = self;
        format!("deb [arch={architecture} target=Packages signed-by={keyring}] {uri} {suite} main\n")
    }
}

/// Reads the mirrors from the machine's source lists; an error if there is none.
pub(crate) fn of_this_machine() -> Result<Vec<Mirror>> {
    let mut mirrors = Vec::new();
    for (is_deb822, text) in source_lists()? {
        let found = if is_deb822 {
            from_deb822(&text)
        } else {
            from_one_line(&text)
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    ensure!(
        !mirrors.is_empty(),
        "apt's source lists on this machine name no Debian mirror (a `deb` source whose address ends in /debian)"
    );
    Ok(mirrors)
}

/// Reads the host names of every package source of the machine, Debian's or not.
pub(crate) fn hosts_of_this_machine() -> Result<Vec<String>> {
    let mut hosts: Vec<String> = source_lists()?
        .iter()
        .flat_map(|(_, text)| hosts(text))
        .map(str::to_owned)
        .collect();
    hosts.sort_unstable();
    hosts.dedup();
    Ok(hosts)
}

/// The text of each source list, with whether it has the deb822 form.
fn source_lists() -> Result<Vec<(bool, String)>> {
    let etc = Path::new("/etc/apt");
    let mut paths = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        for entry in entries {
            paths.push(entry.context("reading apt's source lists")?.path());
        }
    }
    paths.sort_unstable();
    let mut lists = Vec::new();
    for path in paths {
        let is_deb822 = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => true,
            Some("list") => false,
            _ => continue,
        };
        match fs::read_to_string(&path) {
            Ok(text) => lists.push((is_deb822, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }
    Ok(lists)
}

/// The mirrors of a `.list` file: `deb [options] URI suite components`.
fn from_one_line(text: &str) -> Vec<Mirror> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Mirror> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None; // deb-src
    }
    let mut keyring = None;
    rest = rest.trim_start();
    if let Some(inside) = rest.strip_prefix('[') {
        let (options, after) = inside.split_once(']')?;
        keyring = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        rest = after;
    }
    mirror(rest.split_whitespace().next()?, keyring)
}

/// The mirrors of a `.sources` file: stanzas of `Field: value`, continued by indented lines.
fn from_deb822(text: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            mirrors.extend(stanza_mirrors(&stanza));
            stanza.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    mirrors
}

fn stanza_mirrors(stanza: &[(String, String)]) -> Vec<Mirror> {
    let field = |name: &str| {
        stanza
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    let is_off = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    let has_binaries = field("types").is_some_and(|value| value.split_whitespace().any(|kind| kind == "deb"));
    if is_off || !has_binaries {
        return Vec::new();
    }
    let uris = field("uris").unwrap_or_default().split_whitespace();
    uris.filter_map(|uri| mirror(uri, field("signed-by"))).collect()
}

/// A mirror of the Debian archive, if the address is that of one. A keyring that is not one absolute path (a
/// key in the text, a fingerprint, several) is replaced by Debian's own.
fn mirror(uri: &str, keyring: Option<&str>) -> Option<Mirror> {
    let uri = uri.trim_end_matches('/');
    let (_, place) = uri.split_once("://")?;
    if !place.ends_with("/debian") {
        return None;
    }
    let is_path = |text: &&str| text.starts_with('/') && !text.contains([',', ' ', '\t', '\n', ']']);
    let keyring = keyring.filter(is_path).unwrap_or(KEYRING);
    Some(Mirror {
        uri: uri.to_owned(),
        keyring: keyring.to_owned(),
    })
}

/// Every host that follows `://` in a text.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    text.split("://").skip(1).filter_map(|rest| {
        let authority = rest.split(['/', ' ', '\t', '\n']).next()?;
        let host = authority.rsplit('@').next()?.split(':').next()?;
        host.contains('.').then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(uri: &str, keyring: &str) -> Mirror {
        Mirror {
            uri: uri.to_owned(),
            keyring: keyring.to_owned(),
        }
    }

    #[test]
    fn one_line_lists() {
        let text = "# deb http://mirror.example/debian old main\n\
            deb-src http://mirror.example/debian sid main\n\
            deb http://mirror.example/debian/ bookworm main # a remark\n\
            deb [arch=amd64 signed-by=/keys/own.gpg] https://user@mirror.example:8080/pub/debian sid main\n\
            deb http://mirror.example/debian-security bookworm-security main\n\
            deb [broken\n";
        let expected = [
            made("http://mirror.example/debian", KEYRING),
            made("https://user@mirror.example:8080/pub/debian", "/keys/own.gpg"),
        ];
        assert_eq!(from_one_line(text), expected);
    }

    #[test]
    fn deb822_stanzas() {
        let text = "Types: deb deb-src\n\
            # a remark\n\
            URIs: http://one.example/debian\n  http://two.example/debian\n\
            Suites: bookworm\nSigned-By: /keys/own.gpg\n\
            \n\
            Types: deb\nURIs: http://off.example/debian\nEnabled: no\n\
            \n\
            Types: deb-src\nURIs: http://source.example/debian\n\
            \n\
            Types: deb\nURIs: http://key.example/debian\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n";
        let expected = [
            made("http://one.example/debian", "/keys/own.gpg"),
            made("http://two.example/debian", "/keys/own.gpg"),
            made("http://key.example/debian", KEYRING),
        ];
        assert_eq!(from_deb822(text), expected);
    }

    #[test]
    fn hosts_without_user_and_port() {
        let text =
            "deb http://one.example/debian x\nURIs: https://user@two.example:80/y\ndeb file:///srv/debian z";
        assert_eq!(hosts(text).collect::<Vec<_>>(), ["one.example", "two.example"]);
    }
}
