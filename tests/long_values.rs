//! What the log tells of bind values that are too long to be kept in it, and to whom.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::path::Path;

use chaperone_audit_log::payload::DataKeyRecord;
use chaperone_audit_log::{Blinder, DataKey, Digest, PrivateKey, read};
use chaperone_test_support::wire::frontend::{bind, execute, function_call, parse, query, sync};
use chaperone_test_support::wire::{VERSION_3_0, Wire};
use chaperone_test_support::{Chaperone, Postgres, policies};
use serde_json::{Value, json};
use ward::{CHAPERONE, DATABASE, DBA};

/// Stands for data in every long value.
const CANARY: &str = "Zebulon-Canary-4711";
const MEGABYTE: usize = 1 << 20;

/// A value with that length, which differs from others in its last byte alone.
fn value(length: usize, last: char) -> String {
    format!("{CANARY}{}{last}", "x".repeat(length - CANARY.len() - 1))
}

fn start(postgres: &Postgres) -> Chaperone {
    let table = "CREATE TABLE import_long (id integer, line text); GRANT ALL ON import_long TO dba;
                 COMMENT ON TABLE import_long IS '@label(clear)';";
    postgres.script(DATABASE, table).unwrap();
    let allow_all = policies::example("allow-all").unwrap();
    let options = Chaperone::options(CHAPERONE)
        .incomplete_facts(&["allow-all"])
        .policy("allow-all", allow_all, "");
    ward::people(options, postgres).start().unwrap()
}

fn connect(proxy: &Chaperone) -> Wire {
    let wire = Wire::connect(proxy.port()).unwrap();
    let mut wire = wire.tls(&proxy.ca_file()).unwrap();
    let account = [("user", "dba"), ("database", DATABASE)];
    let said = wire.login(VERSION_3_0, &account, DBA).unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    wire
}

/// What the auditor makes digests with, out of the log and the auditor's key.
fn blinder(folder: &Path, private: &PrivateKey) -> Option<Blinder> {
    let mut blinder = None;
    let stopped = read(folder, Some(private), |record| {
        if record.header.kind == "key" {
            let key: DataKeyRecord = serde_json::from_value(record.body.clone()).unwrap();
            let key = DataKey::unwrap(record.header.log, key.id, &key.wrapped, private);
            blinder = key.ok().map(|key| key.blinder().clone());
        }
        blinder.is_none()
    });
    assert!(stopped.unwrap().is_empty());
    blinder
}

/// Records of a kind with parameters, in order.
fn with_parameters(proxy: &Chaperone, kind: &str, further: &[&str]) -> Vec<Value> {
    let arguments = [&["--json", "--kind", kind], further].concat();
    let shown = ward::audit(proxy, "show", &arguments);
    shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|record| record["sealed"].to_string().contains("\"parameters\""))
        .collect()
}

/// Whether any file below the folder holds the bytes.
fn files_hold(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return files_hold(&path, bytes);
        }
        let text = fs::read(path).unwrap();
        text.windows(bytes.len()).any(|part| part == bytes)
    })
}

