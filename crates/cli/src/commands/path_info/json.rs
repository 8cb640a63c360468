// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three JSON forms of `nix path-info`, with two keys more.
//!
//! Keys are sorted, as Nix sorts them. One entry after the other is written, so that memory does not grow with the text.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::store_path::{
    ContentAddress, ContentMethod, HashEncoding, Signature, StoreDir, StorePath,
};
use superpose_overlay::{Layer, StoreView};

use super::Known;
use crate::error::Result;
use crate::output::Output;

/// Whether closure sizes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClosureSizes {
    Shown,
    Left,
}

/// Prints what is known as JSON.
pub(super) fn print(
    output: &mut Output,
    view: &StoreView,
    mut known: Vec<Known>,
    version: u8,
    sizes: ClosureSizes,
) -> Result<()> {
    known.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    let paths: Vec<StorePath> = known.iter().map(|known| known.path.clone()).collect();
    let form = Form {
        version,
        dir: view.store_dir(),
        sizes,
    };
    let above = view.upper_metadata().are_valid(&paths)?;
    let entries: Vec<Entry<'_>> = known
        .iter()
        .zip(view.locate(&paths)?)
        .zip(above)
        .map(|((known, layer), above)| Entry {
            form,
            known,
            layer,
            metadata: if above { Layer::Upper } else { Layer::Lower },
        })
        .collect();
    output.json(&Document {
        form,
        entries: &entries,
    })
}

/// How things are written in one of the forms.
#[derive(Clone, Copy)]
struct Form<'a> {
    version: u8,
    dir: &'a StoreDir,
    sizes: ClosureSizes,
}

impl Form<'_> {
    /// Form 1 has full paths, the newer ones base names.
    fn path<'b>(&'b self, path: &'b StorePath) -> Text<'b> {
        if self.version == 1 {
            Text::Full(self.dir, path)
        } else {
            Text::Base(path)
        }
    }
}

enum Text<'a> {
    Full(&'a StoreDir, &'a StorePath),
    Base(&'a StorePath),
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // In one piece: each one is looked through for characters to escape.
            Text::Full(dir, path) => serializer.serialize_str(&dir.join(path)),
            Text::Base(path) => serializer.serialize_str(path.base_name()),
        }
    }
}

struct Document<'a> {
    form: Form<'a>,
    entries: &'a [Entry<'a>],
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let infos = Infos {
            entries: self.entries,
        };
        if self.form.version == 1 {
            return infos.serialize(serializer);
        }
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("info", &infos)?;
        map.serialize_entry("storeDir", self.form.dir.as_str())?;
        map.serialize_entry("version", &self.form.version)?;
        map.end()
    }
}

struct Infos<'a> {
    entries: &'a [Entry<'a>],
}

impl Serialize for Infos<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.entries
                .iter()
                .map(|entry| (entry.form.path(&entry.known.path), entry)),
        )
    }
}

/// One path.
struct Entry<'a> {
    form: Form<'a>,
    known: &'a Known,
    layer: Layer,
    metadata: Layer,
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(info) = &self.known.info else {
            return serializer.serialize_none();
        };
        let form = &self.form;
        let mut map = serializer.serialize_map(None)?;
        let address = info
            .content_address
            .as_ref()
            .map(|address| Address { form: *form, address });
        map.serialize_entry("ca", &address)?;
        if form.sizes == ClosureSizes::Shown {
            map.serialize_entry("closureSize", &self.known.closure_size)?;
        }
        map.serialize_entry(
            "deriver",
            &info.deriver.as_ref().map(|deriver| form.path(deriver)),
        )?;
        map.serialize_entry("layer", layer_text(self.layer))?;
        map.serialize_entry("metadata", layer_text(self.metadata))?;
        map.serialize_entry("narHash", &info.nar_hash.render(HashEncoding::Sri))?;
        map.serialize_entry("narSize", &info.nar_size)?;
        map.serialize_entry(
            "references",
            &References {
                form,
                references: &info.references,
            },
        )?;
        let time = Some(info.registration_time).filter(|&time| time != 0);
        map.serialize_entry("registrationTime", &time)?;
        map.serialize_entry(
            "signatures",
            &Signatures {
                form,
                signatures: &info.signatures,
            },
        )?;
        map.serialize_entry("storeDir", form.dir.as_str())?;
        map.serialize_entry("ultimate", &info.ultimate)?;
        map.serialize_entry("version", &form.version)?;
        map.end()
    }
}

