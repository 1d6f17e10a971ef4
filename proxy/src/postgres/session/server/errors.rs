//! Errors, notices and notifications: messages that come at any time and may carry data.
//!
//! What of them is passed on is told in [`disclosure`].

use bytes::BufMut;
use chaperone_contract::Context;
use chaperone_sql::Kind;

use super::unexpected;
use crate::postgres::{
    decide::unix_seconds,
    disclosure::{self, may_settle},
    protocol::{self, Fields, backend},
    queue::{Expected, Own},
    refusal::Refusal,
    report::Report,
    run::Run,
    session::{End, Session, Skip, client::skipped, evidence::Ending, question::Guard},
};

impl Session {
    pub(super) fn on_error(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let report = Report::read(body)?;
        while matches!(self.queue.front(), Some(Expected::CopyEnd)) {
            self.queue.pop_front();
        }
        if report.is_fatal() {
            // The connection is at its end, whatever the error was about.
            self.last_words = Some((report.sqlstate.clone(), text_of(body)));
            let tells = self.may_tell(self.queue.front());
            self.pass_on(message, backend::ERROR_RESPONSE, &report, tells);
            return Ok(());
        }
        let Some(mut front) = self.queue.pop_front() else {
            // Nothing of the client's runs.
            self.pass_on(message, backend::ERROR_RESPONSE, &report, true);
            return Ok(());
        };
        let tells = self.may_tell(Some(&front));
        // Of what fails at a commit no run tells.
        let at_commit = match &front {
            Expected::Sync => true,
            Expected::Query { runs, at } => *at >= runs.len(),
            _ => false,
        };
        let guarded = matches!(front, Expected::Own(_)) && self.own.guard == Guard::Set;
        if !guarded {
            if let Some(run) = front.run()
                && matches!(run.permit.statement.kind, Kind::Commit { .. })
            {
                self.undone_by_failing_commit(&report.sqlstate)?;
            }
            self.undone_by_error(&report.sqlstate, at_commit.then(|| text_of(body)))?;
        }
        match &mut front {
            Expected::Own(Own::Sync) => {
                return Err(unexpected(backend::ERROR_RESPONSE, Some(front)));
            }
            Expected::Own(_) => self.own_failed(&report),
            Expected::Fails {
                refusal, genuine, ..
            } => self.tell_refusal(refusal.as_ref(), *genuine, message),
            Expected::Query { runs, at } => {
                self.query_failed(runs, *at, &report, body)?;
                *at = runs.len();
                self.pass_on(message, backend::ERROR_RESPONSE, &report, tells);
            }
            Expected::Execute { run, .. } => {
                self.run_failed(run, &report, body)?;
                self.pass_on(message, backend::ERROR_RESPONSE, &report, tells);
            }
            _ => self.pass_on(message, backend::ERROR_RESPONSE, &report, tells),
        }
        match &front {
            // Its ReadyForQuery is still to come.
            Expected::Query { .. } | Expected::Fails { simple: true, .. } => {
                self.queue.push_front(front);
                return Ok(());
            }
            // What was put off to the commit failed there; ReadyForQuery still comes.
            Expected::Sync => self.queue.push_front(front),
            _ => self.skip_behind(front)?,
        }
        self.stale |= self.transaction_effects && !guarded;
        Ok(())
    }

    /// A simple Query fails in the statement of this index, and none behind it runs.
    fn query_failed(
        &mut self,
        runs: &mut [Run],
        at: usize,
        report: &Report,
        body: &[u8],
    ) -> Result<(), End> {
        for (index, run) in runs.iter_mut().enumerate().skip(at) {
            if index == at || run.failed.is_some() {
                self.run_failed(run, report, body)?;
            } else {
                self.close_run(run, Ending::skipped())?;
            }
        }
        Ok(())
    }

    fn run_failed(&mut self, run: &mut Run, report: &Report, body: &[u8]) -> Result<(), End> {
        let ending = match &run.failed {
            Some(refusal) => Ending::late(refusal),
            None => Ending::failed(&report.sqlstate, text_of(body)),
        };
        self.close_run(run, ending)
    }

    /// The message that had to fail in place of a refused one did.
    fn tell_refusal(&mut self, refusal: Option<&Refusal>, genuine: bool, message: &[u8]) {
        match refusal {
            Some(_) if genuine => self.relay(message),
            Some(refusal) if !self.suppress => {
                refusal.write(self.sockets.to_client.buffer(), "ERROR");
            }
            _ => {}
        }
    }

