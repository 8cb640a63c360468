// SPDX-License-Identifier: MIT OR Apache-2.0
//! What keeps what alive, as a graph of numbers: all that a garbage collector needs to know of a million paths at once.

use superpose_store_path::{HASH_PART_LEN, HashPart, MAX_BASE_NAME_LEN, StoreDir, StorePath};

/// Stands for no node at all.
const NONE: u32 = u32::MAX;

/// The valid paths of a database and what they lead to, at one moment.
///
/// Nodes are numbered from 0 in the order of their rows. A node has no name: it is known by the hash part and the length
/// of its base name, which no two objects share, and its path is read by its row when it is needed
/// ([`Database::paths_of_rows`](crate::Database::paths_of_rows)). So a path takes about 60 bytes, with its references.
#[derive(Debug, Default)]
pub struct LivenessGraph {
    /// Ascending.
    rows: Vec<i64>,
    identities: Vec<Identity>,
    index: Index,
    references: Edges,
    /// By node; [`NONE`] without one that is valid.
    derivers: Vec<u32>,
    /// Those of derivations only.
    outputs: Edges,
    derivations: Vec<u64>,
}

/// What tells a path from all others without its name: two names with one hash part are an object and what was named
/// after it, such as its lock, which is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    part: HashPart,
    length: u8,
}

impl Identity {
    fn of(path: &StorePath) -> Self {
        Self::of_base_name(path.base_name().as_bytes()).expect("a store path has one")
    }

    /// Of what looks like a base name; what its name is made of is not looked at.
    fn of_base_name(base: &[u8]) -> Option<Self> {
        let (part, rest) = base.split_at_checked(HASH_PART_LEN)?;
        if !matches!(rest, [b'-', _, ..]) || base.len() > MAX_BASE_NAME_LEN {
            return None;
        }
        Some(Self {
            part: HashPart::parse(part).ok()?,
            length: u8::try_from(base.len()).ok()?,
        })
    }
}

/// A path as the graph needs it: who it is, and whether it is a derivation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    identity: Identity,
    is_derivation: bool,
}

impl Named {
    /// Reads the text of a path. A plain one, as a database has it, is not made a value for that: of its name nothing
    /// but its end is looked at.
    ///
    /// # Errors
    /// If it is no path of the store.
    pub(crate) fn parse(store_dir: &StoreDir, text: &[u8]) -> Result<Self, superpose_store_path::Error> {
        let plain = store_dir.plain_base_name(text);
        if let Some((base, identity)) = plain.and_then(|base| Some((base, Identity::of_base_name(base)?))) {
            return Ok(Self {
                identity,
                is_derivation: base.ends_with(b".drv"),
            });
        }
        let path = store_dir.parse_path(text)?;
        Ok(Self {
            identity: Identity::of(&path),
            is_derivation: path.is_derivation(),
        })
    }
}

/// Where the nodes of an identity are found: as many drawers as nodes, in the order of the hash parts. These are evenly
/// distributed, so that a drawer holds one node or two, which are looked at one after the other; if somebody sees to it
/// that one holds all, it is searched in the order of identities.
#[derive(Debug, Default)]
struct Index {
    /// Where each drawer begins in `nodes`; one more entry says where the last one ends.
    starts: Vec<u32>,
    /// All nodes, drawer by drawer; those of a large one in the order of their identities.
    nodes: Vec<u32>,
}

/// More nodes than this are a large drawer.
const FEW: usize = 8;

impl Index {
    fn of(identities: &[Identity]) -> Self {
        let drawers = identities.len();
        let mut starts = vec![0_u32; drawers + 1];
        for identity in identities {
            starts[drawer(identity.part, drawers) + 1] += 1;
        }
        for place in 0..drawers {
            starts[place + 1] += starts[place];
        }
        let mut next = starts.clone();
        let mut nodes = vec![0; drawers];
        for (node, identity) in (0..).zip(identities) {
            let place = &mut next[drawer(identity.part, drawers)];
            nodes[*place as usize] = node;
            *place += 1;
        }
        for span in starts
            .windows(2)
            .filter(|span| (span[1] - span[0]) as usize > FEW)
        {
            nodes[span[0] as usize..span[1] as usize]
                .sort_unstable_by_key(|&node: &u32| identities[node as usize]);
        }
        Self { starts, nodes }
    }

