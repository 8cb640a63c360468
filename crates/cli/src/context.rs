// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command starts from: the store that is meant, opened in the way that is needed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use superpose_overlay::store_path::{DaemonSettings, StoreKind, StoreReference, StoreSettings};
use superpose_overlay::{
    Durability, Layout, Leftovers, OpenOptions, OverlayLayout, Store, StoreView, Watch, is_interrupted,
};

use crate::arguments::GlobalArguments;
use crate::environment;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::messages;
use crate::progress::{User, Wanted};

/// The options that every command has, and the environment behind them.
#[derive(Debug)]
pub(crate) struct Context {
    global: GlobalArguments,
}

impl Context {
    /// Takes the options, and lets the libraries' warnings be seen.
    pub(crate) fn new(global: GlobalArguments) -> Result<Self> {
        if !global.quiet {
            Log::start(global.verbose);
        }
        Ok(Context { global })
    }

    /// Where the parts of the store are. What is odd about its URL is said on standard error.
    pub(crate) fn layout(&self) -> Result<Layout> {
        let named = self.global.store.clone().or_else(environment::store);
        self.layout_of(named.as_deref().unwrap_or(OsStr::new("auto")))
    }

    /// The same of another store than that of the command.
    pub(crate) fn layout_of(&self, url: &OsStr) -> Result<Layout> {
        // Only a relative path needs it, and the directory may be gone.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let (reference, mut warnings) =
            StoreReference::parse(url.as_bytes(), cwd.as_os_str().as_bytes()).map_err(Error::usage)?;
        let mut more = Vec::new();
        let layout = Layout::resolve_warning(&reference, &environment::defaults()?, &mut more);
        for warning in more {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        if !self.global.quiet {
            warnings.iter().for_each(messages::warning);
        }
        Ok(layout?)
    }

    /// The store of a daemon, if that is what a URL names, or what the command's own names.
    pub(crate) fn daemon_of(&self, url: Option<&OsStr>) -> Result<Option<DaemonSettings>> {
        let named = url
            .map(OsStr::to_owned)
            .or_else(|| self.global.store.clone())
            .or_else(environment::store);
        let Some(url) = named else {
            return Ok(None);
        };
        let (reference, _) = StoreReference::parse(url.as_bytes(), b"/").map_err(Error::usage)?;
        if !matches!(reference.kind(), StoreKind::Daemon { .. }) {
            return Ok(None);
        }
        let (settings, warnings) = reference
            .settings(&environment::defaults()?)
            .map_err(Error::usage)?;
        if !self.global.quiet {
            warnings.iter().for_each(messages::warning);
        }
        Ok(match settings {
            StoreSettings::Daemon(settings) => Some(settings),
            _ => None,
        })
    }

    /// The same for commands that are about the layers and the mount of an overlay store.
    pub(crate) fn overlay_layout(&self) -> Result<OverlayLayout> {
        match self.layout()? {
            Layout::Overlay(overlay) => Ok(overlay),
            Layout::Local(local) => Err(superpose_overlay::Error::NoLayers {
                url: local.reference.to_string(),
            }
            .into()),
            Layout::Daemon(daemon) => Err(superpose_overlay::Error::DaemonStore {
                url: daemon.reference.to_string(),
            }
            .into()),
        }
    }

    /// The store, for questions. A removal that was interrupted is finished first, by whoever may: the mount may show
    /// what is gone until then. What is valid is there in any case, so everybody else gets an answer too.
    ///
    /// It is never closed: the program ends when it has answered, and closing two databases first would be a tenth of
    /// what a short question costs.
    pub(crate) fn view(&self) -> Result<&'static StoreView> {
        self.view_of(self.layout()?)
    }

    /// The same of another store than that of the command.
    pub(crate) fn view_of(&self, layout: Layout) -> Result<&'static StoreView> {
        if let Layout::Overlay(overlay) = &layout
            && is_interrupted(&overlay.settings.state_dir)?
            && let Err(error) = Store::open(layout.clone(), self.open_options()?)
        {
            self.note(format_args!(
                "an interrupted deletion is not finished yet: {error}"
            ));
        }
        Ok(Box::leak(Box::new(StoreView::open_verified(&layout)?)))
    }

    /// The store, for writing.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(self.layout()?, self.open_options()?)?)
    }

    /// The store, for writing that may take long: the user sees how far it has come, and can stop it.
    pub(crate) fn store_for_long_work(&self) -> Result<(Store, Arc<User>)> {
        let (options, user) = self.long_work()?;
        Ok((Store::open(self.layout()?, options)?, user))
    }

    /// The store, to register objects that somebody has put there: none of them is taken for the rest of an addition that was
    /// interrupted.
    pub(crate) fn store_for_registrations(&self) -> Result<(Store, Arc<User>)> {
        let (mut options, user) = self.long_work()?;
        options.leftovers = Leftovers::KeepObjects;
        Ok((Store::open(self.layout()?, options)?, user))
    }

    /// How a store is opened for writing that may take long.
    pub(crate) fn long_work(&self) -> Result<(OpenOptions, Arc<User>)> {
        let user = self.user();
        let mut options = self.open_options()?;
        options.watch = Watch::new(user.clone());
        Ok((options, user))
    }

    /// Whoever started the program, for work that may take long.
    pub(crate) fn user(&self) -> Arc<User> {
        Arc::new(User::new(if self.global.quiet {
            Wanted::No
        } else {
            Wanted::Yes
        }))
    }

    /// How the store is opened for writing.
    pub(crate) fn open_options(&self) -> Result<OpenOptions> {
        let mut options = environment::open_options()?;
        options.wait_limit = self
            .global
            .wait
            .map(|seconds| Duration::from_secs(seconds.into()));
        if self.global.no_sync {
            options.durability = Durability::Unsynced;
        }
        Ok(options)
    }

    /// Says something that is good to know, unless the user wants to hear nothing.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.global.quiet {
            messages::note(&text);
        }
    }

    /// Says something in detail, if the user asked for it.
    pub(crate) fn detail(&self, text: impl std::fmt::Display) {
        if self.global.verbose > 0 {
            messages::note(&text);
        }
    }
}
