//! What has to be settled before a new run may begin: which runs came before, where they ended, and
//! what a crash left behind.
//!
//! Each run has a folder of its own, named by its log id, and a lock file in it that its process
//! holds. So two processes may run at once, in one directory, and never write to one file. The
//! directory's own lock is held only while a run begins, so that two that begin at once see each
//! other.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    frame,
    payload::{CutTail, Head, LogStart, Predecessor, Recover},
    record::{Kind, Seq},
    segment::{Defect, LOCK, Listing, RunFolder, SegmentReader, Step, segment_name},
    storage::sync_folder,
    value::{Code, Digest, Name},
};

/// Why a log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No recipient: what is sealed could never be read.
    #[error(
        "the audit log has no recipient; make a key with `chaperone audit keygen NAME` and name its .pub file in [audit] recipients"
    )]
    NoRecipient,
    /// Two recipients with one key.
    #[error("the audit log's recipient {0} is named twice")]
    SameRecipient(Code),
    /// Segments would be too small to be of use.
    #[error("segments of {0} bytes are too small: at least {min} are needed", min = crate::LogOptions::MIN_SEGMENT)]
    SmallSegments(u64),
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// An earlier run is damaged in a way that a crash cannot cause.
    #[error("{}: offset {offset}, where record {seq} should be: {problem}. This is not the torn tail of a crash, so nothing was changed. Keep a copy of the directory, run `chaperone audit verify` on it, and begin with an empty one", segment.display())]
    Damaged {
        /// The segment file.
        segment: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record that should be there.
        seq: Seq,
        /// What is wrong.
        problem: String,
    },
    /// The random source or the cryptographic library failed.
    #[error(transparent)]
    Seal(#[from] crate::seal::SealError),
    /// The first records could not be written.
    #[error(transparent)]
    Failed(#[from] crate::LogFailed),
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Io { path, source }
}

/// What a new run has to say about the ones before it.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) predecessors: Vec<Predecessor>,
    pub(crate) recovered: Vec<Recover>,
}

/// Takes the directory's lock, waiting for another process that is just starting.
pub(crate) fn lock_directory(dir: &Path) -> Result<File, StartError> {
    std::fs::create_dir_all(dir).map_err(io_error(dir))?;
    let path = dir.join(LOCK);
    let lock = open_lock(&path).map_err(io_error(&path))?;
    lock.lock().map_err(io_error(&path))?;
    Ok(lock)
}

/// Makes the folder of a new run and takes its lock.
pub(crate) fn make_run(dir: &Path, log: Uuid) -> Result<(PathBuf, File), StartError> {
    let folder = dir.join(log.to_string());
    std::fs::create_dir(&folder).map_err(io_error(&folder))?;
    let path = folder.join(LOCK);
    let lock = open_lock(&path).map_err(io_error(&path))?;
    // Waits at most for a verifier that is just asking whether this run is being written.
    lock.lock().map_err(io_error(&path))?;
    sync_folder(dir).map_err(io_error(dir))?;
    Ok((folder, lock))
}

fn open_lock(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
}

/// Looks at the runs in the directory; recovers those that crashed. The directory's lock is held.
pub(crate) fn settle(dir: &Path) -> Result<Past, StartError> {
    let listing = Listing::read(dir).map_err(io_error(dir))?;
    let mut settled = HashSet::new();
    for run in &listing.runs {
        if let Some(start) = first_record(run)? {
            settled.extend(
                start
                    .predecessors
                    .iter()
                    .filter(|predecessor| predecessor.ended)
                    .map(|predecessor| predecessor.head.log),
            );
        }
    }
    let mut past = Past::default();
    for run in listing
        .runs
        .iter()
        .filter(|run| !settled.contains(&run.log))
    {
        if run.is_live().map_err(io_error(&run.path))? {
            past.predecessors.push(Predecessor {
                head: live_head(run)?,
                ended: false,
            });
            continue;
        }
        let (head, stopped) = recover(run)?;
        past.predecessors.push(Predecessor { head, ended: true });
        if !stopped {
            past.recovered.push(Recover {
                head,
                reason: Code::from_words("no-log-stop"),
                cut: cut_tails(&run.path)?,
            });
        }
    }
    Ok(past)
}

fn first_record(run: &RunFolder) -> Result<Option<LogStart>, StartError> {
    let Some((1, path)) = run.segments.first() else {
        return Ok(None);
    };
    let mut reader = SegmentReader::open(path).map_err(io_error(path))?;
    if let Step::Bad(_) = reader.begin().map_err(io_error(path))? {
        return Ok(None);
    }
    // A first record that cannot be read settles nothing: the run itself is looked at then.
    match reader.step().map_err(io_error(path))? {
        Step::Record(frame) => Ok(frame.parse_body().ok()),
        Step::End | Step::Bad(_) => Ok(None),
    }
}

