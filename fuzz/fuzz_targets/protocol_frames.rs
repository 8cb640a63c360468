// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames, as a client reads them while a server works.
#![no_main]

mod dialect;

use libfuzzer_sys::fuzz_target;
use superpose_worker_protocol::{Frame, Level, Limits, LogFrame, WireReader, WireWriter, read_until_end};

fuzz_target!(|bytes: &[u8]| {
    let Some((dialect, peer)) = dialect::choose(bytes) else {
        return;
    };
    let (limits, version) = (Limits::for_requests(), dialect.version);
    let mut input = WireReader::new(peer, limits);
    while let Ok(frame) = Frame::read(&mut input, version) {
        let mut out = WireWriter::new(Vec::new());
        frame.write(&mut out, version).expect("memory does not fail");
        let written = out.into_inner();
        let again = Frame::read(&mut WireReader::new(&written[..], limits), version);
        match &frame {
            // Nothing is written of activities to those who do not know them, and no level that clients abort over.
            Frame::Log(log) if written.is_empty() => assert!(!matches!(log, LogFrame::Next(_))),
            Frame::Error(report) if matches!(report.level, Level::Other(_)) => assert!(again.is_ok()),
            _ => assert_eq!(again.expect("what was written"), frame),
        }
    }
    let mut input = WireReader::new(peer, limits);
    drop(read_until_end(&mut input, version, |_| {}));
});
