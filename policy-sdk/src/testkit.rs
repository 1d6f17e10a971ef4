//! Native tests: a session in one line, an operation in one line, the policy's answer, and
//! assertions that say what was expected and what came. No wasm is involved.

mod answer;
mod catalog;
mod compose;
mod facts;
mod session;

use chaperone_contract::{Context, Operation};

pub use answer::Answer;
pub use catalog::Catalog;
pub use compose::compose;
pub use facts::{Table, TestOperation, operation};
pub use session::Session;

use crate::{Column, Policy};

/// A policy configured with settings as the proxy would hand them over, for example
/// `serde_json::json!({..})`.
///
/// # Panics
///
/// If the settings are not as the manifest's schema names them or the policy refuses them.
#[must_use]
#[expect(clippy::panic, reason = "a failing test")]
pub fn configured<P: Policy>(settings: &serde_json::Value) -> P {
    match try_configured(settings) {
        Ok(policy) => policy,
        Err(error) => panic!("the policy refuses these settings: {error}"),
    }
}

/// As [`configured`], for tests of settings that must be refused.
///
/// # Errors
///
/// What the policy or its settings type says.
pub fn try_configured<P: Policy>(settings: &serde_json::Value) -> Result<P, String> {
    P::configure(crate::settings::parse(&settings.to_string())?)
}

/// The policy's answer, with a context of no parameters, at time 0, outside of a transaction.
#[must_use]
pub fn evaluate<P: Policy>(policy: &P, session: &Session, operation: &TestOperation) -> Answer {
    evaluate_with(policy, session, operation, &Context::default())
}

/// The policy's answer in this context.
#[must_use]
pub fn evaluate_with<P: Policy>(
    policy: &P,
    session: &Session,
    operation: &Operation,
    context: &Context,
) -> Answer {
    let seen = crate::Operation::new(operation, context);
    let answer = policy.evaluate(&crate::Session::new(session), &seen);
    Answer::new(answer.unwrap_or_else(Into::into), operation)
}

/// One value through the policy's rewriter, in a batch with others; `None` is NULL.
///
/// # Panics
///
/// If the rewriter fails, or what it makes of the value depends on the rows around it.
#[must_use]
#[expect(clippy::panic, reason = "a failing test")]
pub fn rewrite<P: Policy>(policy: &P, tag: &str, value: &str) -> Option<String> {
    let batch = |values: &[Option<&str>]| {
        let rows = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let column = Column::from_values(tag, values.iter().copied());
        let columns = match policy.rewrite(rows, vec![column]) {
            Ok(columns) => columns,
            Err(error) => panic!("the rewriter failed: {error}"),
        };
        let [column] = columns.as_slice() else {
            panic!("the rewriter returned {} columns for one", columns.len());
        };
        let texts: Vec<_> = column.texts().map(|text| text.map(str::to_owned)).collect();
        assert_eq!(
            texts.len(),
            values.len(),
            "the rewriter changed the number of rows"
        );
        texts
    };
    let alone = batch(&[Some(value)]).pop().flatten();
    let among = batch(&[None, Some("x"), Some(value), None]);
    assert_eq!(
        among.get(2),
        Some(&alone),
        "a row must not depend on another"
    );
    assert_eq!(among.first(), Some(&None), "NULL stays NULL");
    alone
}
