//! What went wrong when a module was called.

use chaperone_contract::Reason;
use wasmtime::Trap;

use crate::limiter::Limiter;
use crate::wasi::Called;

/// Why a module gave no usable answer. The statement is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureCode {
    /// It ran past its deadline.
    Timeout,
    /// It asked for more memory than it may have.
    Memory,
    /// It recursed too deeply.
    Stack,
    /// Any other trap: `unreachable`, a panic, an access out of bounds, a getter called wrongly.
    Trap,
    /// It handed over more than the host is willing to copy.
    TooLarge,
    /// It answered `err`.
    Error,
    /// Its answer makes no sense: a mask for an output that does not exist, a wrong count of rows.
    BadAnswer,
    /// It did what its manifest does not declare.
    Undeclared,
    /// All instance slots are in use.
    Overloaded,
}

impl FailureCode {
    /// The code for clients and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FailureCode::Timeout => "policy-timeout",
            FailureCode::Memory => "policy-memory",
            FailureCode::Stack => "policy-stack",
            FailureCode::Trap => "policy-trap",
            FailureCode::TooLarge => "policy-too-large",
            FailureCode::Error => "policy-error",
            FailureCode::BadAnswer => "policy-bad-answer",
            FailureCode::Undeclared => "policy-undeclared",
            FailureCode::Overloaded => "policy-overloaded",
        }
    }
}

/// A module's failure. `message` is the host's own and clear; `reason` is the module's and may hold
/// anything, so it is sealed wherever it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Failure {
    /// What kind of failure.
    pub code: FailureCode,
    /// What happened, in words of the host, without any data.
    pub message: String,
    /// What the module itself said, for [`FailureCode::Error`].
    pub reason: Option<Reason>,
}

impl Failure {
    pub(crate) fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            reason: None,
        }
    }

    /// Sorts a wasmtime error into a code. Its text is dropped: it may quote the guest.
    pub(crate) fn from_error(error: &wasmtime::Error, limiter: &Limiter) -> Self {
        let trap = error.downcast_ref::<Trap>().copied();
        let copied_too_much = || {
            error
                .root_cause()
                .to_string()
                .contains("fuel allocated for hostcalls has been exhausted")
        };
        match trap {
            Some(Trap::Interrupt) => {
                Failure::new(FailureCode::Timeout, "it ran longer than its deadline")
            }
            Some(Trap::StackOverflow) => Failure::new(FailureCode::Stack, "it recursed too deeply"),
            _ if limiter.refused() => Failure::new(
                FailureCode::Memory,
                "it asked for more memory than its limit",
            ),
            _ if error
                .downcast_ref::<wasmtime::PoolConcurrencyLimitError>()
                .is_some() =>
            {
                Failure::new(FailureCode::Overloaded, "all policy instances are in use")
            }
            _ if copied_too_much() => Failure::new(
                FailureCode::TooLarge,
                "it handed over more data than the host copies",
            ),
            _ if let Some(called) = error.downcast_ref::<Called>() => {
                Failure::new(FailureCode::Trap, called.to_string())
            }
            Some(trap) => Failure::new(FailureCode::Trap, format!("it trapped: {trap}")),
            None => Failure::new(
                FailureCode::Trap,
                "it was stopped: a value that does not fit the contract crossed its border",
            ),
        }
    }
}
