// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands as a reader would type them: each line is shown, run by the shell as it is shown, and its output too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// What the environment might say about stores, which the demo does not want to hear.
const UNSET: [&str; 7] = [
    "SUPERPOSE_STORE",
    "NIX_REMOTE",
    "NIX_STORE_DIR",
    "NIX_STORE",
    "NIX_STATE_DIR",
    "NIX_LOG_DIR",
    "NIX_DAEMON_SOCKET_PATH",
];

/// A session of a shell in a directory of its own.
pub(super) struct Shell {
    dir: PathBuf,
    /// The settings of the session, which each line finds as if all were run by one shell.
    settings: String,
    commands: usize,
}

impl Shell {
    /// Begins in an empty directory; what an earlier demo left there goes.
    pub(super) fn start(dir: &Path) -> Result<Self> {
        let mut shell = Self {
            dir: dir.parent().unwrap_or(dir).to_owned(),
            settings: String::new(),
            commands: 0,
        };
        if dir.exists() {
            // A store is read-only, and what OverlayFS works in may not even be read.
            let path = quoted(dir)?;
            shell.quietly(&format!("chmod -R u+rwx {path} && rm -rf {path}"))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        shell.dir = dir.to_owned();
        println!("$ cd {}", quoted(dir)?);
        Ok(shell)
    }

    /// Says what comes next.
    pub(super) fn say(&self, text: &str) {
        println!("\n# {text}");
    }

    /// Shows a line that sets a variable for all that follow.
    pub(super) fn set(&mut self, line: &str) {
        println!("$ {line}");
        self.settings.push_str(line);
        self.settings.push('\n');
    }

    /// Shows a line, runs it, and returns what it prints; it must succeed.
    pub(super) fn run(&mut self, line: &str) -> Result<String> {
        println!("$ {line}");
        self.commands += 1;
        let text = self.quietly(line)?;
        print!("{text}");
        Ok(text.trim_end().to_owned())
    }

    /// Runs a line without showing it. What it says on standard error is shown at once.
    pub(super) fn quietly(&self, line: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", &format!("{}{line}", self.settings)])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        for name in UNSET {
            command.env_remove(name);
        }
        let output = command.output().context("starting sh")?;
        ensure!(output.status.success(), "`{line}` failed ({})", output.status);
        String::from_utf8(output.stdout).with_context(|| format!("what `{line}` prints"))
    }

    /// How many commands were shown and run.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }
}

/// A path as one word of the shell: plain where nothing needs a quote.
pub(super) fn quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A path as part of a store URL within double quotes of the shell.
pub(super) fn in_url(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    let encoded = text.bytes().map(|byte| {
        if is_plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    Ok(encoded.collect())
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_stay_one_word_and_one_setting() {
        let check = |path: &str, word: &str, setting: &str| {
            let path = Path::new(path);
            assert_eq!(
                (quoted(path).unwrap(), in_url(path).unwrap()),
                (word.to_owned(), setting.to_owned())
            );
        };
        check("/a/b-1.0", "/a/b-1.0", "/a/b-1.0");
        check("/a b/it's", r"'/a b/it'\''s'", "/a%20b/it%27s");
        check("/$x&y", "'/$x&y'", "/%24x%26y");
    }
}
