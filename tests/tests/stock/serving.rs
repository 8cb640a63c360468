// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stock clients that ask: `superpose serve` and a stock daemon on the same store say the same.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use superpose_tests::{
    Finished, Invocation, Layers, Need, Running, StockDaemon, StockNix, Suite, stock_trials, superpose,
};

use crate::beside::{DERIVATIONS, instantiate, mounted, tree};

pub(crate) fn register(suite: &mut Suite) {
    stock_trials!(
        suite,
        [],
        questions_to_a_local_store,
        questions_of_one_who_may_only_ask,
        the_release_of_the_server_is_ours
    );
    stock_trials!(
        suite,
        [Need::Root],
        questions_to_an_overlay_store,
        all_paths_of_a_served_overlay_store_are_those_of_both_layers
    );
}

/// What is asked. `P` is an object, `L` one that it refers to, `D` a derivation, `H` the hash part of `P`, `0` a path that is
/// not valid.
const QUESTIONS: &[&str] = &[
    "nix-store -q --references P",
    "nix-store -q --requisites P",
    "nix-store -q --requisites D",
    "nix-store -q --tree D",
    "nix-store -q --graph D",
    "nix-store -q --referrers L",
    "nix-store -q --referrers-closure L",
    "nix-store -q --deriver P",
    "nix-store -q --valid-derivers P",
    "nix-store -q --hash P L D",
    "nix-store -q --size P",
    "nix-store -q --outputs D",
    "nix-store -q --binding name D",
    "nix-store -q --roots L",
    "nix-store -q --hash 0",
    "nix-store -q --referrers 0",
    "nix-store -q --valid-derivers 0",
    "nix-store --check-validity P L D",
    "nix-store --check-validity 0",
    "nix-store --check-validity --print-invalid P 0",
    "nix-store --gc --print-roots",
    "nix-store --verify-path P",
    "nix-store --export P",
    "nix-store --print-env D",
    "nix-store --read-log P",
    "nix path-info P",
    "nix path-info --json P",
    "nix path-info --json --recursive D",
    "nix path-info -rsS P",
    "nix path-info --sigs P",
    "nix path-info --derivation D",
    "nix path-info D^out",
    "nix path-info 0",
    "nix path-info --json 0",
    "nix store path-from-hash-part H",
    "nix store path-from-hash-part 00000000000000000000000000000000",
    "nix store path-from-hash-part short",
    "nix store cat P/plain",
    "nix store cat P/missing",
    "nix store ls --json --recursive P",
    "nix store dump-path P",
    "nix store verify --no-trust P",
    "nix store verify P",
    "nix derivation show D",
    "nix derivation show --recursive D",
    "nix derivation show P",
    "nix log P",
    "nix build --dry-run --json D^out",
    "nix build --dry-run 0",
];

/// What is asked of derivations: in an overlay store stock Nix does not know the outputs of those below.
const QUESTIONS_ABOUT_OUTPUTS: &[&str] = &["nix-store -q --requisites --include-outputs D"];

/// What is asked of all paths: in an overlay store the two do not agree on which these are.
const QUESTIONS_ABOUT_ALL: &[&str] = &[
    "nix-store --dump-db",
    "nix path-info --all --json",
    "nix store verify --all --no-trust",
];

/// Two objects and a derivation, as the questions name them.
struct Named {
    program: String,
    library: String,
    derivation: String,
}

impl Named {
    fn words(&self, question: &str) -> Vec<String> {
        let part = &self.program["/nix/store/".len()..][..32];
        let word = |word: &str| match word {
            "H" => part.to_owned(),
            "0" => "/nix/store/0p6d6far7jx5ky739yfjf0d23nv1bbbm-absent".to_owned(),
            word => match (word.chars().next(), word.get(1..)) {
                (Some('P'), Some(rest)) => format!("{}{rest}", self.program),
                (Some('L'), Some(rest)) => format!("{}{rest}", self.library),
                (Some('D'), Some(rest)) => format!("{}{rest}", self.derivation),
                _ => word.to_owned(),
            },
        };
        question.split(' ').map(word).collect()
    }
}

/// A served store, by superpose and by stock Nix.
struct Both {
    ours: Running,
    theirs: StockDaemon,
    socket: PathBuf,
    /// Where clients see the files of the store.
    root: PathBuf,
}

impl Both {
    fn serve(stock: StockNix, layers: &Layers, url: &Path, root: PathBuf, options: &[&str]) -> Result<Self> {
        let socket = layers.join("ours");
        let mut ours = superpose()?
            .arg("--store")
            .arg(url)
            .args(["serve", "--socket"])
            .arg(&socket)
            .args(options)
            .start()?;
        ours.wait_until("serving", || {
            Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok())
        })?;
        // As the daemon takes a store: a directory is one for clients only.
        let theirs = StockDaemon::start(stock, url, &layers.join("theirs"))?;
        Ok(Self {
            ours,
            theirs,
            socket,
            root,
        })
    }

    fn client(&self, stock: StockNix, socket: &Path, words: &[String]) -> Invocation {
        let url = format!("unix://{}?root={}", socket.display(), self.root.display());
        stock.program(&words[0]).arg("--store").arg(url).args(&words[1..])
    }

    /// Asks both the same, and expects the same output and status.
    fn compare(&self, stock: StockNix, named: &Named, questions: &[&str]) -> Result<()> {
        let mut differences = Vec::new();
        for question in questions {
            let words = named.words(question);
            let [ours, theirs] = [self.socket.as_path(), self.theirs.socket()]
                .map(|socket| self.client(stock, socket, &words).run());
            let (ours, theirs) = (ours?, theirs?);
            if (ours.code(), &ours.stdout) != (theirs.code(), &theirs.stdout) {
                differences.push(format!("{question}\nours: {ours}\ntheirs: {theirs}"));
            }
        }
        ensure!(differences.is_empty(), "{}", differences.join("\n\n"));
        Ok(())
    }

    /// Ends our server as a service manager does.
    fn stop(self) -> Result<Finished> {
        self.ours.signal(rustix::process::Signal::TERM)?;
        let finished = self.ours.finish()?;
        ensure!(finished.code() == Some(0), "{finished}");
        ensure!(!self.socket.exists(), "the socket is still there");
        Ok(finished)
    }
}

