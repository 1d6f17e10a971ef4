//! Prepared statements and portals, as far as Chaperone has to know them.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chaperone_sql::Kind;
use tokio::time::Instant;

use super::{
    decide::{Permit, Statement},
    mask::RowPlan,
    meaning,
    names::Weigh,
    protocol::ColumnDescription,
    refusal::Refusal,
    run::AsOf,
};

/// A prepared statement: its text, which is understood anew whenever something that its meaning
/// depends on may have changed.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) text: Bytes,
    /// The client fixed a parameter to a type that is not PostgreSQL's own. Taking in a value of a
    /// domain runs its checks, which may be anything.
    pub(crate) foreign_types: bool,
    /// Why nobody knows how the backend has read the text, where that is so.
    pub(crate) misread: Option<String>,
    /// What its names stood for when it was prepared; `None` where that could not be told.
    pub(crate) names: Option<Names>,
    /// The columns of its answer, once the backend has described them; formats do not count. The
    /// backend refuses to run it when they change, which does not hold for another statement of the
    /// same text.
    pub(crate) shape: OnceLock<Shape>,
}

/// Columns of an answer.
pub(crate) type Shape = Arc<[ColumnDescription]>;

impl Prepared {
    /// Whether its names stand for the same in the statement that its text is understood as now.
    pub(crate) fn means(&self, statement: &Statement) -> bool {
        let held = |names: Names| names.still_hold_in(statement);
        statement.opaque || self.names.is_some_and(held)
    }
}

/// What bookkeeping takes beside the texts, in bytes, about.
const ENTRY: usize = 512;

impl Weigh for Prepared {
    fn weight(&self) -> usize {
        ENTRY + self.text.len()
    }
}

impl Weigh for Portal {
    fn weight(&self) -> usize {
        ENTRY + size_of_val(self.formats.as_slice()) + self.permit.parameters.weight()
    }
}

/// What the names in a prepared statement stood for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// Of the catalog that was looked at.
    pub(crate) generation: u64,
    /// See [`names`](super::meaning::names).
    pub(crate) digest: u64,
}

impl Names {
    pub(crate) fn of(statement: &Statement) -> Self {
        Self {
            generation: statement.ground.generation,
            digest: meaning::names(statement),
        }
    }

    /// Whether they stand for the same in a statement that was understood later.
    pub(crate) fn still_hold_in(self, statement: &Statement) -> bool {
        self.generation == statement.ground.generation || self.digest == meaning::names(statement)
    }
}

/// A portal: a bound statement with the permit that it was bound under.
pub(crate) struct Portal {
    pub(crate) permit: Arc<Permit>,
    /// What it was bound from.
    pub(crate) of: Option<Arc<Prepared>>,
    /// Result formats of its Bind.
    pub(crate) formats: Vec<i16>,
    /// What leaves of each row, or why nothing does; empty until its columns are known.
    pub(crate) plan: OnceLock<Result<Arc<RowPlan>, Refusal>>,
    /// What all its executions have sent.
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// It outlives its transaction (DECLARE … WITH HOLD).
    pub(crate) held: bool,
    /// Of what the backend looks names up for when it is executed and not when it is bound: which
    /// of the session's acts its Bind was.
    bound: Option<u64>,
    /// When its Bind came; `None` for a cursor, which runs from its DECLARE on.
    decided: Option<Instant>,
    /// By what catalog it was decided; `None` for a cursor.
    pub(crate) as_of: Option<AsOf>,
    /// The catalog was looked at again since it began to answer.
    pub(crate) looked: AtomicBool,
    started: AtomicBool,
}

/// Policies and approvals are looked at again where a portal's execution begins later than this
/// behind its Bind.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Whether the backend looks up what a statement names when it is executed, and not when it is
/// planned: all but queries and changes of rows.
fn late_names(kind: &Kind) -> bool {
    !matches!(kind, Kind::Query | Kind::Modify { .. } | Kind::Empty)
        && !kind.is_transaction_control()
}

impl Portal {
    pub(crate) fn new(permit: Arc<Permit>, formats: Vec<i16>, held: bool) -> Self {
        Self {
            permit,
            of: None,
            formats,
            plan: OnceLock::new(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            held,
            bound: None,
            decided: None,
            as_of: None,
            looked: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }

    /// Of a Bind, which was the session's act number `act` and came at `received`.
    pub(crate) fn bound(self, of: Arc<Prepared>, kind: &Kind, act: u64, received: Instant) -> Self {
        Self {
            of: Some(of),
            decided: Some(received),
            bound: late_names(kind).then_some(act),
            ..self
        }
    }

    /// The same, decided by this catalog.
    pub(crate) fn decided_by(self, as_of: AsOf) -> Self {
        Self {
            as_of: Some(as_of),
            ..self
        }
    }

    /// Whether its permit is as good as new for an Execute that came at `received`, or its execution
    /// has begun already.
    pub(crate) fn decided_just_before(&self, received: Instant) -> bool {
        self.started.load(Ordering::Relaxed)
            || self
                .decided
                .is_none_or(|decided| received.duration_since(decided) < AT_ONCE)
    }

    /// Whether its names stand for what they stood for at its Bind: the Execute that is the
    /// session's act number `act` comes right behind that, or is not the first.
    pub(crate) fn may_execute(&self, act: u64) -> bool {
        let may =
            self.started.load(Ordering::Relaxed) || self.bound.is_none_or(|bound| bound + 1 == act);
        self.started.fetch_or(may, Ordering::Relaxed);
        may
    }

    pub(crate) fn count(&self, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
