//! What is not understood at all, where nothing of it has to be.
//!
//! A set whose modules may decide on incomplete facts, and which would show this caller an output
//! of any origin as it is, has no use for facts: what is not understood runs then, and as the
//! backend alone would run it. For all other sets it is refused, as if this were not here.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use chaperone_contract::{Context, Operation};

use super::{
    End, Session, Skip,
    understand::{Script, Unreadable},
};
use crate::postgres::{
    decide::{Ground, Permit, Statement, unix_seconds},
    disclosure,
    parameters::Parameters,
    portal::Prepared,
    protocol::FunctionCall,
    refusal::{Refusal, sqlstate},
};

impl Session {
    /// A text that has no meaning here, as one statement about which nothing is known.
    pub(super) fn opaque(&mut self, text: &[u8], unreadable: &Unreadable) -> Option<Arc<Script>> {
        let gap = match unreadable {
            Unreadable::Skipped => return None,
            Unreadable::Aborted => "the transaction is aborted, so the catalog cannot be asked",
            Unreadable::Refused(refusal) if refusal.sqlstate == sqlstate::CANCELLED => return None,
            Unreadable::Refused(refusal) | Unreadable::Syntax(refusal) => &refusal.message,
        };
        let script = self.opaque_script(text, gap);
        let shown = script
            .statements
            .iter()
            .all(|one| self.shows_anything(&one.operation));
        shown.then_some(script)
    }

    pub(super) fn opaque_script(&self, text: &[u8], gap: &str) -> Arc<Script> {
        let statement = Statement::opaque("UNKNOWN", text, gap.to_owned(), self.last_ground());
        let text = Bytes::copy_from_slice(text);
        Arc::new(Script::new(text, vec![Arc::new(statement)]))
    }

    /// The statement that a Parse makes under settings that make the backend read its text in a
    /// way of its own. It stays what it is when they change.
    pub(super) fn opaque_prepared(
        &mut self,
        text: &[u8],
        unreadable: &Unreadable,
    ) -> Option<Prepared> {
        let script = self.opaque(text, unreadable)?;
        let gap = script.statements.first()?.operation.gaps.first()?.clone();
        Some(Prepared {
            text: script.text.clone(),
            foreign_types: false,
            misread: Some(gap),
            names: None,
            shape: OnceLock::new(),
        })
    }

    /// A FunctionCall: what it does is not in any text. On record it is the function's number, and
    /// its arguments are parameters.
    pub(super) async fn on_function_call(
        &mut self,
        message: &[u8],
        body: &[u8],
    ) -> Result<(), End> {
        let call = FunctionCall::read(body)?;
        self.wait_for_drained_fallible().await?;
        if self.skip != Skip::No {
            return Ok(());
        }
        let refusal = Refusal::new(
            sqlstate::NOT_UNDERSTOOD,
            "function-call",
            "the function-call message bypasses SQL and is not allowed",
        )
        .hint("call the function with SELECT");
        let ground = self.last_ground();
        let text = format!("FUNCTION CALL {}", call.function);
        let gap = refusal.message.clone();
        let statement = Statement::opaque("FUNCTION CALL", text.as_bytes(), gap, ground);
        if !self.shows_anything(&statement.operation) {
            self.refuse(refusal, true);
            return Ok(());
        }
        let script = Script::new(Bytes::new(), vec![Arc::new(statement)]);
        let blinder = self.shared.audit.blinder();
        let arguments = Parameters::bound(&call.formats, &call.arguments, blinder);
        self.send_query(message, &script, arguments).await
    }

    /// A permit for what Chaperone's own rules refuse with `refusal`, since it is not known what it
    /// does.
    pub(super) async fn permit_unknown(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Parameters,
        gap: &'static str,
        refusal: Refusal,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let unknown = Arc::new(statement.with_gap(gap));
        if self.shows_anything(&unknown.operation) {
            return self.permit_by_policies(&unknown, parameters).await;
        }
        let request = self.record_refusal(statement, &refusal)?;
        Ok(Err(refusal.request(request)))
    }

    /// Whether the set of this moment lets the operation pass, and would show this caller anything
    /// of it.
    pub(super) fn shows_anything(&self, operation: &Operation) -> bool {
        let set = &self.shared.policies.load().set;
        let context = Context {
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
            ..Context::default()
        };
        disclosure::shows_anything(set, &self.grounds.caller, operation, &context).0
    }

    /// Whether the session may go on in a role that it was not granted.
    pub(super) fn may_change_role(&self) -> bool {
        self.shows_anything(&disclosure::role_change())
    }

    /// What the catalog was known to be, if it is at all.
    pub(super) fn last_ground(&self) -> Ground {
        self.ground.clone().unwrap_or_else(|| Ground {
            catalog: Arc::default(),
            view: Arc::default(),
            labelling: Arc::clone(&self.grounds.backend.labelling),
            generation: 0,
        })
    }
}
