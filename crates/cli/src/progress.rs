// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far long work has come, and how the user stops it.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use superpose_overlay::{Doing, Progress, Watcher};

use crate::messages;
use crate::size_text::size_text;

/// Redrawing more often than 20 times a second helps nobody.
const INTERVAL: Duration = Duration::from_millis(50);

/// Where lines cannot be drawn over, one in this time says that the work goes on.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// A rate and the time that is left mean nothing in the first moments.
const SETTLED: Duration = Duration::from_secs(2);

/// Whoever started the program, at a terminal or reading its standard error.
#[derive(Debug)]
pub(crate) struct User {
    look: Look,
    /// Set by SIGINT and SIGTERM. A second signal ends the process at once.
    stop: Option<Arc<AtomicBool>>,
    drawn: Mutex<Drawn>,
}

/// In what form progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// One line that is drawn over and over.
    Line,
    /// A line from time to time.
    Plain,
    /// Not at all.
    Nothing,
}

#[derive(Debug, Default)]
struct Drawn {
    /// When the work that is shown began, and which it is.
    begun: Option<(Doing, Instant)>,
    last: Option<Instant>,
    is_on_screen: bool,
}

/// Whether the user wants to see progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Yes.
    Yes,
    /// No: `--quiet`.
    No,
}

impl User {
    /// Begins to listen to signals; to be called once, before long work.
    pub(crate) fn new(wanted: Wanted) -> Self {
        let look = match wanted {
            Wanted::No => Look::Nothing,
            Wanted::Yes if messages::is_terminal() => Look::Line,
            Wanted::Yes => Look::Plain,
        };
        User {
            look,
            stop: stop_flag(),
            drawn: Mutex::default(),
        }
    }

    /// Takes the line away, so that what follows has the screen for itself.
    pub(crate) fn clear(&self) {
        if let Ok(mut drawn) = self.drawn.lock()
            && std::mem::take(&mut drawn.is_on_screen)
        {
            io::stderr().write_all(b"\r\x1b[K").ok();
        }
    }

    fn show(&self, progress: &Progress) {
        let interval = match self.look {
            Look::Nothing => return,
            Look::Line => INTERVAL,
            Look::Plain => PLAIN_INTERVAL,
        };
        // Another thread is drawing: it says about the same.
        let Ok(mut drawn) = self.drawn.try_lock() else {
            return;
        };
        let now = Instant::now();
        let begun = match drawn.begun {
            Some((doing, begun)) if doing == progress.doing => begun,
            _ => {
                drawn.begun = Some((progress.doing, now));
                drawn.last = (self.look == Look::Plain).then_some(now);
                now
            }
        };
        if drawn.last.is_some_and(|last| now - last < interval) {
            return;
        }
        drawn.last = Some(now);
        let text = describe(progress, now - begun);
        if self.look == Look::Line {
            drawn.is_on_screen = true;
            // Lost if it cannot be written, as every message.
            write!(io::stderr(), "\r\x1b[K{text}").ok();
        } else {
            messages::note(&text);
        }
    }
}

impl Watcher for User {
    fn progress(&self, progress: &Progress) {
        self.show(progress);
    }

    fn wants_to_stop(&self) -> bool {
        self.stop
            .as_ref()
            .is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The flag that signals set, made at the first call. Where signals cannot be listened to, they end the process.
fn stop_flag() -> Option<Arc<AtomicBool>> {
    static FLAG: OnceLock<Option<Arc<AtomicBool>>> = OnceLock::new();
    FLAG.get_or_init(|| {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the second signal finds the flag set, and ends the process as if nobody listened.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop)).ok()?;
            signal_hook::flag::register(signal, Arc::clone(&stop)).ok()?;
        }
        Some(stop)
    })
    .clone()
}

/// Says how far the work has come: count, bytes, and once it is known, rate and time left.
fn describe(progress: &Progress, elapsed: Duration) -> String {
    let mut text = format!("[{}/{}] {}", progress.done, progress.all, progress.doing);
    if progress.bytes > 0 {
        text.push_str(&format!(", {}", size_text(progress.bytes)));
    }
    if elapsed < SETTLED || progress.done == 0 {
        return text;
    }
    let seconds = elapsed.as_secs_f64();
    if progress.bytes > 0 {
        // Truncated: nobody reads a rate to the byte.
        let rate = (progress.bytes as f64 / seconds) as u64;
        text.push_str(&format!(", {}/s", size_text(rate)));
    } else {
        text.push_str(&format!(", {:.0}/s", progress.done as f64 / seconds));
    }
    let share = match progress.all_bytes {
        Some(all) if all > 0 => progress.bytes as f64 / all as f64,
        _ => progress.done as f64 / progress.all.max(1) as f64,
    };
    if share > 0.0 && share < 1.0 {
        let left = seconds * (1.0 - share) / share;
        text.push_str(&format!(", {} left", time_text(left)));
    }
    text
}

fn time_text(seconds: f64) -> String {
    // Truncated: an estimate.
    let seconds = seconds.ceil().min(1e9) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(done: u64, all: u64, bytes: u64, all_bytes: Option<u64>, seconds: u64, expected: &str) {
        let mut progress = Progress::new(Doing::Hashing, all);
        (progress.done, progress.bytes, progress.all_bytes) = (done, bytes, all_bytes);
        assert_eq!(describe(&progress, Duration::from_secs(seconds)), expected);
    }

    #[test]
    fn rate_and_time_left_are_said_when_they_mean_something() {
        check(0, 10, 0, None, 0, "[0/10] hashing objects");
        check(5, 10, 4 << 20, None, 1, "[5/10] hashing objects, 4.0 MiB");
        check(
            5,
            10,
            40 << 20,
            None,
            10,
            "[5/10] hashing objects, 40.0 MiB, 4.0 MiB/s, 10 s left",
        );
        check(
            5,
            10,
            1 << 20,
            Some(64 << 20),
            10,
            "[5/10] hashing objects, 1.0 MiB, 102.4 KiB/s, 10 min 30 s left",
        );
        check(
            500,
            1000,
            0,
            None,
            100,
            "[500/1000] hashing objects, 5/s, 1 min 40 s left",
        );
        check(10, 10, 0, None, 10, "[10/10] hashing objects, 1/s");
    }

    #[test]
    fn times_are_in_the_fitting_unit() {
        for (seconds, expected) in [
            (0.2, "1 s"),
            (59.0, "59 s"),
            (61.0, "1 min 1 s"),
            (7_260.0, "2 h 1 min"),
        ] {
            assert_eq!(time_text(seconds), expected);
        }
    }
}
