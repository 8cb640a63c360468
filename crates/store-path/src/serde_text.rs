// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serialisation of values as the texts they display as, and back through their parsers.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::{ContentAddress, Hash, HashAlgorithm, HashPart, Name, Signature, StoreDir, StorePath};

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(
    ContentAddress,
    Hash,
    HashAlgorithm,
    HashPart,
    Name,
    Signature,
    StoreDir,
    StorePath
);
