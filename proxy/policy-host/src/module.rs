//! One configured module.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitflags::bitflags;
use chaperone_contract::{Abilities, Decision, Manifest, Operation, Reason, Transform, Verdict};
use wasmtime::component::Resource;

use crate::Digest;
use crate::bindings::{PolicyModulePre, policy};
use crate::column::{self, Column};
use crate::failure::{Failure, FailureCode};
use crate::host::Inner;
use crate::input::Input;
use crate::linker::State;

/// Most bytes of one decision.
const DECISION_BYTES: usize = 1 << 20;
/// Most bytes of one text in a decision.
const TEXT_BYTES: usize = 4096;
/// Most groups of an approval and budgets of a decision.
const LIST_LENGTH: usize = 64;
/// What stands in for a reason code that is none.
const NO_CODE: &str = "unnamed";

bitflags! {
    /// Inputs that change while the facts of an operation stay the same, as far as a module can read
    /// them: a getter that is not imported cannot be called. A verdict may be used again for the same
    /// session and facts as long as what is in here did not change.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Reads: u8 {
        /// The bind values, or how many there are.
        const PARAMETERS = 1;
        /// The host's clock.
        const CLOCK = 1 << 1;
        /// Whether a transaction block is open.
        const TRANSACTION = 1 << 2;
        /// The statement as it was written. Two that differ in constants alone are one to a module
        /// that cannot read it.
        const TEXT = 1 << 3;
    }
}

impl Reads {
    pub(crate) fn from_getters(getters: &[String]) -> Self {
        getters
            .iter()
            .map(|getter| match getter.as_str() {
                "operation.parameter" | "operation.parameter-count" => Reads::PARAMETERS,
                "operation.received-at" => Reads::CLOCK,
                "sql-facts.in-transaction" => Reads::TRANSACTION,
                "operation.text" => Reads::TEXT,
                _ => Reads::empty(),
            })
            .fold(Reads::empty(), |all, one| all | one)
    }
}

/// A module, compiled, configured and tested. Every call runs in a fresh instance of its
/// configured image, so nothing is carried from one call to the next.
pub struct Module {
    inner: Arc<Inner>,
    pre: PolicyModulePre<State>,
    parts: Parts,
}

pub(crate) struct Parts {
    pub(crate) file: String,
    pub(crate) digest: Digest,
    pub(crate) settings_digest: Digest,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) settings: Arc<str>,
    pub(crate) contract: String,
    pub(crate) getters: Vec<String>,
    pub(crate) reads: Reads,
    pub(crate) manifest: Manifest,
}

impl Module {
    pub(crate) fn new(inner: Arc<Inner>, pre: PolicyModulePre<State>, parts: Parts) -> Self {
        Module { inner, pre, parts }
    }

