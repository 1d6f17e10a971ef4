//! `digest`: which records hold the digest of a value that the auditor has.

use std::{
    fs,
    io::{self, Read as _, Write},
    path::Path,
};

use chaperone_audit_log::{
    Blinder, DataKey, Digest, Kind, PrivateKey, Record, Sealed, payload::DataKeyRecord, read,
};

use super::{Failure, directory, show::report_damage};

/// Prints the digests that the bytes of `file` have in each run, and the records that hold one.
/// Says whether any does.
pub(super) fn digest(
    dir: &Path,
    file: &Path,
    key: &Path,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let key = PrivateKey::read(key)?;
    let value = contents(file).map_err(|source| Failure::File {
        path: file.to_owned(),
        source,
    })?;
    let mut digests = Vec::new();
    let (mut opened, mut found) = (0u32, 0u32);
    let mut written = Ok(());
    let stopped = read(dir, Some(&key), |record| {
        let log = record.header.log;
        if record.header.kind == Kind::LogStart.as_str() {
            digests.clear();
        }
        if let Some(blinder) = blinder(record, &key) {
            opened += 1;
            let (long, text) = (blinder.of_long(&value), blinder.of(&value));
            digests = vec![long.digest(), text.digest()];
            written = writeln!(out, "{log} as a long bind value {}", long.digest())
                .and_then(|()| writeln!(out, "{log} as a text            {}", text.digest()));
        } else if digests.iter().any(|digest| holds(record, digest)) {
            found += 1;
            let (place, kind) = (record.header.record(), &record.header.kind);
            written = writeln!(out, "{place} {kind}");
        }
        written.is_ok()
    })
    .map_err(|source| directory(dir, source))?;
    written?;
    if opened == 0 {
        return Err(Failure::Usage(
            "this key opens no run of the log, so nobody can make its digests with it",
        ));
    }
    if found == 0 {
        eprintln!("no record holds a digest of this value");
    }
    Ok(report_damage(&stopped) && found > 0)
}

fn contents(file: &Path) -> io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return fs::read(file);
    }
    let mut value = Vec::new();
    io::stdin().lock().read_to_end(&mut value)?;
    Ok(value)
}

/// What makes a run's digests, out of the record of its first data key.
fn blinder(record: &Record, private: &PrivateKey) -> Option<Blinder> {
    if record.header.kind != Kind::Key.as_str() {
        return None;
    }
    let first: DataKeyRecord = serde_json::from_value(record.body.clone()).ok()?;
    let key = DataKey::unwrap(record.header.log, first.id, &first.wrapped, private).ok()?;
    (key.id() == 1).then(|| key.blinder().clone())
}

fn holds(record: &Record, digest: &Digest) -> bool {
    let digest = digest.to_hex();
    let inside = |value: &serde_json::Value| value.to_string().contains(&digest);
    inside(&record.body) || matches!(&record.sealed, Sealed::Open(value) if inside(value))
}
