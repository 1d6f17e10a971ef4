//! Verification: whether a log directory is what was written, as far as a chain of hashes can tell.
//!
//! What it finds: any changed byte; a record, segment or run that is missing, doubled, foreign or in
//! another order; a run that later runs saw longer or otherwise. What no chain can find by itself:
//! a tail that was cut off at a record's boundary of the *last* run, the last run as a whole, and a
//! log that was written anew from the start. For those an [`Expect`] has to say what must be there.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use uuid::Uuid;

use crate::{
    payload::{Head, LogStart, Recover},
    record::{RecordRef, Seq},
    segment::{Listing, RunFolder, SegmentReader, Step},
    value::Digest,
    verify_run::{Named, RunCheck},
};

/// What must be there, from outside the directory.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// The hash of a record that was seen earlier: a head that was noted down.
    pub head: Option<Digest>,
    /// A record that must be there; without a log id, in the run that began last.
    pub at_least: Option<(Option<Uuid>, Seq)>,
}

/// Something that is wrong, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file or folder, relative to the directory.
    pub file: String,
    /// Where in the file.
    pub offset: Option<u64>,
    /// The run.
    pub log: Option<Uuid>,
    /// The record that is wrong, or that should be there.
    pub seq: Option<Seq>,
    /// Its kind, where that can be read.
    pub kind: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", record {seq}")?;
        }
        if let Some(kind) = &self.kind {
            write!(f, " ({kind})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// With a `log-stop`.
    Closed,
    /// A process has it open.
    Live,
    /// Without a `log-stop`; a later run has recorded that.
    Recovered,
    /// Without a `log-stop`, and no later run began yet.
    Unfinished,
    /// Something is wrong with it, or it could not be read to its end.
    Broken,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Its last record that verified.
    pub head: Head,
    /// Records that verified.
    pub records: u64,
    /// Segment files.
    pub segments: usize,
    /// Wall time of its first record.
    pub first_time: String,
    /// Wall time of its last record.
    pub last_time: String,
    /// How it ended.
    pub ending: Ending,
}

/// The result of [`verify`].
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// Records that verified.
    pub records: u64,
    /// Bytes of records that verified.
    pub bytes: u64,
    /// Records by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Runs, oldest first.
    pub runs: Vec<RunReport>,
    /// The head of the run that began last: note it down, and give it to the next verification.
    pub head: Option<Head>,
    /// Where the expected head was found.
    pub expected_head_at: Option<String>,
    /// Worth knowing, not wrong.
    pub notes: Vec<String>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// Reads the whole directory. Memory is bounded by the number of runs and the largest record.
pub fn verify(dir: &Path, expect: &Expect) -> io::Result<Report> {
    let listing = Listing::read(dir)?;
    let mut report = Report::default();
    for path in &listing.foreign {
        report.problems.push(foreign(dir, path, None));
    }
    let named = collect_named(&listing)?;
    let mut seen = Seen::default();
    for run in &listing.runs {
        for path in &run.foreign {
            report.problems.push(foreign(dir, path, Some(run.log)));
        }
        let mut check = RunCheck::new(dir, run, expect.head, named.of(run.log));
        check.run()?;
        seen.starts.extend(check.start.take());
        seen.recovers.append(&mut check.recovers);
        report.take(check, run);
    }
    seen.check(dir, &listing, &named, &mut report)?;
    check_expectations(dir, expect, &mut report);
    report.ok = report.problems.is_empty();
    Ok(report)
}

impl Report {
    fn take(&mut self, check: RunCheck<'_>, run: &RunFolder) {
        self.records += check.records;
        self.bytes += check.bytes;
        for (kind, count) in &check.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
        self.notes.extend(check.notes.iter().cloned());
        if let Some(seq) = check.expected_at {
            let record = RecordRef { log: run.log, seq };
            self.expected_head_at = Some(record.to_string());
        }
        self.runs.push(RunReport {
            head: check.head,
            records: check.records,
            segments: run.segments.len(),
            first_time: check.first_time.clone(),
            last_time: check.last_time.clone(),
            ending: match &check.problem {
                Some(_) => Ending::Broken,
                None if check.stopped => Ending::Closed,
                None if check.live => Ending::Live,
                None => Ending::Unfinished,
            },
        });
        self.problems.extend(check.problem);
    }
}

fn foreign(dir: &Path, path: &Path, log: Option<Uuid>) -> Problem {
    Problem {
        file: relative(dir, path),
        offset: None,
        log,
        seq: None,
        kind: None,
        what: "this is not part of an audit log".to_owned(),
    }
}

pub(crate) fn relative(dir: &Path, path: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

/// What first records say about other runs.
pub(crate) struct NamedRuns(HashMap<Uuid, Vec<Named>>);

impl NamedRuns {
    fn of(&self, log: Uuid) -> &[Named] {
        self.0.get(&log).map_or(&[], Vec::as_slice)
    }
}

/// A first look at each run's first record, so that the runs can then be read once each.
fn collect_named(listing: &Listing) -> io::Result<NamedRuns> {
    let mut named: HashMap<Uuid, Vec<Named>> = HashMap::new();
    for run in &listing.runs {
        let Some((_, path)) = run.segments.first() else {
            continue;
        };
        let mut reader = SegmentReader::open(path)?;
        if !matches!(reader.begin()?, Step::End) {
            continue;
        }
        let Step::Record(frame) = reader.step()? else {
            continue;
        };
        // One that cannot be read is a problem of that run, found when it is checked.
        let Ok(start) = frame.parse_body::<LogStart>() else {
            continue;
        };
        for predecessor in start.predecessors {
            named.entry(predecessor.head.log).or_default().push(Named {
                by: run.log,
                seq: predecessor.head.seq,
                hash: predecessor.head.hash,
                ended: predecessor.ended,
            });
        }
    }
    for heads in named.values_mut() {
        heads.sort_by_key(|head| head.seq);
    }
    Ok(NamedRuns(named))
}

/// What only shows when all runs are known.
#[derive(Default)]
struct Seen {
    starts: Vec<(Uuid, LogStart)>,
    recovers: Vec<(Uuid, Recover)>,
}

impl Seen {
    fn check(
        &self,
        dir: &Path,
        listing: &Listing,
        named: &NamedRuns,
        report: &mut Report,
    ) -> io::Result<()> {
        self.check_links(dir, listing, named, report);
        self.check_recovers(dir, listing, report)
    }

    /// Runs begin one after the other, and each names all whose end no other has seen: so all but
    /// the last are named, and all but the first name one.
    fn check_links(&self, dir: &Path, listing: &Listing, named: &NamedRuns, report: &mut Report) {
        let problem = |log: Uuid, what: String| Problem {
            file: relative(dir, &dir.join(log.to_string())),
            offset: None,
            log: Some(log),
            seq: None,
            kind: None,
            what,
        };
        for (log, heads) in &named.0 {
            if !listing.runs.iter().any(|run| run.log == *log) {
                let by = heads
                    .iter()
                    .map(|head| head.by.to_string())
                    .collect::<Vec<_>>();
                report.problems.push(problem(
                    *log,
                    format!(
                        "the folder of this run is missing; named by run {}",
                        by.join(", ")
                    ),
                ));
            }
        }
        let (mut roots, mut leaves) = (Vec::new(), Vec::new());
        for (log, start) in &self.starts {
            if start.predecessors.is_empty() {
                roots.push(*log);
            }
            if named.of(*log).is_empty() {
                leaves.push(*log);
            }
        }
        for log in roots.iter().skip(1) {
            report.problems.push(problem(
                *log,
                "this run names no predecessor, though others were there: it is foreign, or what links it is gone".to_owned(),
            ));
        }
        report.head = leaves.last().and_then(|log| {
            let run = report.runs.iter().find(|run| run.head.log == *log)?;
            Some(run.head)
        });
        leaves.pop();
        for log in leaves {
            report.problems.push(problem(
                log,
                "no later run names this one: it is foreign, or the run that followed is gone"
                    .to_owned(),
            ));
        }
    }

    fn check_recovers(&self, dir: &Path, listing: &Listing, report: &mut Report) -> io::Result<()> {
        for (by, recover) in &self.recovers {
            let Some(run) = listing.runs.iter().find(|run| run.log == recover.head.log) else {
                continue;
            };
            if let Some(entry) = report
                .runs
                .iter_mut()
                .find(|entry| entry.head.log == run.log && entry.ending == Ending::Unfinished)
            {
                entry.ending = Ending::Recovered;
            }
            for cut in &recover.cut {
                let path = run.path.join(cut.file.as_str());
                let what = match std::fs::read(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        format!("the cut-off tail that run {by} put aside is missing")
                    }
                    Err(error) => return Err(error),
                    Ok(bytes) if Digest::of(&bytes) != cut.digest => {
                        format!("the cut-off tail is not what run {by} put aside")
                    }
                    Ok(bytes) => {
                        report.notes.push(format!(
                            "{}: {} bytes of a torn tail, put aside by run {by}",
                            relative(dir, &path),
                            bytes.len()
                        ));
                        continue;
                    }
                };
                report.problems.push(Problem {
                    file: relative(dir, &path),
                    offset: None,
                    log: Some(run.log),
                    seq: None,
                    kind: None,
                    what,
                });
            }
        }
        for run in &listing.runs {
            for path in &run.cuts {
                let known = self
                    .recovers
                    .iter()
                    .filter(|(_, recover)| recover.head.log == run.log)
                    .flat_map(|(_, recover)| &recover.cut)
                    .any(|cut| path.ends_with(cut.file.as_str()));
                if !known {
                    report.notes.push(format!(
                        "{}: a torn tail that no run has recorded yet",
                        relative(dir, path)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn check_expectations(dir: &Path, expect: &Expect, report: &mut Report) {
    let mut missing = |log: Option<Uuid>, seq: Option<Seq>, what: String| {
        report.problems.push(Problem {
            file: log.map_or_else(
                || ".".to_owned(),
                |log| relative(dir, &PathBuf::from(log.to_string())),
            ),
            offset: None,
            log,
            seq,
            kind: None,
            what,
        });
    };
    if let Some(head) = expect.head
        && report.expected_head_at.is_none()
    {
        missing(
            None,
            None,
            format!(
                "the expected head {head} is not there: the log was cut, rolled back or written anew"
            ),
        );
    }
    if let Some((log, seq)) = expect.at_least {
        let log = log.or(report.head.map(|head| head.log));
        let head = report
            .runs
            .iter()
            .find(|run| Some(run.head.log) == log)
            .map_or(Seq(0), |run| run.head.seq);
        if head < seq {
            missing(
                log,
                Some(seq),
                format!("at least this record was expected, but the run ends with record {head}"),
            );
        }
    }
}
