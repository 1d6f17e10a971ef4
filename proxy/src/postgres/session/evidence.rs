//! What the log gets, and when.
//!
//! A read is forwarded at once and its answer held until one record says what it did; an answer
//! that outgrows the buffer gets its intent recorded first and then streams. Anything else is
//! forwarded only once its intent is durable.

use std::{sync::Arc, time::Duration};

use chaperone_audit_log::{
    AppendError, Code, Durable, Payload, RecordRef, Seq,
    payload::{self, Status, VerdictCode},
};
use chaperone_contract::{Context, Verdict};
use chaperone_policy_host::{Answer, Ruling};
use serde_json::value::to_raw_value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{End, Session, refuse};
use crate::{
    audit,
    postgres::{
        decide::{Permit, Recorded, Statement},
        parameters::Digests,
        queue::Expected,
        refusal::{Refusal, sqlstate},
        run::{Evidence, Run},
        shared::ActiveSet,
        sockets::HIGH_WATER,
    },
};

/// A decision that holds once more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeated {
    pub(super) decision: Seq,
    /// The record of the statement that it was about, where that is another one with the same facts.
    pub(super) facts: Option<Recorded>,
}

/// How a run ended, for its record.
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) code: Option<Code>,
    pub(super) error: Option<String>,
}

impl Ending {
    pub(super) fn ok() -> Self {
        Self {
            status: Status::Ok,
            code: None,
            error: None,
        }
    }

    /// The backend's own error. 57014 is what a cancelled statement ends with.
    pub(super) fn failed(state: &str, error: String) -> Self {
        Self {
            status: if state == sqlstate::CANCELLED {
                Status::Cancelled
            } else {
                Status::Failed
            },
            code: Some(audit::sqlstate(state)),
            error: Some(error).filter(|text| !text.is_empty()),
        }
    }

    pub(super) fn plain(status: Status, code: &str) -> Self {
        Self {
            status,
            code: Some(Code::or_unprintable(code)),
            error: None,
        }
    }

    pub(super) fn skipped() -> Self {
        Self::plain(Status::Failed, "skipped")
    }

    pub(super) fn late(refusal: &Refusal) -> Self {
        let status = if refusal.sqlstate == sqlstate::LIMIT_EXCEEDED {
            Status::Limited
        } else {
            Status::Withheld
        };
        Self::plain(status, &refusal.code)
    }
}

impl Session {
    fn append<P: Payload>(&mut self, clear: &P, sealed: Option<&P::Sealed>) -> Result<Seq, End> {
        let request = self.last_request;
        self.shared
            .audit
            .enqueue(clear, sealed, Some(request))
            .map_err(|error| {
                let full = matches!(error, AppendError::Full);
                tracing::error!(full, "a record was not taken");
                End::Told(refuse::log_unavailable())
            })
    }

    /// The operation's record, written once per session and text.
    fn operation_record(&mut self, statement: &Statement) -> Result<RecordRef, End> {
        let recorded = self.record_operation(statement, None)?;
        Ok(self.shared.audit.reference(recorded.seq))
    }

    /// Writes the operation's record unless there is one, with its facts unless they stand in the
    /// record of another one.
    fn record_operation(
        &mut self,
        statement: &Statement,
        with_its_facts: Option<Recorded>,
    ) -> Result<Recorded, End> {
        if let Some(recorded) = statement.recorded.get() {
            return Ok(*recorded);
        }
        let operation = &statement.operation;
        let audit = &self.shared.audit;
        let blinder = audit.blinder();
        let facts = match with_its_facts {
            Some(_) => None,
            None => to_raw_value(&operation.facts()).ok(),
        };
        let known = operation.objects.iter().filter(|object| {
            let [schema, name] = object.path.as_slice() else {
                return false;
            };
            statement.ground.catalog.relation(schema, name).is_some()
        });
        let clear = payload::Operation {
            session: self.grounds.record,
            facts_of: with_its_facts.map(|other| audit.reference(other.seq)),
            protocol: Code::from_words(&operation.protocol),
            command: Code::from_words(&operation.command),
            actions: audit::action_codes(operation.actions),
            text: blinder.of(operation.text.as_bytes()),
            text_bytes: operation.text.len() as u64,
            objects: audit::object_names(known),
            facts: with_its_facts.map_or_else(
                || blinder.of(facts.as_ref().map_or("", |raw| raw.get()).as_bytes()),
                |other| other.facts,
            ),
            gaps: u32::try_from(operation.gaps.len()).unwrap_or(u32::MAX),
            catalog_generation: statement.ground.generation,
        };
        let sealed = payload::OperationSealed {
            text: operation.text.clone(),
            facts,
        };
        let seq = self.append(&clear, Some(&sealed))?;
        let recorded = Recorded {
            seq,
            facts: clear.facts,
        };
        let _ = statement.recorded.set(recorded);
        Ok(recorded)
    }

