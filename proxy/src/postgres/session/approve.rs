//! Statements that wait for a person.

use std::{sync::Arc, time::Duration};

use chaperone_audit_log::{RecordRef, Seq};
use chaperone_contract::{Approval, Context, Value, Verdict};
use chaperone_policy_host::{Reads, Ruling};
use tokio::time::Instant;
use uuid::Uuid;

use super::{End, Session, refuse, rule::denied, understand::Unreadable};
use crate::{
    approval::{BoundTo, Grant, Held, Outcome, Parameter, Person, Requester, Shown, Ticket},
    postgres::{
        decide::{Approved, Permit, Statement, unix_seconds},
        meaning,
        parameters::Parameters,
        protocol::{self, backend},
        refusal::{Refusal, sqlstate},
    },
};

impl Session {
    /// Holds the statement until a person says yes, and decides it again at its release.
    pub(super) async fn permit_by_person(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Parameters,
        ruling: &Arc<Ruling>,
        approval: &Approval,
        decision: Seq,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let held = match self.held(statement, &parameters.values, approval, decision) {
            Ok(held) => held,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let bound = held.binding().digests;
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
        match self.wait_for_person(&ticket, wait).await? {
            Ok(Outcome::Granted(grant)) => {
                self.waits += 1;
                let asked = Asked {
                    statement,
                    parameters,
                    ruling,
                    approval,
                    decision,
                    bound,
                };
                self.release(asked, grant).await
            }
            Ok(other) => Ok(Err(
                not_granted(&other, id, approval).request(self.last_request)
            )),
            Err(refusal) => Ok(Err(refusal)),
        }
    }

    /// Waits for the answer, and goes on noticing the client's end and cancel requests.
    async fn wait_for_person(
        &mut self,
        ticket: &Ticket,
        wait: Duration,
    ) -> Result<Result<Outcome, Refusal>, End> {
        let approvals = self.shared.approvals.clone();
        let waiting = approvals.wait(ticket, wait);
        tokio::pin!(waiting);
        loop {
            tokio::select! {
                biased;
                outcome = &mut waiting => return Ok(Ok(outcome)),
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
    }

    /// Makes the permit of what a person has approved. The world may have changed while it waited:
    /// it is understood and decided again, must still mean the same, and the verdict may only have
    /// become stricter. Where that fails the approval is given back unused.
    async fn release(
        &mut self,
        asked: Asked<'_>,
        grant: Grant,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let Asked {
            ruling, approval, ..
        } = asked;
        let statement = match self.still_means(&asked).await? {
            Ok(statement) => statement,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let active = self.shared.policies.load_full();
        let context = Context {
            parameters: asked.parameters.values,
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
        };
        let long = asked.parameters.long;
        let same_question =
            active.set.digest() == ruling.set && !ruling.reads.contains(Reads::CLOCK);
        let (again, decision) = if same_question {
            (Arc::clone(ruling), asked.decision)
        } else {
            self.rule(&active, &statement, &context, &long)?
        };
        if !covers(approval, &again.verdict) {
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
        let approved = Approved {
            record,
            until: Instant::now() + self.lifetime(approval),
        };
        let permit = Permit::grant(
            statement,
            Arc::clone(&again),
            Arc::clone(&active.set),
            decision,
            Some(approved),
            Parameters {
                values: context.parameters,
                long,
            },
            self.last_request,
        );
        Ok(permit.ok_or_else(|| denied(&again, None)))
    }

    /// The statement as it is to be understood now, where that is what was approved.
    async fn still_means(
        &mut self,
        asked: &Asked<'_>,
    ) -> Result<Result<Arc<Statement>, Refusal>, End> {
        let again = match self.understand_again(asked.statement).await? {
            Ok(again) => again,
            Err(Unreadable::Refused(refusal) | Unreadable::Syntax(refusal)) => {
                return Ok(Err(refusal));
            }
            Err(Unreadable::Aborted | Unreadable::Skipped) => return Ok(Err(refuse::aborted())),
        };
        let held = self.held(
            &again,
            &asked.parameters.values,
            asked.approval,
            asked.decision,
        );
        if held.is_ok_and(|held| held.binding().digests == asked.bound) {
            return Ok(Ok(again));
        }
        let refusal = Refusal::new(
            sqlstate::PENDING_APPROVAL,
            "meaning-changed",
            "what this statement means has changed since it was shown to the approver: what it \
             names was altered, replaced or hidden by something else",
        )
        .hint("send it again to ask anew");
        let request = self.record_refusal(&again, &refusal)?;
        Ok(Err(refusal.request(request)))
    }

    /// How long a ticket is good, and how long the right that comes of it.
    fn lifetime(&self, approval: &Approval) -> Duration {
        Duration::from_secs(approval.ttl_seconds.into())
            .min(self.shared.rules.approval_ttl)
            .max(Duration::from_secs(1))
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
            self.lifetime(approval),
            Some(self.shared.audit.reference(decision)),
        )
        .map(|held| held.standing_on(&meaning::ground(statement)))
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
}

/// What was put before a person.
struct Asked<'a> {
    statement: &'a Arc<Statement>,
    parameters: Parameters,
    ruling: &'a Arc<Ruling>,
    approval: &'a Approval,
    decision: Seq,
    bound: BoundTo,
}

/// Whether an approval on these terms is enough for the verdict.
fn covers(approval: &Approval, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Allow => true,
        Verdict::RequireApproval(terms) => {
            terms.approvers <= approval.approvers
                && (approval.groups == terms.groups || terms.groups.is_empty())
        }
        Verdict::Deny(_) | Verdict::Abstain => false,
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
