//! What was asked, and what policies said.

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{
    blind::Blinded,
    payload::{Parameter, Payload},
    record::{Kind, RecordRef, Role},
    value::{Code, Name},
};

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
    /// The operation that has the same facts, and has them in its sealed part for both.
    #[serde(skip)]
    pub facts_of: Option<RecordRef>,
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
#[derive(Clone, Debug, Serialize)]
pub struct OperationSealed {
    /// The statement.
    pub text: String,
    /// What policies get besides the text, unless another record has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Box<RawValue>>,
}

impl Payload for Operation {
    const KIND: Kind = Kind::Operation;
    type Sealed = OperationSealed;

    fn refs(&self, refs: &mut Vec<(Role, RecordRef)>) {
        refs.push((Role::Session, self.session));
        refs.extend(self.facts_of.map(|other| (Role::MemoOf, other)));
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
