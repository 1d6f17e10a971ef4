//! What the client sends, message by message.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, atomic::Ordering},
};

use bytes::{Buf, Bytes, BytesMut};
use chaperone_sql::Kind;

use super::{End, Session, Skip, names::naming, refuse, understand::Unreadable};
use crate::postgres::{
    parameters::Parameters,
    portal::{Portal, Prepared},
    protocol::{self, Bind, Fields, Malformed, Named, Parse, frontend},
    queue::Expected,
    refusal::{Refusal, sqlstate},
    run::Run,
    sockets::HIGH_WATER,
};

/// The longest message that is held whole, apart from statement texts. A single value cannot be
/// longer than 1 GB in PostgreSQL.
const MAX_MESSAGE: usize = 256 << 20;
/// What the prepared statements of a session may take, and what its portals, in bytes.
pub(super) const HELD: usize = 64 << 20;
/// The longest message of those that hold a name at most (`PQ_SMALL_MESSAGE_LIMIT`), with its header.
const MAX_SMALL: usize = 10_000 + 1;
/// `FirstNormalObjectId`: types below are PostgreSQL's own.
const FIRST_NORMAL: u32 = 16_384;

impl Session {
    /// Handles one message of the client, if there is one. Says whether there was.
    pub(super) async fn handle_client(&mut self) -> Result<bool, End> {
        if self.client_pass > 0 || self.client_drop > 0 {
            return Ok(self.pass_client());
        }
        let Some((kind, length)) = protocol::header(&self.sockets.from_client)? else {
            return Ok(false);
        };
        if kind == frontend::COPY_DATA {
            // COPY data is streamed: it is not held, whatever its size.
            if self.skip == Skip::No {
                self.client_pass = length;
            } else {
                self.client_drop = length;
            }
            return Ok(self.pass_client());
        }
        let limit = match kind {
            // Names and parameter types of a Parse come on top of its text.
            frontend::QUERY | frontend::PARSE => self.shared.rules.max_statement + 64 * 1024,
            frontend::BIND | frontend::FUNCTION_CALL => MAX_MESSAGE,
            frontend::CLOSE
            | frontend::DESCRIBE
            | frontend::EXECUTE
            | frontend::FLUSH
            | frontend::SYNC
            | frontend::COPY_DONE
            | frontend::COPY_FAIL
            | frontend::TERMINATE => {
                if length > MAX_SMALL {
                    let length = i32::try_from(length).unwrap_or(i32::MAX);
                    let kind = char::from(kind);
                    return Err(Malformed::Length { kind, length }.into());
                }
                MAX_SMALL
            }
            // Its length is of no interest.
            other => return Err(Malformed::UnknownType(other).into()),
        };
        if length > limit {
            return self.too_large(kind, length).map(|()| true);
        }
        if self.sockets.from_client.len() < length {
            self.sockets.client_limit = length.max(HIGH_WATER);
            return Ok(false);
        }
        self.sockets.client_limit = HIGH_WATER;
        let message = self.sockets.from_client.split_to(length).freeze();
        self.on_client(kind, message).await?;
        Ok(true)
    }

    fn pass_client(&mut self) -> bool {
        let have = self.sockets.from_client.len();
        let (pass, drop) = (self.client_pass.min(have), self.client_drop.min(have));
        if pass > 0 {
            let bytes = self.sockets.from_client.split_to(pass);
            self.sockets.to_upstream.buffer().extend_from_slice(&bytes);
            self.client_pass -= pass;
        } else {
            self.sockets.from_client.advance(drop);
            self.client_drop -= drop;
        }
        pass > 0 || drop > 0
    }

    fn too_large(&mut self, kind: u8, length: usize) -> Result<(), End> {
        let limit = self.shared.rules.max_statement;
        self.client_drop = length;
        if self.skip != Skip::No {
            return Ok(());
        }
        let refusal = Refusal::new(
            sqlstate::TOO_LARGE,
            "too-large",
            format!("a message of {length} bytes is longer than Chaperone takes"),
        )
        .hint(format!("a statement may have {limit} bytes"));
        self.refuse(refusal, kind == frontend::QUERY);
        Ok(())
    }

