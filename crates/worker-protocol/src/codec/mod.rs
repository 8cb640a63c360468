// SPDX-License-Identifier: MIT OR Apache-2.0
//! The primitives: numbers, strings, store paths, sets.

mod collections;
mod reader;
mod writer;

pub(crate) use collections::{
    read_elements, read_list, read_map, read_paths, write_list, write_map, write_paths,
};
pub use reader::WireReader;
pub(crate) use reader::{bad_value, failed};
pub use writer::WireWriter;

/// Bytes of padding after a string of this length.
const fn padding(length: usize) -> usize {
    // A remainder of eight always fits.
    length.wrapping_neg() & 7
}