    /// The nodes among which those of a hash part are.
    fn drawer(&self, part: HashPart) -> &[u32] {
        if self.nodes.is_empty() {
            return &[];
        }
        let drawer = drawer(part, self.nodes.len());
        &self.nodes[self.starts[drawer] as usize..self.starts[drawer + 1] as usize]
    }
}

/// The drawer of a hash part: the further on, the greater its first four bytes.
fn drawer(part: HashPart, drawers: usize) -> usize {
    let [first, second, third, fourth, ..] = *part.as_bytes();
    let beginning = u64::from(u32::from_be_bytes([first, second, third, fourth]));
    usize::try_from((beginning * drawers as u64) >> 32).expect("less than the number of drawers")
}

/// The edges of all nodes, end to end.
#[derive(Debug, Default)]
struct Edges {
    /// Where those of each node begin; one more entry says where the last ones end.
    starts: Vec<u32>,
    targets: Vec<u32>,
}

impl Edges {
    /// Takes a step to a node; those in between get no edges. Nodes must come in order.
    fn begin(&mut self, node: u32) {
        let here = u32::try_from(self.targets.len()).expect("a database has fewer than 2^32 references");
        self.starts
            .resize((node as usize + 1).max(self.starts.len()), here);
    }

    fn finish(&mut self, nodes: usize) {
        let end = u32::try_from(self.targets.len()).expect("a database has fewer than 2^32 references");
        self.starts.resize(nodes + 1, end);
        self.targets.shrink_to_fit();
    }

    fn of(&self, node: u32) -> &[u32] {
        let span = self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize;
        &self.targets[span]
    }
}

impl LivenessGraph {
    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is valid.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All nodes.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = u32> + use<> {
        0..u32::try_from(self.len()).expect("a database has fewer than 2^32 rows")
    }

    /// The row of a node, as the database numbers it.
    #[must_use]
    pub fn row(&self, node: u32) -> i64 {
        self.rows[node as usize]
    }

    /// What a node refers to, itself perhaps included.
    #[must_use]
    pub fn references(&self, node: u32) -> &[u32] {
        self.references.of(node)
    }

    /// The derivation that a node was built by, if that is valid too.
    #[must_use]
    pub fn deriver(&self, node: u32) -> Option<u32> {
        Some(self.derivers[node as usize]).filter(|&deriver| deriver != NONE)
    }

    /// The outputs of a derivation that are valid; nothing for other nodes.
    #[must_use]
    pub fn outputs(&self, node: u32) -> &[u32] {
        self.outputs.of(node)
    }

    /// Whether a node is a derivation.
    #[must_use]
    pub fn is_derivation(&self, node: u32) -> bool {
        self.derivations[node as usize / 64] >> (node % 64) & 1 == 1
    }

    /// The node of a path, if it is valid.
    #[must_use]
    pub fn node(&self, path: &StorePath) -> Option<u32> {
        self.node_of(Identity::of(path))
    }

    /// The nodes whose paths have this hash part: one, but for paths that are named after another.
    pub fn nodes_with(&self, part: HashPart) -> impl Iterator<Item = u32> {
        let nodes = self.index.drawer(part).iter().copied();
        nodes.filter(move |&node| self.identities[node as usize].part == part)
    }

    fn node_of(&self, identity: Identity) -> Option<u32> {
        let nodes = self.index.drawer(identity.part);
        if nodes.len() <= FEW {
            let is_it = |&node: &u32| self.identities[node as usize] == identity;
            return nodes.iter().copied().find(is_it);
        }
        let place = nodes.binary_search_by_key(&identity, |&node| self.identities[node as usize]);
        place.ok().map(|place| nodes[place])
    }

    fn node_of_row(&self, row: i64) -> Option<u32> {
        let (first, last) = (*self.rows.first()?, *self.rows.last()?);
        if row < first || row > last {
            return None;
        }
        // Rows have different numbers, so this one is not further from the first or from the last than that: the fewer
        // numbers are left out, the less there is to search.
        let end = self.rows.len() - 1;
        if last.abs_diff(first) == end as u64 {
            return u32::try_from(row.abs_diff(first)).ok();
        }
        let distance = |from: i64| usize::try_from(row.abs_diff(from)).unwrap_or(usize::MAX).min(end);
        let (low, high) = (end - distance(last), distance(first));
        let place = self.rows[low..=high].binary_search(&row).ok()?;
        u32::try_from(low + place).ok()
    }
}

