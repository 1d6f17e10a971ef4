//! Verification of one run: its segments, its records, its chain.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::Path,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    clock::parse_rfc3339,
    frame::Frame,
    payload::{DataKeyRecord, Head, LogStart, Recover, Rotate},
    record::{FORMAT_VERSION, Header, Kind, Seq},
    segment::{Defect, RunFolder, SegmentReader, Step, segment_name},
    value::Digest,
    verify::{Problem, relative},
};

/// How often, and how long apart, the tail of a run that is being written is looked at again.
const RETRIES: u32 = 40;
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// What another run says about this one.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) by: Uuid,
    pub(crate) seq: Seq,
    pub(crate) hash: Digest,
    pub(crate) ended: bool,
}

pub(crate) struct RunCheck<'a> {
    dir: &'a Path,
    run: &'a RunFolder,
    expected_head: Option<Digest>,
    named: &'a [Named],
    /// The records of `named` that were passed already.
    passed: usize,
    keys: HashSet<u32>,
    last_mono: u64,
    last_micros: u64,
    last_synced: Seq,
    backwards: u64,
    /// The last segment that a rotate record has ended.
    rotated: Option<u32>,
    pub(crate) live: bool,
    pub(crate) head: Head,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) kinds: BTreeMap<String, u64>,
    pub(crate) first_time: String,
    pub(crate) last_time: String,
    pub(crate) stopped: bool,
    pub(crate) start: Option<(Uuid, LogStart)>,
    pub(crate) recovers: Vec<(Uuid, Recover)>,
    pub(crate) expected_at: Option<Seq>,
    pub(crate) notes: Vec<String>,
    pub(crate) problem: Option<Problem>,
}

/// What ends the check of a run.
struct Wrong {
    kind: Option<String>,
    what: String,
}

impl Wrong {
    fn new(what: impl Into<String>) -> Self {
        Self {
            kind: None,
            what: what.into(),
        }
    }
}

impl<'a> RunCheck<'a> {
    pub(crate) fn new(
        dir: &'a Path,
        run: &'a RunFolder,
        expected_head: Option<Digest>,
        named: &'a [Named],
    ) -> Self {
        Self {
            dir,
            run,
            expected_head,
            named,
            passed: 0,
            keys: HashSet::new(),
            last_mono: 0,
            last_micros: 0,
            last_synced: Seq(0),
            backwards: 0,
            rotated: None,
            live: false,
            head: Head {
                log: run.log,
                seq: Seq(0),
                hash: Digest::ZERO,
            },
            records: 0,
            bytes: 0,
            kinds: BTreeMap::new(),
            first_time: String::new(),
            last_time: String::new(),
            stopped: false,
            start: None,
            recovers: Vec::new(),
            expected_at: None,
            notes: Vec::new(),
            problem: None,
        }
    }

