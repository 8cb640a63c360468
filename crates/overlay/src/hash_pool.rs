// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashing many objects on all cores.
//!
//! The largest first, over all of them: so no thread is left alone with a giant at the end, if it can be avoided. Where
//! it cannot, the giant is read on a thread of its own beside the hashing, since the other cores have nothing else to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use rustix::fd::BorrowedFd;
use superpose_nar::{HashingWriter, NarHash, Taps};

use crate::Result;
use crate::watch::{Doing, Progress, Watch};

/// How many lists of results may wait to be taken.
const WAITING: usize = 64;

/// Results are handed over in lists of this many: to wake the taker for each small object costs more than hashing it.
const RESULTS_AT_ONCE: usize = 64;

/// After so many bytes they are handed over in any case.
const BYTES_AT_ONCE: u64 = 4 << 20;

/// Below this size a thread for reading costs more than it gives, in bytes.
const WORTH_A_READER: u64 = 8 << 20;

/// An object to be hashed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    /// The directory that holds it.
    pub(crate) directory: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a OsStr,
    /// About how large its archive is.
    pub(crate) size: u64,
}

/// Takes the result of the job of that number.
pub(crate) type Take<'a> = dyn FnMut(usize, superpose_nar::Result<NarHash>) -> Result<()> + 'a;

/// Hashes the archives of objects. The results come in no particular order, on the calling thread.
///
/// # Errors
/// [`crate::Error::Stopped`] if the caller wants it, also in the middle of a large object; what `take` fails with.
pub(crate) fn hash_all(
    jobs: &[Job<'_>],
    threads: NonZero<usize>,
    watch: &Watch,
    take: &mut Take<'_>,
) -> Result<()> {
    let order = Order::of(jobs, threads);
    let counter = Counter {
        watch,
        progress: Progress {
            all_bytes: Some(order.bytes),
            ..Progress::new(Doing::Hashing, jobs.len() as u64)
        },
        done: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    let next = AtomicUsize::new(0);
    let (results, taken) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        for _ in 0..threads.get().min(jobs.len()) {
            let results = results.clone();
            let (order, counter, next) = (&order, &counter, &next);
            scope.spawn(move || {
                let (mut list, mut bytes) = (Vec::with_capacity(RESULTS_AT_ONCE), 0);
                while let Some(turn) = order.turn(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = hash(&jobs[turn.job], turn.reading, counter);
                    counter.done();
                    bytes += result.as_ref().map_or(0, |found| found.size);
                    list.push((turn.job, result));
                    if list.len() == RESULTS_AT_ONCE || bytes >= BYTES_AT_ONCE {
                        bytes = 0;
                        // Nobody takes it any more: the work is given up.
                        if watch.wants_to_stop() || results.send(std::mem::take(&mut list)).is_err() {
                            return;
                        }
                    }
                }
                // The taker knows by itself if it has given up.
                results.send(list).ok();
            });
        }
        drop(results);
        for (job, result) in taken.into_iter().flatten() {
            if watch.wants_to_stop() {
                break;
            }
            take(job, result)?;
        }
        watch.go_on()
    })
}

/// Where an object is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// On the thread that hashes it.
    InTurn,
    /// On a thread of its own.
    Beside,
}

/// In which order jobs are done.
#[derive(Debug)]
struct Order {
    jobs: Vec<u32>,
    /// The turn of the job that is still being done when all others are, for most of its time.
    lonely: Option<usize>,
    /// How many bytes there are in all.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    job: usize,
    reading: Reading,
}

impl Order {
    fn of(jobs: &[Job<'_>], threads: NonZero<usize>) -> Self {
        let count = u32::try_from(jobs.len()).expect("a store has fewer than 2^32 objects");
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_by_key(|&job| Reverse(jobs[job as usize].size));
        let sizes = || order.iter().map(|&job| jobs[job as usize].size);
        Order {
            lonely: lonely(sizes(), threads.get()),
            bytes: sizes().fold(0, u64::saturating_add),
            jobs: order,
        }
    }

    fn turn(&self, turn: usize) -> Option<Turn> {
        let job = *self.jobs.get(turn)? as usize;
        let reading = if self.lonely == Some(turn) {
            Reading::Beside
        } else {
            Reading::InTurn
        };
        Some(Turn { job, reading })
    }
}

/// Goes through the turns as the threads will, each taking the next one when it is done, in a time that is the size.
fn lonely(sizes: impl Iterator<Item = u64>, threads: usize) -> Option<usize> {
    if threads < 2 {
        return None;
    }
    let mut free: BinaryHeap<Reverse<u64>> = (0..threads).map(|_| Reverse(0)).collect();
    // Of the job that is done last: its turn, when it is begun and when it is done.
    let mut last = None;
    for (turn, size) in sizes.enumerate() {
        let Reverse(begin) = free.pop()?;
        let end = begin.saturating_add(size);
        if size >= WORTH_A_READER && last.is_none_or(|(_, _, latest)| end > latest) {
            last = Some((turn, begin, end));
        }
        free.push(Reverse(end));
    }
    let (turn, begin, end) = last?;
    let mut ends = free.into_sorted_vec().into_iter().map(|Reverse(end)| end);
    if ends.next()? != end {
        // Many small ones are done later than it.
        return None;
    }
    let alone = end - begin.max(ends.next()?);
    (alone > (end - begin) / 2).then_some(turn)
}

/// Counts what is hashed, and ends the hashing when the caller wants it.
#[derive(Debug)]
struct Counter<'a> {
    watch: &'a Watch,
    progress: Progress,
    done: AtomicU64,
    bytes: AtomicU64,
}

