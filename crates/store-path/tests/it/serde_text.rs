// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serialisation as texts.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use superpose_store_path::{
    ContentAddress, Hash, HashAlgorithm, HashPart, Name, Signature, StoreDir, StorePath,
};

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) {
    let json = serde_json::to_string(text).unwrap();
    let value: T = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    assert_eq!(
        serde_json::from_reader::<_, T>(json.as_bytes()).unwrap(),
        value,
        "not borrowed"
    );
    for bad in ["\"\"", "\"a b\"", "1", "null", "[]"] {
        assert!(serde_json::from_str::<T>(bad).is_err(), "{bad}");
    }
}

#[test]
fn texts() {
    check::<StorePath>("0y839a054fcnhjcd2w1pb6a4k4fl38iw-abc");
    check::<HashPart>("0y839a054fcnhjcd2w1pb6a4k4fl38iw");
    check::<Name>("abc");
    check::<StoreDir>("/nix/store");
    check::<HashAlgorithm>("sha512");
    check::<Hash>("sha1:kpcd173cq987hw957sx6m0868wv3x6d9");
    check::<ContentAddress>("fixed:git:sha1:gwxhkiygb4cwnhdlly2cw6swmf28zfpj");
    check::<Signature>("k:YWJj");
}
