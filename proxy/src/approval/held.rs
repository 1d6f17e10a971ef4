//! What is held, and what an approval is bound to.

use std::{fmt, time::Duration};

use chaperone_audit_log::RecordRef;
use chaperone_contract::{Operation, Value};
use sha3::{Digest as _, Sha3_256};
use zeroize::Zeroize as _;

use super::Person;

/// Who asks, and what they are connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requester {
    /// Whose rights are used.
    pub person: Person,
    /// Who acts on that person's behalf, nearest first.
    pub actors: Vec<Person>,
    /// The backend role.
    pub role: String,
    /// The configured target.
    pub target: String,
    /// The backend's database.
    pub database: String,
}

impl Requester {
    /// Whether `person` asks, is acted for, or acts here.
    #[must_use]
    pub fn involves(&self, person: &Person) -> bool {
        self.person == *person || self.actors.contains(person)
    }
}

/// A bind value with its type's name, for the approver.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameter {
    /// `text`, `int4`, ...; empty where it is not known.
    pub type_name: String,
    /// The value. [`Value::Truncated`] cannot be approved: nobody could see it.
    pub value: Value,
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parameter")
            .field("type_name", &self.type_name)
            .finish_non_exhaustive()
    }
}

/// The digests that an approval is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BoundTo {
    /// SHA3-256 of statement and parameters, each with its length before it.
    pub statement: [u8; 32],
    /// SHA3-256 of the facts.
    pub facts: [u8; 32],
}

impl fmt::Debug for BoundTo {
    // A digest of a short statement can be guessed backwards, so it stays out of log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundTo(..)")
    }
}

/// Two requests are the same one when their bindings are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Who, as what, where.
    pub requester: Requester,
    /// What.
    pub digests: BoundTo,
}

impl Binding {
    /// Binds to exactly this.
    #[must_use]
    pub fn new(
        requester: Requester,
        text: &str,
        parameters: &[Parameter],
        operation: &Operation,
    ) -> Self {
        Self {
            requester,
            digests: BoundTo {
                statement: statement_digest(text, parameters),
                facts: facts_digest(operation),
            },
        }
    }
}

fn part(hash: &mut Sha3_256, tag: u8, bytes: &[u8]) {
    hash.update([tag]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn statement_digest(text: &str, parameters: &[Parameter]) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    part(&mut hash, b's', text.as_bytes());
    hash.update((parameters.len() as u64).to_be_bytes());
    for parameter in parameters {
        part(&mut hash, b't', parameter.type_name.as_bytes());
        match &parameter.value {
            Value::Null => part(&mut hash, b'0', &[]),
            Value::Text(text) => part(&mut hash, b'T', text.as_bytes()),
            Value::Binary(bytes) => part(&mut hash, b'B', bytes),
            Value::Truncated(length) => part(&mut hash, b'L', &length.to_be_bytes()),
        }
    }
    hash.finalize().into()
}

fn facts_digest(operation: &Operation) -> [u8; 32] {
    let mut hash = Sha3_256::new();
    // A structure of strings, lists and numbers always serialises; were it otherwise, the error's
    // own tag equals no digest of facts.
    match serde_json::to_vec(operation) {
        Ok(bytes) => part(&mut hash, b'f', &bytes),
        Err(_) => part(&mut hash, b'e', &[]),
    }
    hash.finalize().into()
}

/// What the approver is shown. Zeroed when the request ends.
pub struct Shown {
    /// The exact statement.
    pub text: String,
    /// Its bind values in order.
    pub parameters: Vec<Parameter>,
    /// The policy that holds it.
    pub policy: String,
    /// The reason's code.
    pub code: String,
    /// Why a person is asked.
    pub reason: String,
    /// What is touched: `table public.patients: read, update`.
    pub objects: Vec<String>,
    /// The caller's purpose of use.
    pub purpose: Option<String>,
    /// The agent run.
    pub run: Option<String>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown(..)")
    }
}

impl Shown {
    pub(super) fn bytes(&self) -> usize {
        let values = self.parameters.iter().map(|parameter| {
            64 + match &parameter.value {
                Value::Text(text) => text.len(),
                Value::Binary(bytes) => bytes.len(),
                Value::Null | Value::Truncated(_) => 0,
            }
        });
        self.text.len()
            + self.reason.len()
            + self.objects.iter().map(|o| o.len() + 24).sum::<usize>()
            + values.sum::<usize>()
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.text.zeroize();
        self.reason.zeroize();
        for parameter in &mut self.parameters {
            match &mut parameter.value {
                Value::Text(text) => text.zeroize(),
                Value::Binary(bytes) => bytes.zeroize(),
                Value::Null | Value::Truncated(_) => {}
            }
        }
    }
}

/// Why something cannot be put before a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "parameter {index} is too long to be shown to an approver; send a smaller value or split the \
     statement"
)]
pub struct NotShowable {
    /// Its number, from 1.
    pub index: usize,
}

/// A statement to hold.
#[derive(Debug)]
pub struct Held {
    pub(super) binding: Binding,
    pub(super) shown: Shown,
    pub(super) command: String,
    pub(super) groups: Vec<String>,
    pub(super) approvers: u8,
    pub(super) ttl: Duration,
    pub(super) decision: Option<RecordRef>,
}

impl Held {
    /// Holds what `shown` shows. The binding is made here, out of the very text and parameters that
    /// the approver will see. No `groups` means any configured approver; 0 `approvers` counts as 1.
    pub fn new(
        requester: Requester,
        shown: Shown,
        operation: &Operation,
        groups: Vec<String>,
        approvers: u8,
        ttl: Duration,
        decision: Option<RecordRef>,
    ) -> Result<Self, NotShowable> {
        let too_long = |parameter: &Parameter| matches!(parameter.value, Value::Truncated(_));
        if let Some(index) = shown.parameters.iter().position(too_long) {
            return Err(NotShowable { index: index + 1 });
        }
        Ok(Self {
            binding: Binding::new(requester, &shown.text, &shown.parameters, operation),
            shown,
            command: operation.command.clone(),
            groups,
            approvers: approvers.max(1),
            ttl,
            decision,
        })
    }

    /// Binds it also to what its facts do not spell out, given as a digest.
    #[must_use]
    pub fn standing_on(mut self, ground: &[u8; 32]) -> Self {
        let facts = &mut self.binding.digests.facts;
        let mut hash = Sha3_256::new();
        part(&mut hash, b'f', &*facts);
        part(&mut hash, b'g', ground);
        *facts = hash.finalize().into();
        self
    }

    /// What it is bound to.
    #[must_use]
    pub fn binding(&self) -> &Binding {
        &self.binding
    }
}
