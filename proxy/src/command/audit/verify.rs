//! What `verify` prints.

use std::{
    io::{self, Write},
    path::Path,
};

use chaperone_audit_log::{Ending, Report};

pub(super) fn print_report(dir: &Path, report: &Report, out: &mut impl Write) -> io::Result<()> {
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
