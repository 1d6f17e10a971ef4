//! Rows on their way to the client: counted, limited, masked.

use std::sync::{Arc, atomic::Ordering};

use bytes::{BufMut, BytesMut};
use chaperone_policy_host::Column;

use super::unexpected;
use crate::postgres::{
    mask::RowPlan,
    portal::Portal,
    protocol::{self, Fields, Malformed, backend},
    queue::{Expected, Own},
    refusal::{Refusal, sqlstate},
    session::{End, Session},
    sockets::HIGH_WATER,
};

impl Session {
    /// Rows: a run of untouched ones goes on as one slice, masked ones are rewritten. Says whether
    /// there was anything to do.
    pub(super) fn on_rows(&mut self, first: usize) -> Result<bool, End> {
        if let Some(Expected::Own(Own::Execute(query))) = self.queue.front() {
            let query = *query;
            if self.sockets.from_upstream.len() < first {
                self.hold(first)?;
                return Ok(false);
            }
            let message = self.sockets.from_upstream.split_to(first);
            let row = text_row(message.get(protocol::HEADER..).unwrap_or_default())?;
            self.own.rows.push((query, row));
            return Ok(true);
        }
        let suppress = self.suppress;
        let changed = match self.queue.front() {
            Some(Expected::Execute { run, .. }) if !run.begun => self.changed_meanwhile(run),
            _ => None,
        };
        let plan = match self.queue.front_mut() {
            Some(Expected::Execute { portal, run }) => {
                if !run.begun {
                    // Only now is it certain what the executions before it have sent.
                    run.earlier_rows = portal.rows.load(Ordering::Relaxed);
                    run.earlier_bytes = portal.bytes.load(Ordering::Relaxed);
                }
                run.plan.clone().map_or_else(|| portal_plan(portal), Ok)
            }
            Some(Expected::Query { runs, at }) => runs
                .get(*at)
                .and_then(|run| run.plan.clone())
                .ok_or_else(no_plan),
            _ => return Err(unexpected(backend::DATA_ROW, None)),
        };
        let run = self.current(backend::DATA_ROW)?;
        run.begun = true;
        let failed = run.failed.is_some() || suppress;
        let plan = match changed.map_or(plan, Err) {
            Ok(plan) => plan,
            Err(refusal) => {
                if !failed {
                    self.run_fails(refusal);
                }
                return self.drop_message(first);
            }
        };
        if failed {
            return self.drop_message(first);
        }
        let (mut rows_left, bytes_left) = (run.rows_left(), run.bytes_left());
        let permit = Arc::clone(&run.permit);
        let budgets = &permit.limits().budgets;
        let mut exhausted = false;
        if !budgets.is_empty() {
            let here = whole_rows(&self.sockets.from_upstream)?.max(1);
            if self.sockets.from_upstream.len() < first {
                self.hold(first)?;
                return Ok(false);
            }
            let wanted = here.min(rows_left);
            let now = std::time::Instant::now();
            let granted =
                self.shared
                    .budgets
                    .take(&self.grounds.caller, budgets, Some(wanted), now);
            exhausted = granted < wanted;
            rows_left = granted;
        }
        // Whole rows that are here.
        let (mut end, mut rows, mut bytes) = (0usize, 0u64, 0u64);
        let mut over = None;
        let available = &self.sockets.from_upstream;
        while let Some(rest) = available.get(end..) {
            let Some((backend::DATA_ROW, length)) = protocol::header(rest)? else {
                break;
            };
            if rest.len() < length {
                break;
            }
            check_width(&plan, rest)?;
            if rows + 1 > rows_left {
                over = Some("rows");
                break;
            }
            let size = (length - protocol::HEADER) as u64;
            if bytes + size > bytes_left {
                over = Some("bytes");
                break;
            }
            rows += 1;
            bytes += size;
            end += length;
        }
        if end == 0 && over.is_none() {
            // The first row is not whole yet.
            if plan.is_clear() && rows_left > 0 && bytes_left >= (first - protocol::HEADER) as u64 {
                if first > HIGH_WATER {
                    self.count_rows(1, (first - protocol::HEADER) as u64)?;
                    self.upstream_pass = first;
                    return Ok(true);
                }
                return Ok(false);
            }
            self.hold(first)?;
            return Ok(false);
        }
        self.sockets.upstream_limit = HIGH_WATER;
        let chunk = self.sockets.from_upstream.split_to(end).freeze();
        if end == 0 {
            // Not even the first row may leave.
        } else if plan.is_clear() {
            self.sent.update(&chunk);
            self.sockets.to_client.buffer().extend_from_slice(&chunk);
        } else if let Err(refusal) = self.mask_rows(&plan, &chunk) {
            self.run_fails(refusal);
            return Ok(true);
        } else {
            let masked = plan
                .cells()
                .iter()
                .filter(|cell| **cell != crate::postgres::mask::Cell::Keep);
            self.counts.masks += rows * masked.count() as u64;
        }
        self.count_rows(rows, bytes)?;
        if let Some(what) = over {
            let run = self.current(backend::DATA_ROW)?;
            let limits = run.permit.limits();
            let limit = if what == "rows" {
                limits.max_rows
            } else {
                limits.max_bytes
            };
            let (code, message) = if exhausted {
                (
                    "budget-exhausted",
                    "the answer has more rows than are left in the caller's budget".to_owned(),
                )
            } else {
                (
                    "limit-exceeded",
                    format!(
                        "the answer has more than the {} {what} that are allowed",
                        limit.unwrap_or_default()
                    ),
                )
            };
            let refusal = Refusal::new(sqlstate::LIMIT_EXCEEDED, code, message)
                .hint("narrow the statement with WHERE or LIMIT");
            self.run_fails(refusal);
            self.cancel_upstream();
        }
        Ok(true)
    }

