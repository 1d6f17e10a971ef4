//! What the settings grant, and whether it covers what is done.

use policy_sdk::prelude::*;
use serde::Deserialize;

use crate::words;

/// Kinds that a pattern without a kind of its own stands for: what lives in a schema and holds or
/// computes rows. Everything else (roles, servers, languages, ...) is named with its kind.
const PLAIN: [&str; 8] = [
    "table",
    "view",
    "materialized view",
    "foreign table",
    "sequence",
    "index",
    "function",
    "procedure",
];
/// The kind under which statements without an object are granted.
const STATEMENT: &str = "statement";

/// One entry of `grants`, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    groups: Vec<String>,
    #[serde(default)]
    purposes: Vec<String>,
    objects: Vec<String>,
    #[serde(default = "read")]
    actions: Vec<String>,
}

fn read() -> Vec<String> {
    vec!["read".into()]
}

/// One entry of `grants`.
pub(crate) struct Grant {
    groups: Vec<String>,
    pub(crate) purposes: Vec<String>,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) actions: Actions,
}

impl Grant {
    pub(crate) fn read((index, written): (usize, Written)) -> Result<Self, String> {
        let mut actions = Actions::empty();
        for name in &written.actions {
            actions |= Actions::from_name(&name.to_ascii_uppercase())
                .ok_or_else(|| format!("grants[{index}]: there is no action `{name}`"))?;
        }
        let patterns = written.objects.into_iter().map(Pattern);
        Ok(Self {
            groups: written.groups,
            purposes: written.purposes,
            patterns: patterns.collect(),
            actions,
        })
    }

    fn suits(&self, purpose: Option<&str>) -> bool {
        let named = |own| self.purposes.iter().any(|purpose| purpose == own);
        self.purposes.is_empty() || purpose.is_some_and(named)
    }
}

/// `public.*`, `role:billing`, `statement:SET`.
pub(crate) struct Pattern(pub(crate) String);

impl Pattern {
    fn covers(&self, target: &Target) -> bool {
        let (kind_fits, name) = match self.0.split_once(':') {
            Some((kind, name)) => (kind == target.kind, name),
            None => (PLAIN.contains(&target.kind.as_str()), self.0.as_str()),
        };
        kind_fits && glob(name, &target.name)
    }
}

/// What something is done to.
pub(crate) struct Target {
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Target {
    pub(crate) fn object(object: &Object) -> Self {
        Self {
            kind: object.kind.clone(),
            name: object.name(),
        }
    }

    pub(crate) fn statement(command: String) -> Self {
        Self {
            kind: STATEMENT.into(),
            name: command,
        }
    }

    pub(crate) fn is_statement(&self) -> bool {
        self.kind == STATEMENT
    }
}

/// The grants of one caller.
pub(crate) struct Held<'a> {
    grants: Vec<&'a Grant>,
    purpose: Option<String>,
}

impl<'a> Held<'a> {
    pub(crate) fn by(session: &Session<'_>, grants: &'a [Grant]) -> Self {
        let mine = |grant: &&Grant| grant.groups.iter().any(|group| session.has_group(group));
        Self {
            grants: grants.iter().filter(mine).collect(),
            purpose: session.purpose(),
        }
    }

    /// Whether all of `actions` is granted on `target`.
    pub(crate) fn check(
        &self,
        target: &Target,
        actions: Actions,
        operation: &Operation<'_>,
    ) -> Result<(), Reason> {
        let covers = |grant: &&&Grant| grant.patterns.iter().any(|it| it.covers(target));
        let (mut missing, mut for_a_purpose) = (actions, actions);
        let mut purposes = Vec::new();
        for grant in self.grants.iter().filter(covers) {
            for_a_purpose -= grant.actions;
            if grant.suits(self.purpose.as_deref()) {
                missing -= grant.actions;
            } else if grant.actions.intersects(actions) {
                purposes.extend(grant.purposes.iter().map(String::as_str));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let command = operation.command();
        if for_a_purpose.is_empty() {
            let own = self.purpose.as_deref();
            return Err(words::purpose(target, missing, &command, own, &purposes));
        }
        Err(words::scope(target, missing, &command, &self.grants))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_kind_is_for_what_has_rows() {
        let covers = |pattern: &str, kind: &str, name: &str| {
            let (kind, name) = (kind.to_owned(), name.to_owned());
            Pattern(pattern.to_owned()).covers(&Target { kind, name })
        };
        assert!(covers("*", "table", "public.a"));
        assert!(covers("pg_catalog.*", "function", "pg_catalog.now"));
        for kind in ["role", "server", "database", "statement", "program"] {
            assert!(!covers("*", kind, "x"), "{kind}");
            assert!(covers(&format!("{kind}:*"), kind, "x"), "{kind}");
            assert!(!covers(&format!("{kind}:*"), "table", "x"), "{kind}");
        }
    }
}
