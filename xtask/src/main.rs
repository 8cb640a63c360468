// SPDX-License-Identifier: MIT OR Apache-2.0
//! Developer tasks of superpose: `cargo xtask <task>`. Each task is one module with its arguments beside it;
//! nothing here is shipped, and nothing but cargo is needed to start it.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "the tasks are programs: their results go to standard output"
)]
#![allow(
    clippy::print_stderr,
    reason = "the tasks are programs: their progress goes to standard error"
)]

mod bench;
mod cargo_run;
mod debian;
mod demo;
mod dist;
mod integration;
mod lint;
mod stock_nix;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Developer tasks of superpose.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    Bench(bench::Args),
    Demo(demo::Args),
    Dist(dist::Args),
    Integration(integration::Args),
    Lint(lint::Args),
    StockNix(stock_nix::Args),
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Dist(args) => dist::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Integration(args) => integration::run(&args),
        Task::Lint(args) => lint::run(&args),
        Task::StockNix(args) => stock_nix::run(&args).map(|()| ExitCode::SUCCESS),
        Task::Test(args) => test::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
