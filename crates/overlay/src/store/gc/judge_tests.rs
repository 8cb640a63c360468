// SPDX-License-Identifier: MIT OR Apache-2.0
//! The decision, on graphs that a real database holds.

use std::collections::BTreeSet;

use proptest::prelude::*;
use superpose_metadata::{Database, LivenessGraph, MemorySource, OpenDatabase, PathInfo};
use superpose_store_path::{Hash, StoreDir, StorePath};

use super::judge::{Judge, Keeping, referrers_first};

/// The letters of hash parts.
const LETTERS: &str = "0123456789abcdfghijklmnpqrsvwxyz";

/// A store of which every path has a number; those in `derivations` are some.
#[derive(Debug, Clone, Default)]
struct Model {
    paths: usize,
    derivations: BTreeSet<usize>,
    references: BTreeSet<(usize, usize)>,
    /// Path and deriver.
    derivers: Vec<(usize, usize)>,
    /// Derivation and output.
    outputs: BTreeSet<(usize, usize)>,
}

impl Model {
    fn path(&self, number: usize) -> StorePath {
        let letter = &LETTERS[number..=number];
        let suffix = if self.derivations.contains(&number) {
            ".drv"
        } else {
            ""
        };
        StorePath::from_base_name(format!("{}-x{suffix}", letter.repeat(32)).as_bytes()).unwrap()
    }

    /// The graph that a database with these rows gives. Nodes are in the order of the rows, and those in that of the
    /// paths.
    fn graph(&self) -> LivenessGraph {
        let mut source = MemorySource::new(StoreDir::default());
        let mut infos = Vec::new();
        for number in 0..self.paths {
            let mut info = PathInfo::new(self.path(number), Hash::sha256([1; 32]), 1);
            let references = self.references.iter().filter(|(from, _)| *from == number);
            info.references = references.map(|&(_, to)| self.path(to)).collect();
            let deriver = self.derivers.iter().find(|(of, _)| *of == number);
            info.deriver = deriver.map(|&(_, deriver)| self.path(deriver));
            source.insert(info.clone());
            if self.derivations.contains(&number) {
                let outputs = self.outputs.iter().filter(|(from, _)| *from == number);
                let outputs = outputs.map(|&(_, to)| (format!("out{to}"), self.path(to)));
                source.insert_outputs(info.path.clone(), outputs.collect());
            }
            infos.push(info);
        }
        let dir = tempfile::tempdir().unwrap();
        let mut options = OpenDatabase::read_write(dir.path(), StoreDir::default());
        options.reserved_space = 0;
        let mut database = Database::open(&options).unwrap();
        database.copy_in(&infos, &source).unwrap();
        database.liveness_graph().unwrap()
    }

    /// What lives, found by asking again and again.
    fn alive(&self, roots: &[usize], keeping: Keeping) -> BTreeSet<usize> {
        let mut alive: BTreeSet<usize> = roots.iter().copied().collect();
        loop {
            let mut edges: Vec<(usize, usize)> = self.references.iter().copied().collect();
            if keeping.outputs {
                edges.extend(&self.outputs);
            }
            if keeping.derivations {
                edges.extend(
                    self.derivers
                        .iter()
                        .filter(|(_, deriver)| self.derivations.contains(deriver)),
                );
            }
            let new: Vec<usize> = edges
                .into_iter()
                .filter(|(from, to)| alive.contains(from) && *to < self.paths && !alive.contains(to))
                .map(|(_, to)| to)
                .collect();
            if new.is_empty() {
                return alive;
            }
            alive.extend(new);
        }
    }
}

fn judged(model: &Model, roots: &[usize], keeping: Keeping) -> BTreeSet<usize> {
    let graph = model.graph();
    let node = |number: &usize| graph.node(&model.path(*number)).unwrap();
    let mut judge = Judge::new(&graph, keeping);
    judge.keep_all(roots.iter().map(node));
    // All at once, one after the other, and some later than others come to the same.
    for first in 0..=roots.len() {
        let mut other = Judge::new(&graph, keeping);
        other.keep_all(roots[..first].iter().map(node));
        roots[first..].iter().for_each(|root| other.keep(node(root)));
        assert!(
            graph
                .nodes()
                .all(|node| judge.is_alive(node) == other.is_alive(node))
        );
    }
    let alive: BTreeSet<usize> = (0..model.paths)
        .filter(|number| judge.is_alive(node(number)))
        .collect();
    assert_eq!(judge.dead().count(), model.paths - alive.len());
    alive
}

/// Derivation X, number 0, with the valid outputs O1 and O2; O1 refers to O2.
#[test]
fn the_truth_table_of_nix() {
    let (x, o1, o2) = (0, 1, 2);
    let model = Model {
        paths: 3,
        derivations: [x].into(),
        references: [(o1, o2)].into(),
        derivers: vec![(o1, x), (o2, x)],
        outputs: [(x, o1), (x, o2)].into(),
    };
    let check = |roots: &[usize], outputs, derivations, expected: &[usize]| {
        let keeping = Keeping { outputs, derivations };
        let alive: Vec<usize> = judged(&model, roots, keeping).into_iter().collect();
        assert_eq!(alive, expected, "roots {roots:?}, {keeping:?}");
    };
    check(&[x], false, true, &[x]);
    check(&[x], true, true, &[x, o1, o2]);
    check(&[o1], false, true, &[x, o1, o2]);
    check(&[o1], false, false, &[o1, o2]);
    check(&[o2], false, true, &[x, o2]);
    check(&[o2], true, true, &[x, o1, o2]);
    check(&[o2], true, false, &[o2]);
    check(&[], true, true, &[]);
}

