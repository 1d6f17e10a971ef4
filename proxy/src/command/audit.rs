//! `chaperone audit`: verify, show, trace, digest, keygen.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use chaperone_audit_log::{
    Digest, Expect, Kind, PrivateKey, Record, RecordRef, Seq, parse_rfc3339,
};
use uuid::Uuid;

mod digest;
mod show;
mod trace;
mod verify;

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
        #[arg(long, value_name = "HASH", value_parser = head)]
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
    /// Tell which records hold the digest of a value that is at hand.
    ///
    /// Of a bind value that is too long to be kept (over 64 KiB) the log has a digest, as it has of
    /// every statement's text. Digests are keyed: this prints those that the file's bytes have in each
    /// run, then the records that hold one. Ends with 0 when there are any.
    Digest {
        /// The log directory.
        dir: PathBuf,
        /// A file with the value's bytes as they were sent, `-` for standard input.
        file: PathBuf,
        /// An auditor's private key: without one nobody can make these digests.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
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

/// Runs the command. 0 = well, 1 = the log is not well or has no such request or value, 2 = it could not be
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
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
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
            let report = chaperone_audit_log::verify(&dir, &expect)
                .map_err(|source| directory(&dir, source))?;
            // An empty directory proves nothing; a wrong path must not look like a clean log.
            let well = report.ok && report.records > 0;
            if json {
                serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
                writeln!(out)?;
            } else {
                verify::print_report(&dir, &report, out)?;
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
            show::show(&dir, key.as_deref(), json, wanted, out)
        }
        AuditCommand::Trace { dir, request, key } => {
            trace::trace(&dir, &request, key.as_deref(), out)
        }
        AuditCommand::Digest { dir, file, key } => digest::digest(&dir, &file, &key, out),
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

fn private_key(path: Option<&Path>) -> Result<Option<PrivateKey>, Failure> {
    Ok(path.map(PrivateKey::read).transpose()?)
}

fn head(text: &str) -> Result<Digest, &'static str> {
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
mod tests;
