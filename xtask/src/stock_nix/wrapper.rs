// SPDX-License-Identifier: MIT OR Apache-2.0
//! The small programs in `target/stock-nix/<suite>/bin`: each is one `exec` of the unpacked Nix through the
//! unpacked dynamic loader, in an environment and with a configuration of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::Unpacked;

/// The names under which the one binary is started; it chooses its job by its name.
const PROGRAMS: [&str; 4] = ["nix", "nix-store", "nix-daemon", "nix-instantiate"];

/// Nothing is built for another user, built elsewhere, substituted or sandboxed: the programs only work on
/// stores that a test made. Without `--store` there is none: `nix-store` opens its store for any word on the
/// command line (2.26 even for `--version`), and would make one of the machine's `/nix`.
const CONFIGURATION: &str = "\
experimental-features = nix-command local-overlay-store read-only-local-store
build-users-group =
builders =
sandbox = false
store = dummy://
substituters =
";

/// What would make Nix work on another store, or another library be loaded.
const UNSET: &str = "NIX_REMOTE NIX_CONFIG NIX_STORE_DIR NIX_STATE_DIR NIX_LOG_DIR NIX_DAEMON_SOCKET_PATH \
     NIX_PATH NIX_PROFILES NIX_SSL_CERT_FILE LD_LIBRARY_PATH LD_PRELOAD";

/// Writes the programs and their configuration into `dir`; what is already as it should be is left alone, so
/// that a program that is running at the moment is not touched.
pub(crate) fn write_all(dir: &Path, unpacked: &Unpacked) -> Result<()> {
    let loader = unpacked.loader()?;
    let libraries = PathBuf::from(unpacked.library_path()?);
    for sub in ["bin", "conf", "cache"] {
        let path = dir.join(sub);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
    }
    write_if_changed(&dir.join("conf").join("nix.conf"), CONFIGURATION, 0o644)?;
    for name in PROGRAMS {
        let text = script(dir, &unpacked.root, &loader, &libraries, name)?;
        write_if_changed(&dir.join("bin").join(name), &text, 0o755)?;
    }
    Ok(())
}

/// The text of one program. `NIX_BIN_DIR` is for the build hook, which Nix otherwise looks for in the file that
/// the kernel started: the loader.
fn script(dir: &Path, root: &Path, loader: &Path, libraries: &Path, name: &str) -> Result<String> {
    Ok(format!(
        "#!/bin/sh\n\
         unset {UNSET}\n\
         export LC_ALL=C NIX_USER_CONF_FILES= NIX_CONF_DIR={conf} NIX_CACHE_HOME={cache} \
         NIX_BIN_DIR={bin}\n\
         exec {loader} --argv0 {name} --library-path {libraries} {program} \"$@\"\n",
        conf = quoted(&dir.join("conf"))?,
        cache = quoted(&dir.join("cache"))?,
        bin = quoted(&dir.join("bin"))?,
        loader = quoted(loader)?,
        libraries = quoted(libraries)?,
        program = quoted(&root.join("usr/bin/nix"))?,
    ))
}

/// A path as one word of the shell.
fn quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn write_if_changed(path: &Path, text: &str, mode: u32) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    // By rename: a shell that is reading the old text at this moment reads it to its end.
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).with_context(|| format!("writing {}", fresh.display()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_and_quotes_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")).unwrap(), r"'/a b/it'\''s'");
    }

    #[test]
    fn a_script_starts_the_loader_in_a_clean_environment() {
        let dir = Path::new("/t");
        let libraries = Path::new("/t/root/l1:/t/root/l2");
        let text = script(
            dir,
            Path::new("/t/root"),
            Path::new("/t/root/ld.so"),
            libraries,
            "nix-store",
        )
        .unwrap();
        assert!(text.contains("unset NIX_REMOTE "), "{text}");
        assert!(text.contains("NIX_CONF_DIR='/t/conf'"), "{text}");
        let last = "exec '/t/root/ld.so' --argv0 nix-store --library-path '/t/root/l1:/t/root/l2' \
             '/t/root/usr/bin/nix' \"$@\"\n";
        assert!(text.ends_with(last), "{text}");
    }
}
