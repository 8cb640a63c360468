// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which valid paths live: a walk over the graph from what is kept, and nothing else.

use superpose_metadata::LivenessGraph;
use superpose_store_path::HashPart;

/// What lives beside roots and what they refer to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Keeping {
    /// The outputs of derivations that live.
    pub(super) outputs: bool,
    /// The derivers of paths that live.
    pub(super) derivations: bool,
}

/// How often the nodes are walked through, there and back. What is left then hangs together by turns, and is followed from
/// edge to edge.
const WALKS: usize = 8;

/// A set of nodes.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<u64>);

impl Nodes {
    /// An empty set, with room for this many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![0; nodes.div_ceil(64)])
    }

    /// Puts a node in; false if it was there.
    pub(super) fn insert(&mut self, node: u32) -> bool {
        let (word, bit) = (&mut self.0[node as usize / 64], 1 << (node % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub(super) fn contains(&self, node: u32) -> bool {
        self.0[node as usize / 64] >> (node % 64) & 1 == 1
    }

    /// The first node of a word of 64 that the other set does not have.
    fn first_not_in(&self, other: &Nodes, word: usize) -> Option<u32> {
        let left = self.0[word] & !other.0[word];
        let node = word * 64 + left.trailing_zeros() as usize;
        (left != 0).then(|| u32::try_from(node).expect("a database has fewer than 2^32 rows"))
    }
}

/// The living, as far as the roots are known.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    graph: &'a LivenessGraph,
    keeping: Keeping,
    alive: Nodes,
    /// Alive, and not yet followed.
    pending: Vec<u32>,
}

impl<'a> Judge<'a> {
    /// Nothing lives yet.
    pub(super) fn new(graph: &'a LivenessGraph, keeping: Keeping) -> Self {
        Self {
            graph,
            keeping,
            alive: Nodes::new(graph.len()),
            pending: Vec::new(),
        }
    }

    /// Keeps a node, and all that lives because of it.
    pub(super) fn keep(&mut self, node: u32) {
        if self.alive.insert(node) {
            self.pending.push(node);
        }
        self.follow_pending();
    }

    /// Keeps many nodes, and all that lives because of them, before anything else is kept.
    ///
    /// A few walks through all nodes, there and back, follow nearly everything in the order in which it lies in memory,
    /// in whichever order the paths were registered: that is several times faster than from edge to edge.
    pub(super) fn keep_all(&mut self, nodes: impl IntoIterator<Item = u32>) {
        for node in nodes {
            self.alive.insert(node);
        }
        let mut followed = Nodes::new(self.graph.len());
        let words = self.alive.0.len();
        for _ in 0..WALKS {
            let found = self.walk((0..words).rev(), &mut followed) + self.walk(0..words, &mut followed);
            if found == 0 {
                return;
            }
        }
        let is_left = |&node: &u32| self.alive.contains(node) && !followed.contains(node);
        self.pending.extend(self.graph.nodes().filter(is_left));
        self.follow_pending();
    }

    /// Keeps what the living keep that were not followed yet, word by word of the set; returns how many they were.
    fn walk(&mut self, words: impl Iterator<Item = usize>, followed: &mut Nodes) -> usize {
        let mut count = 0;
        for word in words {
            while let Some(node) = self.alive.first_not_in(followed, word) {
                followed.insert(node);
                count += 1;
                // Whether one was alive is a matter of chance, which a processor guesses badly: it is not asked.
                let alive = &mut self.alive;
                kept_by(self.graph, self.keeping, node, |next| {
                    alive.insert(next);
                });
            }
        }
        count
    }

    fn follow_pending(&mut self) {
        while let Some(node) = self.pending.pop() {
            let (alive, pending) = (&mut self.alive, &mut self.pending);
            kept_by(self.graph, self.keeping, node, |next| {
                if alive.insert(next) {
                    pending.push(next);
                }
            });
        }
    }

    /// Keeps every path of this hash part: a temporary root means what is named after its object, too.
    pub(super) fn keep_all_with(&mut self, part: HashPart) {
        for node in self.graph.nodes_with(part) {
            self.keep(node);
        }
    }

    pub(super) fn is_alive(&self, node: u32) -> bool {
        self.alive.contains(node)
    }

    /// All that does not live, in the order of the rows.
    pub(super) fn dead(&self) -> impl Iterator<Item = u32> {
        self.graph.nodes().filter(|&node| !self.is_alive(node))
    }
}

/// Shows what lives because a node does.
fn kept_by(graph: &LivenessGraph, keeping: Keeping, node: u32, mut show: impl FnMut(u32)) {
    graph.references(node).iter().copied().for_each(&mut show);
    if keeping.outputs {
        graph.outputs(node).iter().copied().for_each(&mut show);
    }
    if keeping.derivations {
        graph.deriver(node).into_iter().for_each(show);
    }
}

/// Puts dead nodes into an order in which they can go one after the other, each before what it refers to, and says how
/// many can: nodes that refer to each other in a ring, which no store should hold, and what these refer to, come last and
/// can only go all at once.
pub(super) fn referrers_first(graph: &LivenessGraph, dead: &[u32]) -> (Vec<u32>, usize) {
    let mut is_dead = Nodes::new(graph.len());
    for &node in dead {
        is_dead.insert(node);
    }
    // Of living nodes none refers to a dead one.
    let mut referrers = vec![0_u32; graph.len()];
    let others = |node: u32| {
        let references = graph.references(node).iter().copied();
        references.filter(move |&reference| reference != node)
    };
    for reference in dead.iter().flat_map(|&node| others(node)) {
        referrers[reference as usize] += 1;
    }
    let mut order: Vec<u32> = dead
        .iter()
        .copied()
        .filter(|&node| referrers[node as usize] == 0)
        .collect();
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for reference in others(node).filter(|&reference| is_dead.contains(reference)) {
            referrers[reference as usize] -= 1;
            if referrers[reference as usize] == 0 {
                order.push(reference);
            }
        }
    }
    let free = order.len();
    order.extend(dead.iter().filter(|&&node| referrers[node as usize] > 0));
    (order, free)
}
