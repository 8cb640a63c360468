// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a log of writes is cut, and what of it was on the disk then. All of it follows from a seed and the log.
//!
//! Which step was acknowledged: the guest writes the number of a step after all its programs have ended, that is, after the last
//! flush that the step waited for, and before it begins the next step.
//!
//! - Everything up to a flush, or up to any entry behind it, is a state of the disk in which the last number among those entries
//!   had been written: that step counts, and nothing is there of the step after the next.
//! - Of the writes between two flushes any may be there and any not. A number among them was written after its step had waited
//!   for all its flushes, which so are earlier: its step counts, whether the number itself arrived or not.

use super::write_log::WriteLog;

/// A generator of numbers (`SplitMix64`).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// What of a log was on the disk when the power went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrashPoint {
    /// So many entries from the beginning.
    whole: usize,
    /// And these.
    more: Vec<usize>,
    /// The step that was acknowledged last.
    pub(crate) acknowledged: u64,
    /// How it was chosen, for messages.
    pub(crate) name: String,
}

impl CrashPoint {
    /// The numbers of the entries, in their order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = usize> {
        (0..self.whole).chain(self.more.iter().copied())
    }
}

/// Chooses crash points, at most `count` and each only once: a third each at a flush, between two, and with some of the
/// writes between two. None lies before the work began.
pub(crate) fn choose(log: &WriteLog, seed: u64, count: usize) -> Vec<CrashPoint> {
    let entries = &log.entries;
    let Some(begun) = entries.iter().position(|entry| entry.acknowledges.is_some()) else {
        return Vec::new();
    };
    let flushes: Vec<usize> = (begun..entries.len())
        .filter(|&number| entries[number].is_flush())
        .collect();
    if flushes.is_empty() {
        return Vec::new();
    }
    let acknowledged = |end: usize| {
        let last = entries[..end].iter().rev().find_map(|entry| entry.acknowledges);
        last.unwrap_or(0)
    };
    let mut chance = Chance::new(seed);
    let mut points: Vec<CrashPoint> = Vec::new();
    // A short log has not so many.
    for try_number in 0..count * 20 {
        if points.len() == count {
            break;
        }
        let chosen = usize::try_from(chance.below(flushes.len() as u64)).unwrap_or(0);
        let flush = flushes[chosen];
        let next = flushes.get(chosen + 1).copied().unwrap_or(entries.len());
        let between = flush + 1..next;
        let point = match try_number % 3 {
            _ if between.is_empty() => CrashPoint {
                whole: flush + 1,
                more: Vec::new(),
                acknowledged: acknowledged(flush + 1),
                name: format!("flush {flush}"),
            },
            0 => CrashPoint {
                whole: flush + 1,
                more: Vec::new(),
                acknowledged: acknowledged(flush + 1),
                name: format!("flush {flush}"),
            },
            1 => {
                let more = 1 + usize::try_from(chance.below(between.len() as u64)).unwrap_or(0);
                CrashPoint {
                    whole: flush + 1 + more,
                    more: Vec::new(),
                    acknowledged: acknowledged(flush + 1 + more),
                    name: format!("flush {flush} and {more} of {} writes", between.len()),
                }
            }
            _ => {
                let more: Vec<usize> = between.clone().filter(|_| chance.below(2) == 0).collect();
                CrashPoint {
                    whole: flush + 1,
                    acknowledged: acknowledged(next),
                    name: format!("flush {flush} and the writes {more:?} of {}", between.len()),
                    more,
                }
            }
        };
        if !points
            .iter()
            .any(|other| (other.whole, &other.more) == (point.whole, &point.more))
        {
            points.push(point);
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::integration::write_log::tests::{Dir, Writer};

    const SECTORS: u64 = 64;

    fn log(dir: &Dir) -> WriteLog {
        let mut writer = Writer::new();
        writer.write(1, 1);
        writer.flush();
        for step in 0..4 {
            writer.acknowledge(step, SECTORS);
            for sector in 2..6 {
                writer.write(sector, u8::try_from(step).unwrap());
            }
            writer.flush();
        }
        WriteLog::open(&dir.write("log", &writer.finish()), SECTORS * 512).unwrap()
    }

    #[test]
    fn a_seed_chooses_the_same_points_again_and_none_before_the_work() {
        let dir = Dir::new("crash-points");
        let log = log(&dir);
        let points = choose(&log, 1, 30);
        assert!(points.len() > 10);
        assert_eq!(points, choose(&log, 1, 30));
        assert_ne!(points, choose(&log, 2, 30));
        for point in &points {
            let first = log
                .entries
                .iter()
                .position(super::super::write_log::Entry::is_flush);
            assert!(point.whole > first.unwrap() + 1, "{point:?}");
        }
    }

    #[test]
    fn what_is_acknowledged_is_what_was_written_before() {
        let dir = Dir::new("crash-point-numbers");
        let log = log(&dir);
        for point in choose(&log, 3, 40) {
            let last = point
                .entries()
                .filter_map(|number| log.entries[number].acknowledges)
                .last();
            // Of some writes between two flushes the number may not be among them.
            let missed = u64::from(last != Some(point.acknowledged));
            assert_eq!(last.unwrap() + missed, point.acknowledged, "{point:?}");
            assert!(missed == 0 || point.name.contains("the writes"), "{point:?}");
        }
    }

    #[test]
    fn a_log_without_work_has_no_points() {
        let dir = Dir::new("crash-points-none");
        let mut writer = Writer::new();
        writer.write(1, 1);
        writer.flush();
        let log = WriteLog::open(&dir.write("log", &writer.finish()), SECTORS * 512).unwrap();
        assert!(choose(&log, 1, 10).is_empty());
    }
}
