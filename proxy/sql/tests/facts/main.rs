//! What statements are found to do, by classes of attack and of honest use. Expectations are
//! written as `output labels | uses of labelled fields | gap?`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod commands;
mod effects;
mod expressions;
mod references;
mod statements;
mod surroundings;

use chaperone_sql::{Catalog, Facts, Labelling, Options, SessionView, analyze};

fn catalog() -> &'static Catalog {
    static CATALOG: std::sync::OnceLock<Catalog> = std::sync::OnceLock::new();
    CATALOG.get_or_init(|| {
        Catalog::from_ddl(include_str!("../hospital.sql")).expect("the test hospital is sound")
    })
}

fn all(sql: &str) -> Vec<Facts> {
    analyze(
        sql,
        catalog(),
        &SessionView::default(),
        &Labelling::new(),
        &Options::default(),
    )
    .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn facts(sql: &str) -> Facts {
    all(sql).pop().expect("there is a statement")
}

/// `ssn;- | ssn:OUTPUT | gap`: labels of each output, usages of each labelled field, gaps.
fn summary(facts: &Facts) -> String {
    let operation = &facts.operation;
    let outputs: Vec<String> = operation
        .outputs
        .iter()
        .map(|output| {
            let labels = operation.output_labels(output).to_list();
            if labels.is_empty() {
                "-".to_owned()
            } else {
                labels.join("+")
            }
        })
        .collect();
    let mut uses: Vec<String> = operation
        .uses
        .iter()
        .filter(|used| !used.labels.is_clear())
        .map(|used| {
            let names: Vec<&str> = used.usages.iter_names().map(|(name, _)| name).collect();
            format!("{}:{}", used.field, names.join("+"))
        })
        .collect();
    uses.sort();
    let gap = if operation.gaps.is_empty() {
        ""
    } else {
        " gap"
    };
    format!("{} | {}{gap}", outputs.join(";"), uses.join(" "))
        .trim()
        .to_owned()
}

#[track_caller]
fn check(table: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (sql, expected) in table {
        let found = summary(&facts(sql));
        if found != *expected {
            wrong.push(format!("{sql}\n  expected {expected}\n  found    {found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
