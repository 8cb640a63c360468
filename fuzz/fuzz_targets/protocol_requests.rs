// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests with their streams, as a server reads them: what is understood is written so that it is understood the same.
#![no_main]

mod dialect;

use std::io::Read;

use libfuzzer_sys::fuzz_target;
use superpose_worker_protocol::{
    AddMultipleReader, FramedReader, Limits, Operation, Request, WireReader, WireWriter,
};

fuzz_target!(|bytes: &[u8]| {
    let Some((dialect, peer)) = dialect::choose(bytes) else {
        return;
    };
    let limits = Limits::for_requests();
    let mut input = WireReader::new(peer, limits);
    while let Ok(Some(request)) = Request::read(&mut input, &dialect) {
        let mut out = WireWriter::new(Vec::new());
        // What only reading is lenient about may have no form for writing.
        if request.write(&mut out, &dialect).is_ok() {
            let again = Request::read(&mut WireReader::new(&out.into_inner()[..], limits), &dialect);
            assert_eq!(again.expect("what was written").as_ref(), Some(&request));
        }
        if !request.operation().has_stream() {
            continue;
        }
        let mut stream = FramedReader::new(&mut input);
        if request.operation() == Operation::AddMultipleToStore {
            if let Ok(mut objects) = AddMultipleReader::new(&mut stream, limits, &dialect) {
                while let Ok(Some(_)) = objects.next_object() {
                    drop(objects.read(&mut [0; 7]));
                }
            }
        }
        if stream.drain().is_err() {
            break;
        }
        assert!(stream.is_finished());
    }
});
