//! Figures for Prometheus. Labels come from closed sets only: no text, name or subject.
//!
//! Sessions count in a [`SessionCounts`] of their own and add it up now and then, so that a
//! statement touches no shared memory.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// What was said about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the names are the labels")]
pub enum Verdict {
    Allowed,
    Denied,
    Held,
}

/// Why a statement was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the names are the labels")]
pub enum Refusal {
    Policy,
    PolicyFailed,
    NoPolicies,
    Approval,
    Incomplete,
    Unparsable,
    TooLarge,
    Limit,
    Log,
    Draining,
    Other,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the names are the labels")]
pub enum SessionEnd {
    Closed,
    LoginDenied,
    IdentityEnded,
    Idle,
    TooLong,
    Backend,
    Protocol,
    Drained,
    Other,
}

/// Whether something went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "the names are the labels")]
pub enum Success {
    Ok,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVerdict {
    verdict: Verdict,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRefusal {
    reason: Refusal,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEnd {
    outcome: SessionEnd,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySuccess {
    result: Success,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

/// The audit log's own figures, read when somebody scrapes.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFigures {
    /// Records that wait for the disk.
    pub queued: u64,
    /// Records on disk.
    pub records: u64,
    /// Syncs.
    pub syncs: u64,
    /// Whether it has failed.
    pub failed: bool,
}

/// All figures of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions_open: Gauge,
    sessions: Family<ByEnd, Counter>,
    statements: Family<ByVerdict, Counter>,
    refused: Family<ByRefusal, Counter>,
    rows: Counter,
    bytes: Counter,
    masks: Counter,
    approvals: Family<ByState, Counter>,
    approvals_open: Gauge,
    reloads: Family<BySuccess, Counter>,
    catalog: Counter,
    statement_seconds: Histogram,
    log_queued: Gauge,
    log_records: Gauge,
    log_syncs: Gauge,
    log_failed: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        // 100 µs to 26 s.
        let times = (0..10).map(|n| 1e-4 * 4f64.powi(n));
        let mut metrics = Self {
            registry: Registry::with_prefix("chaperone"),
            sessions_open: Gauge::default(),
            sessions: Family::default(),
            statements: Family::default(),
            refused: Family::default(),
            rows: Counter::default(),
            bytes: Counter::default(),
            masks: Counter::default(),
            approvals: Family::default(),
            approvals_open: Gauge::default(),
            reloads: Family::default(),
            catalog: Counter::default(),
            statement_seconds: Histogram::new(times),
            log_queued: Gauge::default(),
            log_records: Gauge::default(),
            log_syncs: Gauge::default(),
            log_failed: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("sessions_open", "Open sessions", self.sessions_open.clone());
        r.register("sessions", "Ended sessions", self.sessions.clone());
        r.register(
            "statements",
            "Statements by verdict",
            self.statements.clone(),
        );
        r.register("refused", "Refused statements", self.refused.clone());
        r.register("rows_sent", "Rows sent to clients", self.rows.clone());
        r.register("bytes_sent", "Bytes sent to clients", self.bytes.clone());
        r.register("masked_columns", "Columns masked", self.masks.clone());
        r.register("approvals", "Steps of approvals", self.approvals.clone());
        r.register(
            "approvals_open",
            "Requests that wait or are unused",
            self.approvals_open.clone(),
        );
        r.register("policy_reloads", "Policy reloads", self.reloads.clone());
        r.register(
            "catalog_refreshes",
            "Catalog refreshes",
            self.catalog.clone(),
        );
        r.register(
            "statement_seconds",
            "From the statement to its end",
            self.statement_seconds.clone(),
        );
        r.register(
            "audit_queued",
            "Records that wait for the disk",
            self.log_queued.clone(),
        );
        r.register("audit_records", "Records on disk", self.log_records.clone());
        r.register("audit_syncs", "Syncs of the log", self.log_syncs.clone());
        r.register(
            "audit_failed",
            "1 if the log failed",
            self.log_failed.clone(),
        );
    }

    /// Counts a session from now until the guard is dropped.
    #[must_use]
    pub fn session(self: &Arc<Self>) -> SessionCounts {
        self.sessions_open.inc();
        SessionCounts {
            metrics: Arc::clone(self),
            end: SessionEnd::Other,
            allowed: 0,
            rows: 0,
            bytes: 0,
            masks: 0,
        }
    }

    /// A step of an approval.
    pub fn approval(&self, state: crate::approval::State) {
        let state = state.as_str();
        self.approvals.get_or_create(&ByState { state }).inc();
    }

    /// A policy set was loaded, or could not be.
    pub fn reload(&self, result: Success) {
        self.reloads.get_or_create(&BySuccess { result }).inc();
    }

    /// A session read the catalog again.
    pub fn catalog_refreshed(&self) {
        self.catalog.inc();
    }

    /// A login failed before there was a session.
    pub fn login_denied(&self) {
        let outcome = SessionEnd::LoginDenied;
        self.sessions.get_or_create(&ByEnd { outcome }).inc();
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn encode(&self, log: LogFigures, approvals_open: usize) -> String {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.log_queued.set(number(log.queued));
        self.log_records.set(number(log.records));
        self.log_syncs.set(number(log.syncs));
        self.log_failed.set(i64::from(log.failed));
        self.approvals_open.set(number(approvals_open as u64));
        let mut out = String::new();
        // Writing into a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// One session's counts. Flushed when dropped; call [`SessionCounts::flush`] now and then.
#[derive(Debug)]
pub struct SessionCounts {
    metrics: Arc<Metrics>,
    /// How the session ended; set it before dropping.
    pub end: SessionEnd,
    /// Statements let through.
    pub allowed: u64,
    /// Rows that left.
    pub rows: u64,
    /// Bytes that left.
    pub bytes: u64,
    /// Columns with a mask.
    pub masks: u64,
}

impl SessionCounts {
    /// A refused statement. Rare, so it is shared at once.
    pub fn refused(&self, reason: Refusal) {
        let metrics = &self.metrics;
        let verdict = Verdict::Denied;
        metrics
            .statements
            .get_or_create(&ByVerdict { verdict })
            .inc();
        metrics.refused.get_or_create(&ByRefusal { reason }).inc();
    }

    /// A held statement.
    pub fn held(&self) {
        let verdict = Verdict::Held;
        self.metrics
            .statements
            .get_or_create(&ByVerdict { verdict })
            .inc();
    }

    /// How long a statement took. For a sample of statements: it is shared at once.
    pub fn took(&self, seconds: f64) {
        self.metrics.statement_seconds.observe(seconds);
    }

    /// Adds up what was counted.
    pub fn flush(&mut self) {
        let metrics = &self.metrics;
        let allowed = std::mem::take(&mut self.allowed);
        if allowed > 0 {
            let verdict = Verdict::Allowed;
            let counter = metrics
                .statements
                .get_or_create_owned(&ByVerdict { verdict });
            counter.inc_by(allowed);
        }
        metrics.rows.inc_by(std::mem::take(&mut self.rows));
        metrics.bytes.inc_by(std::mem::take(&mut self.bytes));
        metrics.masks.inc_by(std::mem::take(&mut self.masks));
    }
}

impl Drop for SessionCounts {
    fn drop(&mut self) {
        self.flush();
        self.metrics.sessions_open.dec();
        let outcome = self.end;
        self.metrics
            .sessions
            .get_or_create(&ByEnd { outcome })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_adds_up_when_it_ends() {
        let metrics = Arc::new(Metrics::new());
        let mut counts = metrics.session();
        counts.allowed = 3;
        counts.rows = 7;
        counts.refused(Refusal::Limit);
        let text = metrics.encode(LogFigures::default(), 2);
        assert!(text.contains("chaperone_sessions_open 1"), "{text}");
        assert!(text.contains("chaperone_approvals_open 2"), "{text}");
        assert!(text.contains("chaperone_rows_sent_total 0"), "{text}");
        counts.end = SessionEnd::Closed;
        drop(counts);
        let text = metrics.encode(LogFigures::default(), 0);
        assert!(text.contains("chaperone_sessions_open 0"), "{text}");
        assert!(text.contains("chaperone_rows_sent_total 7"), "{text}");
        assert!(
            text.contains("statements_total{verdict=\"Allowed\"} 3"),
            "{text}"
        );
        assert!(text.contains("refused_total{reason=\"Limit\"} 1"), "{text}");
        assert!(text.contains("outcome=\"Closed\"} 1"), "{text}");
    }
}
