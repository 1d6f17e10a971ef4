//! The tamper-evident record of what was asked, decided and done.
//!
//! (format documentation follows)

mod blind;
mod clock;
mod frame;
mod key;
mod log;
pub mod payload;
mod payload_log;
mod record;
mod seal;
mod segment;
mod start;
mod storage;
mod value;
mod writer;

pub use blind::{BlindHasher, Blinded, Blinder};
pub use clock::{parse_rfc3339, rfc3339, unix_micros};
pub use frame::{Frame, FrameError, MAGIC, MAX_HEADER, MAX_SEALED};
pub use key::{KeyError, PrivateKey, PublicKey};
pub use log::{About, AppendError, Health, Log, LogFailed, LogOptions, Progress};
pub use payload::Payload;
pub use record::{Durable, FORMAT_VERSION, Header, Kind, RecordRef, Role, Seq, Target};
pub use seal::{DataKey, SealError, WrappedKey};
pub use segment::{Defect, Listing, RunFolder, SegmentReader, Step, segment_name, segment_number};
pub use start::StartError;
pub use storage::{Disk, Segment, Storage};
pub use value::{Code, Digest, Name, NotACode, hex_decode, hex_encode};
