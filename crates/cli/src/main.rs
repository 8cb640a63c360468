// SPDX-License-Identifier: MIT OR Apache-2.0
//! The superpose program.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    superpose_cli::main()
}