fn layer_text(layer: Layer) -> &'static str {
    match layer {
        Layer::Upper => "upper",
        Layer::Lower => "lower",
    }
}

struct References<'a> {
    form: &'a Form<'a>,
    references: &'a [StorePath],
}

impl Serialize for References<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.references.iter().map(|reference| self.form.path(reference)))
    }
}

struct Address<'a> {
    form: Form<'a>,
    address: &'a ContentAddress,
}

impl Serialize for Address<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.form.version == 1 {
            return serializer.collect_str(self.address);
        }
        let method = match self.address.method {
            ContentMethod::Text => "text",
            ContentMethod::Flat => "flat",
            ContentMethod::Nar => "nar",
            ContentMethod::Git => "git",
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("hash", &self.address.hash.render(HashEncoding::Sri))?;
        map.serialize_entry("method", method)?;
        map.end()
    }
}

struct Signatures<'a> {
    form: &'a Form<'a>,
    signatures: &'a [Signature],
}

impl Serialize for Signatures<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.signatures.len()))?;
        for signature in self.signatures {
            if self.form.version < 3 {
                seq.serialize_element(signature.as_str())?;
            } else {
                seq.serialize_element(&SplitSignature(signature))?;
            }
        }
        seq.end()
    }
}

struct SplitSignature<'a>(&'a Signature);

impl Serialize for SplitSignature<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.as_str();
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("keyName", self.0.key_name())?;
        map.serialize_entry("sig", text.split_once(':').map_or("", |(_, signature)| signature))?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use superpose_overlay::metadata::PathInfo;
    use superpose_overlay::store_path::Hash;

    use super::*;

    fn info() -> PathInfo {
        let path = |text: &str| StorePath::from_base_name(text.as_bytes()).unwrap();
        PathInfo {
            references: vec![path("0g1savw1cf7pji42hasyx0smc4aw15nw-library")],
            deriver: Some(path("1h2savw1cf7pji42hasyx0smc4aw15nw-program.drv")),
            registration_time: 1_700_000_000,
            ultimate: true,
            signatures: vec![Signature::parse(b"cache-1:c2lnbmF0dXJl").unwrap()],
            content_address: Some(ContentAddress {
                method: ContentMethod::Nar,
                hash: Hash::sha256([2; 32]),
            }),
            ..PathInfo::new(
                path("26nci8mz5f9aldbsgmalpkj20xyqqd5c-program"),
                Hash::sha256([1; 32]),
                4096,
            )
        }
    }

    fn document(version: u8) -> String {
        let dir = StoreDir::default();
        let sizes = if version == 2 {
            ClosureSizes::Shown
        } else {
            ClosureSizes::Left
        };
        let form = Form {
            version,
            dir: &dir,
            sizes,
        };
        let known = Known::new(info(), 8192);
        let unknown = Known {
            path: info().references[0].clone(),
            info: None,
            closure_size: 0,
        };
        let entries = [&known, &unknown].map(|known| Entry {
            form,
            known,
            layer: Layer::Lower,
            metadata: Layer::Upper,
        });
        serde_json::to_string_pretty(&Document {
            form,
            entries: &entries,
        })
        .unwrap()
    }

    #[test]
    fn the_three_forms() {
        insta::assert_snapshot!("form_1", document(1));
        insta::assert_snapshot!("form_2", document(2));
        insta::assert_snapshot!("form_3", document(3));
    }

    #[test]
    fn an_unknown_time_is_null() {
        let dir = StoreDir::default();
        let form = Form {
            version: 1,
            dir: &dir,
            sizes: ClosureSizes::Left,
        };
        let known = Known::new(
            PathInfo {
                registration_time: 0,
                ..info()
            },
            0,
        );
        let entry = Entry {
            form,
            known: &known,
            layer: Layer::Upper,
            metadata: Layer::Upper,
        };
        assert_eq!(
            serde_json::to_value(&entry).unwrap()["registrationTime"],
            serde_json::Value::Null
        );
    }
}
