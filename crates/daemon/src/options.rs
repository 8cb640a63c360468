// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a store is served.

use std::time::Duration;

use crate::delegate::Delegate;
use crate::peer::UserList;

/// What clients may do to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// All that their trust allows.
    #[default]
    ReadWrite,
    /// Ask. The store itself is opened for reading only, so that nothing that a client sends can change it.
    ReadOnly,
}

/// Most connections that a server can be told to take. Each may need a file of temporary roots of its own, and one process
/// can have 511 of them.
pub const MAX_CONNECTIONS: usize = 500;

/// How a store is served.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// What clients may do to the store.
    pub access: Access,
    /// How many connections are served at once; at most [`MAX_CONNECTIONS`]. Further ones wait. Users who are not trusted get
    /// half of them each, so that none of them keeps out the rest.
    pub max_connections: usize,
    /// Who is trusted.
    pub trusted_users: UserList,
    /// Who may connect besides.
    pub allowed_users: UserList,
    /// The group of the users that builds run as, who may never connect: a build must not ask for another one.
    pub build_users_group: Option<String>,
    /// Who builds and fetches, if anybody does.
    pub delegate: Option<Delegate>,
    /// How long a client has to introduce itself.
    pub greeting_limit: Duration,
    /// How long a request may take to arrive, without the stream behind it. Idle connections may be idle for ever.
    pub request_limit: Duration,
    /// How long a client may neither send what it announced nor take what it asked for.
    pub stall_limit: Duration,
    /// How long requests in work have to end when the server is stopped.
    pub grace: Duration,
    /// Bytes that large requests and replies of all clients may hold together. What is below 256 KiB is not counted.
    pub large_messages: u64,
    /// How many paths are kept for one client, with all that it adds and refers to. They are in memory, and in a file that every
    /// collector reads.
    pub max_temp_roots: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            access: Access::default(),
            max_connections: 256,
            trusted_users: UserList::root_and_self(),
            allowed_users: UserList::everybody(),
            build_users_group: Some("nixbld".to_owned()),
            delegate: None,
            greeting_limit: Duration::from_secs(20),
            request_limit: Duration::from_secs(60),
            stall_limit: Duration::from_secs(600),
            grace: Duration::from_secs(60),
            large_messages: 128 << 20,
            max_temp_roots: 1 << 20,
        }
    }
}

impl ServeOptions {
    /// How many connections users who are not trusted get each.
    pub(crate) fn share(&self) -> usize {
        (self.max_connections / 2).max(1)
    }

    /// How often something that waits looks at the clock.
    pub(crate) fn tick(&self) -> Duration {
        [self.greeting_limit, self.request_limit, self.stall_limit]
            .into_iter()
            .fold(Duration::from_secs(10), Duration::min)
            .max(Duration::from_millis(1))
    }
}
