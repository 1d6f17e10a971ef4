//! Saying no without changing what the backend would have done on an error of its own.
//!
//! Only an idle session is answered here. Where anything was sent since the last Sync, or a
//! transaction is open, a message that surely fails goes upstream in place of the refused one, and
//! its error is replaced: transaction state and skipping stay the backend's own.

use bytes::BytesMut;

use super::{Session, Skip};
use crate::{
    metrics,
    postgres::{
        protocol::{self, Named, frontend},
        queue::{Expected, Own},
        refusal::{Refusal, sqlstate},
    },
};

/// A statement name that no client uses and that never exists for long.
pub(super) const PROBE: &[u8] = b"_chaperone_probe";
/// A statement name that never exists.
const ABSENT: &[u8] = b"_chaperone_refused";

impl Session {
    /// Refuses the client's message: a simple Query (or FunctionCall), or one of the extended
    /// protocol.
    pub(super) fn refuse(&mut self, refusal: Refusal, simple: bool) {
        let mut failing = BytesMut::new();
        if simple {
            failing_query(&mut failing);
        } else {
            protocol::named(&mut failing, frontend::DESCRIBE, Named::Statement(ABSENT));
        }
        self.refuse_by(refusal, simple, &failing, false);
    }

    /// The same, by the given message. `genuine`: the message is the client's own text, and the
    /// error that it meets is the one to relay; it is sent upstream even by an idle session.
    pub(super) fn refuse_by(
        &mut self,
        refusal: Refusal,
        simple: bool,
        failing: &[u8],
        genuine: bool,
    ) {
        self.count_refusal(&refusal);
        if simple {
            // Any simple Query, also one that fails, takes the unnamed statement with it.
            self.statements.set(Vec::new(), None);
        }
        if self.is_quiet() && !genuine {
            refusal.write(self.sockets.to_client.buffer(), "ERROR");
            if simple {
                protocol::ready_for_query(self.sockets.to_client.buffer(), b'I');
            } else {
                self.skip = Skip::Local;
            }
            self.settle_output();
            return;
        }
        if simple && genuine {
            // The probe has a name of its own, so the unnamed statement is dropped separately.
            protocol::named(
                self.sockets.to_upstream.buffer(),
                frontend::CLOSE,
                Named::Statement(b""),
            );
            self.queue.push_back(Expected::Own(Own::Close));
            self.own.open += 1;
        }
        if genuine {
            // Whether the backend takes the text or not, the message behind it fails, so that what
            // came before it in the transaction does not last.
            let probe = Named::Statement(PROBE);
            protocol::named(self.sockets.to_upstream.buffer(), frontend::CLOSE, probe);
            self.queue.push_back(Expected::Own(Own::Close));
            self.own.open += 1;
        }
        self.sockets.to_upstream.buffer().extend_from_slice(failing);
        self.queue.push_back(Expected::Fails {
            refusal: Some(refusal),
            // A probe is a Parse, also where it stands in for a simple Query.
            simple: simple && !genuine,
            genuine,
            silent_ready: false,
        });
        if genuine {
            let absent = Named::Statement(ABSENT);
            protocol::named(
                self.sockets.to_upstream.buffer(),
                frontend::DESCRIBE,
                absent,
            );
            self.queue.push_back(Expected::Fails {
                refusal: None,
                simple: false,
                genuine: false,
                silent_ready: false,
            });
        }
        if simple && genuine {
            protocol::bare(self.sockets.to_upstream.buffer(), frontend::SYNC);
            self.queue.push_back(Expected::Sync);
        }
        if simple {
            self.end_batch();
        } else {
            self.unsynced = true;
            self.skip = Skip::Server;
            protocol::bare(self.sockets.to_upstream.buffer(), frontend::FLUSH);
        }
    }

    fn count_refusal(&mut self, refusal: &Refusal) {
        self.totals.denied += 1;
        self.counts.refused(match refusal.sqlstate {
            sqlstate::DENIED => metrics::Refusal::Policy,
            sqlstate::NOT_UNDERSTOOD => metrics::Refusal::Incomplete,
            sqlstate::LIMIT_EXCEEDED => metrics::Refusal::Limit,
            sqlstate::TOO_LARGE | "54001" => metrics::Refusal::TooLarge,
            sqlstate::PENDING_APPROVAL => metrics::Refusal::Approval,
            sqlstate::LOG_UNAVAILABLE => metrics::Refusal::Log,
            sqlstate::SHUTDOWN => metrics::Refusal::Draining,
            "42601" => metrics::Refusal::Unparsable,
            _ => metrics::Refusal::Other,
        });
    }

