//! What ran, and what left.

use serde::Serialize;

use crate::{
    blind::Blinded,
    payload::{OutputMask, Payload},
    record::{Kind, RecordRef, Role},
    value::Code,
};

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
    /// Too long to keep: what it was. Fields stand in the order of their names, so that a list of
    /// parameters has the same digest when it was read as JSON and is written again.
    Digest {
        /// The number of its bytes.
        bytes: u64,
        /// Their digest; see [`Blinder::of_long`](crate::Blinder::of_long).
        digest: Blinded,
    },
    /// Too long to keep, and nothing else is known of it.
    Truncated {
        /// The number of its bytes.
        bytes: u64,
    },
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
    /// Digest of the parameters as sealed: a list, as JSON without blanks.
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
