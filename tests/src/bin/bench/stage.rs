// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the measurements are made on: the generated stores, the databases that runs start from, and what is added.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};
use superpose_tests::{Scratch, Seeded, StockDaemon};

use crate::Options;
use crate::cases::{Inputs, Lower, Place, Sizes, Upper};
use crate::generate::{Generated, make_upper};
use crate::layers::{Layers, remove};
use crate::measure::Program;
use crate::objects::write_large;
use crate::stock::Stock;

/// Bytes of each of many files: most files of packages are about as small.
const SMALL_FILE: usize = 1500;

/// Stores on disk, which stay for the next time, and in memory, which go with this value.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) work: PathBuf,
    pub(crate) memory: Scratch,
    pub(crate) stores: [Generated; 3],
    pub(crate) inputs: Inputs,
    in_memory: Generated,
    /// The program of a stock daemon.
    daemon: PathBuf,
}

fn stores(work: &Path, sizes: Sizes) -> [Generated; 3] {
    sizes.stores.map(|count| {
        Generated::new(
            &work.join(format!("store-{count}")),
            count,
            &sizes.closures(count),
        )
    })
}

/// Makes those stores that are not there yet, and lets stock Nix accept each of them.
pub(crate) fn make_stores(options: &Options) -> Result<()> {
    let stock = Stock::at(&options.stock)?;
    for store in stores(&options.work, options.sizes()) {
        if store.is_made() {
            continue;
        }
        eprintln!("making a store of {} objects", store.count);
        store.make()?;
        accept(&stock, &store)?;
    }
    Ok(())
}

/// Stock Nix opens the store for writing once: it checks what is there, and makes the directories without which it
/// would refuse to read it.
fn accept(stock: &Stock, store: &Generated) -> Result<()> {
    let root = superpose_store_path::StoreDir::default().join(&store.root_of(store.count));
    let program = stock.program("nix-store").with(&[
        "--store".into(),
        store.root.clone().into(),
        "--check-validity".into(),
        root.into(),
    ]);
    let status = status(&program)?;
    ensure!(
        status.success(),
        "stock Nix does not accept {}: {status}",
        store.root.display()
    );
    Ok(())
}

fn status(program: &Program) -> Result<ExitStatus> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.args)
        .envs(program.env.clone())
        .env_remove("NIX_REMOTE");
    command
        .status()
        .with_context(|| format!("starting {}", program.path.display()))
}

impl Stage {
    /// Makes everything that is not there yet.
    pub(crate) fn make(options: &Options) -> Result<Self> {
        fs::create_dir_all(&options.work)?;
        generate(options)?;
        let sizes = options.sizes();
        let memory = Scratch::in_memory()?;
        let in_memory = Generated::new(&memory.join("lower"), 100, &[]);
        let inputs = Inputs {
            large: memory.join("large"),
            many: memory.join("many"),
        };
        if options.wants("add-large") || options.wants("add-many") {
            in_memory.make()?;
            accept(&Stock::at(&options.stock)?, &in_memory)?;
        }
        if options.wants("add-large") {
            write_large(&inputs.large, sizes.large, sizes.large)?;
        }
        if options.wants("add-many") {
            write_many(&inputs.many, sizes.many)?;
        }
        Ok(Self {
            stores: stores(&options.work, sizes),
            work: options.work.clone(),
            memory,
            inputs,
            in_memory,
            daemon: options.stock.join("bin/nix-daemon"),
        })
    }

    /// Makes an overlay store.
    pub(crate) fn layers(&self, name: &str, place: Place, upper: &Upper) -> Result<Layers> {
        let (base, lower) = match place {
            Place::Over(lower) | Place::Of(lower) | Place::Served(lower) => {
                (self.work.as_path(), self.store(lower))
            }
            Place::Memory => (self.memory.path(), &self.in_memory),
        };
        let pristine = base.join(format!("{name}.pristine"));
        remove(&pristine)?;
        make_upper(&pristine, lower, upper)?;
        let destination = self.memory.join(format!("{name}.copied"));
        Layers::make(&base.join(name), lower, upper, &pristine, &destination)
    }

    /// Starts a stock daemon before one of the generated stores.
    pub(crate) fn serve(&self, name: &str, lower: Lower) -> Result<StockDaemon> {
        let socket = self.memory.join(format!("{name}.socket"));
        StockDaemon::start_program(&self.daemon, self.store(lower).url().to_string(), &socket)
    }

    pub(crate) fn store(&self, lower: Lower) -> &Generated {
        &self.stores[lower as usize]
    }
}

/// In a process of its own: memory that was needed once would be on its children's bill.
fn generate(options: &Options) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("generate");
    for (name, value) in [
        ("--superpose", &options.superpose),
        ("--stock", &options.stock),
        ("--work", &options.work),
    ] {
        command.arg(name).arg(value);
    }
    if options.quick {
        command.arg("--quick");
    }
    ensure!(command.status()?.success(), "the stores cannot be made");
    Ok(())
}

fn write_many(dir: &Path, count: u32) -> Result<()> {
    fs::create_dir(dir)?;
    let mut seeded = Seeded::new(u64::from(count));
    let mut bytes = vec![0; SMALL_FILE];
    for number in 0..count {
        let sub = dir.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir(&sub)?;
        }
        seeded.fill(&mut bytes);
        fs::write(sub.join(format!("file-{number}")), &bytes)?;
    }
    Ok(())
}
