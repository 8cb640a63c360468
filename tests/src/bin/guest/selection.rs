// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which trials of a suite run in this machine: all, some by their names, or one share of these.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::order::Order;

/// The arguments of each run of a suite: one for each of the order's `filters`, without those that it wants `left-out`.
/// With a `share` of `I/N` it is one run of each N-th of all these trials, from the I-th on.
pub(crate) fn runs(suite: &str, order: &Order) -> Result<Vec<Vec<String>>> {
    let (filters, left_out) = (order.texts("filters"), order.texts("left-out"));
    let Ok(share) = order.text("share") else {
        let left_out: Vec<String> = left_out.into_iter().flat_map(skip).collect();
        if filters.is_empty() {
            return Ok(vec![left_out]);
        }
        let with = |filter: &&str| left_out.iter().cloned().chain([(*filter).to_owned()]).collect();
        return Ok(filters.iter().map(with).collect());
    };
    let output = Command::new(suite).arg("--list").output();
    let output = output.with_context(|| format!("starting {suite}"))?;
    ensure!(output.status.success(), "{suite} --list: {}", output.status);
    let list = String::from_utf8(output.stdout).context("a list of trials")?;
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let others = not_in_share(&names, &filters, &left_out, share)?;
    let skipped = others.into_iter().flat_map(skip);
    // A name that another one begins with would leave out both.
    Ok(vec![
        std::iter::once("--exact".to_owned()).chain(skipped).collect(),
    ])
}

fn skip(name: &str) -> [String; 2] {
    ["--skip".to_owned(), name.to_owned()]
}

/// The names that are not meant or left out, and those of other shares.
fn not_in_share<'a>(
    names: &[&'a str],
    filters: &[&str],
    left_out: &[&str],
    share: &str,
) -> Result<Vec<&'a str>> {
    let numbers = share
        .split_once('/')
        .and_then(|(which, of)| Some((which.parse::<usize>().ok()?, of.parse::<usize>().ok()?)));
    let (which, of) = numbers.with_context(|| format!("the share '{share}'"))?;
    ensure!(which < of, "the share '{share}'");
    let has_one_of = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let mut count = 0;
    let mut others = Vec::new();
    for name in names {
        let is_meant = filters.is_empty() || has_one_of(name, filters);
        if !is_meant || has_one_of(name, left_out) {
            others.push(*name);
            continue;
        }
        if count % of != which {
            others.push(*name);
        }
        count += 1;
    }
    ensure!(others.len() < names.len(), "the share '{share}' is of no trial");
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trial_is_in_one_share() {
        let names = ["a::a", "a::a_b", "a::c", "a::d", "b::x", "b::y"];
        let mut seen: Vec<&str> = Vec::new();
        for share in ["0/3", "1/3", "2/3"] {
            let others = not_in_share(&names, &["::a", "::c", "b::"], &["::c"], share).unwrap();
            assert!(others.contains(&"a::c") && others.contains(&"a::d"));
            seen.extend(names.iter().copied().filter(|name| !others.contains(name)));
        }
        seen.sort_unstable();
        assert_eq!(seen, ["a::a", "a::a_b", "b::x", "b::y"]);
    }

    #[test]
    fn a_share_of_nothing_is_an_error() {
        for (left_out, share) in [("a", "0/1"), ("z", "1/2"), ("z", "2/2"), ("z", "1"), ("z", "x/2")] {
            assert!(not_in_share(&["a"], &[], &[left_out], share).is_err(), "{share}");
        }
    }
}
