// SPDX-License-Identifier: MIT OR Apache-2.0
//! `path-info`, `query`, `check-validity` and `ensure` on a local store.

use serde_json::json;

use crate::stand::Stand;

const UNKNOWN: &str = "/nix/store/0g1savw1cf7pji42hasyx0smc4aw15nw-unknown";

/// A store with a chain of three, and one path apart.
struct Chain {
    stand: Stand,
    base: String,
    middle: String,
    top: String,
    apart: String,
}

impl Chain {
    fn new() -> Self {
        let stand = Stand::new();
        let base = stand.add("base", "base", &[]);
        let middle = stand.add("middle", "middle", &[&base]);
        let top = stand.add("top", "top", &[&middle, &base]);
        let apart = stand.add("apart", "apart", &[]);
        Chain {
            stand,
            base,
            middle,
            top,
            apart,
        }
    }

    fn check(&self, arguments: &[&str], expected: &[&str]) {
        assert_eq!(self.stand.lines(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn lists_of_paths_are_unions_with_dependencies_first() {
    let chain = Chain::new();
    let Chain {
        base,
        middle,
        top,
        apart,
        ..
    } = &chain;
    chain.check(&["query", "--references", top], &[base, middle]);
    chain.check(&["query", "--references", top, middle, apart], &[base, middle]);
    let mut by_name = [middle.as_str(), top.as_str()];
    by_name.sort_unstable();
    chain.check(&["query", "--referrers", base], &by_name);
    chain.check(&["query", "--referrers", top], &[]);
    chain.check(&["query", "--referrers", UNKNOWN], &[]);
    chain.check(&["query", "--referrers-closure", base], &[base, middle, top]);
    chain.check(&["query", "--requisites", top], &[base, middle, top]);
    chain.check(&["query", "-R", middle, top], &[base, middle, top]);
    chain.check(&["query", "--valid-derivers", top], &[]);
    chain.check(&["path-info", top, base], &[base, top]);
    chain.check(&["path-info", "-r", top], &[base, middle, top]);
    assert_eq!(
        chain.stand.json(&["query", "--json", "-R", middle]),
        json!([base, middle])
    );
    for question in [
        "--references",
        "--requisites",
        "--referrers-closure",
        "--hash",
        "--size",
        "--deriver",
    ] {
        assert_eq!(
            chain.stand.run(&["query", question, UNKNOWN]).status,
            1,
            "{question}"
        );
    }
}

#[test]
fn values_are_one_for_each_path() {
    let chain = Chain::new();
    let Chain { base, middle, .. } = &chain;
    chain.check(&["query", "--size", base, middle], &["120", "120"]);
    chain.check(
        &["query", "--deriver", base, middle],
        &["unknown-deriver", "unknown-deriver"],
    );
    let hash = &chain.stand.lines(&["query", "--hash", base])[0];
    assert!(hash.starts_with("sha256:") && hash.len() == 59, "{hash}");
    assert_eq!(
        chain.stand.json(&["query", "--json", "--deriver", base]),
        json!({ base: null })
    );
    assert_eq!(
        chain.stand.json(&["query", "--json", "--size", base]),
        json!({ base: 120 })
    );
}

#[test]
fn a_path_is_found_by_its_hash_part() {
    let chain = Chain::new();
    let part = &chain.base[11..43];
    chain.check(&["query", "--hash-part", part], &[&chain.base]);
    assert_eq!(
        chain.stand.json(&["query", "--json", "--hash-part", part]),
        json!(chain.base)
    );
    assert_eq!(
        chain
            .stand
            .run(&["query", "--hash-part", &UNKNOWN[11..43]])
            .status,
        1
    );
    assert_eq!(chain.stand.run(&["query", "--hash-part", "short"]).status, 2);
}

#[test]
fn columns_are_those_of_nix() {
    let chain = Chain::new();
    let Chain { base, top, .. } = &chain;
    let text = chain.stand.text(&["path-info", "-sS", base, top]);
    // `base` is one letter longer than `top`.
    assert_eq!(
        text,
        format!("{base}\t        120\t        120\n{top} \t        120\t        360\n")
    );
    chain.check(&["path-info", "--layer", base], &[&format!("{base}\tupper")]);
    assert_eq!(chain.stand.lines(&["path-info", "--all"]).len(), 4);
}

#[test]
fn json_has_null_for_what_is_not_valid() {
    let chain = Chain::new();
    let Chain { base, top, .. } = &chain;
    let info = chain.stand.json(&["path-info", "--json", "-S", top, UNKNOWN]);
    assert_eq!(info[UNKNOWN], json!(null));
    assert_eq!(
        (&info[top]["closureSize"], &info[top]["layer"]),
        (&json!(360), &json!("upper"))
    );
    assert_eq!(info.as_object().map(serde_json::Map::len), Some(2));
    let info = chain
        .stand
        .json(&["path-info", "--json", "--json-format", "2", "-r", top]);
    assert_eq!(
        (&info["version"], &info["storeDir"]),
        (&json!(2), &json!("/nix/store"))
    );
    assert_eq!(info["info"][&base[11..]]["references"], json!([]));
    assert_eq!(chain.stand.run(&["path-info", UNKNOWN]).status, 1);
    assert_eq!(chain.stand.run(&["path-info", "--json", "-r", UNKNOWN]).status, 1);
}

#[test]
fn paths_come_from_standard_input_too() {
    let chain = Chain::new();
    let Chain { base, apart, .. } = &chain;
    let input = format!("{base}\n\n{apart}");
    let mut expected = [base.as_str(), apart];
    expected.sort_unstable();
    let text = chain
        .stand
        .feed(&["path-info", "--stdin"], input.as_bytes())
        .fine();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert_eq!(chain.stand.feed(&["path-info", "--stdin"], b"").fine(), "");
    assert_eq!(
        chain.stand.feed(&["path-info", "--stdin"], b"rubbish\n").status,
        2
    );
    assert_eq!(
        chain
            .stand
            .feed(&["path-info", "--stdin"], &[b'x'; 100_000])
            .status,
        2
    );
}

#[test]
fn validity_is_told_in_each_way() {
    let chain = Chain::new();
    let Chain { base, .. } = &chain;
    chain.check(&["check-validity", base], &[]);
    chain.check(&["check-validity", "--print-invalid", base, UNKNOWN], &[UNKNOWN]);
    assert_eq!(chain.stand.run(&["check-validity", base, UNKNOWN]).status, 1);
    let ended = chain.stand.run(&["check-validity", "--json", base, UNKNOWN]);
    let answer: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("it is JSON");
    assert_eq!((ended.status, answer), (1, json!({ base: true, UNKNOWN: false })));
}

#[test]
fn in_a_local_store_everything_is_known_already() {
    let chain = Chain::new();
    assert_eq!(
        chain.stand.json(&["ensure", "--json", &chain.top]),
        json!({ "copied": 0 })
    );
    assert_eq!(chain.stand.run(&["ensure", UNKNOWN]).status, 1);
}

#[test]
fn only_derivations_have_outputs() {
    let chain = Chain::new();
    assert_eq!(chain.stand.run(&["query", "--outputs", &chain.top]).status, 2);
    assert_eq!(
        chain
            .stand
            .run(&["query", "--outputs", &format!("{UNKNOWN}.drv")])
            .status,
        1
    );
}