#[test]
fn the_auditor_recognises_a_long_value_and_nobody_else_does() {
    let postgres = ward::clinic();
    let mut proxy = start(&postgres);
    let (first, second) = (value(MEGABYTE, '1'), value(MEGABYTE, '2'));
    // One that stands in a text, and the longest that is kept.
    let (constant, kept) = (value(70_000, '3'), value(64 << 10, '4'));
    let mut wire = connect(&proxy);
    let insert = "INSERT INTO import_long VALUES ($1, $2)";
    let mut batch = parse("insert", insert, &[]);
    for (id, line) in [("1", &first), ("2", &second), ("3", &first), ("4", &kept)] {
        batch.extend(bind("", "insert", &[Some(id), Some(line)], 0));
        batch.extend(execute("", 0));
    }
    batch.extend(sync());
    let said = wire.ask(&batch);
    assert_eq!(said.all("CommandComplete").len(), 4, "{said}");
    let select = "SELECT count(*) FROM import_long WHERE line = $1";
    let read = |line: &str| [bind("", "", &[Some(line)], 0), execute("", 0), sync()].concat();
    for (line, count) in [(&first, 2), (&second, 1)] {
        let said = wire.ask(&[parse("", select, &[]), read(line)].concat());
        let row = format!("DataRow '{count}'");
        assert_eq!(said.all("DataRow"), [row], "{said}");
    }
    let prepare = "PREPARE s (text) AS INSERT INTO import_long VALUES (5, $1)";
    for sql in [prepare, &format!("EXECUTE s ('{constant}')")] {
        let said = wire.ask(&query(sql));
        assert!(said.sqlstates().is_empty(), "{said}");
    }
    drop(wire);
    assert!(proxy.stop().is_some_and(|status| status.success()));

    // The digests are those that the auditor computes from the values.
    let folder = proxy.audit_folder();
    let key = proxy.auditor_key();
    let private = PrivateKey::read(&key).unwrap();
    let blinder = blinder(&folder, &private).unwrap();
    let long = |value: &str| {
        let digest = blinder.of_long(value.as_bytes()).digest().to_hex();
        json!({"digest": {"bytes": value.len(), "digest": digest}})
    };
    assert_ne!(long(&first), long(&second));
    let open = ["--key", &*key.to_string_lossy()];
    let intents = with_parameters(&proxy, "intent", &open);
    let expected = [
        json!([{"text": "1"}, long(&first)]),
        json!([{"text": "2"}, long(&second)]),
        json!([{"text": "3"}, long(&first)]),
        json!([{"text": "4"}, {"text": kept}]),
        json!([long(&constant)]),
    ];
    let sealed = |records: &[Value]| -> Vec<Value> {
        let parameters = records.iter().map(|record| &record["sealed"]["parameters"]);
        parameters.cloned().collect()
    };
    assert_eq!(sealed(&intents), expected);
    let executions = with_parameters(&proxy, "execution", &open);
    let reads = [json!([long(&first)]), json!([long(&second)])];
    assert_eq!(sealed(&executions), reads);
    // What was decided about the first Bind of each statement holds for those behind it, and what
    // was about PREPARE for EXECUTE.
    let decisions = with_parameters(&proxy, "decision", &open);
    let decided = [expected[0].clone(), reads[0].clone()];
    assert_eq!(sealed(&decisions), decided);

    // In the clear is one digest of all the parameters, which long values are part of.
    for record in intents.iter().chain(&executions) {
        let list = record["sealed"]["parameters"].to_string();
        let digest = blinder.of(list.as_bytes()).digest();
        assert_eq!(record["body"]["parameters"], digest.to_hex());
        assert_ne!(digest, Digest::of(list.as_bytes()));
    }
    assert_ne!(
        executions[0]["body"]["parameters"],
        executions[1]["body"]["parameters"]
    );

    // A trace shows them to the auditor alone.
    let request = executions[1]["request"].as_str().unwrap();
    let digest = blinder.of_long(second.as_bytes()).digest().to_hex();
    let trace = ward::audit(&proxy, "trace", &[&[request][..], &open].concat());
    assert!(trace.contains(&digest), "{trace}");
    assert!(!ward::audit(&proxy, "trace", &[request]).contains(&digest));
    assert!(!files_hold(&folder, digest.as_bytes()));
    assert!(!files_hold(&folder, CANARY.as_bytes()));

    // `audit digest` answers for a value, given the key.
    let file = proxy.folder().join("value");
    let found = |value: &str, key: &Path| {
        fs::write(&file, value).unwrap();
        let mut command = proxy.command(&["audit", "digest"]);
        command.arg(&folder).arg(&file).arg("--key").arg(key);
        command.output().unwrap()
    };
    let output = found(&first, &key);
    let said = ward::words(&output);
    assert!(output.status.success(), "{said}");
    let digest = blinder.of_long(first.as_bytes()).digest().to_hex();
    assert!(said.contains(&digest), "{said}");
    // Two intents, an execution, and the decisions about the first of each.
    let records: Vec<&str> = said.lines().filter(|line| line.contains('/')).collect();
    assert_eq!(records.len(), 5, "{said}");
    let output = found(&value(MEGABYTE, '5'), &key);
    assert_eq!(output.status.code(), Some(1), "{}", ward::words(&output));

    // Another auditor's key makes none, and digests without a key are not those in the log.
    let foreign = PrivateKey::generate("foreign").unwrap();
    assert!(self::blinder(&folder, &foreign).is_none());
    let (foreign, _) = foreign.write(proxy.folder()).unwrap();
    let output = found(&first, &foreign);
    assert_eq!(output.status.code(), Some(2), "{}", ward::words(&output));
    let closed = ward::audit(&proxy, "show", &["--json"]);
    let opened = ward::audit(&proxy, "show", &[&["--json"][..], &open].concat());
    for value in [&first, &second, &constant] {
        let plain = Digest::of(value.as_bytes()).to_hex();
        assert!(!closed.contains(&plain) && !opened.contains(&plain));
    }
}