/// What a look through a segment found.
struct Scan {
    head: Head,
    last_kind: String,
    /// Records in this segment.
    records: u64,
    /// Offset behind the last good record.
    end: u64,
    defect: Option<Problem>,
}

enum Problem {
    /// The bytes are no record.
    Bytes(Defect),
    /// A record that does not belong here.
    Chain(String),
}

/// Reads a segment of which the chain before is known (`before`), or not.
fn scan(log: Uuid, path: &Path, before: Option<Head>) -> io::Result<Scan> {
    let mut reader = SegmentReader::open(path)?;
    let mut scan = Scan {
        head: before.unwrap_or(Head {
            log,
            seq: Seq(0),
            hash: Digest::ZERO,
        }),
        last_kind: String::new(),
        records: 0,
        end: 0,
        defect: None,
    };
    let mut known = before.is_some();
    if let Step::Bad(defect) = reader.begin()? {
        scan.defect = Some(Problem::Bytes(defect));
        return Ok(scan);
    }
    scan.end = reader.offset();
    if scan.end == 0 {
        return Ok(scan);
    }
    loop {
        let frame = match reader.step()? {
            Step::Record(frame) => frame,
            Step::End => return Ok(scan),
            Step::Bad(defect) => {
                scan.defect = Some(Problem::Bytes(defect));
                return Ok(scan);
            }
        };
        let problem = match frame.parse_header() {
            Err(_) => Some("its header is no valid header".to_owned()),
            Ok(header) if header.log != log => Some(format!("it belongs to log {}", header.log)),
            Ok(header) if known && header.seq.0 != scan.head.seq.0 + 1 => {
                Some(format!("it has sequence {}", header.seq))
            }
            Ok(header) if known && header.prev != scan.head.hash => {
                Some("it does not follow the record before it".to_owned())
            }
            Ok(header) => {
                scan.head.seq = header.seq;
                scan.head.hash = frame.hash;
                scan.last_kind = header.kind;
                scan.records += 1;
                known = true;
                None
            }
        };
        if let Some(problem) = problem {
            scan.defect = Some(Problem::Chain(problem));
            return Ok(scan);
        }
        scan.end = reader.offset();
    }
}

/// The head of a run that another process is writing: its last whole record, made durable, so that
/// a crash cannot take away what a successor has named.
fn live_head(run: &RunFolder) -> Result<Head, StartError> {
    let nothing = Head {
        log: run.log,
        seq: Seq(0),
        hash: Digest::ZERO,
    };
    for (number, path) in run.segments.iter().rev() {
        let before = (*number == 1).then_some(nothing);
        let scan = scan(run.log, path, before).map_err(io_error(path))?;
        if scan.records > 0 {
            File::open(path)
                .and_then(|file| file.sync_data())
                .map_err(io_error(path))?;
            return Ok(scan.head);
        }
    }
    Ok(nothing)
}

/// Finds the head of a run whose process is gone, and cuts off a torn tail. Says whether the run
/// was closed.
fn recover(run: &RunFolder) -> Result<(Head, bool), StartError> {
    for ((number, path), expected) in run.segments.iter().zip(1u32..) {
        if *number != expected {
            return Err(StartError::Damaged {
                segment: path.clone(),
                offset: 0,
                seq: Seq(0),
                problem: format!("segment {} is missing", segment_name(expected)),
            });
        }
    }
    let nothing = Head {
        log: run.log,
        seq: Seq(0),
        hash: Digest::ZERO,
    };
    check_earlier(run, nothing)?;
    let mut segments = run.segments.iter().rev().peekable();
    while let Some((number, path)) = segments.next() {
        let before = match segments.peek() {
            None => Some(nothing),
            Some((_, previous)) => {
                let scan = scan(run.log, previous, (*number == 2).then_some(nothing))
                    .map_err(io_error(previous))?;
                let rotated = scan.last_kind == Kind::Rotate.as_str();
                match scan.defect {
                    None if rotated => Some(scan.head),
                    // The next segment is made before the record that leads to it: an unused one
                    // is what a crash in between leaves.
                    _ if SegmentReader::is_unused(path).map_err(io_error(path))? => {
                        std::fs::remove_file(path).map_err(io_error(path))?;
                        sync_folder(&run.path).map_err(io_error(&run.path))?;
                        continue;
                    }
                    defect => {
                        return Err(damaged(
                            previous,
                            &scan.head,
                            scan.end,
                            defect,
                            "no rotate record ends the segment, though another follows",
                        ));
                    }
                }
            }
        };
        return recover_last(run, path, before);
    }
    Ok((nothing, false))
}

/// How many bytes of earlier segments a start reads; the rest is left to `verify`.
const START_READS: u64 = 256 << 20;

