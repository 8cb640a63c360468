// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine can be started for. A new part is a function in a file here, and a row in the table.

mod crate_suite;
mod hello;
mod nearly_full;
mod power;
mod suite;

use anyhow::{Context, Result};

use crate::order::Order;

type Part = fn(&Order) -> Result<()>;

/// All parts, by the names that orders use.
const PARTS: [(&str, Part); 7] = [
    ("crate-suite", crate_suite::run),
    ("hello", hello::run),
    ("nearly-full", nearly_full::run),
    ("power-judge", power::judge),
    ("power-lower", power::lower),
    ("power-workload", power::workload),
    ("suite", suite::run),
];

/// Runs the part that the order names.
pub(crate) fn run(order: &Order) -> Result<()> {
    let part = PARTS.iter().find(|(name, _)| *name == order.part);
    let (_, part) = part.with_context(|| format!("there is no part '{}'", order.part))?;
    part(order)
}
