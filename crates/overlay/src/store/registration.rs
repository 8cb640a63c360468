// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registering what a text says is in the store.

use std::ffi::OsStr;

use rustix::fs;
use superpose_metadata::{MetadataSource, PathInfo, Registration};
use superpose_store_path::StorePath;

use super::open::Durability;
use super::{Registered, Store};
use crate::upper_layer::Entry;
use crate::{Error, Result};

/// What becomes of paths that are valid already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Presence {
    /// They are left alone.
    #[default]
    Keep,
    /// They are registered again, with what the text says.
    Update,
}

/// How objects are registered that are in the store directory.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RegisterOptions {
    /// What becomes of paths that are valid already.
    pub presence: Presence,
}

impl Store {
    /// Records as valid what a text says, in one transaction, as `nix-store --load-db` does. The objects are not looked
    /// at: whether they are there is told by [`Store::verify`].
    ///
    /// # Errors
    /// As [`Store::register`]; nothing is written then.
    ///
    /// # Deviation
    /// The text does not say who signed a path, how it follows from its content and whether it was built here. Nix
    /// forgets that of a path that is valid already; here it stays as long as the archive stays the same.
    pub fn load(&mut self, registrations: Vec<Registration>) -> Result<Registered> {
        let paths: Vec<StorePath> = registrations.iter().map(|one| one.path.clone()).collect();
        let infos = self.infos_of(registrations, &paths)?;
        self.register_durably(&infos)
    }

    /// Records objects that are in the store directory as valid, in one transaction, as `nix-store --register-validity`
    /// does: they get the metadata of objects, and are hashed where the text does not say what they are.
    ///
    /// An object that lies only below is never touched, in whichever state it is.
    ///
    /// # Durability
    /// Objects are made durable before their rows, with one sync for all of them.
    ///
    /// # Errors
    /// An object that is not there; as [`Store::register`]. Nothing is registered then.
    pub fn register_objects(
        &mut self,
        mut registrations: Vec<Registration>,
        options: &RegisterOptions,
    ) -> Result<Registered> {
        let mut paths: Vec<StorePath> = registrations.iter().map(|one| one.path.clone()).collect();
        self.add_temp_roots(&paths)?;
        if options.presence == Presence::Keep {
            let valid = self.valid_in(&paths)?;
            let mut layers = valid.iter();
            registrations.retain(|_| layers.next().is_some_and(Option::is_none));
            paths = registrations.iter().map(|one| one.path.clone()).collect();
        }
        if registrations.is_empty() {
            return Ok(Registered::default());
        }
        let mut own = 0;
        for registration in &mut registrations {
            self.options.watch.go_on()?;
            let name = OsStr::new(registration.path.base_name());
            if self.is_own(name)? {
                superpose_nar::canonicalise(self.real.fd(), name)
                    .map_err(|source| self.cannot_register(name, source))?;
                own += 1;
            }
            if registration.archive.is_none() {
                let found = superpose_nar::hash_object(self.real.fd(), name)
                    .map_err(|source| self.cannot_register(name, source))?;
                registration.archive = Some((found.hash, found.size));
            }
        }
        if own > 0 && self.options.durability == Durability::Synced {
            fs::syncfs(self.real.fd())
                .map_err(|source| Error::io("sync the file system of", self.real.path(), source))?;
        }
        let infos = self.infos_of(registrations, &paths)?;
        self.register_durably(&infos)
    }

    fn register_durably(&mut self, infos: &[PathInfo]) -> Result<Registered> {
        let registered = self.register(infos)?;
        if self.options.durability == Durability::Synced {
            self.database.sync()?;
        }
        Ok(registered)
    }

    /// Whether an object is in the layer that this store may write to. One that is nowhere counts too: the error about
    /// it says so.
    fn is_own(&self, name: &OsStr) -> Result<bool> {
        match &self.below {
            None => Ok(true),
            Some(below) => Ok(below.upper.entry(name)? == Entry::Object || !below.lies_below(name)?),
        }
    }

    fn cannot_register(&self, name: &OsStr, source: superpose_nar::Error) -> Error {
        Error::CannotRegister {
            path: self.real.path().join(name),
            source: Box::new(source),
        }
    }

    /// What is to be recorded: what the text says, and of valid paths what it cannot say.
    fn infos_of(&self, registrations: Vec<Registration>, paths: &[StorePath]) -> Result<Vec<PathInfo>> {
        let known = self.metadata().path_infos(paths)?;
        let mut infos = Vec::with_capacity(registrations.len());
        for (registration, known) in registrations.into_iter().zip(known) {
            let Registration {
                path,
                archive,
                deriver,
                references,
            } = registration;
            let (nar_hash, nar_size) = archive.ok_or_else(|| Error::NoArchiveHash {
                path: self.dir().join(&path),
            })?;
            let mut info = PathInfo {
                references,
                deriver,
                ..PathInfo::new(path, nar_hash, nar_size)
            };
            if let Some(known) = known.filter(|known| known.nar_hash == nar_hash) {
                info.signatures = known.signatures;
                info.content_address = known.content_address;
                info.ultimate = known.ultimate;
            }
            infos.push(info);
        }
        Ok(infos)
    }
}
