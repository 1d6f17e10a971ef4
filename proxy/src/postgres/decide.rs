//! A statement as understood, and the permit that lets it run.
//!
//! A [`Permit`] is made from a verdict that allows, by [`Permit::grant`] alone; forwarding takes
//! one, so nothing is forwarded that was not decided.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use chaperone_audit_log::{Blinded, RecordRef, Seq};
use chaperone_contract::{
    Actions, Context, Limits, Operation, Session as Caller, SqlFacts, Transform, Verdict,
};
use chaperone_policy_host::{PolicySet, Ruling};
use chaperone_sql::{Catalog, Column, CopyTarget, Effects, Facts, Kind, Labelling, SessionView};

use tokio::time::Instant;
use uuid::Uuid;

pub(super) mod memo;
mod rows;

use self::{memo::Memo, rows::Planned};
use super::{
    disclosure::{self, Reach},
    parameters::Parameters,
    refusal::{Refusal, sqlstate},
};

/// What statements are understood against: the catalog as the session's connection saw it.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) view: Arc<SessionView>,
    pub(crate) labelling: Arc<Labelling>,
    /// Counts how often this session has looked.
    pub(crate) generation: u64,
}

/// Where a statement stands: enough to understand it once more.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) text: Bytes,
    /// Which of the text's statements it is.
    pub(crate) index: usize,
    /// What [`Statement::with_gap`] has added to its facts.
    pub(crate) gap: Option<&'static str>,
}

/// The record of a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded {
    pub(crate) seq: Seq,
    /// The digest of its facts.
    pub(crate) facts: Blinded,
}

/// One statement of a text, as understood in one session at one instant.
pub(crate) struct Statement {
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) operation: Arc<Operation>,
    /// It touches something that is not known to be clear.
    pub(crate) labelled: bool,
    pub(crate) effects: Effects,
    pub(crate) ground: Ground,
    /// Nothing is known but its text, which may be several statements or do anything.
    pub(crate) opaque: bool,
    pub(crate) columns: Vec<Column>,
    width_known: bool,
    /// Its record, once there is one.
    pub(crate) recorded: OnceLock<Recorded>,
    reach: OnceLock<Reach>,
    memo: Mutex<Option<Memo>>,
    planned: Mutex<Option<Planned>>,
}

impl Statement {
    /// The only statement of its text.
    pub(crate) fn new(facts: Facts, ground: Ground) -> Self {
        let text = Bytes::copy_from_slice(facts.operation.text.as_bytes());
        Self::of_text(text, 0, facts, ground)
    }

    /// A statement of a text, by its index.
    pub(crate) fn of_text(text: Bytes, index: usize, facts: Facts, ground: Ground) -> Self {
        let Facts {
            kind,
            mut operation,
            labelled,
            columns,
            width_known,
            effects,
            ..
        } = facts;
        if let Some(gap) = gap(&kind, labelled, &operation) {
            operation.gaps.push(gap.to_owned());
        }
        Self {
            source: Source {
                text,
                index,
                gap: None,
            },
            kind,
            operation: Arc::new(operation),
            labelled,
            effects,
            ground,
            opaque: false,
            columns,
            width_known,
            recorded: OnceLock::new(),
            reach: OnceLock::new(),
            memo: Mutex::new(None),
            planned: Mutex::new(None),
        }
    }

    /// A text of which nothing is known, for the reason given.
    pub(crate) fn opaque(command: &str, text: &[u8], gap: String, ground: Ground) -> Self {
        let operation = Operation {
            protocol: "postgresql".to_owned(),
            command: command.to_owned(),
            actions: Actions::all(),
            text: String::from_utf8_lossy(text).into_owned(),
            gaps: vec![gap],
            sql: Some(SqlFacts::default()),
            ..Operation::default()
        };
        let facts = Facts {
            span: 0..text.len(),
            kind: Kind::Other,
            operation,
            labelled: true,
            columns: Vec::new(),
            width_known: false,
            effects: Effects {
                catalog: true,
                settings: true,
                temp: true,
                volatile: true,
                read_only: false,
            },
            parameters: 0,
            pending: Vec::new(),
        };
        Self {
            opaque: true,
            ..Self::of_text(Bytes::copy_from_slice(text), 0, facts, ground)
        }
    }

    /// The same, with one more thing that is not known about it.
    pub(crate) fn with_gap(&self, gap: &'static str) -> Self {
        let mut operation = Operation::clone(&self.operation);
        operation.gaps.push(gap.to_owned());
        Self {
            source: Source {
                gap: Some(gap),
                ..self.source.clone()
            },
            kind: self.kind.clone(),
            operation: Arc::new(operation),
            labelled: self.labelled,
            effects: Effects {
                read_only: false,
                catalog: true,
                settings: true,
                ..self.effects
            },
            ground: self.ground.clone(),
            opaque: self.opaque,
            columns: self.columns.clone(),
            width_known: self.width_known,
            recorded: OnceLock::new(),
            reach: OnceLock::new(),
            memo: Mutex::new(None),
            planned: Mutex::new(None),
        }
    }

