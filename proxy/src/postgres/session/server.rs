//! What the backend sends, message by message.

mod completion;
mod copy;
mod errors;
mod rows;

use std::sync::Arc;

use bytes::Bytes;

use super::{End, Session};
use crate::postgres::{
    mask::RowPlan,
    protocol::{self, Fields, Malformed, backend},
    queue::{Expected, Own},
    refusal::{Refusal, sqlstate},
    reply,
    run::Run,
    sockets::HIGH_WATER,
};

/// The longest row that is held whole because something in it is masked.
const MAX_MASKED_ROW: usize = 256 << 20;

impl Session {
    /// Handles every whole message that the backend has sent, and passes on what is streamed.
    pub(super) fn handle_upstream(&mut self) -> Result<(), End> {
        // Of what cannot go on nothing more is told.
        while self.broken.is_none() {
            if self.upstream_pass > 0 {
                let count = self.upstream_pass.min(self.sockets.from_upstream.len());
                if count == 0 {
                    break;
                }
                let bytes = self.sockets.from_upstream.split_to(count);
                self.sent.update(&bytes);
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
            if self.waits_for_second_look(kind) {
                break;
            }
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
        reply::check(kind, &body)?;
        match kind {
            backend::NOTICE_RESPONSE => return self.on_notice(&message, &body),
            backend::PARAMETER_STATUS => {
                // Of messages that come at any time, this one stands for what was set, by the session
                // or for it.
                self.stale |= changes_reading(&body)?;
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
            backend::COPY_IN_RESPONSE => self.on_copy_in(&message),
            backend::COPY_OUT_RESPONSE => self.on_copy_out(&message),
            backend::FUNCTION_CALL_RESPONSE => {
                // No text is answered by it, so what calls a function is opaque.
                if !self.current(kind)?.permit.statement.opaque {
                    return Err(unexpected(kind, self.queue.pop_front()));
                }
                self.relay(&message);
                Ok(())
            }
            backend::COPY_DONE => {
                if !self.current(kind)?.copy_out {
                    return Err(unexpected(kind, self.queue.pop_front()));
                }
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
        let caller = &self.grounds.caller;
        let changed = match self.queue.front() {
            Some(front @ Expected::Query { .. }) => {
                front.run().and_then(|run| self.changed_meanwhile(run))
            }
            _ => None,
        };
        match self.queue.front_mut() {
            Some(Expected::Query { runs, at }) => {
                let Some(run) = runs.get_mut(*at) else {
                    return Err(unexpected(backend::ROW_DESCRIPTION, None));
                };
                let described = run.describe(&columns, &[], has_key, caller);
                run.begun = true;
                match changed.map_or(described, Err) {
                    Ok(()) => self.relay(message),
                    Err(refusal) => self.run_fails(refusal),
                }
                Ok(())
            }
            Some(Expected::Inspect(portal)) => {
                let plan = portal
                    .permit
                    .row_plan(&columns, &portal.formats, has_key, caller);
                let _ = portal.plan.set(plan.map(Arc::new));
                if let Some(prepared) = &portal.of {
                    let _ = prepared.shape.set(columns.into());
                }
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
}

/// Whether a setting is reported that may change how texts are read.
fn changes_reading(body: &[u8]) -> Result<bool, Malformed> {
    let name = Fields::new("ParameterStatus", body).cstr()?;
    Ok(!matches!(
        name,
        b"application_name" | b"DateStyle" | b"IntervalStyle" | b"TimeZone"
    ))
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
