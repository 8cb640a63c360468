// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a machine is started for: a file that the starter appends to the initramfs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// In the initramfs, and after that in the root that is entered.
pub(crate) const FILE: &str = "/order.json";

/// An order.
#[derive(Debug)]
pub(crate) struct Order {
    /// The part of the table that is to run.
    pub(crate) part: String,
    /// Stands in the line that decides; no program that runs here knows it.
    pub(crate) nonce: String,
    /// What to mount, in this order.
    pub(crate) mounts: Vec<DiskMount>,
    /// A fault of the program that is to be noticed, if the program was built so.
    pub(crate) fault: Option<String>,
    /// For the part alone.
    pub(crate) arguments: Map<String, Value>,
}

/// A disk and its place.
#[derive(Debug)]
pub(crate) struct DiskMount {
    /// The disk says it of itself.
    pub(crate) serial: String,
    pub(crate) at: PathBuf,
    pub(crate) kind: String,
    pub(crate) options: String,
    /// With a layer in memory over it, so that it can be written to as far as anybody sees.
    pub(crate) is_covered: bool,
    pub(crate) is_read_only: bool,
}

impl Order {
    /// Reads the order of this machine.
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(FILE).with_context(|| format!("reading {FILE}"))?;
        Self::parse(&text).with_context(|| format!("what {FILE} says"))
    }

    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let mounts = value["mounts"].as_array().context("no `mounts`")?;
        Ok(Self {
            part: text_of(&value, "part")?,
            nonce: text_of(&value, "nonce")?,
            fault: value["fault"].as_str().map(str::to_owned),
            mounts: mounts.iter().map(DiskMount::parse).collect::<Result<_>>()?,
            arguments: value["arguments"].as_object().context("no `arguments`")?.clone(),
        })
    }

    /// An argument that is a text.
    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        let value = self.arguments.get(name).and_then(Value::as_str);
        value.with_context(|| format!("the order has no text `{name}`"))
    }

    /// An argument that is a list of texts; an empty one if it is not there.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        let list = self.arguments.get(name).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// An argument that gives names their texts; none if it is not there.
    pub(crate) fn variables(&self, name: &str) -> Vec<(&str, &str)> {
        let object = self.arguments.get(name).and_then(Value::as_object);
        let pairs = object.into_iter().flatten();
        pairs
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect()
    }
}

impl DiskMount {
    fn parse(value: &Value) -> Result<Self> {
        Ok(Self {
            serial: text_of(value, "serial")?,
            at: text_of(value, "at")?.into(),
            kind: text_of(value, "type")?,
            options: value["options"].as_str().unwrap_or_default().to_owned(),
            is_covered: value["covered"] == true,
            is_read_only: value["read-only"] == true,
        })
    }
}

fn text_of(value: &Value, name: &str) -> Result<String> {
    let text = value[name].as_str();
    Ok(text.with_context(|| format!("no `{name}`"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_and_what_lacks_is_named() {
        let text = r#"{"part":"p","nonce":"n","arguments":{"word":"w","words":["a","b"],"set":{"A":"1"}},
            "mounts":[{"serial":"s","at":"/a","type":"ext4","covered":true}]}"#;
        let order = Order::parse(text).unwrap();
        assert_eq!((order.part.as_str(), order.nonce.as_str()), ("p", "n"));
        assert_eq!(
            (order.text("word").unwrap(), order.texts("words")),
            ("w", vec!["a", "b"])
        );
        assert_eq!(order.variables("set"), [("A", "1")]);
        assert!(order.text("other").is_err() && order.texts("other").is_empty());
        assert!(order.mounts[0].is_covered && !order.mounts[0].is_read_only);
        let error = Order::parse(r#"{"part":"p","mounts":[],"arguments":{}}"#).unwrap_err();
        assert!(error.to_string().contains("nonce"), "{error}");
    }
}