/// Fills a store with what the questions name.
fn fill(stock: StockNix, layers: &Layers, store: &Path) -> Result<Named> {
    let library = stock
        .nix_store(store)
        .arg("--add")
        .arg(tree(layers, "library")?)
        .succeed()?;
    let derivation = instantiate(stock, store, DERIVATIONS)?;
    // One that refers to it.
    let program = layers.add_tree_below("program", &[library.line()?])?;
    symlink(&derivation, store.join("nix/var/nix/gcroots/derivation"))?;
    Ok(Named {
        program,
        library: library.line()?.to_owned(),
        derivation,
    })
}

fn local_url(layers: &Layers) -> PathBuf {
    format!("local?root={}", layers.lower().display()).into()
}

fn questions_to_a_local_store(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let named = fill(stock, &layers, &layers.lower())?;
    let both = Both::serve(stock, &layers, &local_url(&layers), layers.lower(), &[])?;
    both.compare(stock, &named, QUESTIONS)?;
    both.compare(stock, &named, QUESTIONS_ABOUT_OUTPUTS)?;
    both.compare(stock, &named, QUESTIONS_ABOUT_ALL)?;
    both.stop()?;
    Ok(())
}

/// A server that only answers questions answers them all.
fn questions_of_one_who_may_only_ask(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    let named = fill(stock, &layers, &layers.lower())?;
    let both = Both::serve(
        stock,
        &layers,
        &local_url(&layers),
        layers.lower(),
        &["--read-only"],
    )?;
    both.compare(stock, &named, QUESTIONS)?;
    both.compare(stock, &named, QUESTIONS_ABOUT_OUTPUTS)?;
    both.compare(stock, &named, QUESTIONS_ABOUT_ALL)?;
    let added = both.client(
        stock,
        &both.socket,
        &[
            "nix-store".into(),
            "--add".into(),
            layers.file("new", "new\n")?.display().to_string(),
        ],
    );
    let refused = added.exit_with(1)?;
    ensure!(refused.errors().contains("--read-only"), "{refused}");
    both.stop()?;
    Ok(())
}

fn questions_to_an_overlay_store(stock: StockNix) -> Result<()> {
    let (store, named) = mounted(|layers| fill(stock, layers, &layers.lower()))?;
    // Something above, too.
    let above = store.layers.add_above("above", "above\n", &[&named.library])?;
    let url = PathBuf::from(store.layers.url());
    let both = Both::serve(stock, &store.layers, &url, store.layers.root(), &[])?;
    // Later on, other questions of stock Nix have copied it up.
    let words = named.words(QUESTIONS_ABOUT_OUTPUTS[0]);
    both.client(stock, &both.socket, &words).succeed()?;
    both.client(stock, both.theirs.socket(), &words).exit_with(1)?;
    both.compare(stock, &named, QUESTIONS)?;
    let words = ["nix-store", "-q", "--references", &above].map(str::to_owned);
    let said = both.client(stock, &both.socket, &words).succeed()?;
    ensure!(said.line()? == named.library, "{said}");
    both.stop()?;
    store.expect_whole(stock)
}

fn all_paths_of_a_served_overlay_store_are_those_of_both_layers(stock: StockNix) -> Result<()> {
    let (store, below) = mounted(|layers| layers.add_below("below", "below\n", &[]))?;
    let above = store.layers.add_above("above", "above\n", &[])?;
    let url = PathBuf::from(store.layers.url());
    let both = Both::serve(stock, &store.layers, &url, store.layers.root(), &[])?;
    let words = ["nix", "path-info", "--all"].map(str::to_owned);
    let ours = both.client(stock, &both.socket, &words).succeed()?;
    let theirs = both.client(stock, both.theirs.socket(), &words).succeed()?;
    ensure!(
        ours.text()?.contains(&above) && ours.text()?.contains(&below),
        "{ours}"
    );
    ensure!(
        theirs.text()?.contains(&above) && !theirs.text()?.contains(&below),
        "{theirs}"
    );
    both.stop()?;
    Ok(())
}

fn the_release_of_the_server_is_ours(stock: StockNix) -> Result<()> {
    let layers = Layers::new()?;
    layers.add_below("object", "object\n", &[])?;
    let both = Both::serve(stock, &layers, &local_url(&layers), layers.lower(), &[])?;
    let words = ["nix", "store", "info", "--json"].map(str::to_owned);
    let [ours, theirs] = [
        both.client(stock, &both.socket, &words).succeed()?.json()?,
        both.client(stock, both.theirs.socket(), &words)
            .succeed()?
            .json()?,
    ];
    let version = |said: &serde_json::Value| said["version"].as_str().map(str::to_owned);
    let version_of_ours = version(&ours).context("a version")?;
    ensure!(version_of_ours.starts_with("superpose "), "{ours}");
    ensure!(
        version(&theirs).is_some_and(|version| version.starts_with("2.")),
        "{theirs}"
    );
    // Root is trusted by both.
    ensure!(ours["trusted"] == theirs["trusted"], "{ours} {theirs}");
    fs::metadata(&both.socket)?;
    both.stop()?;
    Ok(())
}