/// `length(text)`.
const LENGTH_OF_TEXT: u32 = 1257;

#[test]
fn a_function_call_is_on_record_with_its_arguments() {
    let postgres = ward::clinic();
    let mut proxy = start(&postgres);
    let mut wire = connect(&proxy);
    for argument in [CANARY, &value(MEGABYTE, '1')] {
        let said = wire.ask(&function_call(LENGTH_OF_TEXT, &[argument]));
        assert_eq!(said.all("FunctionCallResponse").len(), 1, "{said}");
    }
    drop(wire);
    assert!(proxy.stop().is_some_and(|status| status.success()));
    let key = proxy.auditor_key();
    let blinder = blinder(&proxy.audit_folder(), &PrivateKey::read(&key).unwrap()).unwrap();
    let digest = blinder.of_long(value(MEGABYTE, '1').as_bytes()).digest();
    let open = ["--key", &*key.to_string_lossy()];
    let intents = with_parameters(&proxy, "intent", &open);
    let parameters: Vec<_> = intents
        .iter()
        .map(|intent| intent["sealed"]["parameters"].clone())
        .collect();
    let long = json!([{"digest": {"bytes": MEGABYTE, "digest": digest.to_hex()}}]);
    assert_eq!(parameters, [json!([{"text": CANARY}]), long]);
    let arguments = [&["--json", "--kind", "operation"][..], &open].concat();
    let operations = ward::audit(&proxy, "show", &arguments);
    let text = format!("\"text\":\"FUNCTION CALL {LENGTH_OF_TEXT}\"");
    assert!(operations.contains(&text), "{operations}");
    assert!(!files_hold(&proxy.audit_folder(), CANARY.as_bytes()));
}

/// Each of them is short, all together are more than one record takes.
#[test]
fn many_values_are_no_reason_to_refuse_a_statement() {
    const VALUES: usize = 1_000;
    let postgres = ward::clinic();
    let mut proxy = start(&postgres);
    let mut wire = connect(&proxy);
    let list: Vec<String> = (1..=VALUES).map(|at| format!("${at}")).collect();
    let text = format!(
        "SELECT length(array_to_string(ARRAY[{}], ''))",
        list.join(",")
    );
    // Characters that take twice as much in JSON.
    let line = "\"".repeat(60_000);
    let lines = vec![Some(line.as_str()); VALUES];
    let batch = [
        parse("", &text, &[]),
        bind("", "", &lines, 0),
        execute("", 0),
        sync(),
    ];
    let said = wire.ask(&batch.concat());
    let row = format!("DataRow '{}'", VALUES * line.len());
    assert_eq!(said.all("DataRow"), [row], "{said}");
    let said = wire.ask(&query("SELECT 1"));
    assert!(said.sqlstates().is_empty(), "{said}");
    drop(wire);
    assert!(proxy.stop().is_some_and(|status| status.success()));
    let key = proxy.auditor_key();
    let open = ["--key", &*key.to_string_lossy()];
    let executions = with_parameters(&proxy, "execution", &open);
    let parameters = executions[0]["sealed"]["parameters"].as_array().unwrap();
    assert_eq!(parameters.len(), VALUES);
    // The first ones are kept, and of all others the digest is.
    let kept = parameters
        .iter()
        .take_while(|it| it["text"] == line)
        .count();
    assert!(kept > 10, "{kept}");
    let of_others = &parameters[kept]["digest"];
    assert_eq!(of_others["bytes"], line.len());
    let digested = parameters.iter().filter(|it| it["digest"] == *of_others);
    assert_eq!(digested.count(), VALUES - kept);
}
