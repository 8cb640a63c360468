// SPDX-License-Identifier: MIT OR Apache-2.0
//! Proves that a machine runs at all.

use anyhow::Result;

use crate::order::Order;

/// Says which kernel this is.
#[allow(clippy::unnecessary_wraps, reason = "a part like the others")]
pub(crate) fn run(_order: &Order) -> Result<()> {
    println!("running {}", rustix::system::uname().release().to_string_lossy());
    Ok(())
}
