//! What a policy answers.

use bitflags::bitflags;
use serde::{Deserialize, Serialize};

/// Why: `code` is recorded in clear and must not carry data; `message` goes to the caller and is
/// sealed in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A short constant, `outside-scope`.
    pub code: String,
    /// What was refused and why, for a person or an agent.
    pub message: String,
    /// What would be allowed instead.
    pub hint: Option<String>,
}

/// Who may let it through, and how long they have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Why a person is asked.
    pub reason: Reason,
    /// Members of any of these may approve; empty = any configured approver.
    pub groups: Vec<String>,
    /// How many different people must approve; 0 counts as 1.
    pub approvers: u8,
    /// How long the request may stay open.
    pub ttl_seconds: u32,
}

/// What a module says. Composition: deny beats approval beats allow; all abstain = deny.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing to say.
    Abstain,
    /// Let it through.
    Allow,
    /// Refuse it.
    Deny(Reason),
    /// Hold it until a person lets it through.
    RequireApproval(Approval),
}

/// A budget that the host counts per principal, so that the policy stays pure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Its name; budgets of one name share one count.
    pub name: String,
    /// How many rows of output fit in the window.
    pub max: u64,
    /// The window's length.
    pub window_seconds: u32,
}

/// Bounds on an allowed operation; combined over modules to the strictest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most rows that may leave; more is an error.
    pub max_rows: Option<u64>,
    /// Most bytes of values that may leave.
    pub max_bytes: Option<u64>,
    /// Longest run time.
    pub timeout_ms: Option<u32>,
    /// Budgets to charge.
    pub budgets: Vec<Budget>,
}

/// What happens to an output's values, from least to most strict. Two different ones of the same
/// rank become [`Transform::Null`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Transform {
    /// As it is. The only way in which a labelled value leaves in clear.
    Reveal,
    /// The last n characters, the ones before replaced by `*`.
    KeepLast(u8),
    /// A date or timestamp cut to 1 January of its year.
    Year,
    /// The first three digits of a ZIP code; `000` for the sparsely settled ones of 45 CFR
    /// 164.514(b)(2)(i)(B).
    Zip3,
    /// HMAC-SHA-256 under the target's secret, as hexadecimal text.
    KeyedHash,
    /// The module's own `rewrite`, which is given the tag.
    Custom(String),
    /// This text.
    Fixed(String),
    /// NULL.
    Null,
}

impl Transform {
    /// The place in the order of strictness.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Transform::Reveal => 0,
            Transform::KeepLast(_) => 1,
            Transform::Year => 2,
            Transform::Zip3 => 3,
            Transform::KeyedHash => 4,
            Transform::Custom(_) => 5,
            Transform::Fixed(_) => 6,
            Transform::Null => 7,
        }
    }
}

/// A transform for one output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Index into the operation's outputs.
    pub output: u32,
    /// What happens to it.
    pub transform: Transform,
}

/// One module's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// May it run?
    pub verdict: Verdict,
    /// Within which bounds?
    pub limits: Limits,
    /// What of the answer is shown how?
    pub masks: Vec<Mask>,
}

bitflags! {
    /// What a module is there for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub struct Abilities: u8 {
        /// Its verdicts count.
        const DECIDES = 1;
        /// It may mask and reveal.
        const MASKS = 1 << 1;
        /// It has a `rewrite` for its `custom` masks.
        const REWRITES = 1 << 2;
    }
}

/// What a module says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name; the configuration refers to it by this.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// Protocols that it understands; empty = all.
    pub protocols: Vec<String>,
    /// What it is there for.
    pub abilities: Abilities,
    /// JSON Schema of the settings that `configure` takes.
    pub settings_schema: String,
}
