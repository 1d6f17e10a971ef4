//! Reading one segment file, record by record, in constant memory.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::frame::{self, Frame, FrameError, MAGIC, PREFIX};

/// What stands at a place in a segment.
#[derive(Debug)]
pub enum Step<'a> {
    /// A whole record whose bytes match its hash.
    Record(Frame<'a>),
    /// Nothing more: the file ends here, or only reserved zero bytes follow.
    End,
    /// Something that is no record. Reading stops here.
    Bad(Defect),
}

/// What is wrong at a place in a segment, without a look at the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// The first line is not the format's.
    #[error("the file does not begin with \"chaperone-audit 1\"")]
    Magic,
    /// The bytes are no record.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Behind the last record are bytes that are neither record nor reserved zeros.
    #[error("bytes after the last record are not zero")]
    AfterEnd,
}

/// Reads a segment from its start.
#[derive(Debug)]
pub struct SegmentReader {
    file: BufReader<File>,
    length: u64,
    offset: u64,
    buffer: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            file: BufReader::with_capacity(64 << 10, file),
            length,
            offset: 0,
            buffer: Vec::new(),
        })
    }

    /// Opens a segment file at the start of a record.
    pub fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        use std::io::Seek as _;
        let mut reader = Self::open(path)?;
        reader.file.seek(io::SeekFrom::Start(offset))?;
        reader.offset = offset;
        Ok(reader)
    }

    /// Where the next step begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file's length when it was opened.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Checks the file's first line. A file that has only the start of it, and zeros behind, is
    /// [`Step::End`] with the offset still 0: its maker got no further.
    pub fn begin(&mut self) -> io::Result<Step<'static>> {
        self.fill(MAGIC.len())?;
        if self.buffer == MAGIC {
            self.offset = MAGIC.len() as u64;
            return Ok(Step::End);
        }
        let same = self.buffer.iter().zip(MAGIC).take_while(|(a, b)| a == b);
        let rest = same.count();
        let zero = self.buffer.iter().skip(rest).all(|b| *b == 0) && self.rest_is_zero()?;
        Ok(if zero {
            Step::End
        } else {
            Step::Bad(Defect::Magic)
        })
    }

    /// Whether a segment has no record and nothing else worth keeping.
    pub(crate) fn is_unused(path: &Path) -> io::Result<bool> {
        let mut reader = Self::open(path)?;
        Ok(matches!(reader.begin()?, Step::End)
            && (reader.offset == 0 || matches!(reader.step()?, Step::End)))
    }

    /// The next record.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        self.fill(PREFIX)?;
        if self.buffer.first().is_none_or(|b| *b == 0) {
            let zero = self.buffer.iter().all(|b| *b == 0) && self.rest_is_zero()?;
            return Ok(if zero {
                Step::End
            } else {
                Step::Bad(Defect::AfterEnd)
            });
        }
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(Step::Bad(FrameError::Short(PREFIX).into()));
        };
        let (header, sealed) = match frame::parse_prefix(prefix) {
            Ok(lengths) => lengths,
            Err(error) => return Ok(Step::Bad(error.into())),
        };
        let length = frame::OVERHEAD + header + sealed;
        if self.length.saturating_sub(self.offset) < length as u64 {
            return Ok(Step::Bad(FrameError::Short(length).into()));
        }
        let rest = (length - PREFIX) as u64;
        (&mut self.file).take(rest).read_to_end(&mut self.buffer)?;
        match frame::parse(&self.buffer) {
            Ok(frame) => {
                self.offset += frame.length as u64;
                Ok(Step::Record(frame))
            }
            Err(error) => Ok(Step::Bad(error.into())),
        }
    }

    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        self.buffer.clear();
        (&mut self.file)
            .take(bytes as u64)
            .read_to_end(&mut self.buffer)?;
        Ok(())
    }

    fn rest_is_zero(&mut self) -> io::Result<bool> {
        let mut chunk = [0u8; 16 << 10];
        loop {
            let count = self.file.read(&mut chunk)?;
            if count == 0 {
                return Ok(true);
            }
            if chunk.iter().take(count).any(|b| *b != 0) {
                return Ok(false);
            }
        }
    }
}

/// The file name of a run's nth segment.
#[must_use]
pub fn segment_name(number: u32) -> String {
    format!("{number:06}.seg")
}

/// The number in a segment's file name.
#[must_use]
pub fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".seg")?.parse().ok()?;
    (number > 0 && segment_name(number) == name).then_some(number)
}

/// The name of the lock file, in the directory and in each run's folder.
pub const LOCK: &str = "lock";

/// What a log directory holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Folders of runs, oldest first (log ids begin with the time).
    pub runs: Vec<RunFolder>,
    /// Whatever else is there.
    pub foreign: Vec<PathBuf>,
}

/// One run's folder.
#[derive(Debug)]
pub struct RunFolder {
    /// The run.
    pub log: Uuid,
    /// The folder.
    pub path: PathBuf,
    /// Its segments in order.
    pub segments: Vec<(u32, PathBuf)>,
    /// Tails that were cut off, in order of their names.
    pub cuts: Vec<PathBuf>,
    /// Whatever else is there.
    pub foreign: Vec<PathBuf>,
}

impl Listing {
    /// Reads a log directory.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let folder = entry.file_type()?.is_dir();
            let log = name
                .to_str()
                .and_then(|name| Some((name, Uuid::parse_str(name).ok()?)))
                .filter(|(name, log)| log.to_string() == *name);
            match log {
                Some((_, log)) if folder => listing.runs.push(RunFolder::read(log, path)?),
                _ if name == LOCK && !folder => {}
                _ => listing.foreign.push(path),
            }
        }
        listing.runs.sort_by_key(|run| run.log);
        listing.foreign.sort();
        Ok(listing)
    }
}

impl RunFolder {
    fn read(log: Uuid, path: PathBuf) -> io::Result<Self> {
        let mut run = Self {
            log,
            path,
            segments: Vec::new(),
            cuts: Vec::new(),
            foreign: Vec::new(),
        };
        for entry in std::fs::read_dir(&run.path)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_str().unwrap_or_default();
            let file = entry.file_type()?.is_file();
            if let Some(number) = segment_number(name).filter(|_| file) {
                run.segments.push((number, path));
            } else if file && name.starts_with("cut-") && name.ends_with(".bin") {
                run.cuts.push(path);
            } else if !(file && name == LOCK) {
                run.foreign.push(path);
            }
        }
        run.segments.sort();
        run.cuts.sort();
        run.foreign.sort();
        Ok(run)
    }

    /// The tails that were cut off in a run's folder, as they are now.
    pub(crate) fn cuts_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
        Self::read(Uuid::nil(), folder.to_owned()).map(|run| run.cuts)
    }

    /// Whether a process has this run open.
    pub fn is_live(&self) -> io::Result<bool> {
        let lock = match File::open(self.path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
