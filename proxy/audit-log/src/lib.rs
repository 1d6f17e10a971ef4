//! The tamper-evident record of what was asked, decided and done.
//!
//! # Use
//!
//! [`Log::open`] begins a run, [`Log::append`] takes a record ([`payload`]) and gives its sequence,
//! and a record is evidence once the watermark has passed it: [`Log::proof`] then gives a
//! [`Durable`]. [`verify()`] checks a directory, [`read`] reads one.
//!
//! # Format
//!
//! A directory has a file `lock` and a folder per process run, named by its log id (a UUID of
//! version 7). The folder has `lock`, held by the run's process; segments `000001.seg`,
//! `000002.seg`, …; and `cut-*.bin`, torn tails that were put aside.
//!
//! A segment is the line `chaperone-audit 1`, then records, then any number of zero bytes (reserved
//! space). A record is
//!
//! ```text
//! "CA1 " HHHHHHHH " " SSSSSSSS "\n"     22 bytes; lengths as 8 lower-case hexadecimal digits
//! header                                HHHHHHHH bytes: one JSON object, UTF-8, no newline in it
//! "\n"
//! sealed                                SSSSSSSS bytes: ciphertext and tag, or nothing
//! hash                                  32 bytes: SHA3-256 of everything above
//! "\n"
//! ```
//!
//! The header has `v` (1), `log`, `seq` (1, 2, 3, … through all segments of the run), `kind`,
//! `time`, `mono` (microseconds since the run began), `synced`, `prev` (the hash of the record
//! before; 64 zeros for the first), and where they apply `req`, `refs` (role to sequence, or to
//! `"LOG/SEQ"`), `key`; then `body`, which depends on the kind. Hashes are of stored bytes: nobody
//! has to write JSON the same way.
//!
//! A run's first record is `log-start`, which names the heads of all runs whose end no earlier one
//! had seen; `rotate` is the last of a segment that another follows; `log-stop` is the last of a run
//! that was closed. Sealing is described with [`DataKey`], digests of what may hold data with
//! [`Blinded`].
//!
//! # A torn tail, and damage
//!
//! `synced` is the last sequence that was on disk when the record was written. At a place where a
//! record is broken, a later record of the same segment whose `synced` is not below the broken one's
//! sequence shows that it had been on disk: that is damage, and a log does not start over it.
//! Without one, all that follows belongs to the last batch, which nobody was told of: it is put
//! aside, and the next run's `recover` record names file, length and digest.

mod blind;
mod clock;
mod frame;
mod key;
mod log;
mod pace;
pub mod payload;
mod queue;
mod reader;
mod record;
mod seal;
mod segment;
mod start;
mod storage;
mod value;
mod verify;
mod verify_run;
mod writer;

pub use blind::{BlindHasher, Blinded, Blinder, SentHasher};
pub use clock::{parse_rfc3339, rfc3339, unix_micros};
pub use frame::{Frame, FrameError, MAGIC, MAX_HEADER, MAX_SEALED};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use log::{About, AppendError, Health, Log, LogFailed, LogOptions, Progress};
pub use payload::Payload;
pub use reader::{Record, Sealed, Stopped, read};
pub use record::{Durable, FORMAT_VERSION, Header, Kind, RecordRef, Role, Seq, Target};
pub use seal::{DataKey, SealError, WrappedKey};
pub use segment::{Defect, Listing, RunFolder, SegmentReader, Step, segment_name, segment_number};
pub use start::StartError;
pub use storage::{Disk, Segment, Storage};
pub use value::{Code, Digest, Name, NotACode, hex_decode, hex_encode};
pub use verify::{Ending, Expect, Problem, Report, RunReport, verify};
