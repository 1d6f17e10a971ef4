//! Reading records out of a log directory, one after the other, with or without a key.
//!
//! Reading checks each record's own hash and stops a run at the first damage; whether all is there
//! is [`verify`](crate::verify)'s question.

use std::{collections::HashMap, io, path::Path};

use serde_json::Value;
use uuid::Uuid;

use crate::{
    frame::Frame,
    key::PrivateKey,
    payload::DataKeyRecord,
    record::{Header, Kind},
    seal::DataKey,
    segment::{Listing, SegmentReader, Step},
    value::Digest,
};

/// A record for a reader.
#[derive(Clone, Debug)]
pub struct Record {
    /// Everything but the body.
    pub header: Header,
    /// The clear body.
    pub body: Value,
    /// Its hash.
    pub hash: Digest,
    /// What was sealed.
    pub sealed: Sealed,
}

/// The sealed part of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Sealed {
    /// There is none.
    None,
    /// Closed: no key was given, or it is not a recipient's. So many bytes.
    Closed(usize),
    /// Opened.
    Open(Value),
}

/// Where reading of a run stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The segment file.
    pub file: std::path::PathBuf,
    /// Where in it.
    pub offset: u64,
}

/// Hands all records to `each`, run by run, oldest first, until it answers false. Gives the places
/// where damage ended the reading of a run.
pub fn read(
    dir: &Path,
    key: Option<&PrivateKey>,
    mut each: impl FnMut(&Record) -> bool,
) -> io::Result<Vec<Stopped>> {
    let mut stopped = Vec::new();
    for run in Listing::read(dir)?.runs {
        let mut keys = HashMap::new();
        'run: for (_, path) in &run.segments {
            let mut reader = SegmentReader::open(path)?;
            if !matches!(reader.begin()?, Step::End) {
                stopped.push(Stopped {
                    file: path.clone(),
                    offset: 0,
                });
                break;
            }
            if reader.offset() == 0 {
                continue;
            }
            loop {
                let offset = reader.offset();
                let record = match reader.step()? {
                    Step::End => break,
                    Step::Record(frame) => record(&frame, run.log, key, &mut keys),
                    Step::Bad(_) => None,
                };
                match record {
                    Some(record) if !each(&record) => return Ok(stopped),
                    Some(_) => {}
                    None => {
                        stopped.push(Stopped {
                            file: path.clone(),
                            offset,
                        });
                        break 'run;
                    }
                }
            }
        }
    }
    Ok(stopped)
}

fn record(
    frame: &Frame<'_>,
    log: Uuid,
    private: Option<&PrivateKey>,
    keys: &mut HashMap<u32, DataKey>,
) -> Option<Record> {
    let header = frame.parse_header().ok()?;
    if let Some(private) = private
        && header.kind == Kind::Key.as_str()
        && let Ok(wrapped) = frame.parse_body::<DataKeyRecord>()
        && let Ok(key) = DataKey::unwrap(log, wrapped.id, &wrapped.wrapped, private)
    {
        keys.insert(key.id(), key);
    }
    let sealed = match header.key {
        None => Sealed::None,
        Some(id) => keys
            .get(&id)
            .and_then(|key| key.open(header.seq, frame.header, frame.sealed).ok())
            .and_then(|text| serde_json::from_slice(&text).ok())
            .map_or(Sealed::Closed(frame.sealed.len()), Sealed::Open),
    };
    Some(Record {
        body: frame.parse_body().ok()?,
        hash: frame.hash,
        sealed,
        header,
    })
}