    /// What policies said.
    pub(super) fn record_decision(
        &mut self,
        active: &ActiveSet,
        statement: &Statement,
        (context, long): (&Context, &Digests),
        ruling: &Ruling,
        memo_of: Option<Repeated>,
    ) -> Result<Seq, End> {
        self.last_request = self.requests.next();
        let facts = memo_of.and_then(|repeated| repeated.facts);
        let operation = self.record_operation(statement, facts)?.seq;
        let audit = self.shared.audit.clone();
        let operation = audit.reference(operation);
        let blinder = audit.blinder();
        let modules = active.set.modules().iter().zip(&ruling.answers);
        let mut answers = Vec::new();
        let mut clear_answers = Vec::new();
        if memo_of.is_none() {
            let input = (&*self.grounds.caller, &*statement.operation, context);
            let input = blinder.of(&serde_json::to_vec(&input).unwrap_or_default());
            for (module, answer) in modules {
                clear_answers.push(module_answer(module.name(), answer, input, blinder));
                answers.push(
                    match answer {
                        Answer::Decided(decision) => serde_json::to_value(decision),
                        Answer::Failed(failure) => serde_json::to_value(&failure.reason),
                        Answer::Skipped => Ok(serde_json::Value::Null),
                    }
                    .unwrap_or_default(),
                );
            }
        }
        let (code, message) = match &ruling.verdict {
            Verdict::Deny(reason) => (Some(&reason.code), Some(&reason.message)),
            Verdict::RequireApproval(approval) => {
                (Some(&approval.reason.code), Some(&approval.reason.message))
            }
            Verdict::Allow | Verdict::Abstain => (None, None),
        };
        let clear = payload::Decision {
            session: self.grounds.record,
            operation,
            policy_set: audit.reference(active.record),
            memo_of: memo_of.map(|repeated| audit.reference(repeated.decision)),
            modules: clear_answers,
            verdict: audit::verdict_code(&ruling.verdict),
            code: code.map(|code| Code::or_unprintable(code)),
            limits: audit::limit_codes(&ruling.limits, blinder),
            masks: audit::applied_masks(ruling.outputs.iter().map(|rule| &rule.transform)),
            tightened: ruling
                .tightened
                .iter()
                .map(|t| Code::from_words(t))
                .collect(),
            received_at: context.received_at,
            in_transaction: context.in_transaction,
        };
        let sealed = payload::DecisionSealed {
            answers,
            message: message.cloned(),
            parameters: long.recorded(&context.parameters),
        };
        self.append_decision(&clear, &sealed)
    }

    /// Whatever the client is told from here on waits for the decision to be durable.
    fn append_decision(
        &mut self,
        clear: &payload::Decision,
        sealed: &payload::DecisionSealed,
    ) -> Result<Seq, End> {
        let seq = self.append(clear, Some(sealed))?;
        self.evidence = Some(seq);
        Ok(seq)
    }

    /// What the host's own rules allowed.
    pub(super) fn record_host_decision(
        &mut self,
        statement: &Statement,
        code: &'static str,
    ) -> Result<Seq, End> {
        self.record_own(statement, VerdictCode::Allow, code, None)
    }

    /// What they refused.
    pub(super) fn record_refusal(
        &mut self,
        statement: &Statement,
        refusal: &Refusal,
    ) -> Result<Uuid, End> {
        let message = Some(refusal.message.clone());
        self.record_own(statement, VerdictCode::Deny, &refusal.code, message)?;
        Ok(self.last_request)
    }

