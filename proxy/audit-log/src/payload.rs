//! What each kind of record holds: the clear part as a struct of codes, names, numbers and digests,
//! the sealed part as a struct beside it.
//!
//! A clear struct has no field that takes free text, so text cannot end up there, and digests of
//! what may hold data are [`Blinded`]. Fields that are references become the header's `refs` and are not repeated in the body.

use serde::Serialize;
use serde_json::Value;

use crate::{
    blind::Blinded,
    record::{Kind, RecordRef, Role},
    value::{Code, Digest, Name},
};

pub use crate::payload_log::{
    CutTail, DataKeyRecord, Gap, Head, LogStart, LogStop, Predecessor, Recover, Rotate,
};

/// A record's clear part.
pub trait Payload: Serialize {
    /// Which kind of record it makes.
    const KIND: Kind;
    /// What may be sealed with it; [`Nothing`] where the kind has no sealed part.
    type Sealed: Serialize;

    /// The records that it builds on.
    fn refs(&self, _refs: &mut Vec<(Role, RecordRef)>) {}
}

/// The sealed part of a record that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Nothing {}

/// One policy module of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// The name in its manifest.
    pub name: Name,
    /// The version in its manifest.
    pub version: Name,
    /// Digest of the file's bytes.
    pub digest: Digest,
    /// The contract's version that it was built for.
    pub contract: Name,
    /// Digest of the settings that it was configured with.
    pub settings: Digest,
    /// Where the archive keeps bytes and settings.
    pub archive: Digest,
}

/// A module file that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleFailure {
    /// The file's name in the policy directory.
    pub file: Name,
    /// What kind of failure.
    pub code: Code,
}

/// The policies in force from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicySet {
    /// Digest of the whole set.
    pub digest: Digest,
    /// In order of evaluation.
    pub modules: Vec<Module>,
    /// `start`, `reload`, `removed`, `settings`.
    pub cause: Code,
    /// What could not be taken; the last good set goes on.
    pub failures: Vec<ModuleFailure>,
    /// Required names that the set lacks: statements are refused.
    pub missing: Vec<Name>,
}

/// What goes with a [`PolicySet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicySetSealed {
    /// The failures' texts, in order.
    pub failures: Vec<String>,
}

impl Payload for PolicySet {
    const KIND: Kind = Kind::PolicySet;
    type Sealed = PolicySetSealed;
}

/// Someone who acts for the subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ActorName {
    /// Its `sub`.
    pub subject: Name,
    /// Its `iss`.
    pub issuer: Name,
}

/// How well the caller proved who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Strength {
    /// `oidc`, `static`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Code>,
    /// Authentication context class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<Name>,
    /// Authentication methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<Name>,
    /// TLS version and cipher suite of the client's connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Name>,
}

/// A caller was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionStart {
    /// The identity's `sub`.
    pub subject: Name,
    /// The identity's `iss`.
    pub issuer: Name,
    /// Who acts for it, nearest first.
    pub actors: Vec<ActorName>,
    /// Its groups.
    pub groups: Vec<Name>,
    /// Purpose of use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Name>,
    /// The agent run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<Name>,
    /// Digest of the token.
    pub token: Digest,
    /// How well it proved that.
    pub strength: Strength,
    /// The configured target.
    pub target: Name,
    /// The backend role.
    pub principal: Name,
    /// The client's IP address.
    pub client_address: Name,
    /// What the token allows, where it says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scope: Vec<Name>,
    /// When the caller authenticated, Unix seconds.
    pub authenticated_at: u64,
    /// When the identity ends, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

/// What goes with a [`SessionStart`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SessionStartSealed {
    /// All claims of the token.
    pub claims: Value,
    /// The start-up packet's parameters, as the client sent them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<(String, String)>,
}

impl Payload for SessionStart {
    const KIND: Kind = Kind::SessionStart;
    type Sealed = SessionStartSealed;
}

/// A session is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionEnd {
    /// Its start.
    #[serde(skip)]
    pub session: RecordRef,
    /// `client`, `idle`, `expired`, `backend`, `drain`, `protocol`, …
    pub cause: Code,
    /// Statements that ran.
    pub executions: u64,
    /// Statements that were refused.
    pub denied: u64,
    /// Rows that left.
    pub rows: u64,
    /// Bytes of values that left.
    pub bytes: u64,
}

impl Payload for SessionEnd {
    const KIND: Kind = Kind::SessionEnd;
    type Sealed = Nothing;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Session, self.session));
    }
}

/// A caller was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoginDenied {
    /// Why.
    pub code: Code,
    /// From where.
    pub client_address: Name,
}

/// What goes with a [`LoginDenied`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoginDeniedSealed {
    /// The whole story.
    pub detail: String,
    /// The role that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The target that it asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Payload for LoginDenied {
    const KIND: Kind = Kind::LoginDenied;
    type Sealed = LoginDeniedSealed;
}

