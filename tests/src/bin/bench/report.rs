// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: the machine, the programs, and a table for each kind of comparison.

use crate::Options;
use crate::cases::Case;
use crate::growth::Growth;
use crate::hashing::Hashing;
use crate::load::Answered;
use crate::many_rows::ManyRows;
use crate::runs::{Bench, Compared, RUNS, Results};
use crate::serving::{CLIENTS, Loaded};
use crate::syncs::Syncs;
use crate::table::{Judgement, Row, Target, mebibytes, memory_text, ratio, table, time_text};

/// What one query may hold at most, in MiB.
const QUERY_MEMORY: f64 = 12.0;

/// What a collection over very many rows may hold at most, in MiB.
const COLLECTION_MEMORY: f64 = 200.0;

/// How much longer the same work over the large store may take than over the small store.
const GROWTH: f64 = 1.2;

/// How much of the speed of the bare hash, on all cores, a verification has to reach.
const SHARE_OF_BARE: f64 = 0.85;

/// How much faster a stock client has to be with our server than with the stock daemon.
const SERVED: f64 = 1.5;

/// The same where each client has its own server: a closure, and one question of a new process.
const SERVED_OWN: f64 = 10.0;
const SERVED_START: f64 = 8.0;

/// The least ratio for copies to a served store.
const SERVED_COPY: f64 = 2.0;

/// How many times longer than the median of a single client the answers to many may take, but for one in a hundred.
const PATIENCE: f64 = 20.0;

/// What a server may hold at most, in MiB: by itself, and for each connection.
const SERVER_MEMORY: (f64, f64) = (64.0, 0.25);

/// Prints everything, and tells whether all targets are met.
pub(crate) fn print(bench: &Bench, options: &Options, results: &Results) -> bool {
    let version = |program: &crate::measure::Program| {
        program
            .with(&["--version".into()])
            .line()
            .unwrap_or_else(|error| format!("{error:#}"))
    };
    for line in &bench.machine {
        println!("{line}");
    }
    println!(
        "{}; {}",
        version(&bench.stock.program("nix")),
        version(&bench.superpose)
    );
    for store in &bench.stage.stores {
        let references = store.references() as f64 / f64::from(store.count);
        println!(
            "store of {} objects, {references:.2} references each",
            store.count
        );
    }
    let mut all_met = true;
    let mut show = |columns: &[&str], rows: &[Row]| {
        all_met &= rows.iter().all(Row::is_met);
        if !rows.is_empty() {
            println!(
                "\n{}",
                table(columns, rows, options.form(), options.judgement()).trim_end()
            );
        }
    };
    let rows: Vec<Row> = results
        .cases
        .iter()
        .map(|(case, compared)| compared_row(case, compared))
        .collect();
    let columns = [
        "medians",
        "stock",
        "superpose",
        "ratio",
        "processor: stock",
        "superpose",
        "memory: stock",
        "superpose",
    ];
    show(&columns, &rows);
    let sizes = options.sizes();
    let [few, _, many] = sizes.stores;
    let (few, many) = (format!("over {few}"), format!("over {many}"));
    let growths: Vec<Row> = results.growths.iter().map(growth_row).collect();
    show(&["superpose alone, medians", &few, &many, "ratio"], &growths);
    let hashing: Vec<Row> = results.hashing.iter().flat_map(hashing_rows).collect();
    show(
        &[
            "large objects, all cores, medians",
            "time",
            "speed",
            "of the first",
        ],
        &hashing,
    );
    let [small, large] = sizes.batches.map(|batch| format!("of {batch}"));
    let syncs: Vec<Row> = results.syncs.iter().map(syncs_row).collect();
    show(&["calls that sync", &small, &large], &syncs);
    show(
        &["through a socket, medians", "stock daemon", "superpose", "ratio"],
        &served_rows(results),
    );
    let load: Vec<Row> = results.served.load.iter().flat_map(load_rows).collect();
    show(
        &["superpose as a server", "rate", "median", "99 %", "all", "ratio"],
        &load,
    );
    let mut memory: Vec<Row> = query_memory_row(results).into_iter().collect();
    memory.extend(results.many_rows.iter().map(many_rows_row));
    memory.extend(results.served.load.iter().map(server_memory_row));
    show(&["superpose alone", "most memory"], &memory);
    if options.judgement() == Judgement::LeftOut {
        println!("\nsmall stores, few runs: no targets are judged");
    }
    all_met
}

fn compared_row(case: &Case, compared: &Compared) -> Row {
    let Compared { base, ours } = compared;
    let value = ratio(base.median(), ours.median());
    let mut title = case.title.clone();
    if ours.0.len() < RUNS {
        title.push_str(&format!(" ({} runs)", ours.0.len()));
    }
    Row {
        cells: vec![
            title,
            time_text(base.median()),
            time_text(ours.median()),
            format!("{value:.1}"),
            time_text(base.processor()),
            time_text(ours.processor()),
            memory_text(base.memory()),
            memory_text(ours.memory()),
        ],
        value,
        target: Target::AtLeast(case.target),
    }
}