    fn record_own(
        &mut self,
        statement: &Statement,
        verdict: VerdictCode,
        code: &str,
        message: Option<String>,
    ) -> Result<Seq, End> {
        self.last_request = self.requests.next();
        let operation = self.operation_record(statement)?;
        let active = self.shared.policies.load();
        let clear = payload::Decision {
            session: self.grounds.record,
            operation,
            policy_set: self.shared.audit.reference(active.record),
            memo_of: None,
            modules: Vec::new(),
            verdict,
            code: None,
            limits: payload::LimitCodes::default(),
            masks: Vec::new(),
            tightened: vec![Code::from_words(code)],
            received_at: 0,
            in_transaction: self.status != b'I',
        };
        drop(active);
        let sealed = payload::DecisionSealed {
            message,
            ..payload::DecisionSealed::default()
        };
        self.append_decision(&clear, &sealed)
    }

    /// A run that is about to be forwarded.
    pub(super) fn begin_run(&mut self, permit: Arc<Permit>, in_transaction: bool) -> Run {
        self.totals.executions += 1;
        Run::new(
            permit,
            self.totals.executions,
            in_transaction,
            self.received,
            self.ground_as_of(),
        )
    }

    /// Records the intents of what has effects, and says which record the message must wait for.
    /// What provably only reads needs none: its answer waits for its record instead.
    pub(super) fn intend(
        &mut self,
        runs: &mut [Run],
        portal: Option<&[u8]>,
    ) -> Result<Option<Seq>, End> {
        let mut last = None;
        for run in runs.iter_mut() {
            let statement = &run.permit.statement;
            self.wrote |= !statement.effects.read_only;
            // A COMMIT has the effects of what it commits.
            let commits =
                self.wrote && matches!(statement.kind, chaperone_sql::Kind::Commit { .. });
            if !statement.effects.read_only || commits {
                let seq = self.record_intent(run, portal)?;
                run.evidence = Evidence::Intended(seq);
                last = Some(seq);
            }
        }
        for run in runs {
            self.note_effects(run, portal.is_some());
        }
        Ok(last)
    }

    /// Appends a message for the backend. It waits there until the record is durable; others may be
    /// appended behind it, and the records of all share a sync.
    pub(super) fn send_after(&mut self, intent: Option<Seq>, message: &[u8]) {
        let out = &mut self.sockets.to_upstream;
        out.mark(None);
        out.buffer().extend_from_slice(message);
        out.mark(intent);
    }

    /// Notes that runs whose message was just appended go at once, unless something must wait.
    pub(super) fn mark_dispatched(&mut self, runs: &mut [Run]) {
        if self.sockets.to_upstream.waits_for().is_none() {
            let now = Instant::now();
            runs.iter_mut().for_each(|run| run.dispatched = Some(now));
        }
    }

    /// Notes when runs were let go, once `proof` has released them.
    pub(super) fn note_dispatch(&mut self, proof: Durable) {
        let now = Instant::now();
        let all = self.sockets.to_upstream.waits_for().is_none();
        for entry in self.queue.iter_mut().rev() {
            let runs = match entry {
                Expected::Execute { run, .. } => std::slice::from_mut(run),
                Expected::Query { runs, .. } => runs.as_mut_slice(),
                _ => continue,
            };
            if runs.first().is_some_and(|run| run.dispatched.is_some()) {
                break;
            }
            let held = runs.iter().any(|run| match run.evidence {
                Evidence::Intended(seq) => seq > proof.record().seq,
                Evidence::Deferred | Evidence::Closed => !all,
            });
            if !held {
                runs.iter_mut().for_each(|run| run.dispatched = Some(now));
            }
        }
    }