/// Something that a statement touches, known to the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectName {
    /// `table`, `view`, `function`, …
    pub kind: Code,
    /// From the outermost name inwards. Only names that the catalog has: a name that only the
    /// statement has may be anything, and belongs in the sealed facts.
    pub path: Vec<Name>,
    /// What is done to it.
    pub actions: Vec<Code>,
}

/// What is asked: once per session and text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// Whose.
    #[serde(skip)]
    pub session: RecordRef,
    /// `postgresql`.
    pub protocol: Code,
    /// `select`, `drop-table`.
    pub command: Code,
    /// The union of what is done.
    pub actions: Vec<Code>,
    /// Digest of the text.
    pub text: Blinded,
    /// Length of the text in bytes.
    pub text_bytes: u64,
    /// What is touched.
    pub objects: Vec<ObjectName>,
    /// Digest of the facts as sealed.
    pub facts: Blinded,
    /// How many things about it are not known.
    pub gaps: u32,
    /// The generation of the catalog that the facts were made from.
    pub catalog_generation: u64,
}

/// What goes with an [`Operation`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperationSealed {
    /// The statement.
    pub text: String,
    /// The facts as policies get them.
    pub facts: Value,
}

impl Payload for Operation {
    const KIND: Kind = Kind::Operation;
    type Sealed = OperationSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Session, self.session));
    }
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictCode {
    /// Nothing to say.
    Abstain,
    /// May run.
    Allow,
    /// May not.
    Deny,
    /// A person has to say.
    RequireApproval,
}

/// What happens to an output's values. A custom mask's tag and a fixed text come from a guest and
/// stand in the sealed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskCode {
    /// As they are.
    Reveal,
    /// The last n characters.
    KeepLast(u8),
    /// The year.
    Year,
    /// Three digits of a ZIP code.
    Zip3,
    /// A keyed hash.
    KeyedHash,
    /// The module's own.
    Custom,
    /// A fixed text.
    Fixed,
    /// NULL.
    Null,
}

/// A mask for one output, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OutputMask {
    /// Index of the output.
    pub output: u32,
    /// What happens to it.
    pub mask: MaskCode,
}

/// A budget that is charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetLimit {
    /// Digest of its name, which a guest chose.
    pub name: Blinded,
    /// Most in the window.
    pub max: u64,
    /// The window.
    pub window_seconds: u32,
}

/// Bounds of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitCodes {
    /// Most rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u64>,
    /// Most bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Longest run in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Budgets to charge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetLimit>,
}

impl LimitCodes {
    fn none(&self) -> bool {
        self == &Self::default()
    }
}

/// What one module said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleAnswer {
    /// Which.
    pub name: Name,
    /// Digest of everything that it was given.
    pub input: Blinded,
    /// What it said; absent when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictCode>,
    /// Its reason's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Its limits.
    #[serde(skip_serializing_if = "LimitCodes::none")]
    pub limits: LimitCodes,
    /// Its masks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<OutputMask>,
    /// How it failed: `trap`, `deadline`, `memory`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Code>,
}

/// What policies said about an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Whose.
    #[serde(skip)]
    pub session: RecordRef,
    /// About what.
    #[serde(skip)]
    pub operation: RecordRef,
    /// By which policies.
    #[serde(skip)]
    pub policy_set: RecordRef,
    /// An earlier decision that is used again.
    #[serde(skip)]
    pub memo_of: Option<RecordRef>,
    /// Each module's answer; empty for a memo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<ModuleAnswer>,
    /// All together.
    pub verdict: VerdictCode,
    /// The code that the caller gets when it is not let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// All limits together.
    #[serde(skip_serializing_if = "LimitCodes::none")]
    pub limits: LimitCodes,
    /// All masks together; an output that is not listed is revealed.
    pub masks: Vec<OutputMask>,
    /// What the host tightened, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tightened: Vec<Code>,
    /// The host's clock as policies see it, Unix seconds.
    pub received_at: u64,
    /// Whether a transaction was open, as policies see it.
    pub in_transaction: bool,
}

/// What goes with a [`Decision`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DecisionSealed {
    /// Modules' messages, hints, mask tags and fixed texts as they gave them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Value>,
    /// The message that the caller gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Parameters that a module could read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
}

impl Payload for Decision {
    const KIND: Kind = Kind::Decision;
    type Sealed = DecisionSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Session, self.session));
        refs.push((Role::Operation, self.operation));
        refs.push((Role::PolicySet, self.policy_set));
        refs.extend(self.memo_of.map(|memo| (Role::MemoOf, memo)));
    }
}

/// A bind value. Only ever sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parameter {
    /// SQL NULL.
    Null,
    /// Text.
    Text(String),
    /// Bytes, hexadecimal.
    Binary(String),
    /// Too long to keep: what it was.
    Digest {
        /// Digest of the bytes.
        digest: Digest,
        /// Their number.
        bytes: u64,
    },
    /// Too long even to take in: how long.
    Truncated {
        /// Bytes.
        bytes: u64,
    },
}