    /// Whether it touches, for all that is known, anything but what is clear.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.labelled || !self.operation.gaps.is_empty()
    }

    pub(super) fn reach(&self) -> Reach {
        *self.reach.get_or_init(|| Reach::of(self))
    }

    /// Whether its rows would pass by the masks. Only a set without any mask for this caller may let
    /// it run, whatever one module says.
    pub(crate) fn evades_masks(&self) -> bool {
        self.opaque || evades_masks(&self.kind, self.labelled, &self.operation)
    }

    /// The ruling that still holds, with the record of its decision.
    pub(crate) fn remembered(
        &self,
        set: &PolicySet,
        context: &Context,
    ) -> Option<(Arc<Ruling>, Seq)> {
        let memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        memo.as_ref()?.recall(set, context)
    }

    pub(crate) fn remember(&self, context: &Context, ruling: &Arc<Ruling>, decision: Seq) {
        let memo = Memo::new(context, ruling, decision);
        *self.memo.lock().unwrap_or_else(PoisonError::into_inner) = Some(memo);
    }
}

/// What Chaperone itself does not understand yet, wherever a mask could apply.
fn gap(kind: &Kind, labelled: bool, operation: &Operation) -> Option<&'static str> {
    let labelled_output = || {
        operation
            .outputs
            .iter()
            .any(|output| !operation.output_labels(output).is_clear())
    };
    match kind {
        Kind::Copy {
            target: CopyTarget::File | CopyTarget::Program,
            ..
        } => Some("COPY to or from a file or program of the server is not understood"),
        Kind::Copy { from: false, .. } if labelled => {
            Some("COPY of protected data is not understood yet; use SELECT")
        }
        Kind::Declare { .. } if labelled => {
            Some("a cursor over protected data is not understood yet; use SELECT with LIMIT")
        }
        Kind::Prepare { .. } if labelled => Some(
            "PREPARE of a statement that touches protected data is not understood yet; prepare it \
             in the protocol or send it plain",
        ),
        Kind::Explain { .. } if labelled => {
            Some("EXPLAIN of a statement that touches protected data is not understood yet")
        }
        Kind::Modify { returning: true } if labelled_output() => {
            Some("RETURNING of protected columns is not understood yet; leave it out")
        }
        Kind::Do => Some("what a DO block does is not understood"),
        Kind::Call => Some("what a procedure does is not understood"),
        Kind::Load => Some("what a loaded library does is not understood"),
        Kind::PrepareTransaction { .. } => Some("two-phase commit is not understood yet"),
        Kind::Other => Some("this kind of statement is not understood yet"),
        _ => None,
    }
}

/// Whether rows of it reach the client, or a name of the session, in a way that no mask follows.
fn evades_masks(kind: &Kind, labelled: bool, operation: &Operation) -> bool {
    matches!(
        kind,
        Kind::Copy { .. }
            | Kind::Declare { .. }
            | Kind::Prepare { .. }
            | Kind::Explain { .. }
            | Kind::Modify { .. }
            | Kind::Call
    ) && gap(kind, labelled, operation).is_some()
}

/// Who decides about a statement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decider {
    /// Chaperone's own rules allow it; the code says why.
    Host(&'static str),
    /// Chaperone's own rules refuse it, whatever policies say.
    Refused(Refusal),
    /// It runs what was prepared or declared under a name.
    Named,
    /// Policies.
    Policies,
}

/// Transaction control is the host's own and harmless session settings are allowed by
/// configuration, so that a policy does not have to know BEGIN.
pub(crate) fn decider(statement: &Statement, settings: &[String]) -> Decider {
    let harmless = |name: &str| {
        settings
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    match &statement.kind {
        kind if kind.is_transaction_control() => Decider::Host("transaction-control"),
        Kind::Set { name, .. } | Kind::Reset { name: Some(name) }
            if matches!(name.as_str(), "role" | "session_authorization") =>
        {
            Decider::Refused(
                Refusal::new(
                    sqlstate::DENIED,
                    "role-change",
                    "the backend role of a session cannot be changed",
                )
                .hint("connect as the role that is needed, if it is granted to you"),
            )
        }
        Kind::Set { name, .. } if harmless(name) || name.starts_with("transaction_") => {
            Decider::Host("harmless-setting")
        }
        Kind::Reset { name: Some(name) } if harmless(name) => Decider::Host("harmless-setting"),
        Kind::Show { .. }
        | Kind::Empty
        | Kind::Deallocate { .. }
        | Kind::Close { .. }
        | Kind::Listen { .. }
        | Kind::Unlisten { .. }
        | Kind::Notify { .. }
        | Kind::Constraints => Decider::Host("session-control"),
        // Both go back to what the session began with, which was checked then. ALL also goes back
        // to the role that it began with.
        Kind::Reset { name: None } | Kind::Discard { .. } => Decider::Host("session-control"),
        Kind::Execute { .. } | Kind::Fetch { .. } => Decider::Named,
        _ => Decider::Policies,
    }
}

/// The right to run one statement, in one way. Only an allowing verdict makes one.
pub(crate) struct Permit {
    pub(crate) statement: Arc<Statement>,
    /// The verdict's ruling and the set that gave it; `None` where the host decided.
    ruling: Option<(Arc<Ruling>, Arc<PolicySet>)>,
    /// The record of the decision.
    pub(crate) decision: Seq,
    /// What a person said, where it was held.
    pub(crate) approval: Option<Approved>,
    pub(crate) parameters: Parameters,
    /// The request that it was decided for, as the client is told.
    pub(crate) request: Uuid,
    /// Whether the set would show anything of it, once that was asked.
    shows: OnceLock<bool>,
}

/// A person's yes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Approved {
    /// The record of its release.
    pub(crate) record: RecordRef,
    /// The execution has to begin before this.
    pub(crate) until: Instant,
}