    async fn on_client(&mut self, kind: u8, message: Bytes) -> Result<(), End> {
        if self.queue.is_empty() {
            // A cancel request that came while nothing ran must not hit what comes now.
            self.grounds.registered.asked.take();
        }
        let bare = kind == frontend::SYNC || kind == frontend::FLUSH && self.skip == Skip::No;
        if bare && message.len() > protocol::HEADER {
            // The backend's error would be taken for the answer to something else.
            return Err(Malformed::Trailing("Sync or Flush").into());
        }
        match (self.skip, kind) {
            (_, frontend::TERMINATE) => {
                // What was sent before it runs to its end, as it would without us.
                // Data of a COPY, or a Sync, will never come.
                self.said_goodbye = true;
                while !self.queue.is_empty() && !self.unsynced && self.copying() != Some(true) {
                    self.turn().await?;
                }
                return Err(End::Client);
            }
            (Skip::No, _) => {}
            (Skip::Local, frontend::SYNC) => {
                self.skip = Skip::No;
                let status = self.status;
                protocol::ready_for_query(self.sockets.to_client.buffer(), status);
                self.settle_output();
                return Ok(());
            }
            (Skip::Server, frontend::SYNC) => self.skip = Skip::No,
            _ => return Ok(()),
        }
        self.received = self.last_heard;
        if !matches!(kind, frontend::DESCRIBE | frontend::FLUSH) {
            self.acts += 1;
        }
        let begins = !matches!(
            kind,
            frontend::FLUSH | frontend::COPY_DONE | frontend::COPY_FAIL
        );
        if begins && !self.unsynced {
            // What fails late makes its own batch or its open transaction fail. A batch behind it
            // is neither, and must find the transaction as it then is.
            self.wait_for_drained_fallible().await?;
        }
        if matches!(kind, frontend::QUERY | frontend::FUNCTION_CALL) && self.unsynced {
            self.wait_for_batch().await?;
            if self.skip != Skip::No {
                return Ok(());
            }
        }
        let body = message.slice(protocol::HEADER..);
        if let Err(unreadable) = self.reads_names(kind, &body).await? {
            return self.unreadable(unreadable, &[], false);
        }
        match kind {
            frontend::QUERY => self.on_query(&message, &body).await,
            frontend::PARSE => self.on_parse(&message, &body).await,
            frontend::BIND => self.on_bind(&message, &body).await,
            frontend::DESCRIBE => self.on_describe(&message, &body).await,
            frontend::EXECUTE => self.on_execute(&message, &body).await,
            frontend::CLOSE => self.on_close(&message, &body).await,
            frontend::SYNC => self.on_sync(&message).await,
            frontend::FLUSH => {
                self.send(&message);
                Ok(())
            }
            // Outside of a COPY the backend ignores these.
            frontend::COPY_DONE | frontend::COPY_FAIL if self.copying().is_none() => Ok(()),
            frontend::COPY_DONE | frontend::COPY_FAIL => {
                self.sockets
                    .to_upstream
                    .buffer()
                    .extend_from_slice(&message);
                self.queue.push_back(Expected::CopyEnd);
                Ok(())
            }
            frontend::FUNCTION_CALL => self.on_function_call(&message, &body).await,
            other => Err(Malformed::UnknownType(other).into()),
        }
    }

    /// Appends a message of the extended protocol for the backend.
    pub(super) fn send(&mut self, message: &[u8]) {
        self.sockets.to_upstream.buffer().extend_from_slice(message);
        self.unsynced = true;
    }