    /// The name in its manifest.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.parts.manifest.name
    }

    /// The version in its manifest.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.parts.manifest.version
    }

    /// The file that it came from.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.parts.file
    }

    /// What it says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.parts.manifest
    }

    /// SHA3-256 of the file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.parts.digest
    }

    /// SHA3-256 of [`Module::settings`].
    #[must_use]
    pub fn settings_digest(&self) -> Digest {
        self.parts.settings_digest
    }

    /// The file's bytes, for the archive.
    #[must_use]
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.parts.bytes
    }

    /// The JSON that it was configured with.
    #[must_use]
    pub fn settings(&self) -> &Arc<str> {
        &self.parts.settings
    }

    /// The contract version that it was built for.
    #[must_use]
    pub fn contract(&self) -> &str {
        &self.parts.contract
    }

    /// The getters that it can call.
    #[must_use]
    pub fn getters(&self) -> &[String] {
        &self.parts.getters
    }

    /// Which changing inputs it can read.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.parts.reads
    }

    /// Whether it understands operations of this protocol.
    #[must_use]
    pub fn speaks(&self, protocol: &str) -> bool {
        let protocols = &self.parts.manifest.protocols;
        protocols.is_empty() || protocols.iter().any(|known| known == protocol)
    }

    /// Asks it. The answer has been checked against the operation and the manifest.
    pub(crate) fn evaluate(&self, input: &Arc<Input>) -> Result<Decision, Failure> {
        self.evaluate_within(self.inner.options.deadline, input)
    }

    /// Asks it, with a deadline of the caller's.
    pub(crate) fn evaluate_within(
        &self,
        deadline: Duration,
        input: &Arc<Input>,
    ) -> Result<Decision, Failure> {
        let store = Some(Arc::clone(input));
        let mut store = self.inner.store(store, deadline, DECISION_BYTES);
        let answer = self.pre.instantiate(&mut store).and_then(|instance| {
            instance.chaperone_policy_policy().call_evaluate(
                &mut store,
                Resource::new_borrow(0),
                Resource::new_borrow(0),
            )
        });
        match answer {
            Ok(Ok(decision)) => self.check(decision.into(), &input.operation),
            Ok(Err(reason)) => Err(Failure {
                reason: Some(clean_reason(reason.into())),
                ..Failure::new(FailureCode::Error, "it answered with an error of its own")
            }),
            Err(error) => Err(Failure::from_error(&error, &store.data().limiter)),
        }
    }

    /// Lets it rewrite columns. Batches are split as its memory demands; a cell too large for it
    /// becomes null.
    ///
    /// # Errors
    /// When it fails, or returns something other than one column of as many rows for each.
    pub fn rewrite(&self, rows: u32, columns: Vec<Column>) -> Result<Vec<Column>, Failure> {
        if !self.parts.manifest.abilities.contains(Abilities::REWRITES) {
            return Err(Failure::new(
                FailureCode::Undeclared,
                "its manifest does not declare that it rewrites",
            ));
        }
        // In, copied, out, and what it works with: each may be as large as the batch.
        let budget = self.inner.options.memory / 8;
        column::in_batches(rows, columns, budget, |rows, columns| {
            self.rewrite_batch(rows, columns)
        })
    }

    fn rewrite_batch(&self, rows: u32, columns: Vec<Column>) -> Result<Vec<Column>, Failure> {
        let tags: Vec<String> = columns.iter().map(|column| column.tag.clone()).collect();
        let columns: Vec<policy::Column> = columns.into_iter().map(Into::into).collect();
        let mut store = self.inner.store(
            None,
            self.inner.options.deadline,
            self.inner.options.memory * 2,
        );
        let answer = self.pre.instantiate(&mut store).and_then(|instance| {
            instance
                .chaperone_policy_policy()
                .call_rewrite(&mut store, rows, &columns)
        });
        match answer {
            Ok(Ok(answer)) => column::check(rows, &tags, answer.into_iter().map(Into::into)),
            Ok(Err(_)) => Err(Failure::new(
                FailureCode::Error,
                "its rewrite answered with an error of its own",
            )),
            Err(error) => Err(Failure::from_error(&error, &store.data().limiter)),
        }
    }

    fn check(&self, mut decision: Decision, operation: &Operation) -> Result<Decision, Failure> {
        let abilities = self.parts.manifest.abilities;
        let undeclared = |what: &str| {
            Err(Failure::new(
                FailureCode::Undeclared,
                format!("its manifest does not declare that it {what}"),
            ))
        };
        if !abilities.contains(Abilities::DECIDES) && decision.verdict != Verdict::Abstain {
            return undeclared("decides");
        }
        if !abilities.contains(Abilities::MASKS) && !decision.masks.is_empty() {
            return undeclared("masks");
        }
        let custom = |transform: &Transform| matches!(transform, Transform::Custom(_));
        if !abilities.contains(Abilities::REWRITES)
            && decision.masks.iter().any(|mask| custom(&mask.transform))
        {
            return undeclared("rewrites");
        }

        let bad = |what: &str| Err(Failure::new(FailureCode::BadAnswer, what));
        let mut seen = HashSet::new();
        for mask in &decision.masks {
            if mask.output as usize >= operation.outputs.len() {
                return bad("it masks an output that the operation does not have");
            }
            if !seen.insert(mask.output) {
                return bad("it masks one output twice");
            }
            if let Transform::Fixed(text) | Transform::Custom(text) = &mask.transform
                && text.len() > TEXT_BYTES
            {
                return bad("a mask's text is longer than 4096 bytes");
            }
        }
        if decision.limits.budgets.len() > LIST_LENGTH {
            return bad("it charges more than 64 budgets");
        }
        if !decision.limits.budgets.iter().all(|b| is_code(&b.name)) {
            return bad("a budget's name is not 1 to 64 letters, digits, `-`, `_` or `.`");
        }
        decision.verdict = match decision.verdict {
            Verdict::Deny(reason) => Verdict::Deny(clean_reason(reason)),
            Verdict::RequireApproval(mut approval) => {
                if approval.groups.len() > LIST_LENGTH
                    || approval.groups.iter().any(|group| group.len() > TEXT_BYTES)
                {
                    return bad("an approval names more than 64 groups, or one of absurd length");
                }
                approval.approvers = approval.approvers.max(1);
                approval.reason = clean_reason(approval.reason);
                Verdict::RequireApproval(approval)
            }
            other => other,
        };
        Ok(decision)
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.name())
            .field("version", &self.version())
            .field("file", &self.file())
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

/// A code is recorded in clear, so it may not be a vehicle for data: what does not look like a
/// constant is replaced.
fn clean_reason(mut reason: Reason) -> Reason {
    if !is_code(&reason.code) {
        NO_CODE.clone_into(&mut reason.code);
    }
    let shorten = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES));
    shorten(&mut reason.message);
    reason.hint.iter_mut().for_each(shorten);
    reason
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
