// SPDX-License-Identifier: MIT OR Apache-2.0
//! Long work as the client sees it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use superpose_overlay::{Doing, Progress, Watcher};
use superpose_worker_protocol::{ActivityType, Level};

use crate::link::Link;
use crate::logger::{Logger, Running};
use crate::server::Shared;

/// Clients redraw their line some twenty times a second.
const INTERVAL: Duration = Duration::from_millis(50);

/// Tells the client how far long work is, and stops it when the client goes or the server has to end.
#[derive(Debug)]
pub(crate) struct ClientWatch {
    link: Arc<Link>,
    shared: Arc<Shared>,
    logger: Logger,
    shown: Mutex<Option<Shown>>,
}

#[derive(Debug)]
struct Shown {
    doing: Doing,
    running: Running,
    last: Instant,
    /// How much there was to do when it began. Of a stream that is not known, and grows with what is done.
    announced: u64,
}

impl ClientWatch {
    pub(crate) fn new(link: Arc<Link>, shared: Arc<Shared>, logger: Logger) -> Self {
        Self {
            link,
            shared,
            logger,
            shown: Mutex::default(),
        }
    }
}

impl Watcher for ClientWatch {
    fn progress(&self, progress: &Progress) {
        // Another thread tells about the same.
        let Ok(mut shown) = self.shown.try_lock() else {
            return;
        };
        let now = Instant::now();
        if shown.as_ref().is_none_or(|shown| shown.doing != progress.doing) {
            // What was done before ends first.
            *shown = None;
            let text = progress.doing.to_string();
            *shown = Some(Shown {
                doing: progress.doing,
                running: self
                    .logger
                    .start(Level::Info, kind_of(progress.doing), &text, Vec::new()),
                last: now,
                announced: progress.all,
            });
        }
        if let Some(shown) = shown.as_mut()
            && (now - shown.last >= INTERVAL
                || (progress.done == progress.all && progress.all == shown.announced))
        {
            shown.last = now;
            shown.running.progress(progress.done, progress.all);
        }
    }

    fn wants_to_stop(&self) -> bool {
        self.shared.is_cut.load(Ordering::Relaxed) || self.link.has_hung_up()
    }
}

/// What the client's line of progress has a place for.
fn kind_of(doing: Doing) -> ActivityType {
    match doing {
        Doing::Hashing | Doing::Repairing => ActivityType::VerifyPaths,
        Doing::Comparing | Doing::Searching | Doing::Linking => ActivityType::OptimiseStore,
        Doing::Copying => ActivityType::CopyPaths,
        _ => ActivityType::Unknown,
    }
}
