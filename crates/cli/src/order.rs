// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which lists of paths are printed: dependencies before dependents, as Nix prints them.

use std::collections::HashMap;

use superpose_overlay::store_path::StorePath;

/// Sorts paths so that each comes after those of the list that it refers to; otherwise by name.
///
/// Of each pair in `edges` the first refers to the second. A cycle is cut where it is met.
pub(crate) fn dependencies_first(
    mut paths: Vec<StorePath>,
    edges: &[(StorePath, StorePath)],
) -> Vec<StorePath> {
    paths.sort_unstable();
    paths.dedup();
    let numbers: HashMap<&StorePath, usize> = paths.iter().zip(0..).collect();
    let mut references: Vec<Vec<usize>> = vec![Vec::new(); paths.len()];
    for (from, to) in edges {
        if let (Some(&from), Some(&to)) = (numbers.get(from), numbers.get(to))
            && from != to
        {
            references[from].push(to);
        }
    }
    for list in &mut references {
        list.sort_unstable();
    }
    let mut order = Vec::with_capacity(paths.len());
    let mut seen = vec![false; paths.len()];
    // Each entry of the stack is a path and how many of its references were visited. No recursion: chains are long.
    let mut stack = Vec::new();
    for start in 0..paths.len() {
        if !std::mem::replace(&mut seen[start], true) {
            stack.push((start, 0));
        }
        while let Some((node, visited)) = stack.last_mut() {
            match references[*node].get(*visited) {
                Some(&next) => {
                    *visited += 1;
                    if !std::mem::replace(&mut seen[next], true) {
                        stack.push((next, 0));
                    }
                }
                None => {
                    order.push(*node);
                    stack.pop();
                }
            }
        }
    }
    order.into_iter().map(|node| paths[node].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(letter: char) -> StorePath {
        StorePath::from_base_name(format!("{}-x", letter.to_string().repeat(32)).as_bytes()).unwrap()
    }

    #[test]
    fn dependencies_come_first_and_names_decide_the_rest() {
        let check = |paths: &str, edges: &[&str], expected: &str| {
            let list = paths.chars().map(path).collect();
            let edges: Vec<_> = edges
                .iter()
                .map(|edge| {
                    (
                        path(edge.chars().next().unwrap()),
                        path(edge.chars().last().unwrap()),
                    )
                })
                .collect();
            let order = dependencies_first(list, &edges);
            assert_eq!(order, expected.chars().map(path).collect::<Vec<_>>(), "{paths}");
        };
        check("", &[], "");
        check("cab", &[], "abc");
        check("abca", &["ab", "bc"], "cba");
        check("abcd", &["ad", "ac", "aa"], "cdab");
        // Through a path that is not in the list nothing is followed, and a cycle ends somewhere.
        check("ac", &["ab", "bc"], "ac");
        check("abc", &["ab", "bc", "ca"], "cba");
    }
}
