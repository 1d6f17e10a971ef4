//! The contract's vocabulary as records have it: codes, names and digests instead of text.

use chaperone_audit_log::{
    Blinder, Code, Digest, Name,
    payload::{
        ActorName, BudgetLimit, LimitCodes, MaskCode, ObjectName, OutputMask, SessionStart,
        SessionStartSealed, Strength, VerdictCode,
    },
};
use chaperone_contract::{Actions, Limits, Object, Session, Transform, Verdict};

/// A verdict without its reason.
#[must_use]
pub fn verdict_code(verdict: &Verdict) -> VerdictCode {
    match verdict {
        Verdict::Abstain => VerdictCode::Abstain,
        Verdict::Allow => VerdictCode::Allow,
        Verdict::Deny(_) => VerdictCode::Deny,
        Verdict::RequireApproval(_) => VerdictCode::RequireApproval,
    }
}

/// A transform without what a guest wrote into it.
#[must_use]
pub fn mask_code(transform: &Transform) -> MaskCode {
    match transform {
        Transform::Reveal => MaskCode::Reveal,
        Transform::KeepLast(count) => MaskCode::KeepLast(*count),
        Transform::Year => MaskCode::Year,
        Transform::Zip3 => MaskCode::Zip3,
        Transform::KeyedHash => MaskCode::KeyedHash,
        Transform::Custom(_) => MaskCode::Custom,
        Transform::Fixed(_) => MaskCode::Fixed,
        Transform::Null => MaskCode::Null,
    }
}

/// What happens to each output that does not leave as it is, in order.
pub fn applied_masks<'a>(transforms: impl IntoIterator<Item = &'a Transform>) -> Vec<OutputMask> {
    (0u32..)
        .zip(transforms)
        .filter(|(_, transform)| **transform != Transform::Reveal)
        .map(|(output, transform)| OutputMask {
            output,
            mask: mask_code(transform),
        })
        .collect()
}

/// Limits, with the budgets' names blinded: a guest chose them.
#[must_use]
pub fn limit_codes(limits: &Limits, blinder: &Blinder) -> LimitCodes {
    LimitCodes {
        max_rows: limits.max_rows,
        max_bytes: limits.max_bytes,
        timeout_ms: limits.timeout_ms,
        budgets: limits
            .budgets
            .iter()
            .map(|budget| BudgetLimit {
                name: blinder.of(budget.name.as_bytes()),
                max: budget.max,
                window_seconds: budget.window_seconds,
            })
            .collect(),
    }
}

/// `read`, `update`, …
#[must_use]
pub fn action_codes(actions: Actions) -> Vec<Code> {
    actions
        .iter_names()
        .map(|(name, _)| Code::from_words(name))
        .collect()
}

/// Objects by their names. Only for objects that the catalog knows.
pub fn object_names<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Vec<ObjectName> {
    objects
        .into_iter()
        .map(|object| ObjectName {
            kind: Code::from_words(&object.kind),
            path: object.path.iter().map(|part| Name::new(part)).collect(),
            actions: action_codes(object.actions),
        })
        .collect()
}

/// A SQLSTATE as a code, lower case.
#[must_use]
pub fn sqlstate(state: &str) -> Code {
    Code::or_unprintable(&state.to_ascii_lowercase())
}

/// What a session's first record says. `token` is the digest of the token, which has too many
/// possible values to be guessed.
#[must_use]
pub fn session_start(
    session: &Session,
    token: Digest,
    strength: Strength,
    scope: Vec<Name>,
    expires_at: Option<u64>,
) -> (SessionStart, SessionStartSealed) {
    let clear = SessionStart {
        subject: Name::new(&session.subject),
        issuer: Name::new(&session.issuer),
        actors: session
            .actors
            .iter()
            .map(|actor| ActorName {
                subject: Name::new(&actor.subject),
                issuer: Name::new(&actor.issuer),
            })
            .collect(),
        groups: session
            .groups
            .iter()
            .map(|group| Name::new(group))
            .collect(),
        purpose: session.purpose.as_deref().map(Name::new),
        run: session.run.as_deref().map(Name::new),
        token,
        strength,
        target: Name::new(&session.target),
        principal: Name::new(&session.principal),
        client_address: Name::new(&session.client_address),
        scope,
        authenticated_at: session.authenticated_at,
        expires_at,
    };
    let sealed = SessionStartSealed {
        claims: serde_json::Value::Object(session.claims.clone()),
        parameters: Vec::new(),
    };
    (clear, sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_wrote_is_left_out() {
        let masks = applied_masks(&[
            Transform::Reveal,
            Transform::Custom("CANARY".into()),
            Transform::Fixed("CANARY".into()),
            Transform::KeepLast(4),
        ]);
        assert_eq!(masks.first().map(|mask| mask.output), Some(1));
        let json = serde_json::to_string(&masks).unwrap();
        assert!(!json.contains("CANARY"), "{json}");
        assert!(json.contains("{\"keep-last\":4}"), "{json}");
    }

    #[test]
    fn codes_of_actions_and_states() {
        let codes = action_codes(Actions::READ | Actions::DEFINE);
        assert_eq!(
            codes.iter().map(Code::as_str).collect::<Vec<_>>(),
            ["read", "define"]
        );
        assert_eq!(sqlstate("57P01").as_str(), "57p01");
        assert_eq!(sqlstate("what ever").as_str(), "unprintable");
    }
}
