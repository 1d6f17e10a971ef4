//! What the backend sends, message by message.

use std::sync::{Arc, atomic::Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use chaperone_policy_host::Column;
use chaperone_sql::Kind;

use super::{End, Session, Skip, client::skipped, evidence::Ending};
use crate::postgres::{
    mask::RowPlan,
    portal::Portal,
    protocol::{self, Fields, Malformed, backend},
    queue::{Expected, Own},
    refusal::{Refusal, WITHHELD, sqlstate, write_reduced},
    run::Run,
    sockets::HIGH_WATER,
};

/// The longest row that is held whole because something in it is masked.
const MAX_MASKED_ROW: usize = 256 << 20;

impl Session {
    /// Handles every whole message that the backend has sent, and passes on what is streamed.
    pub(super) fn handle_upstream(&mut self) -> Result<(), End> {
        loop {
            if self.upstream_pass > 0 {
                let count = self.upstream_pass.min(self.sockets.from_upstream.len());
                if count == 0 {
                    break;
                }
                let bytes = self.sockets.from_upstream.split_to(count);
                self.sockets.to_client.buffer().extend_from_slice(&bytes);
                self.upstream_pass -= count;
                continue;
            }
            if self.sockets.to_client.len() >= HIGH_WATER {
                break;
            }
            let Some((kind, length)) = protocol::header(&self.sockets.from_upstream)? else {
                break;
            };
            if kind == backend::DATA_ROW {
                if !self.on_rows(length)? {
                    break;
                }
                continue;
            }
            if kind == backend::COPY_DATA {
                if !self.on_copy_data(length)? {
                    break;
                }
                continue;
            }
            if self.sockets.from_upstream.len() < length {
                self.hold(length)?;
                break;
            }
            self.sockets.upstream_limit = HIGH_WATER;
            let message = self.sockets.from_upstream.split_to(length).freeze();
            self.on_backend(kind, message)?;
        }
        self.settle_output();
        Ok(())
    }

    /// Makes room for a message that is held whole.
    fn hold(&mut self, length: usize) -> Result<(), End> {
        if length > MAX_MASKED_ROW {
            return Err(End::Told(Refusal::new(
                sqlstate::TOO_LARGE,
                "answer-too-large",
                format!("the backend sent a message of {length} bytes that cannot be looked into"),
            )));
        }
        self.sockets.upstream_limit = length.max(HIGH_WATER);
        Ok(())
    }

    fn relay(&mut self, message: &[u8]) {
        if !self.suppress {
            self.sockets.to_client.buffer().extend_from_slice(message);
        }
    }

    fn on_backend(&mut self, kind: u8, message: Bytes) -> Result<(), End> {
        let body = message.slice(protocol::HEADER..);
        match kind {
            backend::NOTICE_RESPONSE => return self.on_notice(&message, &body),
            backend::PARAMETER_STATUS => {
                // Of messages that come at any time, this one stands for what was set.
                self.sockets.to_client.buffer().extend_from_slice(&message);
                return Ok(());
            }
            backend::NOTIFICATION_RESPONSE => return self.on_notification(&message, &body),
            backend::ERROR_RESPONSE => return self.on_error(&message, &body),
            _ => {}
        }
        while matches!(self.queue.front(), Some(Expected::CopyEnd)) {
            self.queue.pop_front();
        }
        match kind {
            backend::PARSE_COMPLETE => self.on_parse_complete(&message),
            backend::BIND_COMPLETE => match self.queue.pop_front() {
                Some(Expected::Bind { .. }) => {
                    self.portals.settle();
                    self.relay(&message);
                    Ok(())
                }
                Some(Expected::Own(Own::Bind)) => self.own_answered(),
                other => Err(unexpected(kind, other)),
            },
            backend::CLOSE_COMPLETE => match self.queue.pop_front() {
                Some(Expected::CloseStatement) => {
                    self.statements.settle();
                    self.relay(&message);
                    Ok(())
                }
                Some(Expected::ClosePortal) => {
                    self.portals.settle();
                    self.relay(&message);
                    Ok(())
                }
                Some(Expected::Own(Own::Close)) => self.own_answered(),
                other => Err(unexpected(kind, other)),
            },
            backend::PARAMETER_DESCRIPTION => match self.queue.front() {
                Some(Expected::DescribeStatement) => {
                    self.relay(&message);
                    Ok(())
                }
                _ => Err(unexpected(kind, self.queue.pop_front())),
            },
            backend::ROW_DESCRIPTION => self.on_row_description(&message, &body),
            backend::NO_DATA => match self.queue.pop_front() {
                Some(Expected::Inspect(portal)) => {
                    let _ = portal.plan.set(Ok(Arc::new(RowPlan::clear(0))));
                    Ok(())
                }
                Some(Expected::DescribeStatement | Expected::DescribePortal(_)) => {
                    self.relay(&message);
                    Ok(())
                }
                other => Err(unexpected(kind, other)),
            },
            backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE => self.on_complete(&message),
            backend::PORTAL_SUSPENDED => self.on_suspended(&message),
            backend::READY_FOR_QUERY => self.on_ready(&body),
            backend::COPY_IN_RESPONSE => {
                self.current(kind)?.copy_in = true;
                self.relay(&message);
                Ok(())
            }
            backend::COPY_OUT_RESPONSE => {
                let run = self.current(kind)?;
                run.begun = true;
                run.copy_out = true;
                self.relay(&message);
                Ok(())
            }
            backend::COPY_DONE => {
                self.current(kind)?;
                self.relay(&message);
                Ok(())
            }
            other => Err(Malformed::UnknownType(other).into()),
        }
    }

    fn on_parse_complete(&mut self, message: &[u8]) -> Result<(), End> {
        match self.queue.pop_front() {
            Some(Expected::Parse) => {
                self.statements.settle();
                self.relay(message);
                Ok(())
            }
            Some(Expected::Own(Own::Parse)) => self.own_answered(),
            Some(Expected::Fails {
                refusal: Some(refusal),
                genuine: true,
                ..
            }) => {
                // The backend's grammar takes what ours does not: it is refused all the same, and
                // the message behind it makes the transaction fail.
                if !self.suppress {
                    refusal.write(self.sockets.to_client.buffer(), "ERROR");
                }
                Ok(())
            }
            other => Err(unexpected(backend::PARSE_COMPLETE, other)),
        }
    }

    fn own_answered(&mut self) -> Result<(), End> {
        self.own.open = self.own.open.saturating_sub(1);
        Ok(())
    }

    /// The run that the backend is answering.
    fn current(&mut self, kind: u8) -> Result<&mut Run, End> {
        match self.queue.front_mut() {
            Some(Expected::Execute { run, .. }) => Ok(run),
            Some(Expected::Query { runs, at }) => runs
                .get_mut(*at)
                .ok_or_else(|| Malformed::UnknownType(kind).into()),
            _ => Err(Malformed::UnknownType(kind).into()),
        }
    }

    fn on_row_description(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let columns = protocol::row_description(body)?;
        let has_key = self.shared.hash_key.is_some();
        match self.queue.front_mut() {
            Some(Expected::Query { runs, at }) => {
                let Some(run) = runs.get_mut(*at) else {
                    return Err(unexpected(backend::ROW_DESCRIPTION, None));
                };
                let described = run.describe(&columns, &[], has_key);
                let _ = run.permit.statement.shape.set(columns.into());
                run.begun = true;
                match described {
                    Ok(()) => self.relay(message),
                    Err(refusal) => self.run_fails(refusal),
                }
                Ok(())
            }
            Some(Expected::Inspect(portal)) => {
                let plan = portal.permit.row_plan(&columns, &portal.formats, has_key);
                let _ = portal.plan.set(plan.map(Arc::new));
                let _ = portal.permit.statement.shape.set(columns.into());
                self.queue.pop_front();
                Ok(())
            }
            Some(Expected::DescribeStatement | Expected::DescribePortal(_)) => {
                self.queue.pop_front();
                self.relay(message);
                Ok(())
            }
            _ => Err(unexpected(backend::ROW_DESCRIPTION, self.queue.pop_front())),
        }
    }

    /// Rows: a run of untouched ones goes on as one slice, masked ones are rewritten. Says whether
    /// there was anything to do.
    fn on_rows(&mut self, first: usize) -> Result<bool, End> {
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
        let plan = match plan {
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
            self.check_width(&plan, &chunk)?;
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

    /// Every row has the planned number of columns. All rows of one answer have the same.
    fn check_width(&self, plan: &RowPlan, rows: &[u8]) -> Result<(), End> {
        let body = rows.get(protocol::HEADER..).unwrap_or_default();
        let width = Fields::new("DataRow", body).u16()?;
        if usize::from(width) == plan.len() {
            Ok(())
        } else {
            Err(Malformed::Invalid("DataRow").into())
        }
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
    fn drop_message(&mut self, length: usize) -> Result<bool, End> {
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

    /// COPY data on its way out, which is only let through where nothing in it needs a mask.
    fn on_copy_data(&mut self, length: usize) -> Result<bool, End> {
        let suppress = self.suppress;
        let run = self.current(backend::COPY_DATA)?;
        let size = (length - protocol::HEADER) as u64;
        if suppress || run.failed.is_some() {
            return self.drop_message(length);
        }
        let mut over = run.rows_left() == 0 || run.bytes_left() < size;
        let permit = Arc::clone(&run.permit);
        let budgets = &permit.limits().budgets;
        if !over && !budgets.is_empty() {
            let now = std::time::Instant::now();
            let caller = &self.grounds.caller;
            over = self.shared.budgets.take(caller, budgets, Some(1), now) == 0;
        }
        if over {
            self.run_fails(
                Refusal::new(
                    sqlstate::LIMIT_EXCEEDED,
                    "limit-exceeded",
                    "the COPY is larger than allowed",
                )
                .hint("narrow it with COPY (SELECT … WHERE …)"),
            );
            self.cancel_upstream();
            return self.drop_message(length);
        }
        let run = self.current(backend::COPY_DATA)?;
        run.rows += 1;
        run.bytes += size;
        self.upstream_pass = length;
        Ok(true)
    }

    /// The run at the head fails on our side: what is left of its answer is dropped.
    fn run_fails(&mut self, refusal: Refusal) {
        self.stale = true;
        let mut refusal = refusal;
        if let Ok(run) = self.current(backend::DATA_ROW) {
            refusal = refusal.request(run.permit.request);
            run.failed = Some(refusal.clone());
        }
        // Rows that were allowed stay; nothing else of this answer has been appended since.
        self.fail_late(&refusal);
    }

    fn on_complete(&mut self, message: &[u8]) -> Result<(), End> {
        let mut front = self.queue.pop_front();
        match &mut front {
            Some(Expected::Own(Own::Execute(_))) => self.own_answered(),
            Some(Expected::Execute { run, .. }) => {
                self.finish_run(run, message)?;
                if run.copy_in {
                    self.end_copy_in(0);
                }
                Ok(())
            }
            Some(Expected::Query { runs, at }) => {
                // An empty query has one statement of its own kind, and so a run.
                let copy_in = match runs.get_mut(*at) {
                    Some(run) => {
                        self.finish_run(run, message)?;
                        run.copy_in
                    }
                    None => return Err(unexpected(backend::COMMAND_COMPLETE, None)),
                };
                *at += 1;
                if copy_in {
                    self.end_copy_in(0);
                }
                if let Some(front) = front {
                    self.queue.push_front(front);
                }
                self.settle_output();
                Ok(())
            }
            _ => Err(unexpected(backend::COMMAND_COMPLETE, front)),
        }
    }

    fn finish_run(&mut self, run: &mut Run, message: &[u8]) -> Result<(), End> {
        let ending = match &run.failed {
            Some(refusal) => Ending::late(refusal),
            None if self.suppress => Ending::skipped(),
            None => Ending::ok(),
        };
        let well = run.failed.is_none();
        self.close_run(run, ending)?;
        if well {
            self.apply_naming(&run.permit);
            self.relay(message);
        }
        Ok(())
    }

    /// While a COPY takes data the backend ignores Sync; those that were sent meanwhile are
    /// answered by nothing.
    fn end_copy_in(&mut self, from: usize) {
        let end = self
            .queue
            .iter()
            .skip(from)
            .position(|entry| matches!(entry, Expected::CopyEnd));
        if let Some(end) = end {
            self.queue.drain(from..=from + end);
        }
    }

    fn on_suspended(&mut self, message: &[u8]) -> Result<(), End> {
        match self.queue.pop_front() {
            Some(Expected::Execute { mut run, .. }) => {
                let ending = match &run.failed {
                    Some(refusal) => Ending::late(refusal),
                    None => Ending::ok(),
                };
                self.close_run(&mut run, ending)?;
                self.relay(message);
                Ok(())
            }
            Some(Expected::Own(Own::Execute(_))) => self.own_answered(),
            other => Err(unexpected(backend::PORTAL_SUSPENDED, other)),
        }
    }

    fn on_ready(&mut self, body: &[u8]) -> Result<(), End> {
        let status = Fields::new("ReadyForQuery", body).u8()?;
        let own = match self.queue.pop_front() {
            Some(Expected::Sync | Expected::Query { .. }) => false,
            Some(Expected::Own(Own::Sync)) => {
                self.own_answered()?;
                true
            }
            Some(Expected::Fails {
                simple: true,
                silent_ready,
                ..
            }) => silent_ready,
            other => return Err(unexpected(backend::READY_FOR_QUERY, other)),
        };
        self.status = status;
        while matches!(self.queue.front(), Some(Expected::CopyEnd)) {
            self.queue.pop_front();
        }
        if self.queue.is_empty() {
            self.block_opened = false;
            self.run_deadline = None;
            self.sensitive_effects &= status != b'I';
        }
        if status != b'T' {
            self.portals.retain(|portal| portal.held);
        }
        if status == b'I' && self.transaction_effects {
            self.stale = true;
            self.transaction_effects = false;
        }
        if status == b'E' {
            self.stale |= self.transaction_effects;
        }
        if self.fail_transaction && !own {
            self.fail_transaction = false;
            if status == b'T' {
                // The client has been told of an error; its transaction has to know of it too.
                self.fail_open_transaction();
                return Ok(());
            }
        }
        if !own {
            self.suppress = false;
            protocol::ready_for_query(self.sockets.to_client.buffer(), status);
        }
        Ok(())
    }

    fn on_error(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let (severity, code) = protocol::severity_and_code(body)?;
        while matches!(self.queue.front(), Some(Expected::CopyEnd)) {
            self.queue.pop_front();
        }
        if self.queue.is_empty() || matches!(severity.as_str(), "FATAL" | "PANIC") {
            // Nothing of the client's runs, or the connection is at its end either way.
            self.told_fatal |= matches!(severity.as_str(), "FATAL" | "PANIC");
            let sensitive = self.is_sensitive(self.queue.front());
            self.relay_report(
                message,
                backend::ERROR_RESPONSE,
                &severity,
                &code,
                sensitive,
            );
            return Ok(());
        }
        let mut front = self.queue.pop_front();
        let sensitive = self.is_sensitive(front.as_ref());
        match &mut front {
            Some(Expected::Query { runs, at }) => {
                let at = *at;
                for (index, run) in runs.iter_mut().enumerate().skip(at) {
                    let ending = match (&run.failed, index == at) {
                        (Some(refusal), _) => Ending::late(refusal),
                        (None, true) => Ending::failed(&code, text_of(body)),
                        (None, false) => Ending::skipped(),
                    };
                    self.close_run(run, ending)?;
                }
                self.relay_report(
                    message,
                    backend::ERROR_RESPONSE,
                    &severity,
                    &code,
                    sensitive,
                );
                if let Some(Expected::Query { runs, at }) = &mut front {
                    *at = runs.len();
                }
                // Its ReadyForQuery is still to come.
                if let Some(front) = front {
                    self.queue.push_front(front);
                }
                return Ok(());
            }
            Some(Expected::Fails {
                refusal,
                genuine,
                simple,
                ..
            }) => {
                if let Some(refusal) = refusal {
                    if *genuine {
                        self.relay(message);
                    } else if !self.suppress {
                        refusal.write(self.sockets.to_client.buffer(), "ERROR");
                    }
                }
                if *simple {
                    if let Some(front) = front {
                        self.queue.push_front(front);
                    }
                    return Ok(());
                }
            }
            Some(Expected::Own(Own::Sync)) | None => {
                return Err(unexpected(backend::ERROR_RESPONSE, front));
            }
            Some(Expected::Sync) => {
                // What was put off to the commit failed there; ReadyForQuery still comes.
                self.relay_report(
                    message,
                    backend::ERROR_RESPONSE,
                    &severity,
                    &code,
                    sensitive,
                );
                self.queue.push_front(Expected::Sync);
                self.stale |= self.transaction_effects;
                return Ok(());
            }
            Some(Expected::Own(_)) => {
                self.own.failed = Some(code.clone());
                self.own.open = self.own.open.saturating_sub(1);
                // Inside the client's batch it is the client's error as well.
                if !self
                    .queue
                    .iter()
                    .any(|e| matches!(e, Expected::Own(Own::Sync)))
                {
                    write_reduced(
                        self.sockets.to_client.buffer(),
                        backend::ERROR_RESPONSE,
                        &severity,
                        &code,
                    );
                }
            }
            Some(Expected::Execute { run, .. }) => {
                let ending = match &run.failed {
                    Some(refusal) => Ending::late(refusal),
                    None => Ending::failed(&code, text_of(body)),
                };
                self.close_run(run, ending)?;
                self.relay_report(
                    message,
                    backend::ERROR_RESPONSE,
                    &severity,
                    &code,
                    sensitive,
                );
            }
            Some(_) => {
                self.relay_report(
                    message,
                    backend::ERROR_RESPONSE,
                    &severity,
                    &code,
                    sensitive,
                );
            }
        }
        if let Some(front) = front {
            self.reject(front)?;
        }
        for entry in skipped(&mut self.queue) {
            self.reject(entry)?;
        }
        if self.queue.is_empty() {
            // The backend skips up to a Sync that was not sent yet. That holds for a simple Query
            // behind the error as well, so it does not matter whether one was sent.
            self.skip = Skip::Server;
            self.unsynced = true;
        }
        self.stale |= self.transaction_effects;
        Ok(())
    }

    /// The message of this entry was refused or skipped.
    fn reject(&mut self, entry: Expected) -> Result<(), End> {
        match entry {
            Expected::Parse | Expected::CloseStatement => self.statements.reject(),
            Expected::Bind { .. } | Expected::ClosePortal => self.portals.reject(),
            Expected::Execute { mut run, .. } => self.close_run(&mut run, Ending::skipped())?,
            Expected::Query { runs, .. } => {
                for mut run in runs {
                    self.close_run(&mut run, Ending::skipped())?;
                }
            }
            Expected::Own(_) => {
                self.own.failed.get_or_insert_with(|| "skipped".to_owned());
                self.own_answered()?;
            }
            _ => {}
        }
        Ok(())
    }

    fn on_notice(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let (severity, code) = protocol::severity_and_code(body)?;
        if matches!(
            self.queue.front(),
            Some(Expected::Own(_) | Expected::Fails { .. } | Expected::Inspect(_))
        ) {
            return Ok(());
        }
        let sensitive = self.is_sensitive(self.queue.front());
        self.relay_report(
            message,
            backend::NOTICE_RESPONSE,
            &severity,
            &code,
            sensitive,
        );
        Ok(())
    }

    /// Whether messages about what this entry stands for may carry protected data. The end of a
    /// transaction runs what earlier statements put off.
    fn is_sensitive(&self, entry: Option<&Expected>) -> bool {
        let ends = |run: &Run| {
            let kind = &run.permit.statement.kind;
            kind.is_transaction_control() || matches!(kind, Kind::Constraints)
        };
        let ends_transaction = match entry {
            Some(Expected::Sync) => true,
            Some(Expected::Execute { run, .. }) => ends(run),
            Some(Expected::Query { runs, .. }) => runs.iter().any(ends) || runs.is_empty(),
            _ => false,
        };
        entry.is_some_and(is_sensitive) || self.sensitive_effects && ends_transaction
    }

    /// An error or notice: whole where the statement provably touches nothing protected, else
    /// severity and SQLSTATE only.
    fn relay_report(
        &mut self,
        message: &[u8],
        kind: u8,
        severity: &str,
        code: &str,
        sensitive: bool,
    ) {
        if self.suppress {
            return;
        }
        if sensitive {
            debug_assert!(!WITHHELD.is_empty());
            write_reduced(self.sockets.to_client.buffer(), kind, severity, code);
        } else {
            self.sockets.to_client.buffer().extend_from_slice(message);
        }
    }

    /// A notification of a session of ours was decided upon; another's payload may be anything.
    fn on_notification(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let mut fields = Fields::new("NotificationResponse", body);
        let pid = fields.u32()?;
        let channel = fields.cstr()?;
        if self.shared.cancels.is_ours(&self.grounds.backend.name, pid) {
            self.sockets.to_client.buffer().extend_from_slice(message);
        } else {
            let out = self.sockets.to_client.buffer();
            protocol::message(out, backend::NOTIFICATION_RESPONSE, |out| {
                out.put_u32(pid);
                protocol::cstr(out, channel);
                protocol::cstr(out, b"");
            });
        }
        Ok(())
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

fn is_sensitive(entry: &Expected) -> bool {
    match entry {
        Expected::Execute { run, .. } => run.permit.statement.is_sensitive(),
        Expected::Bind { portal } | Expected::Inspect(portal) => {
            portal.permit.statement.is_sensitive()
        }
        Expected::DescribePortal(Some(portal)) => portal.permit.statement.is_sensitive(),
        Expected::Query { runs, .. } => runs.iter().any(|run| run.permit.statement.is_sensitive()),
        // Parsing reads no data: its errors quote the client's own text at most.
        _ => false,
    }
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

/// The whole of an error, for the sealed part of its record.
fn text_of(body: &[u8]) -> String {
    body.split(|&byte| byte == 0)
        .filter(|field| !field.is_empty())
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
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

fn unexpected(kind: u8, entry: Option<Expected>) -> End {
    let expected = entry.map_or("nothing", |entry| entry.name());
    tracing::error!(
        message = %char::from(kind),
        expected,
        "the backend sent a message that was not expected"
    );
    Malformed::UnknownType(kind).into()
}
