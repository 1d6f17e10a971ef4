//! Where segments are written. A trait, so that tests can make it fail.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Makes segment files.
pub trait Storage: Send {
    /// Creates a new file, reserves `reserve` bytes for it where that is possible, and makes the
    /// file's name durable. Fails when it is there already.
    fn create(&mut self, path: &Path, reserve: u64) -> io::Result<Box<dyn Segment>>;
}

/// A segment that is being written, from its start to its end.
pub trait Segment: Send {
    /// Appends some or all of `bytes` and says how many.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Makes everything durable that was written so far.
    fn sync(&mut self) -> io::Result<()>;

    /// Gives back what was reserved beyond `length`. Not needed for safety: a reader tells reserved
    /// zeros from records.
    fn trim(&mut self, length: u64) -> io::Result<()>;
}

/// The file system.
#[derive(Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create(&mut self, path: &Path, reserve: u64) -> io::Result<Box<dyn Segment>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(path)?;
        reserve_space(&file, reserve)?;
        // Reserved blocks and the length are metadata: sync them once, so that a sync of data later
        // has nothing else to write.
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Box::new(DiskSegment(file)))
    }
}

struct DiskSegment(File);

impl Segment for DiskSegment {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn trim(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

fn reserve_space(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // A file system that cannot reserve costs speed, nothing else.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