/// Looks at the segments before the last two, the newest first.
fn check_earlier(run: &RunFolder, nothing: Head) -> Result<(), StartError> {
    let mut bytes = 0;
    for (number, path) in run.segments.iter().rev().skip(2) {
        bytes += std::fs::metadata(path).map_err(io_error(path))?.len();
        if bytes > START_READS {
            return Ok(());
        }
        let before = (*number == 1).then_some(nothing);
        let scan = scan(run.log, path, before).map_err(io_error(path))?;
        if scan.defect.is_some() || scan.last_kind != Kind::Rotate.as_str() {
            let otherwise = "no rotate record ends the segment, though another follows";
            return Err(damaged(path, &scan.head, scan.end, scan.defect, otherwise));
        }
    }
    Ok(())
}

fn recover_last(
    run: &RunFolder,
    path: &Path,
    before: Option<Head>,
) -> Result<(Head, bool), StartError> {
    let scan = scan(run.log, path, before).map_err(io_error(path))?;
    let expected = Seq(scan.head.seq.0 + 1);
    let tail = read_tail(path, scan.end).map_err(io_error(path))?;
    match scan.defect {
        None => {}
        Some(Problem::Bytes(_)) if !was_durable(&tail, run.log, expected) => {}
        defect => return Err(damaged(path, &scan.head, scan.end, defect, "")),
    }
    if scan.end == 0 && before.is_some_and(|head| head.seq > Seq(0)) {
        let problem = "the file is empty, though the segment before leads to it";
        return Err(damaged(path, &scan.head, 0, None, problem));
    }
    let stopped = scan.last_kind == Kind::LogStop.as_str();
    let kept = tail.len() - tail.iter().rev().take_while(|b| **b == 0).count();
    if let Some(torn) = tail.get(..kept).filter(|torn| !torn.is_empty()) {
        if stopped {
            return Err(damaged(
                path,
                &scan.head,
                scan.end,
                None,
                "bytes follow the log-stop record",
            ));
        }
        keep_aside(run, path, scan.end, torn)?;
    }
    if !tail.is_empty() {
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(io_error(path))?;
        file.set_len(scan.end)
            .and_then(|()| file.sync_all())
            .map_err(io_error(path))?;
    }
    Ok((scan.head, stopped))
}

fn damaged(
    path: &Path,
    head: &Head,
    offset: u64,
    problem: Option<Problem>,
    otherwise: &str,
) -> StartError {
    StartError::Damaged {
        segment: path.to_owned(),
        offset,
        seq: Seq(head.seq.0 + 1),
        problem: match problem {
            Some(Problem::Bytes(defect)) => {
                format!("{defect}, and records behind it show that it was on disk")
            }
            Some(Problem::Chain(problem)) => problem,
            None => otherwise.to_owned(),
        },
    }
}

fn read_tail(path: &Path, from: u64) -> io::Result<Vec<u8>> {
    use std::io::{Read as _, Seek as _};
    let mut file = File::open(path)?;
    file.seek(io::SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    Ok(tail)
}

/// Whether a record in `tail` says that the record `expected` was on disk before it was written.
/// Then the place where `expected` should be was not torn, it was damaged later. Without one, all
/// that is in `tail` belongs to the last batch, which was never synced: its pages may have reached
/// the disk in any order.
fn was_durable(tail: &[u8], log: Uuid, expected: Seq) -> bool {
    let mut rest = tail;
    while let Some(at) = rest.windows(4).position(|bytes| bytes == b"CA1 ") {
        let Some(candidate) = rest.get(at..) else {
            return false;
        };
        if let Ok(frame) = frame::parse(candidate)
            && let Ok(header) = frame.parse_header()
            && header.log == log
            && header.synced >= expected
        {
            return true;
        }
        rest = candidate.get(1..).unwrap_or_default();
    }
    false
}

fn keep_aside(run: &RunFolder, segment: &Path, offset: u64, torn: &[u8]) -> Result<(), StartError> {
    let stem = segment
        .file_stem()
        .and_then(|s| s.to_str())
        .unwrap_or_default();
    for attempt in 0u32.. {
        let path = run.path.join(format!("cut-{stem}-{offset}-{attempt}.bin"));
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = match created {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(io_error(&path)(error)),
        };
        file.write_all(torn)
            .and_then(|()| file.sync_all())
            .map_err(io_error(&path))?;
        break;
    }
    sync_folder(&run.path).map_err(io_error(&run.path))
}

fn cut_tails(folder: &Path) -> Result<Vec<CutTail>, StartError> {
    let listing = RunFolder::cuts_of(folder).map_err(io_error(folder))?;
    let mut cuts = Vec::new();
    for path in listing {
        let bytes = std::fs::read(&path).map_err(io_error(&path))?;
        cuts.push(CutTail {
            file: Name::new(
                path.file_name()
                    .and_then(|n| n.to_str())
                    .unwrap_or_default(),
            ),
            bytes: bytes.len() as u64,
            digest: Digest::of(&bytes),
        });
    }
    Ok(cuts)
}
