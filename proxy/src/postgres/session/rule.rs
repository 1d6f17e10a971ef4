//! From a statement to a permit: the host's own rules, the policies, and where they say so a
//! person.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chaperone_audit_log::{RecordRef, Seq};
use chaperone_contract::{Approval, Context, Value, Verdict};
use chaperone_policy_host::{Ruling, denial};
use chaperone_sql::Kind;
use uuid::Uuid;

use super::{End, Session, refuse};
use crate::{
    approval::{Held, Outcome, Parameter, Person, Requester, Shown},
    postgres::{
        decide::{Decider, Permit, Statement, decider},
        protocol::{self, backend},
        refusal::{Refusal, denial_sqlstate, sqlstate},
        shared::ActiveSet,
    },
};

impl Session {
    /// Decides about one statement. `name` is the prepared statement that it came as, if it did.
    pub(super) async fn permit(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Vec<Value>,
        _name: &[u8],
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        if self.draining && self.status == b'I' {
            return Ok(Err(refuse::draining()));
        }
        if self.shared.audit.check().is_err() {
            return Ok(Err(refuse::log_unavailable()));
        }
        let settings = &self.shared.rules.settings;
        match decider(statement, settings) {
            Decider::Host(code) => {
                let decision = self.record_host_decision(statement, code)?;
                Ok(Ok(Permit::host(
                    Arc::clone(statement),
                    decision,
                    self.last_request,
                )))
            }
            Decider::Refused(refusal) => {
                let request = self.record_refusal(statement, &refusal)?;
                Ok(Err(refusal.request(request)))
            }
            Decider::Named => self.permit_named(statement).await,
            Decider::Policies => self.permit_by_policies(statement, parameters).await,
        }
    }

    /// EXECUTE and FETCH run what stands behind the name.
    async fn permit_named(
        &mut self,
        statement: &Arc<Statement>,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let inner = match &statement.kind {
            Kind::Execute { name } => match self.named_statement(name).await? {
                None => return Ok(Err(refuse::no_such_statement(name))),
                Some(prepared) => match self.understand_prepared(&prepared).await? {
                    Ok(script) => match script.statements.as_slice() {
                        [one] => Arc::clone(one),
                        _ => return Ok(Err(refuse::several_statements())),
                    },
                    Err(_) => return Ok(Err(refuse::no_such_statement(name))),
                },
            },
            Kind::Fetch { cursor, .. } => match self.find_portal(cursor.as_bytes()).await? {
                None => return Ok(Err(refuse::no_such_cursor(cursor))),
                Some(portal) => Arc::clone(&portal.permit.statement),
            },
            _ => Arc::clone(statement),
        };
        let through_name =
            inner.labelled && !matches!(inner.kind, Kind::Prepare { .. } | Kind::Declare { .. });
        if through_name {
            let refusal = Refusal::new(
                sqlstate::NOT_UNDERSTOOD,
                "protected-by-name",
                "EXECUTE and FETCH of a statement that touches protected data are not understood \
                 yet",
            )
            .hint("use the extended protocol, or send the statement plain");
            let request = self.record_refusal(statement, &refusal)?;
            return Ok(Err(refusal.request(request)));
        }
        self.permit_by_policies(&inner, Vec::new()).await
    }

    async fn permit_by_policies(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Vec<Value>,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let active = self.shared.policies.load_full();
        let context = Context {
            parameters,
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
        };
        let (ruling, decision) = self.rule(&active, statement, &context)?;
        let parameters = context.parameters;
        match &ruling.verdict {
            Verdict::Allow => {
                self.counts.allowed += 1;
                let permit = Permit::grant(
                    Arc::clone(statement),
                    Arc::clone(&ruling),
                    Arc::clone(&active.set),
                    decision,
                    None,
                    parameters,
                    self.last_request,
                );
                Ok(permit.ok_or_else(|| denied(&ruling, None)))
            }
            Verdict::RequireApproval(approval) => {
                let approval = approval.clone();
                self.permit_by_person(statement, parameters, &ruling, &approval, decision)
                    .await
            }
            Verdict::Deny(_) | Verdict::Abstain => {
                let request = self.last_request;
                let gaps = &statement.operation.gaps;
                Ok(Err(denied(&ruling, Some(gaps.as_slice())).request(request)))
            }
        }
    }