    /// Reads all segments, up to the first thing that is wrong.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        self.live = self.run.is_live()?;
        let count = self.run.segments.len();
        for (index, (number, path)) in self.run.segments.iter().enumerate() {
            let expected = u32::try_from(index + 1).unwrap_or(u32::MAX);
            if *number != expected {
                self.wrong(
                    path,
                    None,
                    Wrong::new(format!(
                        "segment {} is missing before this one",
                        segment_name(expected)
                    )),
                );
                return Ok(());
            }
            let last = index + 1 == count;
            if !self.segment(*number, path, last)? {
                return Ok(());
            }
        }
        self.end()
    }

    /// Reads one segment; false = something is wrong, or nothing more is to be read.
    fn segment(&mut self, number: u32, path: &Path, last: bool) -> io::Result<bool> {
        let mut reader = SegmentReader::open(path)?;
        if let Step::Bad(defect) = reader.begin()? {
            let wrong = self.defect(defect, last);
            self.wrong(path, Some(0), wrong);
            return Ok(false);
        }
        let mut tries = 0;
        loop {
            let offset = reader.offset();
            if offset == 0 {
                // Its maker got no further; but then no record led to it.
                if number > 1 && self.rotated == Some(number - 1) {
                    self.wrong(
                        path,
                        Some(0),
                        Wrong::new("the file is empty, though the segment before leads to it"),
                    );
                    return Ok(false);
                }
                return Ok(self.segment_end(number, path, offset, last));
            }
            match reader.step()? {
                Step::End => return Ok(self.segment_end(number, path, offset, last)),
                Step::Record(frame) => {
                    tries = 0;
                    if let Err(wrong) = self.record(&frame, number) {
                        self.wrong(path, Some(offset), wrong);
                        return Ok(false);
                    }
                }
                Step::Bad(_) if self.live && last && tries < RETRIES => {
                    // Somebody is writing just there.
                    tries += 1;
                    std::thread::sleep(RETRY_AFTER);
                    reader = SegmentReader::open_at(path, offset)?;
                }
                Step::Bad(defect) => {
                    let wrong = self.defect(defect, last);
                    self.wrong(path, Some(offset), wrong);
                    return Ok(false);
                }
            }
        }
    }

    fn defect(&self, defect: Defect, last: bool) -> Wrong {
        let torn = last && !self.stopped && !self.live;
        Wrong::new(if torn {
            format!(
                "{defect}. If the process crashed here, this is a torn tail: the next start puts it aside and records that. If it did not, the bytes were changed"
            )
        } else {
            defect.to_string()
        })
    }

    fn segment_end(&mut self, number: u32, path: &Path, offset: u64, last: bool) -> bool {
        let rotated = self.rotated == Some(number);
        if last {
            let next = self.run.path.join(segment_name(number + 1));
            if rotated {
                if self.live && next.exists() {
                    self.notes.push(format!(
                        "{}: more segments were written meanwhile",
                        self.run.log
                    ));
                } else {
                    self.wrong(
                        &next,
                        None,
                        Wrong::new("this segment is missing: the one before it leads to it"),
                    );
                    return false;
                }
            }
            return true;
        }
        if rotated {
            return true;
        }
        // The next segment is made before the record that leads to it, so a crash may leave one
        // that is unused.
        let unused = self.run.segments.get(number as usize..).is_some_and(
            |rest| matches!(rest, [(_, next)] if SegmentReader::is_unused(next).unwrap_or(false)),
        );
        if unused {
            return true;
        }
        self.wrong(
            path,
            Some(offset),
            Wrong::new(
                "the segment ends without a rotate record, though another follows: it was cut",
            ),
        );
        false
    }

    fn record(&mut self, frame: &Frame<'_>, segment: u32) -> Result<(), Wrong> {
        let header = frame
            .parse_header()
            .map_err(|_| Wrong::new("its header is no valid header"))?;
        self.check_place(&header, segment)
            .and_then(|()| self.check_content(frame, &header, segment))
            .and_then(|()| self.check_named(&header, frame.hash))
            .map_err(|wrong| Wrong {
                kind: Some(header.kind.clone()),
                ..wrong
            })?;
        self.note_times(&header);
        self.last_synced = header.synced;
        if self.expected_head == Some(frame.hash) {
            self.expected_at = Some(header.seq);
        }
        self.head.seq = header.seq;
        self.head.hash = frame.hash;
        self.records += 1;
        self.bytes += frame.length as u64;
        *self.kinds.entry(header.kind).or_default() += 1;
        Ok(())
    }

    fn check_place(&self, header: &Header, segment: u32) -> Result<(), Wrong> {
        let expected = Seq(self.head.seq.0 + 1);
        if header.v != FORMAT_VERSION {
            Err(Wrong::new(format!("its format version is {}", header.v)))
        } else if header.log != self.run.log {
            Err(Wrong::new(format!("it belongs to log {}", header.log)))
        } else if header.seq != expected {
            Err(Wrong::new(format!(
                "it has sequence {}: a record is missing, doubled or in the wrong place",
                header.seq
            )))
        } else if header.prev != self.head.hash {
            Err(Wrong::new(
                "it does not follow the record before it (another previous hash)",
            ))
        } else if header.synced >= header.seq || header.synced < self.last_synced {
            Err(Wrong::new("its synced sequence is impossible"))
        } else if self.stopped {
            Err(Wrong::new("it follows a log-stop"))
        } else if self.rotated == Some(segment) {
            Err(Wrong::new("it follows a rotate record in the same segment"))
        } else {
            Ok(())
        }
    }

    fn check_content(
        &mut self,
        frame: &Frame<'_>,
        header: &Header,
        segment: u32,
    ) -> Result<(), Wrong> {
        let body = |_| Wrong::new("its body is not what its kind has");
        let is = |kind: Kind| header.kind == kind.as_str();
        if (header.seq.0 == 1) != is(Kind::LogStart) {
            return Err(Wrong::new("a run begins with log-start, and has no other"));
        }
        match header.key {
            Some(key) if !self.keys.contains(&key) => {
                return Err(Wrong::new(format!(
                    "it is sealed with key {key}, which no record before it has"
                )));
            }
            Some(_) if frame.sealed.len() < crate::seal::TAG => {
                return Err(Wrong::new("its sealed part is too short"));
            }
            None if !frame.sealed.is_empty() => {
                return Err(Wrong::new("it has a sealed part without a key"));
            }
            _ => {}
        }
        if is(Kind::LogStart) {
            self.first_time.clone_from(&header.time);
            self.start = Some((self.run.log, frame.parse_body().map_err(body)?));
        } else if is(Kind::Key) {
            self.keys
                .insert(frame.parse_body::<DataKeyRecord>().map_err(body)?.id);
        } else if is(Kind::Rotate) {
            let rotate = frame.parse_body::<Rotate>().map_err(body)?;
            if rotate.segment != segment || rotate.next != segment + 1 {
                return Err(Wrong::new("it belongs to another segment"));
            }
            self.rotated = Some(segment);
        } else if is(Kind::Recover) {
            self.recovers
                .push((self.run.log, frame.parse_body().map_err(body)?));
        } else if is(Kind::LogStop) {
            self.stopped = true;
        }
        Ok(())
    }

    fn check_named(&mut self, header: &Header, hash: Digest) -> Result<(), Wrong> {
        while let Some(named) = self.named.get(self.passed).filter(|n| n.seq <= header.seq) {
            self.passed += 1;
            if named.seq == header.seq && named.hash != hash {
                return Err(Wrong::new(format!(
                    "run {} saw another record here: the log was written anew",
                    named.by
                )));
            }
        }
        // A run that was seen to have ended must not have grown since.
        let grown = self
            .named
            .iter()
            .find(|named| named.ended && named.seq < header.seq);
        grown.map_or(Ok(()), |named| {
            Err(Wrong::new(format!(
                "run {} saw this run end with record {}",
                named.by, named.seq
            )))
        })
    }

    fn note_times(&mut self, header: &Header) {
        let micros = parse_rfc3339(&header.time).unwrap_or(0);
        if micros < self.last_micros {
            self.backwards += 1;
            if self.backwards == 1 {
                self.notes.push(format!(
                    "{}: the wall clock was set back before record {} (sequences count, not clocks)",
                    self.run.log, header.seq
                ));
            }
        }
        if header.mono < self.last_mono {
            self.notes.push(format!(
                "{}: monotonic time goes backwards at record {}",
                self.run.log, header.seq
            ));
        }
        self.last_micros = micros;
        self.last_mono = header.mono;
        self.last_time.clone_from(&header.time);
    }

    fn end(&mut self) -> io::Result<()> {
        let missing = self
            .named
            .iter()
            .find(|named| named.seq > self.head.seq)
            .cloned();
        if let Some(named) = missing {
            let path = self
                .run
                .segments
                .last()
                .map_or(self.run.path.as_path(), |(_, path)| path.as_path());
            let what = format!(
                "the run ends here, but run {} saw record {}: its end was cut off",
                named.by, named.seq
            );
            self.wrong(path, None, Wrong::new(what));
            return Ok(());
        }
        if self.records == 0 {
            self.notes.push(format!(
                "{}: a run without records; its process ended while it was starting",
                self.run.log
            ));
        } else if !self.stopped && !self.live {
            self.notes.push(format!(
                "{}: ended without a log-stop after record {}",
                self.run.log, self.head.seq
            ));
        }
        Ok(())
    }

    fn wrong(&mut self, path: &Path, offset: Option<u64>, wrong: Wrong) {
        self.problem = Some(Problem {
            file: relative(self.dir, path),
            offset,
            log: Some(self.run.log),
            seq: Some(Seq(self.head.seq.0 + 1)),
            kind: wrong.kind,
            what: wrong.what,
        });
    }
}