    fn intent(&self, run: &Run, portal: Option<&[u8]>) -> (payload::Intent, payload::IntentSealed) {
        let audit = &self.shared.audit;
        let parameters = run.permit.parameters.recorded();
        let clear = payload::Intent {
            decision: audit.reference(run.permit.decision),
            approval: run.permit.approval.map(|approved| approved.record),
            ordinal: run.ordinal,
            portal: portal
                .filter(|name| !name.is_empty())
                .map(|name| audit.blinder().of(name)),
            read_only: run.permit.statement.effects.read_only,
            in_transaction: run.in_transaction,
            parameter_count: u32::try_from(parameters.len()).unwrap_or(u32::MAX),
            parameters: (!parameters.is_empty()).then(|| digest(audit.blinder(), &parameters)),
        };
        let sealed = payload::IntentSealed { parameters };
        (clear, sealed)
    }

    fn record_intent(&mut self, run: &Run, portal: Option<&[u8]>) -> Result<Seq, End> {
        self.last_request = run.permit.request;
        let (clear, sealed) = self.intent(run, portal);
        let says = !sealed.parameters.is_empty();
        self.append(&clear, says.then_some(&sealed))
    }

    /// The run is over: its record, which everything that the client gets of it waits for.
    pub(super) fn close_run(&mut self, run: &mut Run, ending: Ending) -> Result<(), End> {
        self.last_request = run.permit.request;
        let evidence = std::mem::replace(&mut run.evidence, Evidence::Closed);
        if evidence == Evidence::Closed {
            return Ok(());
        }
        self.totals.rows += run.rows;
        self.totals.bytes += run.bytes;
        self.counts.rows += run.rows;
        self.counts.bytes += run.bytes;
        let now = Instant::now();
        let begun = self.begun_at(run);
        self.answered = now;
        let effects = payload::Effects {
            status: ending.status,
            code: ending.code,
            rows: run.rows,
            bytes: run.bytes,
            outputs: audit::applied_masks(run.permit.transforms()),
            truncated_after: (ending.status == Status::Limited).then_some(run.rows),
            charges: self.charges(run),
            sent: self.sent.take(),
            backend_micros: begun.map_or(0, |begun| micros(now - begun)),
            total_micros: micros(now - run.received),
        };
        if ending.status == Status::Ok {
            let intent = match evidence {
                Evidence::Intended(intent) => Some(intent),
                Evidence::Deferred | Evidence::Closed => None,
            };
            self.lasting.note(run, intent);
        }
        let seq = match evidence {
            Evidence::Intended(intent) => {
                let clear = payload::Outcome {
                    intent: self.shared.audit.reference(intent),
                    effects,
                };
                let sealed = payload::EffectsSealed {
                    error: ending.error,
                };
                let says = sealed != payload::EffectsSealed::default();
                self.append(&clear, says.then_some(&sealed))?
            }
            Evidence::Deferred | Evidence::Closed => {
                let (intent, sealed) = self.intent(run, None);
                let clear = payload::Execution { intent, effects };
                let sealed = payload::ExecutionSealed {
                    parameters: sealed.parameters,
                    error: ending.error,
                };
                let says = sealed != payload::ExecutionSealed::default();
                self.append(&clear, says.then_some(&sealed))?
            }
        };
        self.evidence = Some(seq);
        self.fallible -= usize::from(run.permit.may_be_cancelled()).min(self.fallible);
        self.naming -=
            usize::from(super::names::naming(&run.permit.statement.kind)).min(self.naming);
        Ok(())
    }

    /// A change that was recorded as done has been taken back with its transaction.
    pub(super) fn record_undone(&mut self, intent: Seq, why: &Ending) -> Result<(), End> {
        let clear = payload::Outcome {
            intent: self.shared.audit.reference(intent),
            effects: payload::Effects::nothing(why.status, why.code.clone()),
        };
        let error = why.error.clone().filter(|text| !text.is_empty());
        let sealed = payload::EffectsSealed { error };
        let says = sealed != payload::EffectsSealed::default();
        let seq = self.append(&clear, says.then_some(&sealed))?;
        self.evidence = Some(seq);
        Ok(())
    }

    /// When the backend turned to the run at the head: it works on one at a time, in order.
    fn begun_at(&self, run: &Run) -> Option<Instant> {
        run.dispatched.map(|at| at.max(self.answered))
    }

