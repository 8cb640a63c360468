// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which trials of a suite run in this machine: all, but for those that are left out, or one share of them.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::order::Order;

/// The arguments by which a suite leaves out what the order wants left out. With a `share` of `I/N` that is also
/// everything but each N-th trial, from the I-th on.
pub(crate) fn arguments(suite: &str, order: &Order) -> Result<Vec<String>> {
    let left_out = order.texts("left-out");
    let Ok(share) = order.text("share") else {
        return Ok(left_out.into_iter().flat_map(skip).collect());
    };
    let output = Command::new(suite).arg("--list").output();
    let output = output.with_context(|| format!("starting {suite}"))?;
    ensure!(output.status.success(), "{suite} --list: {}", output.status);
    let list = String::from_utf8(output.stdout).context("a list of trials")?;
    let names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .collect();
    let others = not_in_share(&names, &left_out, share)?;
    let skipped = others.into_iter().flat_map(skip);
    // A name that another one begins with would leave out both.
    Ok(std::iter::once("--exact".to_owned()).chain(skipped).collect())
}

fn skip(name: &str) -> [String; 2] {
    ["--skip".to_owned(), name.to_owned()]
}

/// The names that are left out, and those of other shares.
fn not_in_share<'a>(names: &[&'a str], left_out: &[&str], share: &str) -> Result<Vec<&'a str>> {
    let numbers = share
        .split_once('/')
        .and_then(|(which, of)| Some((which.parse::<usize>().ok()?, of.parse::<usize>().ok()?)));
    let (which, of) = numbers.with_context(|| format!("the share '{share}'"))?;
    ensure!(which < of, "the share '{share}'");
    let is_left_out = |name: &str| left_out.iter().any(|part| name.contains(part));
    let mut count = 0;
    let mut others = Vec::new();
    for name in names {
        let is_other = is_left_out(name) || {
            count += 1;
            (count - 1) % of != which
        };
        if is_other {
            others.push(*name);
        }
    }
    ensure!(others.len() < names.len(), "the share '{share}' is of no trial");
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trial_is_in_one_share() {
        let names = ["a::a", "a::a_b", "a::c", "b::x", "b::y"];
        let mut seen = Vec::new();
        for share in ["0/3", "1/3", "2/3"] {
            let others = not_in_share(&names, &["::c"], share).unwrap();
            assert!(others.contains(&"a::c"));
            seen.extend(names.iter().filter(|name| !others.contains(name)));
        }
        seen.sort_unstable();
        assert_eq!(seen, [&"a::a", &"a::a_b", &"b::x", &"b::y"]);
    }

    #[test]
    fn a_share_of_nothing_is_an_error() {
        for (left_out, share) in [("a", "0/1"), ("z", "1/2"), ("z", "2/2"), ("z", "1"), ("z", "x/2")] {
            assert!(not_in_share(&["a"], &[left_out], share).is_err(), "{share}");
        }
    }
}