/// Only the deriver that is recorded counts, and an output that was built by another derivation keeps that one.
#[test]
fn derivers_and_outputs_are_not_each_other() {
    let model = Model {
        paths: 3,
        derivations: [0, 1].into(),
        // 2 is an output of both, and was built by the second.
        outputs: [(0, 2), (1, 2)].into(),
        derivers: vec![(2, 1)],
        ..Model::default()
    };
    let keeping = |outputs, derivations| Keeping { outputs, derivations };
    assert_eq!(judged(&model, &[2], keeping(false, true)), [1, 2].into());
    assert_eq!(judged(&model, &[0], keeping(true, false)), [0, 2].into());
    assert_eq!(judged(&model, &[0], keeping(true, true)), [0, 1, 2].into());
}

#[test]
fn a_temporary_root_keeps_all_names_of_its_hash_part() {
    let model = Model {
        paths: 2,
        references: [(0, 1)].into(),
        ..Model::default()
    };
    let graph = model.graph();
    let mut judge = Judge::new(&graph, Keeping::default());
    judge.keep_all_with(model.path(7).hash_part());
    assert_eq!(judge.dead().count(), 2);
    judge.keep_all_with(model.path(0).hash_part());
    assert_eq!(judge.dead().count(), 0);
}

fn model() -> impl Strategy<Value = Model> {
    (1..12_usize).prop_flat_map(|paths| {
        let pair = || (0..paths, 0..paths);
        (
            prop::collection::btree_set(0..paths, 0..6),
            prop::collection::btree_set(pair(), 0..20),
            prop::collection::vec((0..paths, 0..32_usize), 0..8),
            prop::collection::btree_set((0..paths, 0..32_usize), 0..8),
        )
            .prop_map(move |(derivations, references, derivers, outputs)| {
                let mut seen = BTreeSet::new();
                Model {
                    paths,
                    // A path refers to earlier ones and to itself.
                    references: references
                        .into_iter()
                        .map(|(a, b)| (a.max(b), a.min(b)))
                        .collect(),
                    derivers: derivers.into_iter().filter(|(of, _)| seen.insert(*of)).collect(),
                    outputs: outputs
                        .into_iter()
                        .filter(|(from, _)| derivations.contains(from))
                        .collect(),
                    derivations,
                }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_walk_finds_what_lives(
        model in model(),
        roots in prop::collection::vec(0..12_usize, 0..4),
        outputs: bool,
        derivations: bool,
    ) {
        let roots: Vec<usize> = roots.into_iter().filter(|root| *root < model.paths).collect();
        let keeping = Keeping { outputs, derivations };
        prop_assert_eq!(judged(&model, &roots, keeping), model.alive(&roots, keeping));
    }

    #[test]
    fn every_beginning_of_the_order_can_go(model in model(), dead in prop::collection::btree_set(0..12_u32, 0..12)) {
        let graph = model.graph();
        // What refers to something that goes, goes.
        let mut dead: BTreeSet<u32> = dead.into_iter().filter(|node| (*node as usize) < graph.len()).collect();
        for node in graph.nodes() {
            if graph.references(node).iter().any(|reference| dead.contains(reference)) {
                dead.insert(node);
            }
        }
        let dead: Vec<u32> = dead.into_iter().collect();
        let (order, free) = referrers_first(&graph, &dead);
        prop_assert_eq!(free, dead.len(), "there are no rings");
        prop_assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), dead.iter().copied().collect());
        for (place, node) in order.iter().enumerate() {
            for reference in graph.references(*node).iter().filter(|reference| *reference != node) {
                prop_assert!(!order[..place].contains(reference));
            }
        }
    }
}

#[test]
fn a_ring_goes_last_and_at_once() {
    // 0 refers to 1; 1, 2 and 3 are a ring; 2 refers to 4; 5 is alone.
    let model = Model {
        paths: 6,
        references: [(0, 1), (1, 2), (2, 3), (3, 1), (2, 4), (5, 5)].into(),
        ..Model::default()
    };
    let graph = model.graph();
    let all: Vec<u32> = graph.nodes().collect();
    let (order, free) = referrers_first(&graph, &all);
    let number = |node: &u32| (0..6).find(|number| graph.node(&model.path(*number)) == Some(*node));
    let names: BTreeSet<_> = order[..free].iter().filter_map(number).collect();
    assert_eq!(names, [0, 5].into());
    let rest: BTreeSet<_> = order[free..].iter().filter_map(number).collect();
    assert_eq!(rest, [1, 2, 3, 4].into());
}
