//! Errors, notices and notifications: messages that come at any time and may carry data.

use bytes::BufMut;
use chaperone_sql::Kind;

use super::unexpected;
use crate::postgres::{
    protocol::{self, Fields, backend},
    queue::{Expected, Own},
    refusal::{WITHHELD, write_reduced},
    run::Run,
    session::{End, Session, Skip, client::skipped, evidence::Ending},
};

impl Session {
    pub(super) fn on_error(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
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

    pub(super) fn on_notice(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
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
    pub(super) fn on_notification(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
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

/// The whole of an error, for the sealed part of its record.
fn text_of(body: &[u8]) -> String {
    body.split(|&byte| byte == 0)
        .filter(|field| !field.is_empty())
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