impl Counter<'_> {
    fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.show();
    }

    fn show(&self) {
        self.watch.progress(&Progress {
            done: self.done.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            ..self.progress
        });
    }
}

impl Write for &Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.show();
        if self.watch.wants_to_stop() {
            return Err(io::Error::other("stopped"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hash(job: &Job<'_>, reading: Reading, counter: &Counter<'_>) -> superpose_nar::Result<NarHash> {
    match reading {
        Reading::InTurn => {
            let mut writer = HashingWriter::new(counter);
            superpose_nar::dump(job.directory, job.name, &mut writer)?;
            Ok(writer.finish().1)
        }
        Reading::Beside => {
            let mut tap = counter;
            let taps = Taps::none().archive(&mut tap);
            Ok(superpose_nar::hash_object_with(job.directory, job.name, taps)?.nar)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use crate::Error;
    use crate::watch::Watcher;

    fn turns(sizes: &[u64], threads: usize) -> Vec<(usize, Reading)> {
        let directory = std::fs::File::open("/").unwrap();
        let job = |size: &u64| Job {
            directory: directory.as_fd(),
            name: OsStr::new("x"),
            size: *size,
        };
        let jobs: Vec<Job<'_>> = sizes.iter().map(job).collect();
        let order = Order::of(&jobs, NonZero::new(threads).unwrap());
        (0..)
            .map_while(|turn| order.turn(turn))
            .map(|turn| (turn.job, turn.reading))
            .collect()
    }

    #[test]
    fn the_largest_come_first_and_a_giant_has_a_reader() {
        use Reading::{Beside, InTurn};
        const MIB: u64 = 1 << 20;
        assert_eq!(
            turns(&[MIB, 100 * MIB, 2 * MIB], 2),
            [(1, Beside), (2, InTurn), (0, InTurn)]
        );
        // Two of a size keep two cores busy, and so do three that are done at about the same time.
        assert_eq!(turns(&[50 * MIB, 50 * MIB], 2), [(0, InTurn), (1, InTurn)]);
        assert_eq!(
            turns(&[50 * MIB, 30 * MIB, 30 * MIB], 2),
            [(0, InTurn), (1, InTurn), (2, InTurn)]
        );
        assert_eq!(
            turns(&[50 * MIB, 50 * MIB, 40 * MIB], 2),
            [(0, InTurn), (1, InTurn), (2, Beside)]
        );
        // One thread has nobody to help it, and small ones need no help.
        assert_eq!(turns(&[100 * MIB], 1), [(0, InTurn)]);
        assert_eq!(turns(&[100 * MIB], 2), [(0, Beside)]);
        assert_eq!(turns(&[MIB, MIB / 2], 2), [(0, InTurn), (1, InTurn)]);
        assert_eq!(turns(&[vec![9 * MIB], vec![MIB; 30]].concat(), 2)[0], (0, InTurn));
        assert_eq!(turns(&[], 2), []);
    }

    #[test]
    fn hashes_are_those_of_the_archives() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let names: Vec<String> = (0..40).map(|number| format!("file-{number}")).collect();
        for (number, name) in names.iter().enumerate() {
            std::fs::write(dir.path().join(name), vec![7; number * 1000]).unwrap();
        }
        std::fs::write(dir.path().join("file-0"), vec![1; 20 << 20]).unwrap();
        let jobs: Vec<Job<'_>> = names
            .iter()
            .enumerate()
            .map(|(number, name)| Job {
                directory: open.as_fd(),
                name: OsStr::new(name),
                size: if number == 0 {
                    20 << 20
                } else {
                    number as u64 * 1000
                },
            })
            .collect();
        for threads in [1, 2, 7] {
            let mut found = vec![None; names.len()];
            hash_all(
                &jobs,
                NonZero::new(threads).unwrap(),
                &Watch::default(),
                &mut |job, result| {
                    found[job] = Some(result.unwrap());
                    Ok(())
                },
            )
            .unwrap();
            for (name, found) in names.iter().zip(found) {
                assert_eq!(found, Some(superpose_nar::hash_object(&open, name).unwrap()));
            }
        }
        let missing = Job {
            name: OsStr::new("nowhere"),
            ..jobs[0]
        };
        let mut failures = 0;
        hash_all(
            &[missing],
            NonZero::<usize>::MIN,
            &Watch::default(),
            &mut |_, result| {
                failures += u32::from(result.is_err());
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(failures, 1, "what cannot be read is an answer, too");
    }

    /// Wants to stop as soon as a certain number of bytes is seen.
    #[derive(Debug)]
    struct Impatient(AtomicBool);

    impl Watcher for Impatient {
        fn progress(&self, progress: &Progress) {
            assert_eq!(progress.all_bytes, Some(64 << 20));
            if progress.bytes > 1 << 20 {
                self.0.store(true, Ordering::Relaxed);
            }
        }

        fn wants_to_stop(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_giant_is_given_up_in_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::File::create(dir.path().join("giant"))
            .unwrap()
            .set_len(64 << 20)
            .unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let job = Job {
            directory: open.as_fd(),
            name: OsStr::new("giant"),
            size: 64 << 20,
        };
        for threads in [1, 2] {
            let watch = Watch::new(Arc::new(Impatient(AtomicBool::new(false))));
            let stopped = hash_all(
                &[job],
                NonZero::new(threads).unwrap(),
                &watch,
                &mut |_, result| panic!("no answer, but {result:?}"),
            );
            assert!(matches!(stopped, Err(Error::Stopped)), "{stopped:?}");
        }
    }
}
