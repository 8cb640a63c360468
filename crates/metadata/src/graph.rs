// SPDX-License-Identifier: MIT OR Apache-2.0
//! A graph of integers: nodes are numbered in the order they were added.

use std::collections::HashMap;
use std::hash::Hash;

/// A directed graph whose nodes have keys of type `K`, held as numbers.
#[derive(Debug)]
pub(crate) struct Graph<K> {
    keys: Vec<K>,
    numbers: HashMap<K, u32>,
    /// Edges of all nodes that have been given some, end to end.
    edges: Vec<u32>,
    /// Where the edges of each node are in `edges`.
    spans: Vec<(usize, usize)>,
}

impl<K: Hash + Eq + Clone> Graph<K> {
    pub(crate) fn new() -> Self {
        Self {
            keys: Vec::new(),
            numbers: HashMap::new(),
            edges: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Returns a node's number, adding the node if it is new.
    pub(crate) fn add(&mut self, key: &K) -> u32 {
        if let Some(&number) = self.numbers.get(key) {
            return number;
        }
        let number = u32::try_from(self.keys.len()).expect("a store has fewer than 2^32 objects");
        self.keys.push(key.clone());
        self.numbers.insert(key.clone(), number);
        self.spans.push((0, 0));
        number
    }

    pub(crate) fn number(&self, key: &K) -> Option<u32> {
        self.numbers.get(key).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn keys(&self) -> &[K] {
        &self.keys
    }

    pub(crate) fn key(&self, number: u32) -> &K {
        &self.keys[number as usize]
    }

    /// Sets where a node leads to. Edges of one node are set once.
    pub(crate) fn set_edges(&mut self, from: u32, to: impl IntoIterator<Item = u32>) {
        let start = self.edges.len();
        self.edges.extend(to);
        self.spans[from as usize] = (start, self.edges.len());
    }

    pub(crate) fn edges(&self, from: u32) -> &[u32] {
        let (start, end) = self.spans[from as usize];
        &self.edges[start..end]
    }

    /// Returns a node that leads to the given one, by looking at all.
    pub(crate) fn predecessor(&self, to: u32) -> Option<&K> {
        let leads_there = |&(start, end): &(usize, usize)| self.edges[start..end].contains(&to);
        self.spans
            .iter()
            .position(leads_there)
            .map(|from| &self.keys[from])
    }

    /// Returns all nodes, each after those that it leads to, or the node where a ring closes. Edges from a node
    /// to itself do not count.
    ///
    /// In a graph with rings (which no store should hold) the order given is still one of every node once.
    pub(crate) fn order(&self) -> (Vec<u32>, Option<u32>) {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut state = vec![State::New; self.len()];
        let mut order = Vec::with_capacity(self.len());
        let mut ring = None;
        // Node, and how many of its edges have been followed. An explicit stack: chains may be long.
        let mut stack: Vec<(u32, usize)> = Vec::new();
        for root in 0..self.len() {
            if state[root] != State::New {
                continue;
            }
            state[root] = State::Open;
            stack.push((u32::try_from(root).expect("numbers are 32 bits wide"), 0));
            while let Some((node, followed)) = stack.last_mut() {
                let node = *node;
                let Some(&next) = self.edges(node).get(*followed) else {
                    state[node as usize] = State::Done;
                    order.push(node);
                    stack.pop();
                    continue;
                };
                *followed += 1;
                match state[next as usize] {
                    State::New => {
                        state[next as usize] = State::Open;
                        stack.push((next, 0));
                    }
                    State::Open if next != node => ring = ring.or(Some(next)),
                    State::Open | State::Done => {}
                }
            }
        }
        (order, ring)
    }
}

#[cfg(test)]
mod tests {
    use super::Graph;

    fn check(edges: &[(&str, &str)], expected_order: &[&str], expected_ring: Option<&str>) {
        let mut graph = Graph::new();
        let mut adjacency: Vec<Vec<u32>> = Vec::new();
        for (from, to) in edges {
            let from = graph.add(&(*from).to_owned());
            let to = graph.add(&(*to).to_owned());
            adjacency.resize(graph.len(), Vec::new());
            adjacency[from as usize].push(to);
        }
        for (from, to) in adjacency.into_iter().enumerate() {
            graph.set_edges(u32::try_from(from).unwrap(), to);
        }
        let (order, ring) = graph.order();
        let name = |number: u32| graph.keys()[number as usize].as_str();
        assert_eq!(order.into_iter().map(name).collect::<Vec<_>>(), expected_order);
        assert_eq!(ring.map(name), expected_ring);
    }

    #[test]
    fn dependencies_come_first() {
        check(&[], &[], None);
        check(&[("a", "b"), ("b", "c"), ("a", "c")], &["c", "b", "a"], None);
        check(&[("a", "b"), ("c", "b")], &["b", "a", "c"], None);
        check(&[("a", "a")], &["a"], None);
    }

    #[test]
    fn rings_are_reported_and_do_not_hang() {
        check(&[("a", "b"), ("b", "a")], &["b", "a"], Some("a"));
        check(&[("a", "b"), ("b", "c"), ("c", "b")], &["c", "b", "a"], Some("b"));
    }

    #[test]
    fn long_chains_do_not_overflow_the_stack() {
        let mut graph = Graph::new();
        for key in 0..200_000_u32 {
            graph.add(&key);
        }
        for key in 1..200_000 {
            graph.set_edges(key - 1, [key]);
        }
        let (order, ring) = graph.order();
        assert_eq!((order.len(), order[0], ring), (200_000, 199_999, None));
    }
}
