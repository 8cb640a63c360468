// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said on standard error.
//!
//! A message that cannot be written is lost: there is no other place to tell it to, and the work goes on.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::environment;

const RED: &str = "\x1b[31;1m";
const YELLOW: &str = "\x1b[33;1m";
const CYAN: &str = "\x1b[36;1m";
const RESET: &str = "\x1b[0m";

/// Says why the program fails.
pub(crate) fn error(text: &str) {
    say("error:", RED, &text);
}

/// Says that something is odd.
pub(crate) fn warning(text: &impl Display) {
    say("warning:", YELLOW, text);
}

/// Says something that is good to know.
pub(crate) fn note(text: &impl Display) {
    say("note:", CYAN, text);
}

/// Whether standard error is a terminal on which lines may be coloured and overwritten.
pub(crate) fn is_terminal() -> bool {
    io::stderr().is_terminal() && !environment::wants_plain_text()
}

fn say(label: &str, colour: &str, text: &dyn Display) {
    let line = if is_terminal() {
        format!("{colour}{label}{RESET} {text}\n")
    } else {
        format!("{label} {text}\n")
    };
    // In one piece, so that lines of several processes do not mix.
    io::stderr().write_all(line.as_bytes()).ok();
}
