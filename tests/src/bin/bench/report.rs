// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: the machine, the programs, and a table for each kind of comparison.

use crate::Options;
use crate::cases::Case;
use crate::runs::{Bench, Compared, Results};
use crate::table::{Judgement, Row, Target, mebibytes, memory_text, ratio, table, time_text};

/// What one query may hold at most, in MiB.
const QUERY_MEMORY: f64 = 12.0;

/// How much longer a query over the large store may take than one over the small store.
const GROWTH: f64 = 1.2;

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
    let [few, _, many] = options.sizes().stores;
    let (few, many) = (format!("over {few}"), format!("over {many}"));
    let scale: Vec<Row> = results.scale.iter().map(scale_row).collect();
    show(&["superpose alone, medians", &few, &many, "ratio"], &scale);
    let memory: Vec<Row> = memory_row(results).into_iter().collect();
    show(&["superpose alone", "most"], &memory);
    if options.judgement() == Judgement::LeftOut {
        println!("\nsmall stores, few runs: no targets are judged");
    }
    all_met
}

fn compared_row(case: &Case, compared: &Compared) -> Row {
    let Compared { base, ours } = compared;
    let value = ratio(base.median(), ours.median());
    Row {
        cells: vec![
            case.title.clone(),
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

fn scale_row(compared: &Compared) -> Row {
    let (few, many) = (compared.base.median(), compared.ours.median());
    let value = ratio(many, few);
    Row {
        cells: vec![
            "open, and one query".to_owned(),
            time_text(few),
            time_text(many),
            format!("{value:.2}"),
        ],
        value,
        target: Target::AtMost(GROWTH),
    }
}

/// The most memory of any run that opened a store and asked for one path.
fn memory_row(results: &Results) -> Option<Row> {
    let start = results
        .cases
        .iter()
        .filter(|(case, _)| case.name == "start")
        .map(|(_, compared)| &compared.ours);
    let scale = results
        .scale
        .iter()
        .flat_map(|compared| [&compared.base, &compared.ours]);
    let most = start.chain(scale).map(|samples| samples.memory()).max()?;
    Some(Row {
        cells: vec!["memory of one query".to_owned(), memory_text(most)],
        value: mebibytes(most),
        target: Target::AtMost(QUERY_MEMORY),
    })
}