    /// When the run that the backend works on has had the time that its policies give it.
    pub(super) fn run_deadline(&self) -> Option<Instant> {
        let run = self.queue.front().and_then(Expected::run)?;
        let limit = run.permit.limits().timeout_ms.filter(|_| !run.timed_out)?;
        Some(self.begun_at(run)? + Duration::from_millis(limit.into()))
    }

    /// What the run took out of the caller's budgets.
    fn charges(&self, run: &Run) -> Vec<payload::BudgetCharge> {
        let blinder = self.shared.audit.blinder();
        let budgets = run.permit.limits().budgets.iter();
        budgets
            .map(|budget| payload::BudgetCharge {
                name: blinder.of(budget.name.as_bytes()),
                amount: run.rows,
            })
            .collect()
    }

    /// Decides what of the output may go: everything up to here needs what was recorded last, but
    /// an answer without a record is held, or gets its intent recorded once it outgrows the buffer.
    pub(super) fn settle_output(&mut self) {
        // The backend is not read beyond HIGH_WATER, so more could never come together.
        let limit = self.shared.rules.result_buffer.min(HIGH_WATER / 2);
        let outgrown = self.sockets.to_client.unmarked() > limit;
        let open = match self.queue.front_mut() {
            Some(Expected::Execute { run, .. }) => Some(run),
            Some(Expected::Query { runs, at }) => runs.get_mut(*at),
            _ => None,
        };
        let deferred = open.is_some_and(|run| run.evidence == Evidence::Deferred && run.begun);
        if deferred && !outgrown {
            return;
        }
        if deferred {
            match self.intend_front() {
                Ok(seq) => self.evidence = Some(seq),
                // The log takes nothing, so nothing more may go.
                Err(end) => {
                    self.broken = Some(end);
                    return;
                }
            }
        }
        self.sockets.to_client.mark(self.evidence);
    }

    /// Records the intent of the read that is being answered, which turned out to be long.
    fn intend_front(&mut self) -> Result<Seq, End> {
        let mut front = self.queue.pop_front();
        let result = match &mut front {
            Some(Expected::Execute { run, .. }) => self.record_intent(run, None).inspect(|&seq| {
                run.evidence = Evidence::Intended(seq);
            }),
            Some(Expected::Query { runs, at }) => match runs.get_mut(*at) {
                Some(run) => self.record_intent(run, None).inspect(|&seq| {
                    run.evidence = Evidence::Intended(seq);
                }),
                None => Err(End::Backend),
            },
            _ => Err(End::Backend),
        };
        if let Some(front) = front {
            self.queue.push_front(front);
        }
        result
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn digest(
    blinder: &chaperone_audit_log::Blinder,
    parameters: &[payload::Parameter],
) -> chaperone_audit_log::Blinded {
    blinder.of(&serde_json::to_vec(parameters).unwrap_or_default())
}

fn module_answer(
    name: &str,
    answer: &Answer,
    input: chaperone_audit_log::Blinded,
    blinder: &chaperone_audit_log::Blinder,
) -> payload::ModuleAnswer {
    let mut clear = payload::ModuleAnswer {
        name: chaperone_audit_log::Name::new(name),
        input,
        verdict: None,
        code: None,
        limits: payload::LimitCodes::default(),
        masks: Vec::new(),
        failure: None,
    };
    match answer {
        Answer::Skipped => clear.code = Some(Code::from_words("not-asked")),
        Answer::Failed(failure) => {
            clear.failure = Some(Code::or_unprintable(failure.code.as_str()));
        }
        Answer::Decided(decision) => {
            clear.verdict = Some(audit::verdict_code(&decision.verdict));
            clear.code = match &decision.verdict {
                Verdict::Deny(reason) => Some(Code::or_unprintable(&reason.code)),
                Verdict::RequireApproval(approval) => {
                    Some(Code::or_unprintable(&approval.reason.code))
                }
                Verdict::Allow | Verdict::Abstain => None,
            };
            clear.limits = audit::limit_codes(&decision.limits, blinder);
            clear.masks = decision
                .masks
                .iter()
                .map(|mask| payload::OutputMask {
                    output: mask.output,
                    mask: audit::mask_code(&mask.transform),
                })
                .collect();
        }
    }
    clear
}
