//! The queue of expected replies: one entry for every message sent upstream that is answered,
//! tagged as the client's or Chaperone's own. Replies pop it; nothing is relayed without one.

use std::sync::Arc;

use super::{portal::Portal, refusal::Refusal, run::Run};

/// What the next reply of the backend answers.
pub(crate) enum Expected {
    /// A client's Parse: settles a statement name.
    Parse,
    /// A client's Bind: settles a portal name.
    Bind {
        portal: Arc<Portal>,
    },
    /// A client's Describe.
    DescribeStatement,
    DescribePortal(Option<Arc<Portal>>),
    /// Our own Describe of a client's portal, for types and origins of its columns.
    Inspect(Arc<Portal>),
    /// A client's Execute.
    Execute {
        portal: Arc<Portal>,
        run: Run,
    },
    /// A client's Close: settles a name.
    CloseStatement,
    ClosePortal,
    /// A client's Sync.
    Sync,
    /// A client's simple Query, with a run for each of its statements, in order.
    Query {
        runs: Vec<Run>,
        at: usize,
    },
    /// Marks where a client ended its COPY data; no reply belongs to it.
    CopyEnd,
    /// One of our own questions.
    Own(Own),
    /// A message that surely fails, in place of one that was refused: its error becomes the
    /// refusal, or nothing where the client has already been told.
    Fails {
        refusal: Option<Refusal>,
        /// A simple Query, which answers with ReadyForQuery as well.
        simple: bool,
        /// The server's own error is the better answer: it is a syntax error in the client's text.
        genuine: bool,
        /// The ReadyForQuery behind it is not the client's.
        silent_ready: bool,
    },
}

/// A step of a question that Chaperone asks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Parse,
    Bind,
    /// Rows belong to the query of this index.
    Execute(usize),
    Close,
    Sync,
}

impl Expected {
    /// For messages to the operator.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Expected::Parse => "Parse",
            Expected::Bind { .. } => "Bind",
            Expected::DescribeStatement | Expected::DescribePortal(_) => "Describe",
            Expected::Inspect(_) => "own Describe",
            Expected::Execute { .. } => "Execute",
            Expected::CloseStatement | Expected::ClosePortal => "Close",
            Expected::Sync => "Sync",
            Expected::Query { .. } => "Query",
            Expected::CopyEnd => "CopyDone",
            Expected::Own(_) => "own question",
            Expected::Fails { .. } => "refused message",
        }
    }

    /// Whether an error before this entry leaves it unanswered. A Sync always is answered; a
    /// simple Query is not when it stands behind an error in an unfinished batch.
    pub(crate) fn ends_batch(&self) -> bool {
        matches!(self, Expected::Sync | Expected::Own(Own::Sync))
    }

    /// The run that is being answered, if one is.
    pub(crate) fn run(&self) -> Option<&Run> {
        match self {
            Expected::Execute { run, .. } => Some(run),
            Expected::Query { runs, at } => runs.get(*at),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub(crate) fn run_mut(&mut self) -> Option<&mut Run> {
        match self {
            Expected::Execute { run, .. } => Some(run),
            Expected::Query { runs, at } => runs.get_mut(*at),
            _ => None,
        }
    }
}
