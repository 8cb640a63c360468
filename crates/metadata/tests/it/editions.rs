// SPDX-License-Identifier: MIT OR Apache-2.0
//! An edition lasts as long as nothing changes, whoever changes it.

use superpose_metadata::{Edition, MetadataSource};

use crate::fixture::{State, info, path, read_sample};

fn edition(source: &dyn MetadataSource) -> Edition {
    source.edition().unwrap().unwrap()
}

#[test]
fn questions_change_no_edition() {
    let state = State::with_sample();
    let writer = state.read_write();
    let reader = state.read_only();
    for source in [&writer, &reader] {
        let before = edition(source);
        source.path_infos(&[path("new")]).unwrap();
        assert_eq!(edition(source), before);
    }
    assert_ne!(edition(&writer), edition(&reader), "each has its own");
}

#[test]
fn own_changes_and_those_of_others_are_noticed() {
    let state = State::with_sample();
    let mut writer = state.read_write();
    let other = state.read_write();
    let reader = state.read_only();
    let mut seen = [edition(&writer), edition(&other), edition(&reader)];
    let mut expect_others = |writer: &dyn MetadataSource| {
        let now = [edition(writer), edition(&other), edition(&reader)];
        for (before, now) in seen.iter().zip(&now) {
            assert_ne!(before, now);
        }
        seen = now;
    };
    writer.register(&[info("new", &[])], &mut read_sample).unwrap();
    expect_others(&writer);
    let mut transaction = writer.begin().unwrap();
    transaction.invalidate(&[path("new")]).unwrap();
    transaction.commit().unwrap();
    expect_others(&writer);
}
