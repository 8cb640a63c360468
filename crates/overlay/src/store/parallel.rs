// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same work on many things, by several threads.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many things a thread takes at once: so few that no thread is alone at the end, and so many that taking them
/// costs nothing.
const TURN: usize = 8;

/// How many threads the machine runs at once, for what computes.
pub(super) fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Does `work` on every item. The answers are in the order of the items.
///
/// `go_on` is told how many are done, often and by every thread, and may end it: what was not begun by then has no
/// answer.
pub(super) fn on_threads<T: Sync, R: Send>(
    threads: NonZero<usize>,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
    go_on: impl Fn(u64) -> bool + Sync,
) -> Vec<Option<R>> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take_turns = || {
        let mut answers = Vec::new();
        loop {
            let start = next.fetch_add(TURN, Ordering::Relaxed);
            let Some(turn) = items.get(start..items.len().min(start + TURN)) else {
                return answers;
            };
            for (place, item) in (start..).zip(turn) {
                answers.push((place, work(item)));
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                if !go_on(done as u64) {
                    return answers;
                }
            }
        }
    };
    let workers = threads.get().min(items.len().div_ceil(TURN));
    let found: Vec<Vec<(usize, R)>> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers).map(|_| scope.spawn(take_turns)).collect();
        let mut found = vec![take_turns()];
        found.extend(others.into_iter().map(|other| match other.join() {
            Ok(answers) => answers,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        found
    });
    let mut answers: Vec<Option<R>> = Vec::new();
    answers.resize_with(items.len(), || None);
    for (place, answer) in found.into_iter().flatten() {
        answers[place] = Some(answer);
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [1, 2, 7] {
            let threads = NonZero::new(threads).expect("a number of threads");
            let answers = on_threads(threads, &items, |item| item * 2, |_| true);
            assert!(
                answers
                    .iter()
                    .enumerate()
                    .all(|(n, answer)| *answer == Some(2 * n))
            );
        }
        let none: [usize; 0] = [];
        assert!(on_threads(NonZero::<usize>::MIN, &none, |item| *item, |_| true).is_empty());
    }

    #[test]
    fn what_was_not_begun_has_no_answer() {
        let items: Vec<usize> = (0..1000).collect();
        let answers = on_threads(NonZero::<usize>::MIN, &items, |item| *item, |done| done < 100);
        assert_eq!(answers.iter().flatten().count(), 100);
    }
}
