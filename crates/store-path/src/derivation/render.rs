// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a derivation, written.

use std::collections::{BTreeMap, BTreeSet};

use super::{Derivation, DerivationOutput};
use crate::hash::HashEncoding;
use crate::store_dir::StoreDir;
use crate::store_path::StorePath;

/// Input derivations by the text that stands for them, and the outputs used of each.
pub(super) type Inputs = BTreeMap<String, BTreeSet<String>>;

/// Whether the paths of the outputs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputPaths {
    Written,
    /// Left empty, together with the environment entries that are named after outputs.
    Masked,
}

impl Derivation {
    /// Writes the derivation in the form in which it is stored. There is exactly one such form.
    #[must_use]
    pub fn render(&self, dir: &StoreDir) -> Vec<u8> {
        let mut out = Vec::new();
        self.render_with(dir, OutputPaths::Written, &mut out, |out| {
            list(out, &self.input_drvs, |out, (path, names)| {
                input(out, &dir.join(path), names)
            });
        });
        out
    }

    /// Writes the derivation with other texts in place of the paths of its input derivations.
    pub(super) fn render_for_hash(&self, dir: &StoreDir, outputs: OutputPaths, inputs: &Inputs) -> Vec<u8> {
        let mut out = Vec::new();
        self.render_with(dir, outputs, &mut out, |out| {
            list(out, inputs, |out, (text, names)| input(out, text, names));
        });
        out
    }

    fn render_with(
        &self,
        dir: &StoreDir,
        outputs: OutputPaths,
        out: &mut Vec<u8>,
        input_drvs: impl FnOnce(&mut Vec<u8>),
    ) {
        out.extend_from_slice(b"Derive(");
        list(out, &self.outputs, |out, (name, value)| {
            output(out, dir, outputs, name, value)
        });
        out.push(b',');
        input_drvs(out);
        out.push(b',');
        list(out, &self.input_srcs, |out, path| {
            string(out, dir.join(path).as_bytes())
        });
        out.push(b',');
        string(out, &self.platform);
        out.push(b',');
        string(out, &self.builder);
        out.push(b',');
        list(out, &self.args, |out, arg| string(out, arg));
        out.push(b',');
        let masked = |key: &[u8]| {
            outputs == OutputPaths::Masked
                && str::from_utf8(key).is_ok_and(|key| self.outputs.contains_key(key))
        };
        list(out, &self.env, |out, (key, value)| {
            let value: &[u8] = if masked(key) { b"" } else { value };
            tuple(out, &[key, value]);
        });
        out.push(b')');
    }
}

fn output(out: &mut Vec<u8>, dir: &StoreDir, paths: OutputPaths, name: &str, value: &DerivationOutput) {
    let path = |path: &StorePath| match paths {
        OutputPaths::Written => dir.join(path),
        OutputPaths::Masked => String::new(),
    };
    let (path, kind, hash) = match value {
        DerivationOutput::InputAddressed { path: of } => (path(of), String::new(), String::new()),
        DerivationOutput::Fixed { path: of, ca } => {
            let kind = format!("{}{}", ca.method.prefix(), ca.hash.algorithm());
            (path(of), kind, ca.hash.render_bare(HashEncoding::Base16))
        }
        DerivationOutput::Floating { method, algorithm } => (
            String::new(),
            format!("{}{algorithm}", method.prefix()),
            String::new(),
        ),
        DerivationOutput::Deferred => (String::new(), String::new(), String::new()),
        DerivationOutput::Impure { method, algorithm } => (
            String::new(),
            format!("{}{algorithm}", method.prefix()),
            "impure".to_owned(),
        ),
    };
    tuple(
        out,
        &[name.as_bytes(), path.as_bytes(), kind.as_bytes(), hash.as_bytes()],
    );
}

fn input(out: &mut Vec<u8>, text: &str, names: &BTreeSet<String>) {
    out.push(b'(');
    string(out, text.as_bytes());
    out.push(b',');
    list(out, names, |out, name| string(out, name.as_bytes()));
    out.push(b')');
}

fn tuple(out: &mut Vec<u8>, fields: &[&[u8]]) {
    out.push(b'(');
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        string(out, field);
    }
    out.push(b')');
}

fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, item: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (place, value) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        item(out, value);
    }
    out.push(b']');
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some(plain) = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t'))
    {
        out.extend_from_slice(&rest[..plain]);
        out.push(b'\\');
        out.push(match rest[plain] {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            other => other,
        });
        rest = &rest[plain + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
