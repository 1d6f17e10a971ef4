//! Questions outside of any session.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::{Reader, Upstream, UpstreamError, body, refused};
use crate::postgres::protocol::{self, Fields, backend, frontend};

/// The longest message of an answer, in bytes. Comments can be long.
const LONGEST: usize = 64 << 20;

/// Cells in text format.
pub(crate) type Row = Vec<Option<String>>;

impl Upstream {
    /// Runs one simple Query of Chaperone's own and collects its rows.
    ///
    /// # Errors
    /// The connection is lost, or the backend refuses the query. The connection is not to be used
    /// any more then.
    pub(crate) async fn ask(&mut self, query: &str) -> Result<Vec<Row>, UpstreamError> {
        let mut out = BytesMut::new();
        protocol::message(&mut out, frontend::QUERY, |out| {
            protocol::cstr(out, query.as_bytes());
        });
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        let mut reader = Reader {
            buffer: std::mem::take(&mut self.rest),
            limit: LONGEST,
        };
        let mut rows = Vec::new();
        loop {
            let (kind, message) = reader.next(&mut self.stream).await?;
            match kind {
                backend::DATA_ROW => rows.push(row(body(&message))?),
                backend::ERROR_RESPONSE => return Err(refused(&message)),
                backend::READY_FOR_QUERY => break,
                _ => {}
            }
        }
        self.rest = reader.buffer;
        Ok(rows)
    }
}

fn row(body: &[u8]) -> Result<Row, UpstreamError> {
    let mut fields = Fields::new("DataRow", body);
    let mut row = Row::new();
    for _ in 0..fields.u16()? {
        let value = fields.value()?;
        row.push(value.map(|text| String::from_utf8_lossy(text).into_owned()));
    }
    fields.end()?;
    Ok(row)
}