    async fn on_parse(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let Parse { name, text, types } = Parse::read(body)?;
        self.wait_for_naming().await?;
        if self.statements.weight() + text.len() > HELD {
            self.decline(refuse::too_much_held("prepared statements"), false);
            return Ok(());
        }
        // Parsing has no effects and reads no data; whether the statement may run is asked at Bind.
        // But how its text is read and what its names stand for is settled here.
        let prepared = match self.reads_as_written(text).await? {
            Ok(()) => Prepared {
                text: Bytes::copy_from_slice(text),
                foreign_types: types.iter().any(|oid| *oid >= FIRST_NORMAL),
                misread: None,
                shape: OnceLock::new(),
                names: match self.understand_for_parse(text).await? {
                    Ok(names) => names,
                    Err(unreadable) => return self.unreadable(unreadable, text, false),
                },
            },
            Err(unreadable) => match self.opaque_prepared(text, &unreadable) {
                Some(prepared) => prepared,
                None => return self.unreadable(unreadable, text, false),
            },
        };
        if self.skip != Skip::No {
            return Ok(());
        }
        self.statements
            .propose(self.batch, name, Some(Arc::new(prepared)));
        self.queue.push_back(Expected::Parse);
        self.send(message);
        Ok(())
    }

    async fn on_bind(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let bind = Bind::read(body)?;
        if self.portals.weight() + Parameters::kept(&bind.parameters) > HELD {
            self.decline(refuse::too_much_held("portals"), false);
            return Ok(());
        }
        let found = self.find_statement(bind.statement).await?;
        if self.skip != Skip::No {
            return Ok(());
        }
        let Some(prepared) = found else {
            let name = String::from_utf8_lossy(bind.statement);
            self.refuse(refuse::no_such_statement(&name), false);
            return Ok(());
        };
        let understood = self.understand_prepared(&prepared).await?;
        let script = match understood {
            Ok(script) => script,
            Err(unreadable) => match self.opaque(&prepared.text, &unreadable) {
                Some(script) => script,
                None => return self.unreadable(unreadable, &prepared.text, false),
            },
        };
        let [statement] = script.statements.as_slice() else {
            // The backend refuses to prepare several at once, so this never gets so far.
            self.refuse(refuse::several_statements(), false);
            return Ok(());
        };
        if matches!(statement.kind, Kind::Prepare { .. }) && prepared.text != script.text {
            self.refuse(refuse::several_statements(), false);
            return Ok(());
        }
        let parameters = Parameters::bound(
            &bind.parameter_formats,
            &bind.parameters,
            self.shared.audit.blinder(),
        );
        let permit = if prepared.means(statement) {
            self.permit(statement, parameters).await?
        } else {
            let (gap, refusal) = (refuse::OTHER_NAMES, refuse::other_names());
            self.permit_unknown(statement, parameters, gap, refusal)
                .await?
        };
        let permit = match permit {
            Ok(permit) => permit,
            Err(refusal) => {
                self.decline(refusal, false);
                return Ok(());
            }
        };
        if self.skip != Skip::No {
            return Ok(());
        }
        let portal = Portal::new(permit, bind.result_formats.clone(), false);
        let portal = portal.bound(
            Arc::clone(&prepared),
            &statement.kind,
            self.acts,
            self.received,
        );
        let portal = Arc::new(portal.decided_by(self.ground_as_of()));
        self.portals
            .propose(self.batch, bind.portal, Some(Arc::clone(&portal)));
        self.queue.push_back(Expected::Bind {
            portal: Arc::clone(&portal),
        });
        self.send(message);
        self.inspect(bind.portal, portal);
        Ok(())
    }

    /// Makes sure that the portal's plan is there before its first row: from what is known of the
    /// statement's columns, or by asking the backend right behind the Bind.
    fn inspect(&mut self, name: &[u8], portal: Arc<Portal>) {
        let has_key = self.shared.hash_key.is_some();
        let caller = &self.grounds.caller;
        let permit = &portal.permit;
        if let Some(shape) = portal.of.as_ref().and_then(|of| of.shape.get()) {
            let plan = permit.known_row_plan(shape, &portal.formats, has_key, caller);
            let _ = portal.plan.set(plan);
            return;
        }
        protocol::named(
            self.sockets.to_upstream.buffer(),
            frontend::DESCRIBE,
            Named::Portal(name),
        );
        self.queue.push_back(Expected::Inspect(portal));
    }