/// A graph that is being read: first all paths, then all derivers and references, then all outputs.
#[derive(Debug, Default)]
pub(crate) struct LivenessBuilder {
    graph: LivenessGraph,
    /// The row of the last referrer.
    referrer: Option<i64>,
    outputs: Vec<(u32, u32)>,
}

impl LivenessBuilder {
    /// Begins with all paths, each with its row, in any order; tells whether some of them are derivations. Without them no
    /// deriver is valid.
    pub(crate) fn of_paths(mut paths: Vec<(i64, Named)>) -> (Self, bool) {
        let mut graph = LivenessGraph::default();
        in_order_of_rows(&mut paths);
        graph.rows = paths.iter().map(|&(row, _)| row).collect();
        graph.identities = paths.iter().map(|(_, path)| path.identity).collect();
        graph.derivations = vec![0; paths.len().div_ceil(64)];
        let mut has_derivations = false;
        for (node, _) in paths
            .iter()
            .enumerate()
            .filter(|(_, (_, path))| path.is_derivation)
        {
            graph.derivations[node / 64] |= 1 << (node % 64);
            has_derivations = true;
        }
        graph.index = Index::of(&graph.identities);
        graph.derivers = vec![NONE; paths.len()];
        let builder = Self {
            graph,
            ..Self::default()
        };
        (builder, has_derivations)
    }

    /// Adds the deriver of a row. What is no derivation is none.
    pub(crate) fn deriver(&mut self, row: i64, deriver: Named) {
        if deriver.is_derivation
            && let Some(node) = self.graph.node_of_row(row)
            && let Some(deriver) = self.graph.node_of(deriver.identity)
        {
            self.graph.derivers[node as usize] = deriver;
        }
    }

    /// Adds a reference; they come in the ascending order of the referrers. One from or to a row that does not exist
    /// keeps nothing, and is left out: false then.
    pub(crate) fn reference(&mut self, referrer: i64, reference: i64) -> bool {
        if self.referrer != Some(referrer) {
            let Some(node) = self.graph.node_of_row(referrer) else {
                return false;
            };
            self.graph.references.begin(node);
            self.referrer = Some(referrer);
        }
        let Some(to) = self.graph.node_of_row(reference) else {
            return false;
        };
        self.graph.references.targets.push(to);
        true
    }

    /// Begins with the references anew.
    pub(crate) fn forget_references(&mut self) {
        self.graph.references = Edges::default();
        self.referrer = None;
    }

    /// Adds an output of a derivation. What is no derivation has none, and what is not valid is none.
    pub(crate) fn output(&mut self, derivation: i64, output: Named) {
        if let Some(from) = self.graph.node_of_row(derivation)
            && self.graph.is_derivation(from)
            && let Some(to) = self.graph.node_of(output.identity)
        {
            self.outputs.push((from, to));
        }
    }

    /// Gives the graph.
    pub(crate) fn finish(mut self) -> LivenessGraph {
        let nodes = self.graph.rows.len();
        self.graph.references.finish(nodes);
        self.outputs.sort_unstable();
        self.outputs.dedup();
        for (from, to) in self.outputs {
            self.graph.outputs.begin(from);
            self.graph.outputs.targets.push(to);
        }
        self.graph.outputs.finish(nodes);
        self.graph
    }
}

