//! Refusals in words that do not need a database administrator.

use policy_sdk::prelude::*;

use crate::grant::{Grant, Target};

/// How many patterns a hint lists.
const LISTED: usize = 8;

const VERBS: [(Actions, &str); 9] = [
    (Actions::READ, "read"),
    (Actions::CREATE, "add to"),
    (Actions::UPDATE, "change what is in"),
    (Actions::DELETE, "delete from"),
    (Actions::DEFINE, "create, alter or drop"),
    (Actions::GRANT, "change who has rights on"),
    (Actions::EXECUTE, "run"),
    (Actions::CONTROL, "lock or maintain"),
    (Actions::OTHER, "use"),
];

/// Granted for other purposes than the caller's.
pub(crate) fn purpose(
    target: &Target,
    missing: Actions,
    command: &str,
    own: Option<&str>,
    allowed: &[&str],
) -> Reason {
    let has = match own {
        None => "this session has none".to_owned(),
        Some(own) => format!("this session's is {own}"),
    };
    let what = what(target, missing, command);
    deny(
        "purpose-required",
        format!("You may {what} for certain purposes only, and {has}."),
    )
    .hint(format!(
        "Sign in with the purpose {}.",
        listed(allowed, " or ")
    ))
}

/// Not granted at all.
pub(crate) fn scope(target: &Target, missing: Actions, command: &str, grants: &[&Grant]) -> Reason {
    let what = what(target, missing, command);
    let reason = deny(
        "outside-scope",
        format!("This is outside your scope: you may not {what}."),
    );
    let of_use = |grant: &&&Grant| grant.actions.intersects(missing);
    let patterns = grants.iter().filter(of_use).flat_map(|it| &it.patterns);
    let patterns: Vec<&str> = patterns.map(|pattern| pattern.0.as_str()).collect();
    let granted = listed(&patterns, ", ");
    let verb = verb(missing);
    reason.hint(match (grants, patterns.as_slice()) {
        ([], _) => "None of your groups has access to anything here.".to_owned(),
        (_, []) => format!("Nothing here is yours to {verb}. Ask whoever runs Chaperone."),
        _ if target.kind == "table" && !target.name.contains('.') => format!(
            "Is the name right, and does it need its schema in front? Yours to {verb}: {granted}."
        ),
        _ => format!("Yours to {verb}: {granted}."),
    })
}

/// `delete from the table public.patients (DELETE)`.
fn what(target: &Target, missing: Actions, command: &str) -> String {
    let Target { kind, name } = target;
    if target.is_statement() {
        return format!("run {command}");
    }
    let verb = verb(missing);
    let thing = match name.as_str() {
        "" if kind.ends_with('s') => kind.clone(),
        "" if kind.starts_with(['a', 'e', 'i', 'o']) => format!("an {kind}"),
        "" => format!("a {kind}"),
        name => format!("the {kind} {name}"),
    };
    format!("{verb} {thing} ({command})")
}

fn verb(actions: Actions) -> String {
    let done = VERBS.iter().filter(|(action, _)| actions.contains(*action));
    let verbs: Vec<&str> = done.map(|(_, verb)| *verb).collect();
    verbs.join(", ")
}

/// Without repetitions, and not all of them.
fn listed(all: &[&str], between: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let mut text = names.join(between);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}