    async fn on_describe(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let expected = match Named::read("Describe", body)? {
            Named::Statement(_) => Expected::DescribeStatement,
            Named::Portal(name) => Expected::DescribePortal(self.find_portal(name).await?),
        };
        if self.skip != Skip::No {
            return Ok(());
        }
        self.queue.push_back(expected);
        self.send(message);
        Ok(())
    }

    async fn on_execute(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        let mut fields = Fields::new("Execute", body);
        let name = fields.cstr()?;
        fields.u32()?;
        fields.end()?;
        let found = self.find_portal(name).await?;
        if self.skip != Skip::No {
            return Ok(());
        }
        let Some(portal) = found else {
            let name = String::from_utf8_lossy(name);
            self.refuse(refuse::no_such_portal(&name), false);
            return Ok(());
        };
        if let Some(refusal) = self.lapsed(&portal)? {
            self.decline(refusal, false);
            return Ok(());
        }
        if !portal.may_execute(self.acts)
            && !self.shows_anything(&portal.permit.statement.operation)
        {
            self.refuse(refuse::late_names(), false);
            return Ok(());
        }
        let statement = &portal.permit.statement;
        let ends_transaction = matches!(statement.kind, Kind::Commit { .. });
        let effects = !statement.effects.read_only;
        if effects || ends_transaction {
            self.wait_for_drained_fallible().await?;
            if self.skip != Skip::No {
                return Ok(());
            }
        }
        if matches!(portal.permit.statement.kind, Kind::Declare { .. })
            && portal.plan.get().is_none()
        {
            // A cursor of SQL's making: no Bind has looked at its columns.
            self.inspect(name, Arc::clone(&portal));
        }
        let in_block = self.in_transaction();
        let mut run = self.begin_run(Arc::clone(&portal.permit), in_block);
        run.as_of = portal.as_of.unwrap_or(run.as_of);
        run.looked = portal.looked.load(Ordering::Relaxed);
        let intent = self.intend(std::slice::from_mut(&mut run), Some(name))?;
        self.naming += usize::from(naming(&portal.permit.statement.kind));
        self.fallible += usize::from(portal.permit.may_be_cancelled());
        self.batch_effects |= effects;
        self.send_after(intent, message);
        self.unsynced = true;
        self.mark_dispatched(std::slice::from_mut(&mut run));
        self.queue.push_back(Expected::Execute { portal, run });
        Ok(())
    }

    async fn on_close(&mut self, message: &[u8], body: &[u8]) -> Result<(), End> {
        self.wait_for_naming().await?;
        if self.skip != Skip::No {
            return Ok(());
        }
        match Named::read("Close", body)? {
            Named::Statement(name) => {
                self.statements.propose(self.batch, name, None);
                self.queue.push_back(Expected::CloseStatement);
            }
            Named::Portal(name) => {
                self.portals.propose(self.batch, name, None);
                self.queue.push_back(Expected::ClosePortal);
            }
        }
        self.send(message);
        Ok(())
    }

    /// Whether a COPY whose data the client has not ended is in flight, or may be, and if so,
    /// whether the backend takes its data already.
    pub(super) fn copying(&self) -> Option<bool> {
        let takes = |run: &Run| {
            let statement = &run.permit.statement;
            statement.opaque || matches!(statement.kind, Kind::Copy { from: true, .. })
        };
        let mut ended = 0;
        for entry in self.queue.iter().rev() {
            let runs = match entry {
                Expected::CopyEnd => {
                    ended += 1;
                    continue;
                }
                Expected::Execute { run, .. } => std::slice::from_ref(run),
                Expected::Query { runs, at } => runs.get(*at..).unwrap_or_default(),
                _ => continue,
            };
            // A text may have several, which the backend takes one after another.
            let left = runs.iter().filter(|run| takes(run)).count();
            if left > 0 {
                let takes_data = runs.first().is_some_and(|run| run.copy_in);
                return (left > ended).then_some(takes_data && ended == 0);
            }
        }
        None
    }