    fn count_rows(&mut self, rows: u64, bytes: u64) -> Result<(), End> {
        let run = self.current(backend::DATA_ROW)?;
        run.rows += rows;
        run.bytes += bytes;
        if let Some(Expected::Execute { portal, .. }) = self.queue.front() {
            portal.count(rows, bytes);
        }
        Ok(())
    }

    /// Drops a message, now or as its bytes come.
    pub(super) fn drop_message(&mut self, length: usize) -> Result<bool, End> {
        if self.sockets.from_upstream.len() < length {
            self.hold(length)?;
            return Ok(false);
        }
        let _ = self.sockets.from_upstream.split_to(length);
        Ok(true)
    }

    /// Rewrites whole rows. On an error nothing of them has been appended.
    fn mask_rows(&mut self, plan: &RowPlan, chunk: &[u8]) -> Result<(), Refusal> {
        let broken = |_: Malformed| {
            Refusal::new(
                sqlstate::INTERNAL,
                "row-malformed",
                "the backend sent a malformed row",
            )
        };
        let mut bodies = Vec::new();
        let mut rest = chunk;
        while let Some((_, length)) = protocol::header(rest).map_err(broken)? {
            bodies.push(rest.get(protocol::HEADER..length).unwrap_or_default());
            rest = rest.get(length..).unwrap_or_default();
        }
        let rewritten = self.rewrite(plan, &bodies)?;
        let key = self.shared.hash_key.as_ref();
        let mut out = BytesMut::with_capacity(chunk.len());
        for (row, body) in bodies.iter().enumerate() {
            let values = rewritten.iter().map(|column| column.get(row));
            out.put_u8(backend::DATA_ROW);
            let at = out.len();
            out.put_u32(0);
            plan.apply(body, key, values, &mut out).map_err(broken)?;
            let length = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
            if let Some(word) = out.get_mut(at..at + 4) {
                word.copy_from_slice(&length.to_be_bytes());
            }
        }
        self.sent.update(&out);
        self.sockets.to_client.buffer().unsplit(out);
        Ok(())
    }

    /// Has the modules rewrite their columns of these rows; one column each, in column order.
    fn rewrite(&mut self, plan: &RowPlan, bodies: &[&[u8]]) -> Result<Vec<Column>, Refusal> {
        let wanted: Vec<(usize, usize, String)> = plan
            .custom()
            .map(|(column, module, tag)| (column, module, tag.to_owned()))
            .collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |code: &str| {
            Refusal::new(
                sqlstate::DENIED,
                code,
                "a policy could not rewrite the answer, so none of it is shown",
            )
        };
        let mut columns: Vec<Column> = wanted
            .iter()
            .map(|(_, _, tag)| Column::new(tag.as_str()))
            .collect();
        for body in bodies {
            let cells = cells(body).map_err(|_| failed("row-malformed"))?;
            for ((index, _, _), column) in wanted.iter().zip(&mut columns) {
                column.push(cells.get(*index).copied().flatten());
            }
        }
        let rows = u32::try_from(bodies.len()).map_err(|_| failed("too-many-rows"))?;
        let set = self
            .current(backend::DATA_ROW)
            .ok()
            .and_then(|run| run.permit.set().map(Arc::clone))
            .ok_or_else(|| failed("no-policy-set"))?;
        let mut results = Vec::with_capacity(columns.len());
        for ((_, module, _), column) in wanted.iter().zip(columns) {
            let mut rewritten = set
                .rewrite(*module, rows, vec![column])
                .map_err(|failure| failed(failure.code.as_str()))?;
            let column = rewritten.pop().ok_or_else(|| failed("policy-bad-answer"))?;
            // Text columns must stay text.
            let valid = (0..bodies.len()).all(|row| {
                column
                    .get(row)
                    .is_none_or(|cell| std::str::from_utf8(cell).is_ok())
            });
            if !valid {
                return Err(failed("policy-bad-answer"));
            }
            results.push(column);
        }
        Ok(results)
    }
}

/// That the row which begins `rows` has the planned number of columns.
fn check_width(plan: &RowPlan, rows: &[u8]) -> Result<(), End> {
    let body = rows.get(protocol::HEADER..).unwrap_or_default();
    let width = Fields::new("DataRow", body).u16()?;
    if usize::from(width) == plan.len() {
        Ok(())
    } else {
        Err(Malformed::Invalid("DataRow").into())
    }
}

/// How many whole DataRows begin the buffer.
fn whole_rows(buffer: &[u8]) -> Result<u64, Malformed> {
    let (mut rest, mut rows) = (buffer, 0);
    while let Some((backend::DATA_ROW, length)) = protocol::header(rest)? {
        match rest.get(length..) {
            Some(more) => rest = more,
            None => break,
        }
        rows += 1;
    }
    Ok(rows)
}

fn portal_plan(portal: &Portal) -> Result<Arc<RowPlan>, Refusal> {
    portal.plan.get().cloned().unwrap_or_else(|| Err(no_plan()))
}

fn no_plan() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "no-plan",
        "the backend sent rows that were not expected; they were withheld",
    )
}

fn cells(body: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut fields = Fields::new("DataRow", body);
    let count = fields.u16()?;
    let cells = (0..count)
        .map(|_| fields.value())
        .collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(cells)
}

fn text_row(body: &[u8]) -> Result<Vec<Option<String>>, Malformed> {
    Ok(cells(body)?
        .into_iter()
        .map(|cell| cell.map(|cell| String::from_utf8_lossy(cell).into_owned()))
        .collect())
}
