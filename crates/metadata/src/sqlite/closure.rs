// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closures: walks over the references, with ids, level by level.

use std::collections::HashSet;

use superpose_store_path::StorePath;

use super::names::{KnownNames, Names, dangling};
use super::read::{REFERENCES, Reader};
use super::room::Room;
use super::rows::info_columns;
use crate::graph::Graph;
use crate::{Closure, PathInfo, Prune, Result};

const REFERRERS: &str = "SELECT referrer FROM Refs WHERE reference = ?1";
const INFO_BY_ID: &str = concat!("SELECT ", info_columns!(), ", path FROM ValidPaths WHERE id = ?1");

impl Reader<'_> {
    pub(super) fn closure(&self, roots: &[StorePath], direction: Closure) -> Result<Vec<StorePath>> {
        let mut graph = Graph::new();
        for (root, id) in roots.iter().zip(self.ids(roots)?) {
            graph.add(&id.ok_or_else(|| self.not_valid(root))?);
        }
        let (statement, column) = match direction {
            Closure::References => (REFERENCES, "Refs.reference"),
            Closure::Referrers => (REFERRERS, "Refs.referrer"),
        };
        let mut query = self.prepare(statement)?;
        let mut level = 0..graph.len();
        let mut next = Vec::new();
        let mut room = Room::for_paths(self.connection, graph.len());
        while !level.is_empty() {
            room.grow(graph.len());
            // In the order of ids, rows that lie together are read together.
            let mut ids = graph.keys()[level.clone()].to_vec();
            ids.sort_unstable();
            for id in ids {
                let name = || format!("row {id}");
                query.each(id, |row| {
                    next.push(graph.add(&self.record(row, &name).integer(0, column)?));
                    Ok(())
                })?;
                let number = graph.number(&id).expect("it was taken from the graph");
                graph.set_edges(number, next.drain(..));
            }
            level = level.end..graph.len();
        }
        self.paths_in_order(&graph)
    }

    /// Returns the paths of all nodes, each after those that it leads to.
    fn paths_in_order(&self, graph: &Graph<i64>) -> Result<Vec<StorePath>> {
        let mut numbers: Vec<(i64, u32)> = graph.keys().iter().copied().zip(0..).collect();
        numbers.sort_unstable();
        let mut known = KnownNames::default();
        let mut names = Names::new(self, &mut known)?;
        let mut paths = vec![None; graph.len()];
        for (id, number) in numbers {
            paths[number as usize] = Some(names.of(id, &|| referrer_row(graph, number))?);
        }
        Ok(graph
            .order()
            .0
            .into_iter()
            .filter_map(|number| paths[number as usize].take())
            .collect())
    }

    pub(super) fn closure_infos(&self, roots: &[StorePath], prune: &mut Prune<'_>) -> Result<Vec<PathInfo>> {
        let mut walk = Walk {
            reader: *self,
            graph: Graph::new(),
            nodes: Vec::new(),
        };
        let mut seen = HashSet::new();
        let roots: Vec<StorePath> = roots.iter().filter(|root| seen.insert(*root)).cloned().collect();
        let pruned = if roots.is_empty() {
            Vec::new()
        } else {
            prune(&roots)?
        };
        let kept: Vec<StorePath> = roots
            .into_iter()
            .zip(pruned)
            .filter(|(_, pruned)| !pruned)
            .map(|(root, _)| root)
            .collect();
        for (root, id) in kept.iter().zip(self.ids(&kept)?) {
            walk.graph.add(&id.ok_or_else(|| self.not_valid(root))?);
        }
        walk.run(prune)?;
        walk.finish()
    }
}

/// Names a row that leads to a node, for errors.
fn referrer_row(graph: &Graph<i64>, number: u32) -> String {
    graph
        .predecessor(number)
        .map_or_else(|| "a row".to_owned(), |id| format!("row {id}"))
}

/// What is known of a node: its path, and its information unless it is left out.
struct Node {
    path: StorePath,
    info: Option<Result<PathInfo>>,
}