    /// What the set says, from memory where that holds, and the record of it.
    fn rule(
        &mut self,
        active: &ActiveSet,
        statement: &Arc<Statement>,
        context: &Context,
    ) -> Result<(Arc<Ruling>, Seq), End> {
        if let Some((ruling, decision)) = statement.remembered(&active.set, context) {
            if !matches!(ruling.verdict, Verdict::Allow) {
                // Each refusal is a request of its own.
                let decision =
                    self.record_decision(active, statement, context, &ruling, Some(decision))?;
                return Ok((ruling, decision));
            }
            self.last_request = Session::request();
            return Ok((ruling, decision));
        }
        let caller = Arc::clone(&self.grounds.caller);
        let ruling = Arc::new(active.set.decide(&caller, &statement.operation, context));
        for (module, failure) in ruling.failures() {
            let module = active.set.modules().get(module).map_or("?", |m| m.name());
            tracing::warn!(
                module,
                code = failure.code.as_str(),
                "a policy failed; the statement is denied"
            );
        }
        let decision = self.record_decision(active, statement, context, &ruling, None)?;
        statement.remember(context, &ruling, decision);
        Ok((ruling, decision))
    }

    /// Holds the statement until a person says yes, and decides it again at its release.
    async fn permit_by_person(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Vec<Value>,
        ruling: &Arc<Ruling>,
        approval: &Approval,
        decision: Seq,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let held = match self.held(statement, &parameters, approval, decision) {
            Ok(held) => held,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.counts.held();
        let approvals = self.shared.approvals.clone();
        let ticket = match approvals.request(held).await {
            Ok(ticket) => ticket,
            Err(error) => {
                let refusal = Refusal::new(
                    sqlstate::PENDING_APPROVAL,
                    "approval-refused",
                    error.to_string(),
                );
                return Ok(Err(refusal));
            }
        };
        let id = ticket.id();
        // Locks must not wait for people.
        let wait = if self.in_transaction() || self.batch_effects {
            Duration::ZERO
        } else {
            self.shared.rules.approval_wait
        };
        // A cancel request that came while nothing ran is not meant for this statement.
        self.cancelled_while_held = false;
        if !wait.is_zero() && !ticket.joined() {
            self.tell_held(id, approval, wait);
        }
        let outcome = {
            let waiting = approvals.wait(&ticket, wait);
            tokio::pin!(waiting);
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut waiting => break outcome,
                    turned = self.turn() => turned?,
                }
                if self.sockets.client_ended {
                    return Err(End::Client);
                }
                if self.cancelled_while_held {
                    self.cancelled_while_held = false;
                    return Ok(Err(Refusal::new(
                        sqlstate::CANCELLED,
                        "cancelled",
                        "canceling statement due to user request",
                    )));
                }
            }
        };
        let grant = match outcome {
            Outcome::Granted(grant) => grant,
            other => {
                return Ok(Err(
                    not_granted(&other, id, approval).request(self.last_request)
                ));
            }
        };
        // The world may have changed while it waited: it is decided again, and may only get
        // stricter.
        let active = self.shared.policies.load_full();
        let context = Context {
            parameters,
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
        };
        let (again, decision) = if active.set.digest() == ruling.set {
            (Arc::clone(ruling), decision)
        } else {
            self.rule(&active, statement, &context)?
        };
        let still = match &again.verdict {
            Verdict::Allow => true,
            Verdict::RequireApproval(terms) => {
                terms.approvers <= approval.approvers
                    && (approval.groups == terms.groups || terms.groups.is_empty())
            }
            Verdict::Deny(_) | Verdict::Abstain => false,
        };
        if !still {
            drop(grant);
            let gaps = &statement.operation.gaps;
            return Ok(Err(
                denied(&again, Some(gaps.as_slice())).request(self.last_request)
            ));
        }
        let released = match grant.release().await {
            Ok(released) => released,
            Err(error) => {
                return Ok(Err(Refusal::new(
                    sqlstate::PENDING_APPROVAL,
                    "approval-not-released",
                    error.to_string(),
                )));
            }
        };
        let record: RecordRef = released
            .record()
            .unwrap_or_else(|| self.shared.audit.reference(decision));
        self.counts.allowed += 1;
        let permit = Permit::grant(
            Arc::clone(statement),
            Arc::clone(&again),
            Arc::clone(&active.set),
            decision,
            Some(record),
            context.parameters,
            self.last_request,
        );
        Ok(permit.ok_or_else(|| denied(&again, None)))
    }

    fn held(
        &self,
        statement: &Statement,
        parameters: &[Value],
        approval: &Approval,
        decision: Seq,
    ) -> Result<Held, Refusal> {
        let caller = &self.grounds.caller;
        let operation = &statement.operation;
        let person = |issuer: &str, subject: &str| Person {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
        };
        let requester = Requester {
            person: person(&caller.issuer, &caller.subject),
            actors: caller
                .actors
                .iter()
                .map(|actor| person(&actor.issuer, &actor.subject))
                .collect(),
            role: caller.principal.clone(),
            target: caller.target.clone(),
            database: self.grounds.backend.database.clone(),
        };
        let shown = Shown {
            text: operation.text.clone(),
            parameters: parameters
                .iter()
                .map(|value| Parameter {
                    type_name: String::new(),
                    value: value.clone(),
                })
                .collect(),
            policy: String::new(),
            code: approval.reason.code.clone(),
            reason: approval.reason.message.clone(),
            objects: operation
                .objects
                .iter()
                .map(|object| {
                    let actions: Vec<String> = object
                        .actions
                        .iter_names()
                        .map(|(name, _)| name.to_ascii_lowercase())
                        .collect();
                    format!(
                        "{} {}: {}",
                        object.kind,
                        object.path.join("."),
                        actions.join(", ")
                    )
                })
                .collect(),
            purpose: caller.purpose.clone(),
            run: caller.run.clone(),
        };
        Held::new(
            requester,
            shown,
            operation,
            approval.groups.clone(),
            approval.approvers,
            Duration::from_secs(approval.ttl_seconds.into())
                .min(self.shared.rules.approval_ttl)
                .max(Duration::from_secs(1)),
            Some(self.shared.audit.reference(decision)),
        )
        .map_err(|error| Refusal::new(sqlstate::TOO_LARGE, "not-showable", error.to_string()))
    }

    fn tell_held(&mut self, id: Uuid, approval: &Approval, wait: Duration) {
        let message = format!(
            "waiting up to {} s for an approval: {}",
            wait.as_secs(),
            approval.reason.message
        );
        let hint = format!("an approver answers with: chaperone approvals show {id}");
        protocol::report(
            self.sockets.to_client.buffer(),
            backend::NOTICE_RESPONSE,
            &[
                (b'S', "NOTICE"),
                (b'V', "NOTICE"),
                (b'C', "00000"),
                (b'M', &message),
                (b'H', &hint),
            ],
        );
        self.settle_output();
    }

    /// Whether a transaction block is open, or would be by the time that what comes next runs.
    pub(super) fn in_transaction(&self) -> bool {
        self.status != b'I' || self.block_opened
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// What the caller is told of a verdict that does not let it through.
fn denied(ruling: &Ruling, gaps: Option<&[String]>) -> Refusal {
    let reason = match &ruling.verdict {
        Verdict::Deny(reason) => reason.clone(),
        _ => chaperone_contract::Reason {
            code: denial::ALL_ABSTAIN.to_owned(),
            message: "no policy allows this".to_owned(),
            hint: None,
        },
    };
    let incomplete = reason.code == denial::FACTS_INCOMPLETE;
    let state = denial_sqlstate(&reason.code);
    let message = match gaps {
        Some([first, ..]) if incomplete => format!("refused: {first}"),
        _ => reason.message,
    };
    let refusal = Refusal::new(state, reason.code, message);
    match reason.hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

fn not_granted(outcome: &Outcome, id: Uuid, approval: &Approval) -> Refusal {
    let (code, state, message, hint) = match outcome {
        Outcome::Denied { comment } => (
            "approval-denied",
            sqlstate::DENIED,
            match comment {
                Some(comment) => format!("an approver refused this statement: {comment}"),
                None => "an approver refused this statement".to_owned(),
            },
            "talk to the approver, or send another statement".to_owned(),
        ),
        Outcome::Expired => (
            "approval-expired",
            sqlstate::PENDING_APPROVAL,
            "nobody approved this statement in time".to_owned(),
            "send it again to ask anew".to_owned(),
        ),
        Outcome::Gone => (
            "approval-gone",
            sqlstate::PENDING_APPROVAL,
            "the approval of this statement was used or cancelled".to_owned(),
            "send it again to ask anew".to_owned(),
        ),
        Outcome::Pending | Outcome::Granted(_) => (
            "approval-pending",
            sqlstate::PENDING_APPROVAL,
            format!(
                "this statement needs an approval: {}",
                approval.reason.message
            ),
            format!(
                "ticket {id} is open; once it is approved, send the same statement and parameters \
                 again"
            ),
        ),
    };
    Refusal::new(state, code, message).hint(hint)
}
