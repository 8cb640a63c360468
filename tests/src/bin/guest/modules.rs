// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loads the modules that the initramfs brings, in the order of its list.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One file name a line, each below [`DIR`].
const LIST: &str = "/modules/list";
const DIR: &str = "/modules";

/// Loads them all. One that the kernel refuses is an error, for what it was to provide would be missing later.
pub(crate) fn load() -> Result<()> {
    let list = fs::read_to_string(LIST).context(LIST)?;
    for name in list.lines() {
        let path = Path::new(DIR).join(name);
        let image = fs::read(&path).with_context(|| path.display().to_string())?;
        match rustix::system::init_module(&image, c"") {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("loading the module {name}")),
        }
    }
    Ok(())
}