    async fn on_sync(&mut self, message: &[u8]) -> Result<(), End> {
        // While a COPY takes data the backend ignores Sync, so it must not be waited for.
        if self.copying() == Some(false) {
            self.nudge();
        }
        while self.copying() == Some(false) {
            self.turn().await?;
        }
        if self.copying().is_some() {
            return Ok(());
        }
        self.skip = Skip::No;
        if self.batch_effects {
            // What had effects is committed by this Sync, so nothing may fail behind it.
            self.wait_for_drained_fallible().await?;
            self.skip = Skip::No;
        }
        self.sockets.to_upstream.buffer().extend_from_slice(message);
        self.queue.push_back(Expected::Sync);
        self.end_batch();
        Ok(())
    }

    /// The message that ends a batch, and with it a transaction that no BEGIN opened, is sent.
    pub(super) fn end_batch(&mut self) {
        self.batch += 1;
        self.unsynced = false;
        self.batch_effects = false;
        self.stale |= std::mem::take(&mut self.batch_meaning);
        // It has not been written yet. What takes effect already may be about more by now.
        if std::mem::take(&mut self.batch_defines) || self.changing.is_some() {
            self.begin_change();
        }
    }

    /// Waits until no run that can fail on our side is in flight, and what came of one that did is
    /// over: its transaction has failed too, and its cancel request cannot hit what comes next.
    pub(super) async fn wait_for_drained_fallible(&mut self) -> Result<(), End> {
        if self.fallible > 0 {
            self.nudge();
        }
        let waited = self.fallible > 0 || self.fail_transaction;
        while self.fallible > 0 || self.fail_transaction || waited && self.cancelling.is_some() {
            self.turn().await?;
        }
        Ok(())
    }

    /// Waits for the answers to a batch that a simple Query ends in place of a Sync. Behind an error in
    /// it the backend skips that, and what else comes before a Sync, which must be none of ours.
    async fn wait_for_batch(&mut self) -> Result<(), End> {
        self.nudge();
        while !self.queue.is_empty() && self.copying() != Some(true) {
            self.turn().await?;
        }
        Ok(())
    }

    /// Makes the backend answer what was sent, without ending the batch.
    pub(super) fn nudge(&mut self) {
        if self.unsynced {
            protocol::bare(self.sockets.to_upstream.buffer(), frontend::FLUSH);
        }
    }

    /// Refuses a message, unless something before it has failed meanwhile: then the backend skips
    /// it, and so do we.
    pub(super) fn decline(&mut self, refusal: Refusal, simple: bool) {
        if self.skip == Skip::No {
            self.refuse(refusal, simple);
        }
    }

    /// What cannot be read is refused; where it is merely not PostgreSQL's grammar, the backend's
    /// own error is the better answer.
    pub(super) fn unreadable(
        &mut self,
        unreadable: Unreadable,
        text: &[u8],
        simple: bool,
    ) -> Result<(), End> {
        match unreadable {
            Unreadable::Skipped => {}
            Unreadable::Aborted => self.refuse(refuse::aborted(), simple),
            Unreadable::Refused(refusal) => self.refuse(refusal, simple),
            // The backend would run functions while it reads what we cannot.
            Unreadable::Syntax(refusal) if self.parsing_runs_functions() => {
                self.refuse(refusal, simple);
            }
            Unreadable::Syntax(refusal) => {
                let mut probe = BytesMut::new();
                protocol::parse(&mut probe, refuse::PROBE, text);
                self.refuse_by(refusal, simple, &probe, true);
            }
        }
        Ok(())
    }
}

/// Entries that are skipped by the backend after an error, up to the end of the batch.
pub(super) fn skipped(queue: &mut VecDeque<Expected>) -> Vec<Expected> {
    let end = queue
        .iter()
        .position(Expected::ends_batch)
        .unwrap_or(queue.len());
    queue.drain(..end).collect()
}
