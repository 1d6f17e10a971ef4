//! From a statement to a permit: the host's own rules and the policies.

use std::sync::Arc;

use chaperone_audit_log::Seq;
use chaperone_contract::{Context, Verdict};
use chaperone_policy_host::{Ruling, denial};
use chaperone_sql::Kind;
use tokio::time::Instant;

use super::{End, Session, evidence::Repeated, refuse};
use crate::postgres::{
    decide::{Decider, Permit, Statement, decider, unix_seconds},
    disclosure::shows_anything,
    parameters::{Digests, Parameters},
    portal::Portal,
    refusal::{Refusal, denial_sqlstate, sqlstate},
    shared::ActiveSet,
};

impl Session {
    /// Decides about one statement.
    pub(super) async fn permit(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Parameters,
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
                let gap = "what another role may do is not known";
                self.permit_unknown(statement, parameters, gap, refusal)
                    .await
            }
            Decider::Named => self.permit_named(statement, parameters).await,
            Decider::Policies => self.permit_by_policies(statement, parameters).await,
        }
    }

    /// EXECUTE and FETCH run what stands behind the name.
    async fn permit_named(
        &mut self,
        statement: &Arc<Statement>,
        mut parameters: Parameters,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        if statement.source.index > 0 {
            let refusal = refuse::unclear_name("behind other statements of the same text");
            let gap = "statements before it may change what stands behind the name";
            return self
                .permit_unknown(statement, parameters, gap, refusal)
                .await;
        }
        let inner = match &statement.kind {
            Kind::Execute {
                arguments: None, ..
            } => {
                let refusal = refuse::unclear_name("with more than constants as arguments");
                let gap = "what the arguments of EXECUTE do is not understood";
                return self
                    .permit_unknown(statement, parameters, gap, refusal)
                    .await;
            }
            Kind::Execute {
                name,
                arguments: Some(arguments),
            } => {
                parameters = Parameters::constants(arguments, self.shared.audit.blinder());
                let absent = refuse::no_such_statement(name);
                match self.named_statement(name).await? {
                    None => return self.permit_nameless(statement, absent).await,
                    Some(prepared) => match self.understand_prepared(&prepared).await? {
                        Ok(script) => match script.statements.as_slice() {
                            [one] if !prepared.means(one) => {
                                let gap = refuse::OTHER_NAMES;
                                let refusal = refuse::other_names();
                                return self
                                    .permit_unknown(statement, parameters, gap, refusal)
                                    .await;
                            }
                            [one] => Arc::clone(one),
                            _ => return Ok(Err(refuse::several_statements())),
                        },
                        Err(_) => return self.permit_nameless(statement, absent).await,
                    },
                }
            }
            Kind::Fetch { cursor, .. } => match self.find_portal(cursor.as_bytes()).await? {
                None => {
                    let absent = refuse::no_such_cursor(cursor);
                    return self.permit_nameless(statement, absent).await;
                }
                Some(portal) => Arc::clone(&portal.permit.statement),
            },
            _ => Arc::clone(statement),
        };
        if let Decider::Refused(refusal) = decider(&inner, &self.shared.rules.settings) {
            let gap = "what another role may do is not known";
            return self.permit_unknown(&inner, parameters, gap, refusal).await;
        }
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
            let gap = "what EXECUTE and FETCH give of protected data is not understood";
            return self.permit_unknown(&inner, parameters, gap, refusal).await;
        }
        self.permit_by_policies(&inner, parameters).await
    }

    /// The name stands for nothing that is known; the backend may know more of it.
    async fn permit_nameless(
        &mut self,
        statement: &Arc<Statement>,
        absent: Refusal,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let gap = "it is not known what stands behind the name";
        self.permit_unknown(statement, Parameters::default(), gap, absent)
            .await
    }

    pub(super) async fn permit_by_policies(
        &mut self,
        statement: &Arc<Statement>,
        parameters: Parameters,
    ) -> Result<Result<Arc<Permit>, Refusal>, End> {
        let active = self.shared.policies.load_full();
        let Parameters { values, long } = parameters;
        let context = Context {
            parameters: values,
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
        };
        let (ruling, decision) = self.rule(&active, statement, &context, &long)?;
        let passes = matches!(ruling.verdict, Verdict::Allow | Verdict::RequireApproval(_));
        if passes && statement.evades_masks() {
            let caller = &self.grounds.caller;
            let (raw, _) = shows_anything(&active.set, caller, &statement.operation, &context);
            if !raw {
                let refusal = Refusal::new(
                    sqlstate::NOT_UNDERSTOOD,
                    "masks-evaded",
                    "masks apply to this caller, and rows that leave in this way cannot be masked",
                )
                .hint("use SELECT; a module in incomplete_facts does not change this");
                let request = self.record_refusal(statement, &refusal)?;
                return Ok(Err(refusal.request(request)));
            }
        }
        let parameters = Parameters {
            values: context.parameters,
            long,
        };
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

    /// Why the permit of a portal that has not been executed yet holds no more: its Bind may have been
    /// long ago.
    pub(super) fn lapsed(&mut self, portal: &Portal) -> Result<Option<Refusal>, End> {
        if portal.decided_just_before(self.received) {
            return Ok(None);
        }
        let permit = &portal.permit;
        if permit.approval.is_some_and(|by| by.until <= Instant::now()) {
            return Ok(Some(refuse::lapsed_approval()));
        }
        let active = self.shared.policies.load_full();
        if permit
            .set()
            .is_none_or(|set| set.digest() == active.set.digest())
        {
            return Ok(None);
        }
        let context = Context {
            parameters: permit.parameters.values.clone(),
            received_at: unix_seconds(),
            in_transaction: self.in_transaction(),
        };
        let long = &permit.parameters.long;
        let (ruling, _) = self.rule(&active, &permit.statement, &context, long)?;
        let passes = matches!(ruling.verdict, Verdict::Allow | Verdict::RequireApproval(_));
        Ok(if permit.is_as_by(&ruling) {
            None
        } else if passes {
            Some(refuse::other_policies().request(self.last_request))
        } else {
            let gaps = &permit.statement.operation.gaps;
            Some(denied(&ruling, Some(gaps.as_slice())).request(self.last_request))
        })
    }

    /// What the set says, from memory where that holds, and the record of it. `long` goes with the
    /// context's parameters.
    pub(super) fn rule(
        &mut self,
        active: &ActiveSet,
        statement: &Arc<Statement>,
        context: &Context,
        long: &Digests,
    ) -> Result<(Arc<Ruling>, Seq), End> {
        if let Some((ruling, decision)) = statement.remembered(&active.set, context) {
            if !matches!(ruling.verdict, Verdict::Allow) {
                // Each refusal is a request of its own.
                let repeated = Repeated {
                    decision,
                    facts: None,
                };
                let input = (context, long);
                let decision =
                    self.record_decision(active, statement, input, &ruling, Some(repeated))?;
                return Ok((ruling, decision));
            }
            self.last_request = self.requests.next();
            return Ok((ruling, decision));
        }
        let operation = &statement.operation;
        if let Some(found) = self.rulings.find(&active.set, operation, context) {
            let ruling = found.ruling;
            let repeated = Repeated {
                decision: found.decision,
                facts: found.statement.recorded.get().copied(),
            };
            let input = (context, long);
            let decision =
                self.record_decision(active, statement, input, &ruling, Some(repeated))?;
            statement.remember(context, &ruling, decision);
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
        let decision = self.record_decision(active, statement, (context, long), &ruling, None)?;
        statement.remember(context, &ruling, decision);
        if matches!(ruling.verdict, Verdict::Allow) {
            self.rulings.insert(statement, context, &ruling, decision);
        }
        Ok((ruling, decision))
    }

    /// Whether a transaction block is open, or would be by the time that what comes next runs.
    pub(super) fn in_transaction(&self) -> bool {
        self.status != b'I' || self.block_opened
    }
}

/// What the caller is told of a verdict that does not let it through.
pub(super) fn denied(ruling: &Ruling, gaps: Option<&[String]>) -> Refusal {
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
