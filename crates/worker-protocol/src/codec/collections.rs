// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists, sets and maps. Sets and maps are written in order, and read in any.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use superpose_store_path::StorePath;

use super::{WireReader, WireWriter};
use crate::dialect::Dialect;
use crate::error::Result;

/// Reads a list. Its memory grows with the elements that arrive.
pub(crate) fn read_list<R: Read, T>(
    input: &mut WireReader<R>,
    what: &'static str,
    element: impl FnMut(&mut WireReader<R>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = input.count(what)?;
    read_elements(input, count, element)
}

/// Reads the elements of a list whose count was read. Its memory grows with the elements that arrive.
pub(crate) fn read_elements<R: Read, T>(
    input: &mut WireReader<R>,
    count: usize,
    mut element: impl FnMut(&mut WireReader<R>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(element(input)?);
    }
    Ok(list)
}

/// Reads a map; of several values of a key the first one counts.
pub(crate) fn read_map<R: Read, K: Ord, V>(
    input: &mut WireReader<R>,
    what: &'static str,
    mut entry: impl FnMut(&mut WireReader<R>) -> Result<(K, V)>,
) -> Result<BTreeMap<K, V>> {
    let count = input.count(what)?;
    let mut map = BTreeMap::new();
    for _ in 0..count {
        let (key, value) = entry(input)?;
        map.entry(key).or_insert(value);
    }
    Ok(map)
}

/// Reads a set of store paths.
pub(crate) fn read_paths<R: Read>(
    input: &mut WireReader<R>,
    what: &'static str,
    dialect: &Dialect,
) -> Result<BTreeSet<StorePath>> {
    let list = read_list(input, what, |input| input.store_path(what, &dialect.store_dir))?;
    Ok(list.into_iter().collect())
}

/// Writes the count, and each element.
pub(crate) fn write_list<W: Write, T>(
    out: &mut WireWriter<W>,
    list: impl ExactSizeIterator<Item = T>,
    mut element: impl FnMut(&mut WireWriter<W>, T) -> Result<()>,
) -> Result<()> {
    out.number(list.len() as u64)?;
    for value in list {
        element(out, value)?;
    }
    Ok(())
}

/// Writes the count, and each key with its value.
pub(crate) fn write_map<W: Write, K, V>(
    out: &mut WireWriter<W>,
    map: &BTreeMap<K, V>,
    mut entry: impl FnMut(&mut WireWriter<W>, &K, &V) -> Result<()>,
) -> Result<()> {
    write_list(out, map.iter(), |out, (key, value)| entry(out, key, value))
}

/// Writes a set of store paths.
pub(crate) fn write_paths<W: Write>(
    out: &mut WireWriter<W>,
    paths: &BTreeSet<StorePath>,
    dialect: &Dialect,
) -> Result<()> {
    write_list(out, paths.iter(), |out, path| {
        out.store_path(path, &dialect.store_dir)
    })
}
