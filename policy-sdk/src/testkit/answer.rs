//! A policy's answer with assertions.

use chaperone_contract::{Decision, Labels, Limits, Operation, Reason, Transform, Verdict};

/// What a policy (or several, composed) said about an operation.
#[derive(Clone, Debug)]
pub struct Answer {
    decision: Decision,
    outputs: Vec<(String, Labels)>,
}

impl Answer {
    pub(super) fn new(decision: Decision, operation: &Operation) -> Self {
        let outputs = operation.outputs.iter();
        let outputs = outputs
            .map(|output| (output.name.clone(), operation.output_labels(output)))
            .collect();
        Self { decision, outputs }
    }

    /// The answer itself.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.decision.limits
    }

    /// What the policy says about the output of this name: the strictest of its masks. `None`: it
    /// says nothing.
    ///
    /// # Panics
    ///
    /// If there is no output of this name.
    #[must_use]
    #[expect(clippy::panic, reason = "a failing test")]
    pub fn transform(&self, output: &str) -> Option<Transform> {
        let Some(index) = self.outputs.iter().position(|(name, _)| name == output) else {
            panic!("there is no output {output}, only {:?}", self.outputs);
        };
        let masks = self.decision.masks.iter();
        masks
            .filter(|mask| mask.output as usize == index)
            .map(|mask| mask.transform.clone())
            .reduce(super::compose::stricter)
    }

    /// # Panics
    ///
    /// If it is not allowed.
    #[track_caller]
    pub fn assert_allowed(&self) -> &Self {
        assert!(
            self.decision.verdict == Verdict::Allow,
            "not allowed: {self:#?}"
        );
        self
    }

    /// # Panics
    ///
    /// If the policy had something to say on whether it may run.
    #[track_caller]
    pub fn assert_abstained(&self) -> &Self {
        assert!(
            self.decision.verdict == Verdict::Abstain,
            "no abstention: {self:#?}"
        );
        self
    }

    /// # Panics
    ///
    /// If it is not denied with this reason code.
    #[track_caller]
    #[expect(clippy::panic, reason = "a failing test")]
    pub fn assert_denied(&self, code: &str) -> &Reason {
        match &self.decision.verdict {
            Verdict::Deny(reason) if reason.code == code => reason,
            _ => panic!("not denied with {code}: {self:#?}"),
        }
    }

    /// # Panics
    ///
    /// If it is not held for approval with this reason code.
    #[track_caller]
    #[expect(clippy::panic, reason = "a failing test")]
    pub fn assert_held(&self, code: &str) -> &chaperone_contract::Approval {
        match &self.decision.verdict {
            Verdict::RequireApproval(approval) if approval.reason.code == code => approval,
            _ => panic!("not held with {code}: {self:#?}"),
        }
    }

    /// # Panics
    ///
    /// If the output does not get exactly this transform.
    #[track_caller]
    pub fn assert_masked(&self, output: &str, transform: Transform) -> &Self {
        assert_eq!(
            self.transform(output),
            Some(transform),
            "{output}: {self:#?}"
        );
        self
    }

    /// Shown as it is: revealed, or known to be clear and not masked.
    ///
    /// # Panics
    ///
    /// If it is masked, or labelled and not revealed.
    #[track_caller]
    pub fn assert_shown(&self, output: &str) -> &Self {
        let clear = self
            .outputs
            .iter()
            .any(|(name, labels)| name == output && labels.is_clear());
        let shown = match self.transform(output) {
            Some(transform) => transform == Transform::Reveal,
            None => clear,
        };
        assert!(shown, "{output} is not shown: {self:#?}");
        self
    }

    /// NULL: masked so, or labelled and nobody says anything.
    ///
    /// # Panics
    ///
    /// If anything of it is shown.
    #[track_caller]
    pub fn assert_withheld(&self, output: &str) -> &Self {
        let clear = self
            .outputs
            .iter()
            .any(|(name, labels)| name == output && labels.is_clear());
        let withheld = match self.transform(output) {
            Some(transform) => transform == Transform::Null,
            None => !clear,
        };
        assert!(withheld, "{output} is not withheld: {self:#?}");
        self
    }

    /// # Panics
    ///
    /// If the row limit is another.
    #[track_caller]
    pub fn assert_row_limit(&self, rows: impl Into<Option<u64>>) -> &Self {
        assert_eq!(self.decision.limits.max_rows, rows.into(), "{self:#?}");
        self
    }
}