/// Where a held statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalState {
    /// It is held.
    Requested,
    /// Approvers were told.
    Notified,
    /// An approver looked at it.
    Seen,
    /// An approver said yes.
    Granted,
    /// An approver said no.
    Denied,
    /// Nobody said anything in time.
    Expired,
    /// The requester gave up.
    Cancelled,
    /// It was let through, once.
    Released,
}

/// A held statement changes its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Approval {
    /// What is held.
    #[serde(skip)]
    pub decision: RecordRef,
    /// The record of the state before.
    #[serde(skip)]
    pub follows: Option<RecordRef>,
    /// The new state.
    pub state: ApprovalState,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<ActorName>,
    /// How well that person proved who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strength: Option<Strength>,
    /// A reason as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Digest of statement and parameters that it is bound to.
    pub statement: Blinded,
    /// Digest of the facts that it is bound to.
    pub facts: Blinded,
    /// Digest of requester, actors, role and database that it is bound to.
    pub requester: Blinded,
    /// When it ends, Unix seconds.
    pub deadline: u64,
}

/// What goes with an [`Approval`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ApprovalSealed {
    /// What the approver was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// What the approver wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Payload for Approval {
    const KIND: Kind = Kind::Approval;
    type Sealed = ApprovalSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Decision, self.decision));
        refs.extend(self.follows.map(|before| (Role::Follows, before)));
    }
}

/// A statement is about to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Intent {
    /// On what grounds.
    #[serde(skip)]
    pub decision: RecordRef,
    /// Who let it through, where it was held.
    #[serde(skip)]
    pub approval: Option<RecordRef>,
    /// Which execution of the session this is, from 1.
    pub ordinal: u64,
    /// Digest of the portal's name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portal: Option<Blinded>,
    /// Whether it provably only reads.
    pub read_only: bool,
    /// Whether it runs inside a transaction block; absent where it does not.
    #[serde(skip_serializing_if = "is_false")]
    pub in_transaction: bool,
    /// How many parameters; absent where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub parameter_count: u32,
    /// Digest of the parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Blinded>,
}

// What serde asks for takes a reference.
fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// What goes with an [`Intent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntentSealed {
    /// Bind values in order.
    pub parameters: Vec<Parameter>,
}

impl Payload for Intent {
    const KIND: Kind = Kind::Intent;
    type Sealed = IntentSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Decision, self.decision));
        refs.extend(self.approval.map(|approval| (Role::Approval, approval)));
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As asked.
    Ok,
    /// The backend said no.
    Failed,
    /// A limit cut it off.
    Limited,
    /// It was cancelled.
    Cancelled,
    /// It ran, the answer was held back.
    Withheld,
    /// Nobody knows: the connection broke.
    Unknown,
}

/// A budget that was charged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BudgetCharge {
    /// Digest of its name, which a guest chose.
    pub name: Blinded,
    /// How much.
    pub amount: u64,
}

/// What a run did and what left. Without `intent`'s fields this is the body of an `outcome`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// How it ended.
    pub status: Status,
    /// SQLSTATE or the like, lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Rows that left.
    pub rows: u64,
    /// Bytes of values that left.
    pub bytes: u64,
    /// What did not leave as it is; an output that is not listed did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputMask>,
    /// The row after which it was cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated_after: Option<u64>,
    /// Budgets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<BudgetCharge>,
    /// Digest of the rows or COPY data that left, as whole messages of the protocol; see
    /// [`SentHasher`](crate::SentHasher).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<Blinded>,
    /// The backend's time in microseconds.
    pub backend_micros: u64,
    /// From receipt to the end in microseconds.
    pub total_micros: u64,
}

impl Effects {
    /// Of what came to nothing: no rows, no bytes, no time.
    #[must_use]
    pub fn nothing(status: Status, code: Option<Code>) -> Self {
        Self {
            status,
            code,
            rows: 0,
            bytes: 0,
            outputs: Vec::new(),
            truncated_after: None,
            charges: Vec::new(),
            sent: None,
            backend_micros: 0,
            total_micros: 0,
        }
    }
}

/// What goes with [`Effects`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectsSealed {
    /// The error as the backend gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A statement ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its intent.
    #[serde(skip)]
    pub intent: RecordRef,
    /// What it did.
    #[serde(flatten)]
    pub effects: Effects,
}

impl Payload for Outcome {
    const KIND: Kind = Kind::Outcome;
    type Sealed = EffectsSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Intent, self.intent));
    }
}

/// Intent and outcome in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Execution {
    /// What was about to run.
    #[serde(flatten)]
    pub intent: Intent,
    /// What it did.
    #[serde(flatten)]
    pub effects: Effects,
}

/// What goes with an [`Execution`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecutionSealed {
    /// Bind values in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parameters: Vec<Parameter>,
    /// The error as the backend gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Payload for Execution {
    const KIND: Kind = Kind::Execution;
    type Sealed = ExecutionSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        self.intent.refs(refs);
    }
}
