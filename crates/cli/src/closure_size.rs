// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sizes of many closures at once.
//!
//! To walk each closure by itself costs paths × edges. Here 64 target paths are looked at together: one word for each
//! path says which of the 64 it reaches, and one pass over all edges, dependencies first, fills all words. What a word
//! adds up to comes from tables, a byte at a time. That is paths × edges / 64 steps of a few instructions, and memory
//! for one word per path.

use std::collections::HashMap;

use superpose_overlay::metadata::PathInfo;
use superpose_overlay::store_path::StorePath;

/// Targets that are looked at together: the bits of a word.
const BLOCK: usize = 64;

/// The references among paths that are known by number.
struct Graph {
    /// Where the references of each path begin in `targets`; one more than there are paths.
    starts: Vec<u32>,
    targets: Vec<u32>,
    /// Whether every path refers only to paths before it.
    sorted: bool,
}

impl Graph {
    fn new(infos: &[PathInfo]) -> Self {
        let numbers: HashMap<&StorePath, u32> = infos.iter().map(|info| &info.path).zip(0..).collect();
        let mut graph = Graph {
            starts: Vec::with_capacity(infos.len() + 1),
            targets: Vec::new(),
            sorted: true,
        };
        graph.starts.push(0);
        for (info, own) in infos.iter().zip(0..) {
            let references = info
                .references
                .iter()
                .filter_map(|reference| numbers.get(reference).copied());
            for target in references.filter(|&target| target != own) {
                graph.sorted &= target < own;
                graph.targets.push(target);
            }
            graph
                .starts
                .push(u32::try_from(graph.targets.len()).unwrap_or(u32::MAX));
        }
        graph
    }

    fn references(&self, node: usize) -> &[u32] {
        &self.targets[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}

/// The size of the closure of each path: its own `nar_size` and those of all that it leads to.
///
/// `infos` holds closures that are complete, dependencies first; references to anything else are left out. In another
/// order, or with a cycle (which no store has), the answer is the same and takes longer.
pub(crate) fn closure_sizes(infos: &[PathInfo]) -> Vec<u64> {
    let graph = Graph::new(infos);
    let mut sizes = vec![0_u64; infos.len()];
    let mut reached = vec![0_u64; infos.len()];
    for (block, targets) in infos.chunks(BLOCK).enumerate() {
        let first = block * BLOCK;
        reached.fill(0);
        for (bit, word) in reached[first..].iter_mut().take(BLOCK).enumerate() {
            *word = 1 << bit;
        }
        // Sorted, nothing before the block leads into it, and one pass is enough.
        let begin = if graph.sorted { first } else { 0 };
        while spread(&graph, &mut reached, begin) && !graph.sorted {}
        let sums = Sums::new(targets);
        for (size, &word) in sizes[begin..].iter_mut().zip(&reached[begin..]) {
            *size = size.saturating_add(sums.of(word));
        }
    }
    sizes
}

/// Passes once from each path on what it can reach, and tells whether that was news.
fn spread(graph: &Graph, reached: &mut [u64], begin: usize) -> bool {
    let mut changed = false;
    for node in begin..reached.len() {
        let before = reached[node];
        let word = graph
            .references(node)
            .iter()
            .fold(before, |word, &target| word | reached[target as usize]);
        changed |= word != before;
        reached[node] = word;
    }
    changed
}

/// What each value of each byte of a word adds up to.
struct Sums(Vec<[u64; 256]>);

impl Sums {
    fn new(targets: &[PathInfo]) -> Self {
        let table = |eight: &[PathInfo]| {
            let mut table = [0_u64; 256];
            for byte in 1..256_usize {
                let lowest = byte.trailing_zeros() as usize;
                let size = eight.get(lowest).map_or(0, |info| info.nar_size);
                table[byte] = table[byte & (byte - 1)].saturating_add(size);
            }
            table
        };
        Sums(targets.chunks(8).map(table).collect())
    }

    fn of(&self, word: u64) -> u64 {
        self.0
            .iter()
            .zip(word.to_le_bytes())
            .fold(0, |sum: u64, (table, byte)| {
                sum.saturating_add(table[usize::from(byte)])
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use superpose_overlay::store_path::Hash;

    use super::*;

    fn path(number: usize) -> StorePath {
        StorePath::from_base_name(format!("{number:032}-x").as_bytes()).unwrap()
    }

    fn graph(nodes: &[(u64, Vec<usize>)]) -> Vec<PathInfo> {
        let info = |(number, (size, references)): (usize, &(u64, Vec<usize>))| PathInfo {
            references: references.iter().map(|&reference| path(reference)).collect(),
            ..PathInfo::new(path(number), Hash::sha256([0; 32]), *size)
        };
        nodes.iter().enumerate().map(info).collect()
    }

    fn naive(nodes: &[(u64, Vec<usize>)]) -> Vec<u64> {
        let closure = |start: usize| {
            let mut seen = HashSet::from([start]);
            let mut left = vec![start];
            while let Some(node) = left.pop() {
                let known = nodes[node].1.iter().filter(|&&next| next < nodes.len());
                left.extend(known.filter(|&&next| seen.insert(next)));
            }
            seen.into_iter().map(|node| nodes[node].0).sum()
        };
        (0..nodes.len()).map(closure).collect()
    }

    fn nodes(most: usize) -> impl Strategy<Value = Vec<(u64, Vec<usize>)>> {
        let node = (0..1_u64 << 40, prop::collection::vec(0..most + 3, 0..6));
        prop::collection::vec(node, 0..most)
    }

    proptest! {
        #[test]
        fn sorted_graphs_give_what_walking_gives(mut nodes in nodes(200)) {
            for (own, (_, references)) in nodes.iter_mut().enumerate() {
                references.retain(|&reference| reference <= own);
            }
            prop_assert_eq!(closure_sizes(&graph(&nodes)), naive(&nodes));
        }

        #[test]
        fn any_order_and_cycles_give_what_walking_gives(nodes in nodes(150)) {
            prop_assert_eq!(closure_sizes(&graph(&nodes)), naive(&nodes));
        }
    }

    #[test]
    fn a_long_chain_adds_up() {
        let chain: Vec<_> = (0..1000)
            .map(|n: usize| (1, n.checked_sub(1).into_iter().collect()))
            .collect();
        assert_eq!(closure_sizes(&graph(&chain)), (1..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn absurd_sizes_do_not_wrap() {
        assert_eq!(
            closure_sizes(&graph(&[(u64::MAX, vec![]), (u64::MAX, vec![0])])),
            [u64::MAX; 2]
        );
    }
}
