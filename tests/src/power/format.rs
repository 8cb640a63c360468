// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is given to programs on their standard input.

use std::path::Path;

use anyhow::Result;

use super::object::Object;

/// What follows an archive in a stream: `NIXE`.
const MAGIC: u64 = 0x4558_494e;

/// Objects as `nix-store --export` writes them.
pub(super) fn stream<'a>(objects: impl IntoIterator<Item = &'a Object>, sources: &Path) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for object in objects {
        put_number(1, &mut out);
        out.extend(object.archive(sources)?);
        put_number(MAGIC, &mut out);
        put_text(&object.path, &mut out);
        put_number(object.references.len() as u64, &mut out);
        for reference in &object.references {
            put_text(reference, &mut out);
        }
        put_text("", &mut out);
        put_number(0, &mut out);
    }
    put_number(0, &mut out);
    Ok(out)
}

/// An object without a deriver as `nix-store --register-validity` reads it.
pub(super) fn registration(object: &Object) -> String {
    let mut text = format!("{}\n\n{}\n", object.path, object.references.len());
    for reference in &object.references {
        text.push_str(reference);
        text.push('\n');
    }
    text
}

fn put_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len().next_multiple_of(8), 0);
}
