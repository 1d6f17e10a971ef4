//! Loads a module and times it: `cargo run --release -p chaperone-policy-host --example measure --
//! FILE [SETTINGS-JSON]`.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use chaperone_contract::{Abilities, Context, Operation, Session, SqlFacts};
use chaperone_policy_host::{Column, Host, HostOptions, PolicySet, SetOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .ok_or("usage: measure FILE [SETTINGS-JSON]")?;
    let bytes = std::fs::read(&file)?;
    let host = Host::new(HostOptions::default())?;

    let inspection = host.inspect(&file, bytes.clone())?;
    println!("{inspection:#?}");
    let mut settings = BTreeMap::new();
    if let Some(json) = arguments.next() {
        settings.insert(
            inspection.manifest.name.clone(),
            serde_json::from_str(&json)?,
        );
    }
    let start = Instant::now();
    let module = host.load(&file, bytes, &settings)?;
    println!("load: {:?}", start.elapsed());

    let set = PolicySet::new(vec![Arc::clone(&module)], SetOptions::default())?;
    let session = Arc::new(Session::default());
    let operation = Arc::new(Operation {
        protocol: "postgresql".to_owned(),
        command: "SELECT".to_owned(),
        sql: Some(SqlFacts::default()),
        ..Operation::default()
    });
    let context = Context::default();
    println!("{:#?}", set.decide(&session, &operation, &context));
    let rounds = 10_000;
    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(set.decide(&session, &operation, &context));
    }
    println!("decide: {:?} each", start.elapsed() / rounds);

    if module.manifest().abilities.contains(Abilities::REWRITES) {
        let mut column = Column::new("free-text");
        for _ in 0..1000 {
            column.push(Some(b"seen on 2026-03-04, call 555-0100 again"));
        }
        let start = Instant::now();
        for _ in 0..100 {
            set.rewrite(0, 1000, vec![column.clone()])?;
        }
        println!("rewrite: {:?} a cell", start.elapsed() / 100_000);
    }
    Ok(())
}
