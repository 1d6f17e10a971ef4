//! What policies and approvals do, written to the log.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use chaperone_audit_log::{
    AppendError, Code, Digest, Name, RecordRef, Seq,
    payload::{
        self, ActorName, ApprovalSealed, ApprovalState, Module, ModuleFailure, PolicySetSealed,
    },
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    approval::{BoxFuture, Event, EventSink, NotRecorded, Shown, State},
    audit::Audit,
    metrics::{Metrics, Success},
    policy::{Failed, Policies, PolicyEvent},
    postgres::ActiveSet,
};

/// Records the set in force, and returns it with its record.
pub(super) fn record_set(
    audit: &Audit,
    policies: &Policies,
    cause: &str,
    failures: &[Failed],
) -> Result<ActiveSet, AppendError> {
    let set = policies.current();
    let clear = payload::PolicySet {
        digest: Digest(*set.digest().as_bytes()),
        modules: set
            .modules()
            .iter()
            .map(|module| Module {
                name: Name::new(module.name()),
                version: Name::new(module.version()),
                digest: Digest(*module.digest().as_bytes()),
                contract: Name::new(module.contract()),
                settings: Digest(*module.settings_digest().as_bytes()),
                archive: Digest(*module.digest().as_bytes()),
            })
            .collect(),
        cause: Code::from_words(cause),
        failures: failures
            .iter()
            .map(|failed| ModuleFailure {
                file: Name::new(&failed.file),
                code: Code::from_words("not-loaded"),
            })
            .collect(),
        missing: set.missing().iter().map(|name| Name::new(name)).collect(),
    };
    let sealed = PolicySetSealed {
        failures: failures
            .iter()
            .map(|failed| failed.reason.clone())
            .collect(),
    };
    let record = audit.append(&clear, Some(&sealed), None)?;
    Ok(ActiveSet { set, record })
}

/// Puts each change into the log and into force. Ends with the policies.
pub(super) async fn follow(
    mut events: UnboundedReceiver<PolicyEvent>,
    audit: Audit,
    policies: Weak<Policies>,
    active: Arc<ArcSwap<ActiveSet>>,
    metrics: Arc<Metrics>,
) {
    while let Some(event) = events.recv().await {
        let Some(policies) = policies.upgrade() else {
            break;
        };
        let (cause, failures) = match event {
            PolicyEvent::Loaded { .. } => {
                metrics.reload(Success::Ok);
                ("reload", Vec::new())
            }
            PolicyEvent::Failed(failed) => {
                metrics.reload(Success::Failed);
                ("reload-failed", vec![failed])
            }
            PolicyEvent::Removed { .. } => ("removed", Vec::new()),
        };
        // What was loaded at the start is in the first record already. A module that goes on without
        // its file leaves the set as it was, yet is recorded.
        if cause == "reload" && policies.current().digest() == active.load().set.digest() {
            continue;
        }
        match record_set(&audit, &policies, cause, &failures) {
            Ok(set) => active.store(Arc::new(set)),
            // No statement runs then, under whichever set.
            Err(error) => tracing::error!(%error, "a change of policies was not recorded"),
        }
    }
}

/// Writes each step of an approval to the log before it counts.
pub(super) struct ApprovalRecords {
    audit: Audit,
    metrics: Arc<Metrics>,
}

impl ApprovalRecords {
    pub(super) fn new(audit: Audit, metrics: Arc<Metrics>) -> Self {
        Self { audit, metrics }
    }

    async fn write(&self, event: &Event) -> Result<Option<RecordRef>, NotRecorded> {
        self.metrics.approval(event.state);
        let blinder = self.audit.blinder();
        let digests = &event.binding.digests;
        let asked = &event.binding.requester;
        let mut requester = blinder.start();
        let people = std::iter::once(&asked.person).chain(&asked.actors);
        let names = people.flat_map(|person| [&person.issuer, &person.subject]);
        for part in names.chain([&asked.role, &asked.target, &asked.database]) {
            requester.update(&(part.len() as u64).to_be_bytes());
            requester.update(part.as_bytes());
        }
        let clear = payload::Approval {
            decision: event
                .decision
                .unwrap_or_else(|| self.audit.reference(Seq(1))),
            follows: event.follows,
            state: state(event.state),
            approver: event.approver.as_ref().map(|approver| ActorName {
                subject: Name::new(&approver.person.subject),
                issuer: Name::new(&approver.person.issuer),
            }),
            strength: event.approver.as_ref().map(|approver| payload::Strength {
                method: None,
                acr: approver.strength.acr.as_deref().map(Name::new),
                amr: approver
                    .strength
                    .amr
                    .iter()
                    .map(|amr| Name::new(amr))
                    .collect(),
                tls: None,
            }),
            code: None,
            statement: blinder.of(&digests.statement),
            facts: blinder.of(&digests.facts),
            requester: requester.finish(),
            deadline: event.deadline,
        };
        let sealed = ApprovalSealed {
            shown: event.shown.as_deref().map(shown),
            comment: event.comment.clone(),
        };
        self.audit
            .record(&clear, Some(&sealed), Some(event.id))
            .await
            .map(|durable| Some(durable.record()))
            .map_err(|_| NotRecorded)
    }
}

impl EventSink for ApprovalRecords {
    fn record<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<Option<RecordRef>, NotRecorded>> {
        Box::pin(self.write(event))
    }
}

fn shown(shown: &Shown) -> String {
    format!(
        "{}\n-- {}: {}\n-- {}",
        shown.text,
        shown.code,
        shown.reason,
        shown.objects.join("; ")
    )
}

fn state(state: State) -> ApprovalState {
    match state {
        State::Requested => ApprovalState::Requested,
        State::Seen => ApprovalState::Seen,
        State::Granted => ApprovalState::Granted,
        State::Denied => ApprovalState::Denied,
        State::Expired => ApprovalState::Expired,
        State::Cancelled => ApprovalState::Cancelled,
        State::Released => ApprovalState::Released,
    }
}
