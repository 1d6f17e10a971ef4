//! Builders that make a policy's answer read like a sentence.

use crate::{
    Abilities, Approval, Budget, Decision, Limits, Manifest, Mask, Object, Reason, Transform,
    Verdict,
};

impl Object {
    /// The path with dots between its parts, `public.patients`. A part that has a dot or a quotation
    /// mark of its own is quoted, so that no object can take another one's name.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = String::new();
        for part in &self.path {
            if !name.is_empty() {
                name.push('.');
            }
            if part.is_empty() || part.contains(['.', '"']) {
                name.push('"');
                name.push_str(&part.replace('"', "\"\""));
                name.push('"');
            } else {
                name.push_str(part);
            }
        }
        name
    }
}

impl Reason {
    /// `code` is recorded in clear and must not carry data; `message` goes to the caller.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// What would be allowed instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Approval {
    /// One approver, of any configured group, within 15 minutes.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            groups: Vec::new(),
            approvers: 1,
            ttl_seconds: 900,
        }
    }

    /// Members of this group may approve (and of others that were named).
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// How many different people must approve.
    #[must_use]
    pub fn approvers(mut self, count: u8) -> Self {
        self.approvers = count;
        self
    }

    /// How long the request may stay open.
    #[must_use]
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl_seconds = seconds;
        self
    }

    /// What would be allowed without asking anyone.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.reason = self.reason.hint(hint);
        self
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            limits: Limits::default(),
            masks: Vec::new(),
        }
    }
}

/// A denial.
impl From<Reason> for Decision {
    fn from(reason: Reason) -> Self {
        Verdict::Deny(reason).into()
    }
}

impl From<Approval> for Decision {
    fn from(approval: Approval) -> Self {
        Verdict::RequireApproval(approval).into()
    }
}

impl Decision {
    /// Let it through, if no other module minds.
    #[must_use]
    pub fn allow() -> Self {
        Verdict::Allow.into()
    }

    /// Nothing to say about whether it may run; masks and limits still count.
    #[must_use]
    pub fn abstain() -> Self {
        Verdict::Abstain.into()
    }

    /// What happens to one output, by its index. For one output named twice the stricter counts.
    #[must_use]
    pub fn mask(mut self, output: u32, transform: Transform) -> Self {
        match self.masks.iter_mut().find(|mask| mask.output == output) {
            None => self.masks.push(Mask { output, transform }),
            Some(old) if transform.rank() > old.transform.rank() => old.transform = transform,
            Some(old) if transform.rank() == old.transform.rank() && transform != old.transform => {
                old.transform = Transform::Null;
            }
            Some(_) => {}
        }
        self
    }

    /// Shows one output as it is, if no other module masks it.
    #[must_use]
    pub fn reveal(self, output: u32) -> Self {
        self.mask(output, Transform::Reveal)
    }

    /// At most `rows` may leave; a smaller limit that is already set stays.
    #[must_use]
    pub fn limit_rows(mut self, rows: u64) -> Self {
        self.limits.max_rows = Some(self.limits.max_rows.map_or(rows, |old| old.min(rows)));
        self
    }

    /// At most `bytes` of values may leave; a smaller limit that is already set stays.
    #[must_use]
    pub fn limit_bytes(mut self, bytes: u64) -> Self {
        self.limits.max_bytes = Some(self.limits.max_bytes.map_or(bytes, |old| old.min(bytes)));
        self
    }

    /// Longest run time; a shorter one that is already set stays.
    #[must_use]
    pub fn timeout_ms(mut self, timeout: u32) -> Self {
        self.limits.timeout_ms = Some(
            self.limits
                .timeout_ms
                .map_or(timeout, |old| old.min(timeout)),
        );
        self
    }

    /// Charges the rows that leave to a budget that the host counts per principal.
    #[must_use]
    pub fn budget(mut self, name: impl Into<String>, max: u64, window_seconds: u32) -> Self {
        self.limits.budgets.push(Budget {
            name: name.into(),
            max,
            window_seconds,
        });
        self
    }
}

impl Manifest {
    /// A module for all protocols that takes no settings; say with [`Manifest::abilities`] what it
    /// is there for.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            protocols: Vec::new(),
            abilities: Abilities::DECIDES,
            settings_schema: r#"{"type":"object","additionalProperties":false}"#.into(),
        }
    }

    /// What it is there for.
    #[must_use]
    pub fn abilities(mut self, abilities: Abilities) -> Self {
        self.abilities = abilities;
        self
    }

    /// A protocol that it understands; none named = all.
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocols.push(protocol.into());
        self
    }

    /// JSON Schema of the settings.
    #[must_use]
    pub fn settings_schema(mut self, schema: impl Into<String>) -> Self {
        self.settings_schema = schema.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Actions, Labels, Object};

    #[test]
    fn names_cannot_be_taken() {
        let name = |path: &[&str]| {
            let path = path.iter().map(|part| (*part).to_owned()).collect();
            let (kind, actions, labels) = ("table".into(), Actions::READ, Labels::CLEAR);
            Object {
                kind,
                path,
                actions,
                labels,
            }
            .name()
        };
        assert_eq!(name(&["public", "patients"]), "public.patients");
        assert_eq!(name(&["billing"]), "billing");
        assert_eq!(name(&[]), "");
        assert_eq!(name(&["public.staff", "x"]), "\"public.staff\".x");
        assert_eq!(name(&["public", "staff.x"]), "public.\"staff.x\"");
        assert_eq!(name(&["", "a\"b"]), "\"\".\"a\"\"b\"");
    }
}
