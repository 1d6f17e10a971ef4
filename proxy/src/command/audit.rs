//! `chaperone audit`: verify, show, trace, keygen.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use chaperone_audit_log::{
    Digest, Ending, Expect, Kind, PrivateKey, Record, RecordRef, Report, Sealed, Seq, Stopped,
    parse_rfc3339, read, verify,
};
use uuid::Uuid;

/// Read and check the audit log. None of these needs the proxy or the network; without a private
/// key, none shows a statement, a parameter or a message.
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check that nothing was changed, removed, added or put in another order.
    ///
    /// Ends with 0 when all is well, 1 when something is wrong. What a chain of hashes cannot show
    /// by itself is an end that was cut off: note the head that this prints, and give it next time.
    Verify {
        /// The log directory.
        dir: PathBuf,
        /// A head that was noted earlier (64 hexadecimal digits): it must be there.
        #[arg(long, value_name = "HASH", value_parser = digest)]
        expect_head: Option<Digest>,
        /// A record that must be there: SEQ of the newest run, or LOG/SEQ.
        #[arg(long, value_name = "SEQ", value_parser = at_least)]
        expect_at_least: Option<AtLeast>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List records.
    Show {
        /// The log directory.
        dir: PathBuf,
        /// An auditor's private key: sealed parts are shown too.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Only this kind, `decision` say; may be given more than once.
        #[arg(long, value_name = "KIND")]
        kind: Vec<String>,
        /// Only records from this time on (UTC): 2026-11-24 or 2026-11-24T09:30:00Z.
        #[arg(long, value_name = "TIME", value_parser = time)]
        since: Option<u64>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Follow one request: session, operation, decision, approval, intent, outcome.
    Trace {
        /// The log directory.
        dir: PathBuf,
        /// The request's id, or one of its records as LOG/SEQ.
        request: String,
        /// An auditor's private key: sealed parts are shown too.
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Make an auditor's key pair: NAME.pub for the proxy, NAME.key for the auditor alone.
    Keygen {
        /// 1 to 64 characters out of a-z, 0-9 and '-'; a folder may stand before it.
        #[arg(required_unless_present = "output")]
        name: Option<PathBuf>,
        /// The same, for scripts that like their paths named.
        #[arg(long, value_name = "PATH", conflicts_with = "name")]
        output: Option<PathBuf>,
    },
}

/// What `--expect-at-least` was given.
#[derive(Clone, Copy, Debug)]
pub struct AtLeast(Option<Uuid>, Seq);

/// Runs the command. 0 = well, 1 = the log is not well or has no such request, 2 = it could not be
/// looked at.
#[must_use]
pub fn run(command: AuditCommand) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = dispatch(command, &mut out).and_then(|well| {
        out.flush()?;
        Ok(well)
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaperone audit: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{}: {source}; give the directory of the log, [audit] directory in the configuration", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] chaperone_audit_log::KeyError),
    #[error("{0}")]
    Usage(&'static str),
}

fn dispatch(command: AuditCommand, out: &mut impl Write) -> Result<bool, Failure> {
    match command {
        AuditCommand::Verify {
            dir,
            expect_head,
            expect_at_least,
            json,
        } => {
            let expect = Expect {
                head: expect_head,
                at_least: expect_at_least.map(|AtLeast(log, seq)| (log, seq)),
            };
            let report = verify(&dir, &expect).map_err(|source| directory(&dir, source))?;
            // An empty directory proves nothing; a wrong path must not look like a clean log.
            let well = report.ok && report.records > 0;
            if json {
                serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                print_report(&dir, &report, out)?;
            }
            Ok(well)
        }
        AuditCommand::Show {
            dir,
            key,
            kind,
            since,
            json,
        } => {
            if let Some(unknown) = kind
                .iter()
                .find(|kind| !Kind::ALL.iter().any(|known| known.as_str() == *kind))
            {
                let _ = unknown;
                return Err(Failure::Usage(
                    "no such --kind; kinds are log-start, key, log-stop, rotate, recover, gap, policy-set, session-start, session-end, login-denied, operation, decision, approval, intent, outcome, execution",
                ));
            }
            let wanted = |record: &Record| {
                (kind.is_empty() || kind.contains(&record.header.kind))
                    && since.is_none_or(|since| {
                        parse_rfc3339(&record.header.time).is_none_or(|time| time >= since)
                    })
            };
            show(&dir, key.as_deref(), json, wanted, out)
        }
        AuditCommand::Trace { dir, request, key } => trace(&dir, &request, key.as_deref(), out),
        AuditCommand::Keygen { name, output } => {
            let name = name.or(output).unwrap_or_default();
            let dir = name.parent().unwrap_or(Path::new(""));
            let name = name.file_name().and_then(|name| name.to_str());
            let pair = PrivateKey::generate(name.unwrap_or_default())?;
            let (private, public) = pair.write(dir)?;
            writeln!(out, "{}: name it in [audit] recipients", public.display())?;
            writeln!(
                out,
                "{}: opens what is sealed; give it to the auditor and keep it off the proxy's machine",
                private.display()
            )?;
            Ok(true)
        }
    }
}

fn directory(path: &Path, source: io::Error) -> Failure {
    Failure::Directory {
        path: path.to_owned(),
        source,
    }
}

fn print_report(dir: &Path, report: &Report, out: &mut impl Write) -> io::Result<()> {
    for run in &report.runs {
        let ending = match run.ending {
            Ending::Closed => "closed",
            Ending::Live => "being written",
            Ending::Recovered => "ended without log-stop, recovered",
            Ending::Unfinished => "ended without log-stop",
            Ending::Broken => "BROKEN",
        };
        writeln!(
            out,
            "run {}  {} records in {} segments, {} to {}, {ending}",
            run.head.log, run.records, run.segments, run.first_time, run.last_time
        )?;
        writeln!(out, "    head {} {}", run.head.seq, run.head.hash)?;
    }
    for (kind, count) in &report.kinds {
        writeln!(out, "{count:>10} {kind}")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    if let Some(at) = &report.expected_head_at {
        writeln!(out, "the expected head is record {at}")?;
    }
    for problem in &report.problems {
        writeln!(out, "WRONG: {problem}")?;
    }
    match (report.ok, report.head) {
        (true, Some(head)) => writeln!(
            out,
            "OK: {} records in {} runs; head {} is record {} of run {}",
            report.records,
            report.runs.len(),
            head.hash,
            head.seq,
            head.log
        ),
        (true, None) => writeln!(out, "NOT OK: {} holds no records", dir.display()),
        (false, _) => writeln!(out, "NOT OK: {} problems", report.problems.len()),
    }
}

fn private_key(path: Option<&Path>) -> Result<Option<PrivateKey>, Failure> {
    Ok(path.map(PrivateKey::read).transpose()?)
}

fn show(
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

fn report_damage(stopped: &[Stopped]) -> bool {
    for place in stopped {
        eprintln!(
            "{}, offset {}: damaged, the rest of this run is not shown; see `chaperone audit verify`",
            place.file.display(),
            place.offset
        );
    }
    stopped.is_empty()
}

fn print_record(record: &Record, json: bool, out: &mut impl Write) -> io::Result<()> {
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

/// The records of a request, then whatever they refer to and whatever of the same story refers to
/// them, in the order of the log.
fn trace(
    dir: &Path,
    request: &str,
    key: Option<&Path>,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let key = private_key(key)?;
    let by_record = RecordRef::parse(request);
    let by_request = Uuid::parse_str(request).ok();
    if by_record.is_none() && by_request.is_none() {
        return Err(Failure::Usage(
            "a request is named by its id (a UUID, in the error message that the client got), or by a record, LOG/SEQ",
        ));
    }
    let mut story: BTreeSet<RecordRef> = by_record.into_iter().collect();
    let mut context = BTreeSet::new();
    // References go to earlier records, so few passes find all of them; each reads the whole log in
    // constant memory.
    loop {
        let before = (story.len(), context.len());
        read(dir, None, |record| {
            follow(record, by_request, &mut story, &mut context);
            true
        })
        .map_err(|source| directory(dir, source))?;
        if (story.len(), context.len()) == before {
            break;
        }
    }
    let mut found = 0u32;
    let mut written = Ok(());
    let stopped = read(dir, key.as_ref(), |record| {
        let place = record.header.record();
        if story.contains(&place) || context.contains(&place) {
            found += 1;
            written = print_record(record, false, out);
        }
        written.is_ok()
    })
    .map_err(|source| directory(dir, source))?;
    written?;
    if found == 0 {
        eprintln!("no record of this request is in {}", dir.display());
    }
    Ok(report_damage(&stopped) && found > 0)
}

/// `story` are the request's own records, `context` what they stand on.
fn follow(
    record: &Record,
    request: Option<Uuid>,
    story: &mut BTreeSet<RecordRef>,
    context: &mut BTreeSet<RecordRef>,
) {
    let header = &record.header;
    let place = header.record();
    let targets = || {
        header
            .refs
            .values()
            .map(|target| target.resolve(header.log))
    };
    if request.is_some() && header.req == request {
        story.insert(place);
    }
    // Approvals and outcomes belong to the story of what they refer to. A session, an operation or
    // a decision is shared by many stories and does not draw them in.
    let drawn = match header.kind.as_str() {
        "outcome" => header.reference(chaperone_audit_log::Role::Intent),
        "approval" => header.reference(chaperone_audit_log::Role::Decision),
        _ => None,
    };
    if drawn.is_some_and(|target| story.contains(&target)) {
        story.insert(place);
    }
    if story.contains(&place) || context.contains(&place) {
        context.extend(targets());
    }
}

fn digest(text: &str) -> Result<Digest, &'static str> {
    Digest::from_hex(text).ok_or("a head is 64 lower-case hexadecimal digits, as verify prints it")
}

fn at_least(text: &str) -> Result<AtLeast, &'static str> {
    if let Some(record) = RecordRef::parse(text) {
        return Ok(AtLeast(Some(record.log), record.seq));
    }
    text.parse()
        .map(|seq| AtLeast(None, Seq(seq)))
        .map_err(|_| "give a sequence number, or LOG/SEQ")
}

fn time(text: &str) -> Result<u64, &'static str> {
    parse_rfc3339(text).ok_or("give a UTC time as 2026-11-24 or 2026-11-24T09:30:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaperone_audit_log::{
        Code, Log, LogOptions, Name,
        payload::{self, Payload},
    };
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: AuditCommand,
    }

    fn output(words: &[&str]) -> (bool, String) {
        let line = Line::parse_from([&["audit"], words].concat());
        let mut out = Vec::new();
        let well = dispatch(line.command, &mut out).unwrap();
        (well, String::from_utf8(out).unwrap())
    }

    struct Story {
        dir: tempfile::TempDir,
        key: PathBuf,
        request: Uuid,
    }

    fn add<P: Payload>(
        log: &Log,
        clear: &P,
        sealed: Option<&P::Sealed>,
        request: Uuid,
    ) -> RecordRef {
        log.reference(log.append(clear, sealed, Some(request)).unwrap())
    }

    /// Two requests that share a session: one ran, the other was only asked.
    fn story() -> Story {
        let dir = tempfile::tempdir().unwrap();
        let (key, _) = PrivateKey::generate("auditor")
            .unwrap()
            .write(dir.path())
            .unwrap();
        let public = PrivateKey::read(&key).unwrap().public();
        let log = Log::open(
            &dir.path().join("log"),
            LogOptions::new(vec![public]),
            |_| {},
        )
        .unwrap();
        let (request, other) = (Uuid::now_v7(), Uuid::now_v7());
        let set = payload::PolicySet {
            digest: Digest::of(b"set"),
            modules: Vec::new(),
            cause: Code::from_words("start"),
            failures: Vec::new(),
            missing: Vec::new(),
        };
        let set = log.reference(log.append(&set, None, None).unwrap());
        let denied = payload::LoginDenied {
            code: Code::from_words("bad-token"),
            client_address: Name::new("127.0.0.1"),
        };
        let session = add(&log, &denied, None, request);
        let mut decisions = Vec::new();
        for request in [request, other] {
            let operation = payload::Operation {
                session,
                protocol: Code::from_words("postgresql"),
                command: Code::from_words("SELECT"),
                actions: Vec::new(),
                text: log.blinder().of(b"text"),
                text_bytes: 4,
                objects: Vec::new(),
                facts: log.blinder().of(b"facts"),
                gaps: 0,
                catalog_generation: 1,
            };
            let sealed = payload::OperationSealed {
                text: "SELECT 'CANARY-5150'\u{1b}[31m".to_owned(),
                facts: serde_json::Value::Null,
            };
            let operation = add(&log, &operation, Some(&sealed), request);
            let decision = payload::Decision {
                session,
                operation,
                policy_set: set,
                memo_of: None,
                modules: Vec::new(),
                verdict: payload::VerdictCode::Allow,
                code: None,
                limits: payload::LimitCodes::default(),
                masks: Vec::new(),
                tightened: Vec::new(),
                received_at: 0,
                in_transaction: false,
            };
            decisions.push(add(&log, &decision, None, request));
        }
        let intent = payload::Intent {
            decision: decisions[0],
            approval: None,
            ordinal: 1,
            portal: None,
            read_only: true,
            in_transaction: false,
            parameter_count: 0,
            parameters: None,
        };
        add(&log, &intent, None, request);
        log.close(&Code::from_words("test")).unwrap();
        Story { dir, key, request }
    }

    #[test]
    fn a_request_is_followed_and_nothing_is_open_without_the_key() {
        let story = story();
        let dir = story.dir.path().join("log");
        let (dir, key) = (dir.to_str().unwrap(), story.key.to_str().unwrap());
        let request = story.request.to_string();
        let (well, text) = output(&["trace", dir, &request]);
        assert!(well && !text.contains("CANARY"), "{text}");
        for kind in ["policy-set", "operation", "decision", "intent"] {
            assert_eq!(text.matches(&format!("Z {kind}")).count(), 1, "{text}");
        }
        let (_, text) = output(&["trace", dir, &request, "--key", key]);
        assert!(text.contains("CANARY-5150"), "{text}");
        assert!(!text.contains('\u{1b}'), "no terminal is steered");
        let (well, text) = output(&["trace", dir, &Uuid::now_v7().to_string()]);
        assert!(!well && text.is_empty(), "{text}");

        let (_, text) = output(&["show", dir, "--kind", "operation"]);
        assert_eq!(text.matches("Z operation").count(), 2, "{text}");
        assert!(!text.contains("CANARY"), "{text}");
        let (_, text) = output(&["show", dir, "--json", "--key", key]);
        assert_eq!(text.matches("CANARY").count(), 2, "{text}");
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        let (_, text) = output(&["show", dir, "--since", "9000-01-01"]);
        assert!(text.is_empty());
    }

    #[test]
    fn verify_says_what_it_found() {
        let story = story();
        let dir = story.dir.path().join("log");
        let dir = dir.to_str().unwrap();
        let (well, text) = output(&["verify", dir]);
        assert!(well && text.contains("\nOK: "), "{text}");
        let (_, json) = output(&["verify", dir, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let head = json["head"]["hash"].as_str().unwrap();
        assert!(output(&["verify", dir, "--expect-head", head]).0);
        let other = "0".repeat(64);
        assert!(!output(&["verify", dir, "--expect-head", &other]).0);
        assert!(output(&["verify", dir, "--expect-at-least", "3"]).0);
        assert!(!output(&["verify", dir, "--expect-at-least", "1000"]).0);

        let run = json["runs"][0]["head"]["log"].as_str().unwrap();
        let segment = Path::new(dir).join(run).join("000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let (well, text) = output(&["verify", dir]);
        assert!(!well, "{text}");
        assert!(text.contains("000001.seg, offset"), "{text}");
        assert!(!output(&["show", dir]).0);
    }

    #[test]
    fn keys_are_made_where_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for (index, words) in [&["keygen"][..], &["keygen", "--output"]]
            .iter()
            .enumerate()
        {
            let path = dir.path().join(format!("auditor-{index}"));
            let words = [words, &[path.to_str().unwrap()][..]].concat();
            assert!(output(&words).0);
            assert!(PrivateKey::read(&path.with_extension("key")).is_ok());
            assert!(path.with_extension("pub").exists());
        }
    }

    #[test]
    fn an_empty_directory_is_no_clean_log() {
        let dir = tempfile::tempdir().unwrap();
        let (well, text) = output(&["verify", dir.path().to_str().unwrap()]);
        assert!(!well && text.contains("NOT OK"), "{text}");
    }
}
