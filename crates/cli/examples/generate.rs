// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes man pages and shell completions of `superpose` into a directory: `cargo run -p superpose-cli --example generate -- DIR`.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("expected one argument: a directory")?;
    let (man, completions) = (directory.join("man1"), directory.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut superpose_cli::command(), "superpose", &completions)?;
    }
    // One page for each command, named as `git` names its own: `superpose-path-info.1`.
    clap_mangen::generate_to(superpose_cli::command(), &man)?;
    Ok(())
}
