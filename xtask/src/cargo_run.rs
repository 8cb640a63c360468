// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs of cargo: their output shown while it is read, the programs they built, what they know of the workspace.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workspace;

/// A run of cargo in the work tree.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(workspace::root())
        .args(args)
        .stdin(Stdio::null());
    command
}

/// Runs to the end; standard output is shown line by line, and returned.
pub(crate) fn shown(mut command: Command) -> Result<(ExitStatus, String)> {
    eprintln!("$ {}", described(&command));
    command.stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {}", described(&command)))?;
    let mut text = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            println!("{line}");
            text.push_str(&line);
            text.push('\n');
        }
    }
    Ok((child.wait()?, text))
}

/// Runs to the end, which must be a good one; standard output is returned, not shown.
pub(crate) fn read(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("starting {}", described(&command)))?;
    ensure!(
        output.status.success(),
        "{} failed ({})",
        described(&command),
        output.status
    );
    String::from_utf8(output.stdout).with_context(|| format!("what {} says", described(&command)))
}

/// A program that cargo built.
pub(crate) struct Built {
    /// The name of its target: of the program, or of the suite.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds, and returns the programs that the given arguments make.
pub(crate) fn build(args: &[&str]) -> Result<Vec<Built>> {
    build_with(cargo(args))
}

/// The same with a run of cargo that was prepared otherwise.
pub(crate) fn build_with(mut command: Command) -> Result<Vec<Built>> {
    command.arg("--message-format=json-render-diagnostics");
    eprintln!("$ {}", described(&command));
    let messages = read(command)?;
    Ok(messages.lines().filter_map(built).collect())
}

fn built(message: &str) -> Option<Built> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    Some(Built {
        name: message["target"]["name"].as_str()?.to_owned(),
        path: PathBuf::from(path),
    })
}

/// What cargo knows of the workspace itself, its dependencies left out.
pub(crate) fn metadata() -> Result<Value> {
    metadata_of("Cargo.toml")
}

/// The same of the workspace that another manifest is the root of.
pub(crate) fn metadata_of(manifest: &str) -> Result<Value> {
    let text = read(cargo(&[
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--manifest-path",
        manifest,
    ]))?;
    serde_json::from_str(&text).context("what cargo metadata says")
}

fn described(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let mut words = vec![
        program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_are_taken_from_a_build() {
        let message = r#"{"reason":"compiler-artifact","target":{"name":"host"},"executable":"/t/host-1"}"#;
        assert_eq!(built(message).map(|built| built.name).as_deref(), Some("host"));
        assert!(built(r#"{"reason":"compiler-artifact","target":{"name":"x"},"executable":null}"#).is_none());
        assert!(built("not JSON").is_none());
    }
}
