//! What the client is told when Chaperone itself says no.
//!
//! A refusal is an ordinary ErrorResponse: an SQLSTATE, what was refused and why, what would be
//! allowed, and the id under which the log holds it. `docs/failures.md` lists the codes.

use bytes::BytesMut;
use uuid::Uuid;

use super::protocol::{self, backend};

/// SQLSTATEs that Chaperone uses (PostgreSQL documentation, appendix "Error Codes").
pub(crate) mod sqlstate {
    pub(crate) const PROTOCOL_VIOLATION: &str = "08P01";
    pub(crate) const CONNECTION_FAILURE: &str = "08006";
    pub(crate) const NOT_UNDERSTOOD: &str = "0A000";
    pub(crate) const INVALID_STATEMENT_NAME: &str = "26000";
    pub(crate) const INVALID_CURSOR_NAME: &str = "34000";
    pub(crate) const INVALID_AUTHORIZATION: &str = "28000";
    pub(crate) const INVALID_CATALOG_NAME: &str = "3D000";
    pub(crate) const DENIED: &str = "42501";
    pub(crate) const ABORTED: &str = "25P02";
    pub(crate) const LIMIT_EXCEEDED: &str = "53400";
    pub(crate) const TOO_LARGE: &str = "54000";
    pub(crate) const PENDING_APPROVAL: &str = "55000";
    pub(crate) const CANCELLED: &str = "57014";
    pub(crate) const SHUTDOWN: &str = "57P01";
    pub(crate) const LOG_UNAVAILABLE: &str = "58030";
    pub(crate) const INTERNAL: &str = "XX000";
}

/// The SQLSTATE of a policy's or the set's denial, by its reason's code.
pub(crate) fn denial_sqlstate(code: &str) -> &'static str {
    if code == chaperone_policy_host::denial::FACTS_INCOMPLETE {
        sqlstate::NOT_UNDERSTOOD
    } else {
        sqlstate::DENIED
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For programs.
    pub(crate) sqlstate: &'static str,
    /// For the log, in clear: a constant such as `outside-scope`.
    pub(crate) code: String,
    /// For people; may carry what a policy put in, so it is sealed in the log.
    pub(crate) message: String,
    /// What would be allowed.
    pub(crate) hint: Option<String>,
    /// The request under which the log holds it.
    pub(crate) request: Option<Uuid>,
}

impl Refusal {
    pub(crate) fn new(
        sqlstate: &'static str,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            sqlstate,
            code: code.into(),
            message: message.into(),
            hint: None,
            request: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn request(mut self, request: Uuid) -> Self {
        self.request = Some(request);
        self
    }

    /// Appends the ErrorResponse.
    pub(crate) fn write(&self, out: &mut BytesMut, severity: &str) {
        let detail = self.request.map(|id| format!("Recorded as request {id}."));
        let mut fields = vec![
            (b'S', severity),
            (b'V', severity),
            (b'C', self.sqlstate),
            (b'M', self.message.as_str()),
        ];
        fields.extend(detail.as_deref().map(|detail| (b'D', detail)));
        fields.extend(self.hint.as_deref().map(|hint| (b'H', hint)));
        protocol::report(out, backend::ERROR_RESPONSE, &fields);
    }
}
