// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opened stores, lent for the time of one request: an idle connection has none, and holds no lock of the store.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use superpose_overlay::metadata::{DEFAULT_CACHE_SIZE, MetadataSource};
use superpose_overlay::{Layout, LockWait, OpenOptions, Store, StoreView};

use crate::error::Result;
use crate::options::Access;

/// After how long without use an opened store is closed. Open, it keeps its mount busy and other processes from
/// upgrading its database.
const IDLE: Duration = Duration::from_secs(5);

/// After how long an opened store is closed although it is in use all the time: it may be mounted anew meanwhile.
const AGE: Duration = Duration::from_secs(60);

/// Memory for pages of databases in KiB, all opened stores together. With few clients each store has much of it: a walk over
/// ten thousand paths then reads most pages once. Less than what it has by default a database never gets.
const CACHES: u32 = 36 << 10;

/// Fewer clients than this have no larger share each: what a store gives back later, the process may keep.
const FEW: usize = 2;

/// A store, opened as the server's access allows.
#[derive(Debug)]
pub(crate) enum Opened {
    Store(Box<Store>),
    View(Box<StoreView>),
}

#[derive(Debug)]
struct Kept {
    opened: Opened,
    born: Instant,
    /// Since when nobody uses it.
    since: Instant,
    /// What each of its databases may take for pages, in KiB, if that is known.
    cache: Option<u32>,
}

/// Stores that are open, and how to open more.
#[derive(Debug)]
pub(crate) struct Pool {
    layout: Layout,
    options: OpenOptions,
    access: Access,
    /// How many questions are answered at once; each needs a store of its own, and a processor.
    most_asking: usize,
    /// What each database may take for pages now, in KiB.
    cache: AtomicU32,
    state: Mutex<State>,
    freed: Condvar,
    /// Wakes who calls [`close_idle`](Self::close_idle).
    wake: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Kept>,
    asking: usize,
    /// How many wait for a turn: to wake nobody is a system call too.
    waiting: usize,
    /// Whether somebody will look for idle stores by himself, and need not be woken.
    is_watched: bool,
}