static NO_LIMITS: Limits = Limits {
    max_rows: None,
    max_bytes: None,
    timeout_ms: None,
    budgets: Vec::new(),
};

impl Permit {
    /// A permit of the policies' own: the verdict allows, or a person has released it.
    pub(crate) fn grant(
        statement: Arc<Statement>,
        ruling: Arc<Ruling>,
        set: Arc<PolicySet>,
        decision: Seq,
        approval: Option<Approved>,
        parameters: Parameters,
        request: Uuid,
    ) -> Option<Arc<Self>> {
        let allowed = match ruling.verdict {
            Verdict::Allow => true,
            Verdict::RequireApproval(_) => approval.is_some(),
            Verdict::Abstain | Verdict::Deny(_) => false,
        };
        allowed.then(|| {
            Arc::new(Self {
                statement,
                ruling: Some((ruling, set)),
                decision,
                approval,
                parameters,
                request,
                shows: OnceLock::new(),
            })
        })
    }

    /// A permit of the host's own rules, for statements that [`decider`] leaves to them.
    pub(crate) fn host(statement: Arc<Statement>, decision: Seq, request: Uuid) -> Arc<Self> {
        Arc::new(Self {
            statement,
            ruling: None,
            decision,
            approval: None,
            parameters: Parameters::default(),
            request,
            shows: OnceLock::new(),
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        self.ruling
            .as_ref()
            .map_or(&NO_LIMITS, |(ruling, _)| &ruling.limits)
    }

    /// Whether it would be the same under this later ruling about the same statement.
    pub(crate) fn is_as_by(&self, later: &Ruling) -> bool {
        self.ruling.as_ref().is_none_or(|(ruling, _)| {
            let transforms = later.outputs.iter().map(|rule| &rule.transform);
            ruling.verdict == later.verdict
                && ruling.limits == later.limits
                && self.transforms().eq(transforms)
        })
    }

    pub(crate) fn set(&self) -> Option<&Arc<PolicySet>> {
        self.ruling.as_ref().map(|(_, set)| set)
    }

    /// What happens to each output, by index.
    pub(crate) fn transforms(&self) -> impl Iterator<Item = &Transform> {
        self.ruling
            .iter()
            .flat_map(|(ruling, _)| ruling.outputs.iter().map(|rule| &rule.transform))
    }

    /// Whether what the backend says about it may be passed on as it is: see
    /// [`disclosure`].
    pub(crate) fn may_tell(&self, caller: &Arc<Caller>) -> bool {
        if self.ruling.is_none() {
            // What the host's own rules allow evaluates nothing; what it settles is told of with
            // the statements that put it off.
            return true;
        }
        match self.statement.reach() {
            Reach::Clear => true,
            Reach::Labelled => false,
            Reach::Untold => self.shows_anything(caller),
        }
    }

    /// Whether the set that let it run would show everything of it, also what nobody understands.
    pub(crate) fn shows_anything(&self, caller: &Arc<Caller>) -> bool {
        let Some((_, set)) = &self.ruling else {
            return false;
        };
        *self.shows.get_or_init(|| {
            let context = Context {
                parameters: self.parameters.values.clone(),
                received_at: unix_seconds(),
                in_transaction: false,
            };
            disclosure::shows_anything(set, caller, &self.statement.operation, &context).0
        })
    }

    /// Whether it was let through although its facts are incomplete. Only a policy that the
    /// configuration names for that can do so.
    fn unchecked(&self) -> bool {
        self.ruling.is_some() && !self.statement.operation.gaps.is_empty()
    }

    /// Whether it can still fail on our side once it runs: a limit, a rewrite, or an answer that
    /// does not look as predicted.
    pub(crate) fn may_fail_late(&self) -> bool {
        if matches!(self.statement.kind, Kind::Copy { from: true, .. }) {
            // It answers with no data.
            return false;
        }
        let limits = self.limits();
        limits.max_rows.is_some()
            || limits.max_bytes.is_some()
            || !limits.budgets.is_empty()
            || self.transforms().any(|t| matches!(t, Transform::Custom(_)))
    }

    /// Whether it may be cancelled by us, so that what comes next must wait for its end: a cancel
    /// request hits whatever runs when it arrives.
    pub(crate) fn may_be_cancelled(&self) -> bool {
        let takes_data = matches!(self.statement.kind, Kind::Copy { from: true, .. });
        self.may_fail_late() || !takes_data && self.limits().timeout_ms.is_some()
    }
}

/// Now, Unix seconds.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
