// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory large requests and replies may hold, all clients together.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// What a message may have without being counted: all but a few are much smaller.
const FREE: u64 = 256 << 10;

/// What there is for all.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    taken: Mutex<u64>,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            taken: Mutex::new(0),
        })
    }
}

/// What one message has of it. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// How long the message is so far.
    length: u64,
}

impl Share {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, length: 0 }
    }

    /// Takes more.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<()> {
        let length = self.length.saturating_add(bytes);
        let more = length.saturating_sub(FREE) - self.length.saturating_sub(FREE);
        if more > 0 {
            let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if taken.saturating_add(more) > self.budget.limit {
                return Err(Error::Busy {
                    limit: self.budget.limit,
                });
            }
            *taken += more;
        }
        self.length = length;
        Ok(())
    }

    /// Gives some of it back.
    pub(crate) fn give(&mut self, bytes: u64) {
        let length = self.length.saturating_sub(bytes);
        let less = self.length.saturating_sub(FREE) - length.saturating_sub(FREE);
        if less > 0 {
            *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= less;
        }
        self.length = length;
    }

    /// Gives everything back.
    pub(crate) fn give_back(&mut self) {
        self.give(self.length);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_free_and_large_ones_share() {
        let budget = Budget::new(1000);
        let mut one = Share::new(Arc::clone(&budget));
        let mut other = Share::new(Arc::clone(&budget));
        one.take(FREE).unwrap();
        one.take(800).unwrap();
        other.take(FREE + 200).unwrap();
        assert!(matches!(other.take(1), Err(Error::Busy { limit: 1000 })));
        // What was refused was not taken.
        one.give(800);
        other.take(800).unwrap();
        other.give(900);
        assert_eq!(*budget.taken.lock().unwrap(), 100);
        one.take(700).unwrap();
        other.take(100).unwrap();
        one.give_back();
        other.take(800).unwrap();
        assert!(other.take(u64::MAX).is_err());
        drop(other);
        drop(one);
        assert_eq!(*budget.taken.lock().unwrap(), 0);
    }
}
