// SPDX-License-Identifier: MIT OR Apache-2.0
//! Log frames, success and errors.

use proptest::collection::vec;
use proptest::prelude::*;
use superpose_worker_protocol::*;

use super::values::bytes;

fn fields() -> impl Strategy<Value = Vec<Field>> {
    vec(
        prop_oneof![
            any::<u64>().prop_map(Field::Number),
            bytes().prop_map(Field::Text)
        ],
        0..4,
    )
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..120, any::<u64>()]
}

pub(crate) fn log_frame() -> impl Strategy<Value = LogFrame> {
    prop_oneof![
        bytes().prop_map(LogFrame::Next),
        (any::<(u64, u64)>(), number(), number(), bytes(), fields()).prop_map(
            |((id, parent), level, kind, text, fields)| LogFrame::StartActivity(Activity {
                id,
                level: Level::from_number(level),
                kind: ActivityType::from_number(kind),
                text,
                fields,
                parent,
            })
        ),
        any::<u64>().prop_map(LogFrame::StopActivity),
        (any::<u64>(), number(), fields()).prop_map(|(id, kind, fields)| LogFrame::Result(ActivityResult {
            id,
            kind: ResultType::from_number(kind),
            fields,
        })),
    ]
}

pub(crate) fn remote_error(version: Version) -> impl Strategy<Value = RemoteError> {
    (0_u64..8, bytes(), vec(bytes(), 0..3), any::<u64>()).prop_map(move |(level, message, traces, status)| {
        let mut report = RemoteError::new(message);
        if version >= Version::new(1, 26) {
            report.level = Level::from_number(level);
            report.traces = traces;
        } else {
            report.exit_status = status;
        }
        report
    })
}

/// A frame, and a version that has it.
pub(crate) fn frame() -> impl Strategy<Value = (Version, Frame)> {
    (18_u8..=38).prop_flat_map(|minor| {
        let version = Version::new(1, minor);
        let log = if minor >= 20 {
            log_frame().boxed()
        } else {
            bytes().prop_map(LogFrame::Next).boxed()
        };
        let frame = prop_oneof![
            8 => log.prop_map(Frame::Log),
            1 => Just(Frame::Last),
            2 => remote_error(version).prop_map(Frame::Error),
        ];
        (Just(version), frame)
    })
}
