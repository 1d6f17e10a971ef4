//! What a new statement costs: `cargo bench -p chaperone-sql`.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a benchmark stops where something is not as it should be"
)]

use std::sync::LazyLock;

use chaperone_sql::{Catalog, Labelling, Limits, Options, SessionView, analyze, classify};
use divan::{Bencher, black_box};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| {
    Catalog::from_ddl(include_str!("../tests/hospital.sql")).expect("the test hospital is sound")
});

/// A point read, and one that joins, aggregates and nests.
const STATEMENTS: [&str; 2] = [
    "SELECT name FROM patients WHERE id = $1",
    "WITH w AS (SELECT id, name FROM patients WHERE id > $1) \
     SELECT w.name, count(*) FROM w JOIN patients AS p ON p.id = w.id \
     WHERE p.id IN (SELECT id FROM patients) GROUP BY w.name ORDER BY 2 DESC LIMIT 10",
];

fn main() {
    divan::main();
}

#[divan::bench(args = STATEMENTS)]
fn facts(bencher: Bencher<'_, '_>, sql: &str) {
    let (view, labels) = (SessionView::default(), Labelling::new());
    let options = Options::default();
    LazyLock::force(&CATALOG);
    bencher.bench(|| analyze(black_box(sql), &CATALOG, &view, &labels, &options).unwrap());
}

#[divan::bench(args = STATEMENTS)]
fn kind_alone(bencher: Bencher<'_, '_>, sql: &str) {
    let limits = Limits::default();
    bencher.bench(|| classify(black_box(sql), &limits).unwrap());
}