impl Pool {
    pub(crate) fn new(layout: Layout, options: OpenOptions, access: Access, wake: Arc<OwnedFd>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let most_asking = (2 * processors).max(4);
        Self {
            layout,
            options,
            access,
            most_asking,
            cache: AtomicU32::default(),
            state: Mutex::default(),
            freed: Condvar::new(),
            wake,
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How long locks are waited for.
    pub(crate) fn wait(&self) -> LockWait {
        self.options.wait()
    }

    /// Takes note of how many clients there are: the more, the less memory each opened store has.
    pub(crate) fn share_among(&self, clients: usize) {
        let share = share(&self.layout, clients.clamp(FEW, self.most_asking));
        self.cache.store(share.max(DEFAULT_CACHE_SIZE), Ordering::Relaxed);
    }

    /// Asks something that does not take long. Questions of many clients at once wait for each other.
    pub(crate) fn ask<A>(&self, question: impl FnOnce(&Opened) -> Result<A>) -> Result<A> {
        let _turn = self.wait_for_turn();
        let kept = self.take()?;
        let answer = question(&kept.opened);
        self.keep(kept);
        answer
    }

    /// The same for what nobody waits for: `None` if somebody else asks now.
    pub(crate) fn ask_at_leisure<A>(&self, question: impl FnOnce(&Opened) -> Result<A>) -> Option<Result<A>> {
        let is_in_use = self.lock().asking > 0;
        (!is_in_use).then(|| self.ask(question))
    }

    /// Lends a store for work that may take long; it does not count among the questions. `None`: this server only asks.
    pub(crate) fn lend(&self) -> Result<Option<(Box<Store>, Instant)>> {
        if self.access == Access::ReadOnly {
            return Ok(None);
        }
        let Kept { opened, born, .. } = self.take()?;
        match opened {
            Opened::Store(store) => Ok(Some((store, born))),
            Opened::View(_) => Ok(None),
        }
    }

    /// Takes back what was lent.
    pub(crate) fn put(&self, opened: Opened, born: Instant) {
        let since = Instant::now();
        self.keep(Kept {
            opened,
            born,
            since,
            cache: None,
        });
    }

    fn keep(&self, mut kept: Kept) {
        kept.since = Instant::now();
        let mut state = self.lock();
        if state.idle.len() >= self.most_asking || kept.since - kept.born >= AGE {
            return;
        }
        state.idle.push(kept);
        // Of a question on an old connection the server's loop knows nothing: it would sleep, and the store stay open.
        let is_news = !std::mem::replace(&mut state.is_watched, true);
        drop(state);
        if is_news {
            wake(&self.wake);
        }
    }

    /// Closes what was not used for a while; tells whether something is left that will have to be closed, and is to be
    /// looked for again then.
    pub(crate) fn close_idle(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let (closing, staying) = std::mem::take(&mut state.idle)
            .into_iter()
            .partition(|idle| now - idle.since >= IDLE || now - idle.born >= AGE);
        state.idle = staying;
        // What somebody asks at the moment comes back soon: without it, he would have to wake us every time.
        let is_left = !state.idle.is_empty() || state.asking > 0;
        state.is_watched = is_left;
        drop(state);
        // Closing takes a while; nobody waits for it.
        drop::<Vec<Kept>>(closing);
        is_left
    }

    fn take(&self) -> Result<Kept> {
        // The one that was used last: what is not needed grows old.
        let idle = self.lock().idle.pop();
        let mut kept = match idle {
            Some(kept) => kept,
            None => self.open()?,
        };
        let cache = self.cache.load(Ordering::Relaxed);
        if kept.cache != Some(cache) {
            kept.opened.set_cache_size(cache)?;
            kept.cache = Some(cache);
        }
        Ok(kept)
    }

    fn open(&self) -> Result<Kept> {
        let opened = match self.access {
            Access::ReadWrite => {
                Opened::Store(Box::new(Store::open(self.layout.clone(), self.options.clone())?))
            }
            Access::ReadOnly => Opened::View(Box::new(StoreView::open_verified(&self.layout)?)),
        };
        let born = Instant::now();
        Ok(Kept {
            opened,
            born,
            since: born,
            cache: None,
        })
    }

    fn wait_for_turn(&self) -> Turn<'_> {
        let mut state = self.lock();
        while state.asking >= self.most_asking {
            state.waiting += 1;
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.asking += 1;
        Turn { pool: self }
    }

    /// Nothing is half done while it is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What each database of a store may take for pages if so many stores are open, in KiB.
fn share(layout: &Layout, stores: usize) -> u32 {
    let mut databases = 1;
    let mut store = layout;
    while let Layout::Overlay(overlay) = store {
        databases += 1;
        store = &overlay.lower;
    }
    u32::try_from(stores.max(1) * databases).map_or(0, |databases| CACHES / databases)
}

/// Wakes whoever waits at an event descriptor.
pub(crate) fn wake(event: &OwnedFd) {
    // It fails only when it is full, and then whoever waits wakes up anyway.
    rustix::io::write(event, &1_u64.to_ne_bytes()).ok();
}

/// Somebody may ask.
struct Turn<'p> {
    pool: &'p Pool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.asking -= 1;
        let is_wanted = state.waiting > 0;
        drop(state);
        if is_wanted {
            self.pool.freed.notify_one();
        }
    }
}

impl Opened {
    fn set_cache_size(&self, kibibytes: u32) -> Result<()> {
        match self {
            Self::Store(store) => store.set_cache_size(kibibytes)?,
            Self::View(view) => view.set_cache_size(kibibytes)?,
        }
        Ok(())
    }

    /// Asks what is known of paths.
    pub(crate) fn with<A>(&self, question: impl FnOnce(&dyn MetadataSource) -> A) -> A {
        match self {
            Self::Store(store) => question(&store.metadata()),
            Self::View(view) => question(view.as_ref()),
        }
    }
}
