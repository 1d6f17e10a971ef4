//! Names that SQL statements give and take.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chaperone_sql::Kind;

use super::{End, Session, understand::Unreadable};
use crate::postgres::{
    decide::Permit,
    names::Found,
    portal::{Names, Portal, Prepared},
    protocol::{Fields, Malformed, frontend},
    queue::Expected,
};

/// Whether a statement changes what names stand for when it ends.
pub(super) fn naming(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Prepare { .. }
            | Kind::Deallocate { .. }
            | Kind::Declare { .. }
            | Kind::Close { .. }
            | Kind::Discard { .. }
    )
}

/// The names of a statement and a portal that a message carries.
fn carried(kind: u8, body: &[u8]) -> Result<[&[u8]; 2], Malformed> {
    let mut fields = Fields::new("name", body);
    Ok(match kind {
        frontend::PARSE | frontend::EXECUTE => [fields.cstr()?, b""],
        frontend::BIND => [fields.cstr()?, fields.cstr()?],
        frontend::CLOSE => {
            fields.u8()?;
            [fields.cstr()?, b""]
        }
        _ => [b"", b""],
    })
}

impl Session {
    /// Makes sure that the names in a message are the same to the backend as they are here: it turns
    /// them from the client's encoding into its own.
    pub(super) async fn reads_names(
        &mut self,
        kind: u8,
        body: &[u8],
    ) -> Result<Result<(), Unreadable>, End> {
        for name in carried(kind, body)? {
            if let Err(unreadable) = self.reads_as_written(name).await? {
                return Ok(Err(unreadable));
            }
        }
        Ok(Ok(()))
    }

    /// A statement that changes names has ended well.
    pub(super) fn apply_naming(&mut self, permit: &Arc<Permit>) {
        let statement = &permit.statement;
        match &statement.kind {
            Kind::Prepare { name } => {
                let text = Bytes::copy_from_slice(statement.operation.text.as_bytes());
                let prepared = Arc::new(Prepared {
                    text,
                    foreign_types: false,
                    misread: None,
                    names: Some(Names::of(statement)),
                    shape: OnceLock::new(),
                });
                self.statements
                    .set(name.clone().into_bytes(), Some(prepared));
            }
            Kind::Deallocate { name: Some(name) } => {
                self.statements.set(name.clone().into_bytes(), None);
            }
            Kind::Deallocate { name: None } => self.statements.retain(|_| false),
            Kind::Declare { cursor, hold } => {
                let portal = Arc::new(Portal::new(Arc::clone(permit), Vec::new(), *hold));
                self.portals.set(cursor.clone().into_bytes(), Some(portal));
            }
            Kind::Close { cursor: Some(name) } => {
                self.portals.set(name.clone().into_bytes(), None);
            }
            Kind::Close { cursor: None } => self.close_portals(permit),
            Kind::Discard { all: true } => {
                self.statements.retain(|_| false);
                self.close_portals(permit);
            }
            _ => {}
        }
    }

    pub(super) async fn find_statement(
        &mut self,
        name: &[u8],
    ) -> Result<Option<Arc<Prepared>>, End> {
        self.wait_for_naming().await?;
        loop {
            match self.statements.find(name, self.batch) {
                Found::Is(prepared) => return Ok(Some(prepared)),
                Found::Nothing => return Ok(None),
                Found::Unsettled => self.turn().await?,
            }
        }
    }

    /// All portals are closed, apart from the one that does it.
    fn close_portals(&mut self, by: &Arc<Permit>) {
        self.portals
            .retain(|portal| Arc::ptr_eq(&portal.permit, by));
    }

    /// Whether a simple Query is under way, which takes the unnamed portal with it, and no Bind has come
    /// behind that. See [`Self::drop_unnamed_portal`].
    fn unnamed_portal_is_gone(&self) -> bool {
        let last = self
            .queue
            .iter()
            .rev()
            .find(|entry| matches!(entry, Expected::Query { .. } | Expected::Bind { .. }));
        matches!(last, Some(Expected::Query { .. }))
    }

    /// A simple Query has ended. Its own portal had no name; where it failed in a transaction block the
    /// server still has that one, and reads memory that it has freed when it is told to execute it.
    pub(super) fn drop_unnamed_portal(&mut self) {
        self.portals.set(Vec::new(), None);
    }

    pub(super) async fn find_portal(&mut self, name: &[u8]) -> Result<Option<Arc<Portal>>, End> {
        self.wait_for_naming().await?;
        if name.is_empty() && self.unnamed_portal_is_gone() {
            return Ok(None);
        }
        loop {
            match self.portals.find(name, self.batch) {
                Found::Is(portal) => return Ok(Some(portal)),
                Found::Nothing => return Ok(None),
                Found::Unsettled => self.turn().await?,
            }
        }
    }

    /// Waits until no statement that changes names by SQL is in flight.
    pub(super) async fn wait_for_naming(&mut self) -> Result<(), End> {
        if self.naming > 0 {
            self.nudge();
        }
        while self.naming > 0 {
            self.turn().await?;
        }
        Ok(())
    }

    pub(super) async fn named_statement(
        &mut self,
        name: &str,
    ) -> Result<Option<Arc<Prepared>>, End> {
        self.find_statement(name.as_bytes()).await
    }
}