fn growth_row(growth: &Growth) -> Row {
    let (few, many) = (growth.few.median(), growth.many.median());
    let value = ratio(many, few);
    Row {
        cells: vec![
            growth.title.clone(),
            time_text(few),
            time_text(many),
            format!("{value:.2}"),
        ],
        value,
        target: Target::AtMost(GROWTH),
    }
}

/// The bare hash, a loop that reads files and hashes them, and superpose. The two that read cannot reach the bare hash:
/// a core that hashes has to fetch the bytes, too.
fn hashing_rows(hashing: &Hashing) -> [Row; 3] {
    let row = |title: String, time, target| {
        let value = ratio(hashing.bare, time);
        let speed = mebibytes(hashing.bytes) / time.as_secs_f64().max(f64::EPSILON);
        Row {
            cells: vec![
                title,
                time_text(time),
                format!("{speed:.0} MiB/s"),
                format!("{value:.2}"),
            ],
            value,
            target,
        }
    };
    let size = memory_text(hashing.bytes);
    [
        row(
            format!("SHA-256 of {size} that need not be read"),
            hashing.bare,
            Target::None,
        ),
        row(
            "SHA-256 of as much in files, read in a loop".to_owned(),
            hashing.files,
            Target::None,
        ),
        row(
            "`verify --check-contents` of the same files".to_owned(),
            hashing.verify.median(),
            Target::AtLeast(SHARE_OF_BARE),
        ),
    ]
}

fn syncs_row(syncs: &Syncs) -> Row {
    let [small, large] = syncs.calls;
    let batches = syncs.batches as usize;
    let each = large.div_ceil(batches);
    let text = if batches == 1 {
        large.to_string()
    } else {
        format!("{large} in {batches} batches")
    };
    Row {
        cells: vec![syncs.title.to_owned(), small.to_string(), text],
        value: each as f64 / small.max(1) as f64,
        target: Target::AtMost(1.0),
    }
}

fn served_rows(results: &Results) -> Vec<Row> {
    let served = &results.served;
    let rows = [
        ("`path-info -r` by a stock client", &served.closure, SERVED),
        (
            "`path-info -r`, each client of its own server",
            &served.own,
            SERVED_OWN,
        ),
        (
            "start, and one `path-info`, the same",
            &served.start,
            SERVED_START,
        ),
        (
            "`copy` of a closure to a served store in memory, the same",
            &served.copy,
            SERVED_COPY,
        ),
    ];
    let measured = rows
        .into_iter()
        .filter_map(|(title, compared, target)| Some((title, compared.as_ref()?, target)));
    let row = |(title, compared, target): (&str, &Compared, f64)| {
        let (base, ours) = (compared.base.median(), compared.ours.median());
        let value = ratio(base, ours);
        Row {
            cells: vec![
                title.to_owned(),
                time_text(base),
                time_text(ours),
                format!("{value:.1}"),
            ],
            value,
            target: Target::AtLeast(target),
        }
    };
    measured.map(row).collect()
}

/// One client; all of them as fast as they can, whose answers wait for each other; all of them at a rate that leaves room.
fn load_rows(load: &Loaded) -> [Row; 3] {
    let single = load.single.quantile(0.5);
    let row = |title: String, answered: &Answered, target| {
        let value = ratio(answered.quantile(0.99), single);
        Row {
            cells: vec![
                title,
                format!("{:.0}/s", answered.rate()),
                time_text(answered.quantile(0.5)),
                time_text(answered.quantile(0.99)),
                time_text(answered.quantile(1.0)),
                format!("{value:.1}"),
            ],
            value,
            target,
        }
    };
    [
        row("one client".to_owned(), &load.single, Target::None),
        row(
            format!("{CLIENTS} clients, closed loop"),
            &load.closed,
            Target::None,
        ),
        row(
            format!("{CLIENTS} clients, open loop at {:.0}/s", load.asked),
            &load.open,
            Target::AtMost(PATIENCE),
        ),
    ]
}

fn server_memory_row(load: &Loaded) -> Row {
    let (own, each) = SERVER_MEMORY;
    Row {
        cells: vec![format!("a server of {CLIENTS} clients"), memory_text(load.memory)],
        value: mebibytes(load.memory),
        target: Target::AtMost(own + each * f64::from(CLIENTS)),
    }
}

/// The most memory of any run that opened a store and asked for one path.
fn query_memory_row(results: &Results) -> Option<Row> {
    let start = results
        .cases
        .iter()
        .filter(|(case, _)| case.name == "start")
        .map(|(_, compared)| &compared.ours);
    let queries = results
        .growths
        .iter()
        .filter(|growth| growth.is_query)
        .flat_map(|growth| [&growth.few, &growth.many]);
    let most = start.chain(queries).map(|samples| samples.memory()).max()?;
    Some(Row {
        cells: vec!["one query".to_owned(), memory_text(most)],
        value: mebibytes(most),
        target: Target::AtMost(QUERY_MEMORY),
    })
}

fn many_rows_row(many: &ManyRows) -> Row {
    let most = many.samples.memory();
    let time = time_text(many.samples.median());
    Row {
        cells: vec![
            format!("`gc` over {} upper rows, which takes {time}", many.rows),
            memory_text(most),
        ],
        value: mebibytes(most),
        target: Target::AtMost(COLLECTION_MEMORY),
    }
}
