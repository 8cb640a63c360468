// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `superpose` program: parses arguments, calls the crates, prints.
//!
//! It is a library only so that the program and the generator of its man pages and shell completions
//! (`examples/generate.rs`) share one definition. It deliberately holds nothing that another program could want: what a
//! store is and does is in `superpose-overlay`.
//!
//! Data goes to standard output, everything else to standard error. The exit status is 0 when the work is done, 1 when
//! it failed or a fault was found, 2 when the command line was wrong.
//!
//! ```
//! let names: Vec<_> = superpose_cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
//! assert!(names.contains(&"path-info".to_owned()));
//! ```

mod arguments;
mod closure_size;
mod commands;
mod context;
mod environment;
mod error;
mod input;
mod log;
mod messages;
mod mount_json;
mod namespace;
mod order;
mod output;
mod path_arguments;
mod progress;
mod size_text;
mod trust;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::arguments::Arguments;
use crate::context::Context;

/// Runs the program with the arguments and the environment of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (global, command) = (arguments.global, arguments.command);
    let result = Context::new(global).and_then(|context| command.run(&context));
    match result {
        Ok(done) => done.into(),
        Err(error) => error.report(),
    }
}

/// Returns the definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}