/// A walk along the references that collects what is known of each path.
struct Walk<'a> {
    reader: Reader<'a>,
    graph: Graph<i64>,
    /// By number; all but those of the level that is next.
    nodes: Vec<Option<Node>>,
}

impl Walk<'_> {
    fn run(&mut self, prune: &mut Prune<'_>) -> Result<()> {
        let mut level = 0..self.graph.len();
        let mut is_root = true;
        let connection = self.reader.connection;
        let mut room = Room::for_paths(connection, self.graph.len());
        while !level.is_empty() {
            room.grow(self.graph.len());
            self.nodes.resize_with(level.end, || None);
            let mut ids: Vec<(i64, u32)> = self.graph.keys()[level.clone()]
                .iter()
                .copied()
                .zip(u32::try_from(level.start).expect("nodes have numbers of 32 bits")..)
                .collect();
            ids.sort_unstable();
            self.read_nodes(&ids)?;
            if !is_root {
                self.prune(&ids, prune)?;
            }
            self.read_edges(&ids)?;
            is_root = false;
            level = level.end..self.graph.len();
        }
        Ok(())
    }

    fn read_nodes(&mut self, ids: &[(i64, u32)]) -> Result<()> {
        let reader = self.reader;
        let mut query = reader.prepare(INFO_BY_ID)?;
        for &(id, number) in ids {
            let node = query.first(id, |row| {
                let unnamed = || format!("row {id}");
                let path = reader.record(row, &unnamed).path(7, "ValidPaths.path")?;
                let name = || reader.store_dir.join(&path);
                let info = reader.record(row, &name).info(&path);
                Ok(Node {
                    info: Some(info),
                    path,
                })
            })?;
            let node = node.ok_or_else(|| dangling(reader.database, id, self.referrer_path(number)))?;
            self.nodes[number as usize] = Some(node);
        }
        Ok(())
    }

    fn prune(&mut self, ids: &[(i64, u32)], prune: &mut Prune<'_>) -> Result<()> {
        let paths: Vec<StorePath> = ids
            .iter()
            .filter_map(|&(_, number)| Some(self.node(number)?.path.clone()))
            .collect();
        for (&(_, number), pruned) in ids.iter().zip(prune(&paths)?) {
            if let Some(node) = &mut self.nodes[number as usize]
                && pruned
            {
                node.info = None;
            }
        }
        Ok(())
    }

    fn read_edges(&mut self, ids: &[(i64, u32)]) -> Result<()> {
        let reader = self.reader;
        let mut query = reader.prepare(REFERENCES)?;
        let mut next = Vec::new();
        for &(id, number) in ids {
            let Some(node) = self.nodes[number as usize]
                .as_mut()
                .filter(|node| node.info.is_some())
            else {
                continue;
            };
            // A row that is wrong is an error only now that it is known to be needed.
            if let Some(Err(_)) = &node.info {
                return node.info.take().expect("it was just looked at").map(drop);
            }
            let name = || reader.store_dir.join(&node.path);
            query.each(id, |row| {
                next.push(
                    self.graph
                        .add(&reader.record(row, &name).integer(0, "Refs.reference")?),
                );
                Ok(())
            })?;
            self.graph.set_edges(number, next.drain(..));
        }
        Ok(())
    }

    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)?.as_ref()
    }

    fn referrer_path(&self, number: u32) -> String {
        let referrer = self
            .graph
            .predecessor(number)
            .and_then(|id| self.node(self.graph.number(id)?));
        referrer.map_or_else(
            || referrer_row(&self.graph, number),
            |node| self.reader.store_dir.join(&node.path),
        )
    }

    fn finish(mut self) -> Result<Vec<PathInfo>> {
        let (order, _) = self.graph.order();
        let mut infos = Vec::with_capacity(order.len());
        for number in order {
            let Some(info) = self.nodes[number as usize]
                .as_mut()
                .and_then(|node| node.info.take())
            else {
                continue;
            };
            let mut info = info?;
            let references = self.graph.edges(number).iter();
            info.references = references
                .filter_map(|&number| Some(self.node(number)?.path.clone()))
                .collect();
            info.references.sort_unstable();
            infos.push(info);
        }
        Ok(infos)
    }
}
