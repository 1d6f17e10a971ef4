//! `show`: records as text or JSON.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path,
};

use chaperone_audit_log::{Record, Sealed, Stopped, read};

use super::{Failure, directory, private_key};

pub(super) fn show(
    dir: &Path,
    key: Option<&Path>,
    json: bool,
    wanted: impl Fn(&Record) -> bool,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let key = private_key(key)?;
    let mut written = Ok(());
    let stopped = read(dir, key.as_ref(), |record| {
        if wanted(record) {
            written = print_record(record, json, out);
        }
        written.is_ok()
    })
    .map_err(|source| directory(dir, source))?;
    written?;
    Ok(report_damage(&stopped))
}

pub(super) fn report_damage(stopped: &[Stopped]) -> bool {
    for place in stopped {
        eprintln!(
            "{}, offset {}: damaged, the rest of this run is not shown; see `chaperone audit verify`",
            place.file.display(),
            place.offset
        );
    }
    stopped.is_empty()
}

pub(super) fn print_record(record: &Record, json: bool, out: &mut impl Write) -> io::Result<()> {
    let header = &record.header;
    let refs: BTreeMap<_, _> = header
        .refs
        .iter()
        .map(|(role, target)| (role.as_str(), target.resolve(header.log).to_string()))
        .collect();
    if json {
        let sealed = match &record.sealed {
            Sealed::None => serde_json::Value::Null,
            Sealed::Closed(bytes) => serde_json::json!({ "closed": bytes }),
            Sealed::Open(value) => value.clone(),
        };
        let line = serde_json::json!({
            "log": header.log, "seq": header.seq, "kind": header.kind, "time": header.time,
            "mono": header.mono, "synced": header.synced, "request": header.req, "refs": refs, "hash": record.hash,
            "body": record.body, "sealed": sealed,
        });
        return writeln!(out, "{line}");
    }
    writeln!(
        out,
        "{} {:<13} {}",
        header.time,
        header.kind,
        header.record()
    )?;
    if let Some(request) = header.req {
        writeln!(out, "    request {request}")?;
    }
    for (role, target) in refs {
        writeln!(out, "    {role} -> {target}")?;
    }
    print_fields("    ", &record.body, out)?;
    match &record.sealed {
        Sealed::None => Ok(()),
        Sealed::Closed(bytes) => writeln!(out, "    sealed: {bytes} bytes (--key opens it)"),
        Sealed::Open(value) => {
            writeln!(out, "    sealed:")?;
            print_fields("        ", value, out)
        }
    }
}

/// One line a field. Text is written as JSON, so that what a statement holds cannot steer a terminal.
fn print_fields(indent: &str, value: &serde_json::Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        serde_json::Value::Object(fields) => fields
            .iter()
            .try_for_each(|(name, value)| writeln!(out, "{indent}{name}: {}", plain(value))),
        other => writeln!(out, "{indent}{}", plain(other)),
    }
}

fn plain(value: &serde_json::Value) -> String {
    let json = value.to_string();
    // JSON leaves DEL and the C1 controls as they are; terminals do not.
    json.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
