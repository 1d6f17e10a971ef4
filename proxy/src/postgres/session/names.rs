//! Names that SQL statements give and take.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chaperone_sql::Kind;

use super::Session;
use crate::postgres::{
    decide::Permit,
    portal::{Names, Portal, Prepared},
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

impl Session {
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
            Kind::Close { cursor: None } => self.portals.retain(|_| false),
            Kind::Discard { all: true } => {
                self.statements.retain(|_| false);
                self.portals.retain(|_| false);
            }
            _ => {}
        }
    }
}
