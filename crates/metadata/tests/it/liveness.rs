// SPDX-License-Identifier: MIT OR Apache-2.0
//! The database as a graph of numbers: the same as what single questions answer, and whatever the rows hold.

use superpose_metadata::{Database, LivenessGraph, MetadataSource};
use superpose_store_path::StorePath;

use crate::fixture::{DRV, State, path, sample, store_path};

fn all_paths() -> Vec<StorePath> {
    sample().into_iter().map(|info| info.path).collect()
}

/// What the graph says of a path, in paths.
fn references(database: &Database, graph: &LivenessGraph, path: &StorePath) -> Vec<StorePath> {
    let node = graph.node(path).unwrap();
    let rows: Vec<i64> = graph
        .references(node)
        .iter()
        .map(|&node| graph.row(node))
        .collect();
    let mut paths: Vec<StorePath> = database
        .paths_of_rows(&rows)
        .unwrap()
        .into_iter()
        .flatten()
        .collect();
    paths.sort();
    paths
}

#[test]
fn the_graph_says_what_single_questions_answer() {
    let state = State::with_sample();
    for database in [state.read_write(), state.read_only()] {
        let graph = database.liveness_graph().unwrap();
        assert_eq!(graph.len() as u64, database.count().unwrap());
        for info in database.path_infos(&all_paths()).unwrap().into_iter().flatten() {
            assert_eq!(references(&database, &graph, &info.path), info.references);
            let node = graph.node(&info.path).unwrap();
            let deriver = info.deriver.and_then(|deriver| graph.node(&deriver));
            assert_eq!(graph.deriver(node), deriver, "{}", info.path);
            assert_eq!(graph.is_derivation(node), info.path.is_derivation());
            let outputs = database
                .derivation_outputs(std::slice::from_ref(&info.path))
                .unwrap();
            let outputs: Vec<u32> = outputs[0]
                .iter()
                .flatten()
                .filter_map(|(_, output)| graph.node(output))
                .collect();
            assert_eq!(graph.outputs(node), outputs);
            let with_part: Vec<u32> = graph.nodes_with(info.path.hash_part()).collect();
            assert_eq!(with_part, [node]);
        }
        assert_eq!(graph.node(&path("nowhere")), None);
        assert!(
            graph.deriver(graph.node(&path("app")).unwrap()) == graph.node(&store_path(DRV)),
            "the sample has a deriver to be found"
        );
    }
}

#[test]
fn paths_of_rows_are_in_the_order_of_the_question() {
    let state = State::with_sample();
    let database = state.read_write();
    let graph = database.liveness_graph().unwrap();
    let row = |name: &str| graph.row(graph.node(&path(name)).unwrap());
    assert_eq!(
        database
            .paths_of_rows(&[row("lib"), -1, row("app"), row("lib")])
            .unwrap(),
        [Some(path("lib")), None, Some(path("app")), Some(path("lib"))]
    );
}

/// Runs statements without any constraint, and reads the graph.
fn spoilt(statements: &str) -> Result<LivenessGraph, String> {
    let state = State::with_sample();
    let raw = state.raw();
    raw.execute_batch("PRAGMA foreign_keys = 0; PRAGMA ignore_check_constraints = 1")
        .unwrap();
    raw.execute_batch(statements).unwrap();
    drop(raw);
    state.read_write().liveness_graph().map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })
}

#[test]
fn impossible_rows_are_read_or_refused() {
    let count = all_paths().len();
    for (statements, expected) in [
        (
            "UPDATE ValidPaths SET id = -9223372036854775807 WHERE path LIKE '%-base'",
            count,
        ),
        (
            "UPDATE ValidPaths SET id = 9223372036854775807 WHERE path LIKE '%-base'",
            count,
        ),
        ("UPDATE ValidPaths SET deriver = ''", count),
        ("UPDATE ValidPaths SET deriver = 'nowhere'", count),
        ("UPDATE ValidPaths SET deriver = 5", count),
        (
            "UPDATE ValidPaths SET hash = 'x', sigs = 'nokey', ca = 'what', narSize = -1",
            count,
        ),
        ("INSERT INTO Refs VALUES (4711, 1), (1, 4711), (-1, -1)", count),
        (
            "INSERT INTO DerivationOutputs VALUES (1, 'more', 'rubbish'), (4711, 'out', '/nix/store/x')",
            count,
        ),
        ("DELETE FROM ValidPaths", 0),
    ] {
        match spoilt(statements) {
            Ok(graph) => assert_eq!(graph.len(), expected, "{statements}"),
            Err(error) => panic!("{statements}: {error}"),
        }
    }
    for (statements, expected) in [
        (
            "UPDATE ValidPaths SET path = 'rubbish' WHERE path LIKE '%-base'",
            "ValidPaths.path",
        ),
        (
            "UPDATE ValidPaths SET path = x'00' WHERE path LIKE '%-base'",
            "ValidPaths.path",
        ),
        (
            "UPDATE Refs SET reference = 'one' WHERE rowid = (SELECT min(rowid) FROM Refs)",
            "Refs.reference",
        ),
    ] {
        let error = spoilt(statements).unwrap_err();
        assert!(error.contains(expected), "{statements}: {error}");
    }
}

#[test]
fn references_that_dangle_lead_nowhere() {
    let graph = spoilt("DELETE FROM ValidPaths WHERE path LIKE '%-base'").unwrap();
    let node = graph.node(&path("lib")).unwrap();
    assert_eq!(graph.references(node), []);
    let own = graph.node(&path("self")).unwrap();
    assert_eq!(graph.references(own), [own]);
}