    /// The run at the head of the queue fails on our side while the backend is content.
    pub(super) fn fail_late(&mut self, refusal: &Refusal) {
        self.count_refusal(refusal);
        refusal.write(self.sockets.to_client.buffer(), "ERROR");
        self.suppress = true;
        if self.unsynced {
            // The batch is still open: make the backend fail in it, so that nothing of it lasts.
            protocol::named(
                self.sockets.to_upstream.buffer(),
                frontend::DESCRIBE,
                Named::Statement(ABSENT),
            );
            self.queue.push_back(Expected::Fails {
                refusal: None,
                simple: false,
                genuine: false,
                silent_ready: false,
            });
            self.skip = Skip::Server;
        } else {
            self.fail_transaction = true;
        }
    }

    /// Makes an open transaction fail behind a ReadyForQuery that the client has not seen yet.
    pub(super) fn fail_open_transaction(&mut self) {
        failing_query(self.sockets.to_upstream.buffer());
        self.queue.push_front(Expected::Fails {
            refusal: None,
            simple: true,
            genuine: false,
            silent_ready: false,
        });
    }
}

/// A simple Query that is a syntax error in every version.
fn failing_query(out: &mut BytesMut) {
    protocol::message(out, frontend::QUERY, |out| {
        protocol::cstr(out, b"chaperone refuses this statement");
    });
}

pub(super) fn no_such_statement(name: &str) -> Refusal {
    Refusal::new(
        sqlstate::INVALID_STATEMENT_NAME,
        "no-such-statement",
        if name.is_empty() {
            "unnamed prepared statement does not exist".to_owned()
        } else {
            format!("prepared statement \"{name}\" does not exist")
        },
    )
}

pub(super) fn no_such_portal(name: &str) -> Refusal {
    Refusal::new(
        sqlstate::INVALID_CURSOR_NAME,
        "no-such-portal",
        format!("portal \"{name}\" does not exist"),
    )
}

pub(super) fn no_such_cursor(name: &str) -> Refusal {
    Refusal::new(
        sqlstate::INVALID_CURSOR_NAME,
        "no-such-cursor",
        format!("cursor \"{name}\" does not exist"),
    )
}

pub(super) fn several_statements() -> Refusal {
    Refusal::new(
        "42601",
        "several-statements",
        "a prepared statement must be one statement",
    )
}

/// What is not known about a prepared statement whose names have come to mean something else.
pub(super) const OTHER_NAMES: &str =
    "what the prepared statement names is no longer what it was prepared for";

pub(super) fn other_names() -> Refusal {
    Refusal::new(sqlstate::NOT_UNDERSTOOD, "other-names", OTHER_NAMES).hint("prepare it again")
}

pub(super) fn late_names() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "late-names",
        "what the portal names may be another thing by now than when it was bound",
    )
    .hint("send the Execute of such a statement right behind its Bind")
}

pub(super) fn lapsed_approval() -> Refusal {
    Refusal::new(
        sqlstate::PENDING_APPROVAL,
        "approval-lapsed",
        "the approval of this statement has run out between its Bind and its Execute",
    )
    .hint("bind it again to ask anew")
}

pub(super) fn other_policies() -> Refusal {
    Refusal::new(
        sqlstate::DENIED,
        "policies-changed",
        "other policies are in force than when the portal was bound, and they rule differently",
    )
    .hint("bind it again")
}

pub(super) fn too_much_held(what: &str) -> Refusal {
    Refusal::new(
        sqlstate::TOO_LARGE,
        "too-much-held",
        format!("the {what} of this session take more memory than it may have"),
    )
    .hint("close some of them: Close in the protocol, DEALLOCATE or CLOSE in SQL")
}

/// EXECUTE and FETCH of which it is not known what they run.
pub(super) fn unclear_name(what: &str) -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "unclear-name",
        format!("EXECUTE and FETCH {what} are not understood"),
    )
    .hint("use the extended protocol, or send the statement plain")
}

pub(super) fn aborted() -> Refusal {
    Refusal::new(
        "25P02",
        "aborted-transaction",
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

pub(super) fn log_unavailable() -> Refusal {
    Refusal::new(
        sqlstate::LOG_UNAVAILABLE,
        "log-unavailable",
        "the audit log cannot be written; no statement runs until it can",
    )
    .hint("tell the operator of Chaperone; /readyz says more")
}

pub(super) fn draining() -> Refusal {
    Refusal::new(
        sqlstate::SHUTDOWN,
        "draining",
        "Chaperone is shutting down and takes no new statements",
    )
    .hint("connect again")
}
