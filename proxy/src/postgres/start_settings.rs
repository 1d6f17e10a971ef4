//! Settings that a client asks for as it starts.
//!
//! They go to the backend verbatim, since a SET in their place would change what RESET goes back
//! to. So they are decided before the backend is asked for a session, each as its SET would be:
//! harmless ones by configuration, a role never, all others by policies.

use std::sync::Arc;

use chaperone_contract::{Context, Session as Caller, Verdict};
use chaperone_policy_host::PolicySet;
use chaperone_sql::{Catalog, SessionView, analyze};

use super::{
    decide::{Decider, Ground, Statement, decider, unix_seconds},
    refusal::{Refusal, sqlstate},
    shared::Backend,
    startup::Parameters,
};

/// What has to be decided before a session starts: a statement for each setting that is not
/// harmless.
pub(crate) fn statements(
    parameters: &Parameters,
    backend: &Backend,
    harmless: &[String],
) -> Vec<Arc<Statement>> {
    let ground = Ground {
        catalog: Arc::default(),
        view: Arc::default(),
        labelling: Arc::clone(&backend.labelling),
        generation: 0,
    };
    let flags = "the start-up parameter \"options\" holds more than -c name=value";
    let Some(settings) = parameters.settings() else {
        let options = parameters.get("options").unwrap_or_default();
        let statement = Statement::opaque("START", options, flags.to_owned(), ground);
        return vec![Arc::new(statement)];
    };
    settings
        .iter()
        .map(|(name, value)| statement(name, value, backend, ground.clone()))
        .filter(|statement| !matches!(decider(statement, harmless), Decider::Host(_)))
        .map(Arc::new)
        .collect()
}

fn statement(name: &str, value: &str, backend: &Backend, ground: Ground) -> Statement {
    let text = format!("SET {} = {}", identifier(name), literal(value));
    let (catalog, view) = (Catalog::default(), SessionView::default());
    let understood = analyze(&text, &catalog, &view, &backend.labelling, &backend.options);
    match understood.map(|mut all| (all.pop(), all.is_empty())) {
        Ok((Some(facts), true)) => Statement::new(facts, ground),
        _ => {
            let gap = "a setting at start-up is not understood";
            Statement::opaque("SET", text.as_bytes(), gap.to_owned(), ground)
        }
    }
}

/// A setting of an extension has a name of two parts.
fn identifier(name: &str) -> String {
    let parts = name.split('.');
    let quoted = parts.map(|part| format!("\"{}\"", part.replace('"', "\"\"")));
    quoted.collect::<Vec<_>>().join(".")
}

fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// Whether the session may start with it.
pub(crate) fn check(
    statement: &Statement,
    harmless: &[String],
    set: &PolicySet,
    caller: &Arc<Caller>,
) -> Result<(), Refusal> {
    let reason = match decider(statement, harmless) {
        Decider::Host(_) => return Ok(()),
        Decider::Refused(refusal) => return Err(refusal),
        Decider::Named | Decider::Policies => {
            let context = Context {
                received_at: unix_seconds(),
                ..Context::default()
            };
            match set.decide(caller, &statement.operation, &context).verdict {
                Verdict::Allow => return Ok(()),
                Verdict::Deny(reason) => reason.message,
                // A start-up does not wait for people.
                Verdict::RequireApproval(approval) => approval.reason.message,
                Verdict::Abstain => "no policy allows it".to_owned(),
            }
        }
    };
    let what = match &statement.kind {
        chaperone_sql::Kind::Set { name, .. } => format!("the setting \"{name}\""),
        _ => "the start-up parameter \"options\"".to_owned(),
    };
    Err(Refusal::new(
        sqlstate::DENIED,
        "setting-not-allowed",
        format!("{what} may not be set at start-up: {reason}"),
    )
    .hint("leave it out; the operator can list a harmless one under [session] settings"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(identifier("app.tenant"), r#""app"."tenant""#);
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal("it's \\"), r"'it''s \'");
    }
}
