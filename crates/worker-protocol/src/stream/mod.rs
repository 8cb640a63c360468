// SPDX-License-Identifier: MIT OR Apache-2.0
//! Framed streams: bytes of a length that nobody knows beforehand, after the header of a request.

mod many_reader;
mod many_writer;
mod reader;
mod writer;

pub use many_reader::AddMultipleReader;
pub use many_writer::AddMultipleWriter;
pub use reader::FramedReader;
pub use writer::{FramedWriter, UploadStopped};
