//! What a verdict and a rewrite cost: `cargo bench -p chaperone-policy-host`. The policy is the
//! example `phi-masking`, built from source.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark stops where something is not as it should be"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use chaperone_contract::{Context, Operation, Session};
use chaperone_policy_host::{Column, Host, HostOptions, PolicySet, SetOptions};
use chaperone_sql::{Catalog, Labelling, Options, SessionView, analyze};
use chaperone_test_support::policies;
use divan::{Bencher, counter::ItemsCount};

/// Cells of a rewritten column.
const CELLS: u32 = 1000;

const DDL: &str = "CREATE TABLE people (id int, ssn text, name text, note text);\
     COMMENT ON COLUMN people.id IS '@label(clear)';\
     COMMENT ON COLUMN people.ssn IS '@label(ssn)';\
     COMMENT ON COLUMN people.name IS '@label(name)';\
     COMMENT ON COLUMN people.note IS '@label(free-text)';";

static SET: LazyLock<PolicySet> = LazyLock::new(|| {
    let file = policies::example("phi-masking").unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let labels = serde_json::json!({ "labels": {
        "ssn": { "default": "keep-last:4" },
        "name": { "default": "fixed:[name]" },
        "free-text": { "default": "scrub-notes" },
    } });
    let settings = BTreeMap::from([("phi-masking".to_owned(), labels)]);
    let host = Host::new(HostOptions::default()).unwrap();
    let module = host
        .load(&file.to_string_lossy(), bytes, &settings)
        .unwrap();
    PolicySet::new(vec![module], SetOptions::default()).unwrap()
});

fn main() {
    LazyLock::force(&SET);
    divan::main();
}

fn operation() -> Arc<Operation> {
    let catalog = Catalog::from_ddl(DDL).unwrap();
    let (view, labels) = (SessionView::default(), Labelling::new());
    let sql = "SELECT id, ssn, name, note FROM people WHERE id = $1";
    let mut facts = analyze(sql, &catalog, &view, &labels, &Options::default()).unwrap();
    Arc::new(facts.pop().unwrap().operation)
}

/// From the module's configured image.
#[divan::bench(threads = [1, 2])]
fn evaluate(bencher: Bencher<'_, '_>) {
    let (session, context) = (Arc::new(Session::default()), Context::default());
    let operation = operation();
    bencher.bench(|| SET.decide(&session, &operation, &context));
}

/// Cells of 39 bytes, by the module.
#[divan::bench]
fn rewrite(bencher: Bencher<'_, '_>) {
    let mut column = Column::new("scrub-notes");
    for _ in 0..CELLS {
        column.push(Some(b"seen on 2026-03-04, call 555-0100 again"));
    }
    bencher
        .counter(ItemsCount::new(CELLS))
        .with_inputs(|| vec![column.clone()])
        .bench_values(|columns| SET.rewrite(0, CELLS, columns).unwrap());
}
