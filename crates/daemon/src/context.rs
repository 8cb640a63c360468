// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the handler of a request works with.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use superpose_overlay::metadata::MetadataSource;
use superpose_overlay::store_path::{StoreDir, StorePath};
use superpose_overlay::{Layout, Protection, Store, Watch};
use superpose_worker_protocol::{ClientOptions, Dialect, Operation, Reply, Request, Trust};

use crate::budget::Share;
use crate::delegate::Delegated;
use crate::error::{Error, Result};
use crate::link::Link;
use crate::logger::Logger;
use crate::options::Access;
use crate::pool::Opened;
use crate::server::Shared;
use crate::watch::ClientWatch;

/// One client: what it may, what it wants, what is kept for it.
#[derive(Debug)]
pub(crate) struct Context {
    shared: Arc<Shared>,
    link: Arc<Link>,
    /// What was agreed on.
    pub(crate) dialect: Dialect,
    /// Whether the client is trusted.
    pub(crate) trust: Trust,
    /// What the client wants of the connection, as far as it may.
    pub(crate) options: ClientOptions,
    /// Tells the client what goes on.
    pub(crate) logger: Logger,
    /// What is kept for the client until the connection ends; made when it is needed.
    protection: Option<Arc<Protection>>,
    /// The Nix that builds and fetches for this client, once it was needed. What it keeps it keeps as long.
    delegated: Option<Delegated>,
    /// Whether the client was told that nothing is kept for it.
    pub(crate) knows_no_protection: bool,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        link: Arc<Link>,
        dialect: Dialect,
        trust: Trust,
        logger: Logger,
    ) -> Self {
        Self {
            shared,
            link,
            dialect,
            trust,
            options: ClientOptions::default(),
            logger,
            protection: None,
            delegated: None,
            knows_no_protection: false,
        }
    }

    /// Where the parts of the store are.
    pub(crate) fn layout(&self) -> &Layout {
        self.shared.pool.layout()
    }

    /// The logical store directory.
    pub(crate) fn store_dir(&self) -> &StoreDir {
        &self.dialect.store_dir
    }

    /// Refuses to others than trusted clients what would let them decide for all users.
    pub(crate) fn require_trust(&self, what: &'static str) -> Result<()> {
        match self.trust {
            Trust::Trusted => Ok(()),
            Trust::NotTrusted | Trust::Unknown => Err(Error::NotTrusted { what }),
        }
    }

    /// Asks the store something that does not take long.
    pub(crate) fn ask<A>(&self, question: impl FnOnce(&dyn MetadataSource) -> Result<A>) -> Result<A> {
        self.shared.pool.ask(|opened| opened.with(question))
    }

    /// The same for what nobody waits for: `None` if the store is in use.
    pub(crate) fn ask_at_leisure<A>(
        &self,
        question: impl FnOnce(&dyn MetadataSource) -> Result<A>,
    ) -> Option<Result<A>> {
        self.shared.pool.ask_at_leisure(|opened| opened.with(question))
    }

    /// Asks the opened store itself something that does not take long.
    pub(crate) fn ask_opened<A>(&self, question: impl FnOnce(&Opened) -> Result<A>) -> Result<A> {
        self.shared.pool.ask(question)
    }

    /// Lends the store for `operation`, which changes it or takes long. What it uses is kept for this client from then
    /// on, and it stops when the client goes or the server has to end.
    pub(crate) fn store(&mut self, operation: Operation) -> Result<Borrowed> {
        let (mut store, born) = self.shared.pool.lend()?.ok_or(Error::ReadOnly { operation })?;
        let limit = self.shared.options.max_temp_roots;
        let protection = (self.protection).get_or_insert_with(|| store.new_protection(limit));
        store.protect_with(Arc::clone(protection));
        store.watch_with(Watch::new(Arc::new(ClientWatch::new(
            Arc::clone(&self.link),
            Arc::clone(&self.shared),
            self.logger.clone(),
        ))));
        Ok(Borrowed {
            shared: Arc::clone(&self.shared),
            lent: Some((store, born)),
        })
    }

    /// Protects paths until the connection ends. Needs no store, but for the first time.
    pub(crate) fn protect(&mut self, paths: &[StorePath]) -> Result<()> {
        if self.protection.is_none() {
            let limit = self.shared.options.max_temp_roots;
            let made = self.shared.pool.ask(|opened| match opened {
                Opened::Store(store) => Ok(Some(store.new_protection(limit))),
                Opened::View(_) => Ok(None),
            })?;
            self.protection = made;
        }
        match &self.protection {
            Some(protection) => Ok(protection.add(paths, self.shared.pool.wait())?),
            None => Err(Error::ReadOnly {
                operation: Operation::AddTempRoot,
            }),
        }
    }

    /// Whether somebody builds and fetches for clients.
    pub(crate) fn delegates(&self) -> bool {
        self.shared.options.delegate.is_some() && self.access() == Access::ReadWrite
    }

    /// Has a request answered by the Nix that builds and fetches. What it makes is seen at once: it writes through the same
    /// mount and the same database, and whatever looks at them here looks anew for each request.
    pub(crate) fn delegate(&mut self, request: &Request) -> Result<Reply> {
        let Some(delegate) = self.shared.options.delegate.as_ref() else {
            return Err(Error::NotServed {
                operation: request.operation(),
            });
        };
        let mut delegated = match self.delegated.take() {
            Some(delegated) => delegated,
            None => {
                let url = self.layout().reference().to_string();
                Delegated::start(delegate, &url, self.store_dir().clone(), self.trust)?
            }
        };
        let (shared, link, logger) = (&self.shared, &self.link, &self.logger);
        let answer = delegated.forward(
            request,
            &self.options,
            |frame| logger.frame(&frame),
            || shared.is_cut.load(Ordering::Relaxed) || link.has_hung_up(),
        )?;
        // After an error of the connection it is of no use, and was dropped.
        self.delegated = Some(delegated);
        answer.map_err(|report| Error::Delegated(Box::new(report)))
    }

    /// Whether the store may be changed at all.
    pub(crate) fn access(&self) -> Access {
        self.shared.options.access
    }

    /// A share of what there is for large messages.
    pub(crate) fn share(&self) -> Share {
        Share::new(Arc::clone(&self.shared.budget))
    }
}

/// A store that is lent to one request.
#[derive(Debug)]
pub(crate) struct Borrowed {
    shared: Arc<Shared>,
    lent: Option<(Box<Store>, Instant)>,
}

impl Deref for Borrowed {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.lent.as_ref().expect("taken only when dropped").0
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.lent.as_mut().expect("taken only when dropped").0
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some((mut store, born)) = self.lent.take()
            // What somebody panicked with is not used again.
            && !std::thread::panicking()
        {
            // The client's own is the client's: nothing of it stays with the store.
            let own = store.new_protection(self.shared.options.max_temp_roots);
            store.protect_with(own);
            store.watch_with(Watch::default());
            self.shared.pool.put(Opened::Store(store), born);
        }
    }
}