/// Sorts by row. Where no number is left out each has its place, which takes a third of the time of comparing them.
fn in_order_of_rows(paths: &mut [(i64, Named)]) {
    let rows = || paths.iter().map(|&(row, _)| row);
    let (Some(first), Some(last)) = (rows().min(), rows().max()) else {
        return;
    };
    if last.abs_diff(first) != paths.len() as u64 - 1 {
        paths.sort_unstable_by_key(|&(row, _)| row);
        return;
    }
    let place = |row: i64| usize::try_from(row.abs_diff(first)).expect("less than the number of rows");
    for at in 0..paths.len() {
        while place(paths[at].0) != at {
            paths.swap(at, place(paths[at].0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(letter: char, name: &str) -> Named {
        let text = format!("/nix/store/{}", path(letter, name));
        Named::parse(&StoreDir::default(), text.as_bytes()).expect("a store path")
    }

    fn path(letter: char, name: &str) -> StorePath {
        let text = format!("{}-{name}", letter.to_string().repeat(32));
        StorePath::from_base_name(text.as_bytes()).expect("a store path")
    }

    /// Rows with gaps, one of them negative: `a` refers to itself and to `b`, and was built by `d.drv`, whose outputs
    /// are `a` and something that is not valid.
    fn graph() -> LivenessGraph {
        let (mut builder, has_derivations) = LivenessBuilder::of_paths(vec![
            (3, named('d', "d.drv")),
            (-5, named('a', "a")),
            (i64::MAX, named('a', "a.lock")),
            (2, named('b', "b")),
        ]);
        assert!(has_derivations);
        builder.deriver(-5, named('d', "d.drv"));
        builder.deriver(2, named('d', "other.drv"));
        builder.deriver(3, named('a', "a"));
        builder.deriver(7, named('d', "d.drv"));
        for (from, to, is_there) in [
            (-5, -5, true),
            (-5, 2, true),
            (-5, 4, false),
            (1, 2, false),
            (3, 2, true),
            (i64::MAX, -5, true),
        ] {
            assert_eq!(builder.reference(from, to), is_there, "{from} {to}");
        }
        builder.output(3, named('a', "a"));
        builder.output(3, named('a', "a"));
        builder.output(3, named('c', "c"));
        builder.output(2, named('a', "a"));
        builder.output(77, named('a', "a"));
        builder.finish()
    }

    #[test]
    fn rows_become_nodes_and_lead_where_they_should() {
        let graph = graph();
        let edges: Vec<&[u32]> = graph.nodes().map(|node| graph.references(node)).collect();
        assert_eq!(edges, [&[0, 1][..], &[], &[1], &[0]]);
        let derivers: Vec<_> = graph.nodes().map(|node| graph.deriver(node)).collect();
        assert_eq!(
            derivers,
            [Some(2), None, None, None],
            "another name is another path"
        );
        let outputs: Vec<&[u32]> = graph.nodes().map(|node| graph.outputs(node)).collect();
        assert_eq!(outputs, [&[][..], &[], &[0], &[]]);
        let derivations: Vec<bool> = graph.nodes().map(|node| graph.is_derivation(node)).collect();
        assert_eq!(derivations, [false, false, true, false]);
        let rows: Vec<i64> = graph.nodes().map(|node| graph.row(node)).collect();
        assert_eq!(rows, [-5, 2, 3, i64::MAX]);
    }

    #[test]
    fn paths_are_found_by_name_and_by_hash_part() {
        let graph = graph();
        for (path, expected) in [
            (path('a', "a"), Some(0)),
            (path('b', "b"), Some(1)),
            (path('d', "d.drv"), Some(2)),
            (path('a', "a.lock"), Some(3)),
            (path('b', "b.lock"), None),
            (path('c', "c"), None),
        ] {
            assert_eq!(graph.node(&path), expected, "{path}");
        }
        let with = |letter| -> Vec<u32> { graph.nodes_with(path(letter, "x").hash_part()).collect() };
        assert_eq!(with('a'), [0, 3]);
        assert_eq!(with('d'), [2]);
        assert_eq!((with('c'), with('z')), (vec![], vec![]));
    }

    #[test]
    fn the_text_of_a_path_is_read_as_the_path_is() {
        let directory = StoreDir::default();
        let hash = "a".repeat(32);
        for (text, expected) in [
            (format!("/nix/store/{hash}-x"), Some(("x", false))),
            (format!("/nix/store/{hash}-x.drv"), Some(("x.drv", true))),
            (format!("/nix//store/./{hash}-x.drv/"), Some(("x.drv", true))),
            (format!("/nix/store/{hash}"), None),
            (format!("/nix/store/{hash}-"), None),
            (format!("/nix/store/{hash}_x"), None),
            (format!("/nix/store/{hash}-{}", "x".repeat(212)), None),
            (format!("/nix/store/{}-x", "e".repeat(32)), None),
            (format!("/gnu/store/{hash}-x"), None),
            (format!("/nix/store/{hash}-x/y"), None),
            (format!("{hash}-x"), None),
            (String::new(), None),
        ] {
            let named = Named::parse(&directory, text.as_bytes()).ok();
            let named = named.map(|named| (named.identity, named.is_derivation));
            let expected = expected.map(|(name, derivation)| (Identity::of(&path('a', name)), derivation));
            assert_eq!(named, expected, "{text}");
        }
    }

    #[test]
    fn an_empty_graph_answers_too() {
        let (mut builder, has_derivations) = LivenessBuilder::of_paths(Vec::new());
        assert!(!has_derivations);
        assert!(!builder.reference(0, 0));
        let graph = builder.finish();
        assert!(graph.is_empty() && graph.nodes().next().is_none());
        assert_eq!(graph.node(&path('a', "a")), None);
    }
}
