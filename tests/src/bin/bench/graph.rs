// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shape of a store: which object refers to which.
//!
//! An object refers to those with lower numbers, and some to themselves. Object 0 is the library that two thirds of
//! all others use. Object `K - 1` of each wanted closure of `K` objects reaches exactly the objects `0..K`: a heap
//! with it on top spans them, so closures are about as deep as those of real packages, not one long chain. Of all
//! other references half go anywhere below, and half more often to low numbers, as a few packages are used
//! by many. Among 10,000 objects the closure of one has 500 on average: more than those of programs, fewer than those
//! of derivations.

use std::collections::BTreeSet;

use superpose_tests::Seeded;

/// How many of a hundred objects use the library.
const USES_LIBRARY: u32 = 66;

/// How many of a hundred references have no preference.
const GOES_ANYWHERE: u32 = 50;

/// How many of a hundred objects mention their own path.
const MENTIONS_ITSELF: u32 = 12;

/// For each object the numbers of those that it refers to, in increasing order. No object of a later closure, and
/// none beyond all closures, is reached from an earlier one.
pub(crate) fn references(count: u32, closures: &[u32], seed: u64) -> Vec<Vec<u32>> {
    let mut seeded = Seeded::new(seed);
    (0..count)
        .map(|object| {
            let mut chosen = BTreeSet::new();
            for &size in closures {
                chosen.extend(heap_children(object, size));
            }
            if object > 0 && seeded.chance(USES_LIBRARY) {
                chosen.insert(0);
            }
            if seeded.chance(MENTIONS_ITSELF) {
                chosen.insert(object);
            }
            let others = wanted(&mut seeded).min(object as usize);
            while chosen.len() < others {
                chosen.insert(lower(&mut seeded, object));
            }
            chosen.into_iter().collect()
        })
        .collect()
}

/// The children of an object in the heap that spans a closure: the top is the last object, each child has a
/// lower number.
fn heap_children(object: u32, size: u32) -> impl Iterator<Item = u32> {
    let place = size.checked_sub(object + 1);
    let children = place.map(|place| [2 * place + 1, 2 * place + 2]);
    children
        .into_iter()
        .flatten()
        .filter_map(move |child| size.checked_sub(child + 1))
}

/// How many references an object gets: 1 to 9, and 4.6 on average, as in real stores.
fn wanted(seeded: &mut Seeded) -> usize {
    let extra = usize::from(seeded.chance(10));
    1 + seeded.below(8) as usize + extra
}

/// A number below `limit`; low ones are likelier than others.
fn lower(seeded: &mut Seeded, limit: u32) -> u32 {
    let anywhere = seeded.below(limit);
    if seeded.chance(GOES_ANYWHERE) {
        anywhere
    } else {
        seeded.below(anywhere + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(references: &[Vec<u32>], root: u32) -> BTreeSet<u32> {
        let mut reached = BTreeSet::from([root]);
        let mut waiting = vec![root];
        while let Some(object) = waiting.pop() {
            for &reference in &references[object as usize] {
                if reached.insert(reference) {
                    waiting.push(reference);
                }
            }
        }
        reached
    }

    #[test]
    fn closures_have_exactly_the_wanted_sizes() {
        let references = references(3000, &[100, 1000], 1);
        for size in [100, 1000] {
            assert_eq!(closure(&references, size - 1), (0..size).collect());
        }
    }

    #[test]
    fn the_shape_is_that_of_real_stores() {
        let references = references(10_000, &[1000, 10_000], 1);
        let edges: usize = references.iter().map(Vec::len).sum();
        assert!((44_000..50_000).contains(&edges), "{edges}");
        let sizes: usize = (0..10_000)
            .step_by(100)
            .map(|root| closure(&references, root).len())
            .sum();
        assert!((45_000..60_000).contains(&sizes), "{sizes}");
        let users = references.iter().filter(|list| list.contains(&0)).count();
        assert!(users > 6000, "{users}");
        let is_ordered = |(object, list): (usize, &Vec<u32>)| list.iter().all(|&to| to as usize <= object);
        assert!(references.iter().enumerate().all(is_ordered));
    }
}
