// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bodies of replies, as a client reads them: what is understood is written so that it is understood the same.
#![no_main]

mod dialect;

use libfuzzer_sys::fuzz_target;
use superpose_worker_protocol::{Limits, Operation, Reply, WireReader, WireWriter};

fuzz_target!(|bytes: &[u8]| {
    let Some((dialect, rest)) = dialect::choose(bytes) else {
        return;
    };
    let Some((&choice, peer)) = rest.split_first() else {
        return;
    };
    let operation = Operation::ALL[usize::from(choice) % Operation::ALL.len()];
    // Narrower than for a daemon of one's choice, as the fuzzer bounds memory too.
    let limits = Limits::for_requests();
    let mut input = WireReader::new(peer, limits);
    let Ok(reply) = Reply::read(&mut input, operation, &dialect) else {
        return;
    };
    assert_eq!(reply.shape(), operation.shape());
    let mut out = WireWriter::new(Vec::new());
    if reply.write(&mut out, &dialect).is_ok() {
        let again = Reply::read(
            &mut WireReader::new(&out.into_inner()[..], limits),
            operation,
            &dialect,
        );
        assert_eq!(again.expect("what was written"), reply);
    }
});