    /// A question of our own failed. Inside the client's batch it is the client's error as well;
    /// it is about the catalog, and its position and context are not in the client's text.
    fn own_failed(&mut self, report: &Report) {
        self.own.failed = Some(report.sqlstate.clone());
        self.own.cancelled = report.words_of_cancel();
        let apart = self
            .queue
            .iter()
            .any(|entry| matches!(entry, Expected::Own(Own::Sync)));
        if !apart {
            report.write_bare(self.sockets.to_client.buffer(), backend::ERROR_RESPONSE);
        }
    }

    /// Everything from the failed message on, up to a Sync, is not answered any more.
    fn skip_behind(&mut self, front: Expected) -> Result<(), End> {
        self.reject(front)?;
        for entry in skipped(&mut self.queue) {
            self.reject(entry)?;
        }
        if self.queue.is_empty() {
            // The backend skips up to a Sync that was not sent yet. That holds for a simple Query
            // behind the error as well, so it does not matter whether one was sent.
            self.skip = Skip::Server;
            self.unsynced = true;
        }
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
        if matches!(
            self.queue.front(),
            Some(Expected::Own(_) | Expected::Fails { .. } | Expected::Inspect(_))
        ) {
            return Ok(());
        }
        let report = Report::read(body)?;
        let tells = self.may_tell(self.queue.front());
        self.pass_on(message, backend::NOTICE_RESPONSE, &report, tells);
        self.look_was_for_a_notice();
        Ok(())
    }

    /// Whether a message about what this entry stands for may be passed on as it is.
    fn may_tell(&self, entry: Option<&Expected>) -> bool {
        let caller = &self.grounds.caller;
        let (itself, settles) = match entry {
            Some(Expected::Execute { run, .. }) => (
                run.permit.may_tell(caller) && self.changed_meanwhile(run).is_none(),
                may_settle(&run.permit.statement.kind),
            ),
            Some(Expected::Query { runs, at }) => match runs.get(*at) {
                Some(run) => (
                    run.permit.may_tell(caller) && self.changed_meanwhile(run).is_none(),
                    may_settle(&run.permit.statement.kind)
                        || at + 1 == runs.len() && !self.in_open_block(),
                ),
                None => (true, true),
            },
            Some(
                Expected::Bind { portal }
                | Expected::Inspect(portal)
                | Expected::DescribePortal(Some(portal)),
            ) => (portal.permit.may_tell(caller), false),
            Some(Expected::Sync) => (true, true),
            // Parse analysis reads no rows.
            _ => (true, false),
        };
        itself && (!settles || self.put_off.may_be_told(caller))
    }

    /// Whether the statement that the backend is at surely stands in a transaction block, so that
    /// its end is not a transaction's.
    fn in_open_block(&self) -> bool {
        self.status == b'T' && !self.block_ended
    }

    fn pass_on(&mut self, message: &[u8], kind: u8, report: &Report, tells: bool) {
        if self.suppress {
            return;
        }
        let out = self.sockets.to_client.buffer();
        if tells || report.is_about_the_text() {
            out.extend_from_slice(message);
        } else {
            report.write_reduced(out, kind);
        }
    }

    /// A notification of a session of ours was decided upon; what others notify with may be
    /// anything.
    pub(super) fn on_notification(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let mut fields = Fields::new("NotificationResponse", body);
        let pid = fields.u32()?;
        let channel = fields.cstr()?;
        let ours = self.shared.cancels.is_ours(&self.grounds.backend.name, pid);
        if ours || self.shows_foreign_payloads() {
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

    fn shows_foreign_payloads(&mut self) -> bool {
        let set = &self.shared.policies.load().set;
        if let Some((digest, shows)) = self.foreign_payloads
            && digest == set.digest()
        {
            return shows;
        }
        let context = Context {
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
            ..Context::default()
        };
        let operation = disclosure::foreign_notification();
        let caller = &self.grounds.caller;
        let (shows, reads) = disclosure::shows_anything(set, caller, &operation, &context);
        self.foreign_payloads = reads.is_empty().then_some((set.digest(), shows));
        shows
    }
}

/// So much of an error's text is recorded: it can quote a value of any size.
const MOST_TEXT: usize = 16 << 10;

/// An error's text, for the sealed part of its record.
fn text_of(body: &[u8]) -> String {
    let recorded = body.get(..MOST_TEXT).unwrap_or(body);
    recorded
        .split(|&byte| byte == 0)
        .filter(|field| !field.is_empty())
        .map(|field| String::from_utf8_lossy(field).into_owned())
        .collect::<Vec<_>>()
        .join("\n")
}
