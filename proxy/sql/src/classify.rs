//! What kind of statement each is, from the grammar alone.

use std::ops::Range;

use pg_raw_parse::raw::{DiscardMode, TransactionStmtKind, VariableSetKind};
use pg_raw_parse::{ConstValue, Node, nodes};

use crate::error::ParseError;
use crate::guard::{self, Limits};
use crate::tags;

/// Where COPY reads from or writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyTarget {
    /// The client.
    Client,
    /// A file on the server.
    File,
    /// A program on the server.
    Program,
}

/// What a statement is to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SELECT, VALUES, TABLE, without INTO.
    Query,
    /// INSERT, UPDATE, DELETE, MERGE.
    Modify {
        /// Whether rows come back.
        returning: bool,
    },
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK, ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT.
    Savepoint {
        /// Its name.
        name: String,
    },
    /// RELEASE SAVEPOINT.
    Release {
        /// Its name.
        name: String,
    },
    /// ROLLBACK TO SAVEPOINT.
    RollbackTo {
        /// Its name.
        name: String,
    },
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    PrepareTransaction {
        /// Which of the three, as PostgreSQL's command tag.
        command: &'static str,
    },
    /// SET.
    Set {
        /// The setting, in lower case; `transaction_...` for SET TRANSACTION.
        name: String,
        /// SET LOCAL.
        local: bool,
        /// The value, parts joined with `, `; `None` for DEFAULT and FROM CURRENT.
        value: Option<String>,
    },
    /// RESET; without a name RESET ALL.
    Reset {
        /// The setting, in lower case.
        name: Option<String>,
    },
    /// SHOW.
    Show {
        /// The setting, in lower case.
        name: String,
    },
    /// COPY.
    Copy {
        /// Into the database.
        from: bool,
        /// The other end.
        target: CopyTarget,
        /// Of a query's result, not of a relation.
        query: bool,
    },
    /// PREPARE.
    Prepare {
        /// The statement's name.
        name: String,
    },
    /// EXECUTE.
    Execute {
        /// The arguments as text, NULL as none; `None` where one is more than a constant.
        arguments: Option<Vec<Option<String>>>,
        /// The statement's name.
        name: String,
    },
    /// DEALLOCATE; without a name ALL.
    Deallocate {
        /// The statement's name.
        name: Option<String>,
    },
    /// DECLARE CURSOR.
    Declare {
        /// Its name.
        cursor: String,
        /// WITH HOLD.
        hold: bool,
    },
    /// FETCH and MOVE.
    Fetch {
        /// The cursor's name.
        cursor: String,
        /// MOVE: no rows come back.
        moves: bool,
    },
    /// CLOSE; without a name ALL.
    Close {
        /// The cursor's name.
        cursor: Option<String>,
    },
    /// EXPLAIN.
    Explain {
        /// ANALYZE: it runs.
        analyze: bool,
    },
    /// LISTEN.
    Listen {
        /// The channel.
        channel: String,
    },
    /// UNLISTEN; without a name all.
    Unlisten {
        /// The channel.
        channel: Option<String>,
    },
    /// NOTIFY.
    Notify {
        /// The channel.
        channel: String,
    },
    /// DISCARD.
    Discard {
        /// ALL.
        all: bool,
    },
    /// LOCK TABLE.
    Lock,
    /// CREATE, ALTER, DROP, COMMENT, SELECT INTO, REFRESH, TRUNCATE and their like.
    Definition,
    /// GRANT, REVOKE, ALTER DEFAULT PRIVILEGES.
    Grant,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX, CHECKPOINT.
    Maintenance,
    /// CALL.
    Call,
    /// DO.
    Do,
    /// LOAD.
    Load,
    /// SET CONSTRAINTS.
    Constraints,
    /// Nothing between two semicolons, or an empty text.
    Empty,
    /// Anything else.
    Other,
}

impl Kind {
    /// Whether it only begins, ends or divides a transaction.
    #[must_use]
    pub fn is_transaction_control(&self) -> bool {
        matches!(
            self,
            Kind::Begin
                | Kind::Commit { .. }
                | Kind::Rollback { .. }
                | Kind::Savepoint { .. }
                | Kind::Release { .. }
                | Kind::RollbackTo { .. }
        )
    }
}

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Bytes of the text that it takes.
    pub span: Range<usize>,
    /// What it is.
    pub kind: Kind,
    /// PostgreSQL's command tag for it.
    pub command: &'static str,
}

/// Tells the statements of a text apart, and what kind each is. An empty text is one
/// [`Kind::Empty`].
///
/// # Errors
/// When the text is not in PostgreSQL's grammar or beyond `limits`.
pub fn classify(text: &str, limits: &Limits) -> Result<Vec<Classified>, ParseError> {
    guard::contained(|| {
        let tree = guard::parse(text, limits)?;
        let mut all: Vec<Classified> = tree
            .iter()
            .map(|raw| Classified {
                span: span(raw, text),
                kind: kind(raw.stmt()),
                command: tags::tag(raw.stmt()),
            })
            .collect();
        if all.is_empty() {
            all.push(Classified {
                span: 0..text.len(),
                kind: Kind::Empty,
                command: "",
            });
        }
        Ok(all)
    })
}

/// Bytes that a statement takes, without white space before it.
pub(crate) fn span(raw: &nodes::RawStmt, text: &str) -> Range<usize> {
    let start = usize::try_from(raw.stmt_location)
        .unwrap_or(0)
        .min(text.len());
    let length = usize::try_from(raw.stmt_len).unwrap_or(0);
    let end = if length == 0 {
        text.len()
    } else {
        (start + length).min(text.len())
    };
    start..end.max(start)
}

fn owned(name: Option<&str>) -> String {
    name.unwrap_or_default().to_owned()
}

/// The kind of a statement.
pub(crate) fn kind(node: Node<'_>) -> Kind {
    match node {
        Node::SelectStmt(select) => {
            if has_into(select) {
                Kind::Definition
            } else {
                Kind::Query
            }
        }
        Node::InsertStmt(insert) => Kind::Modify {
            returning: insert.returning_clause().is_some(),
        },
        Node::UpdateStmt(update) => Kind::Modify {
            returning: update.returning_clause().is_some(),
        },
        Node::DeleteStmt(delete) => Kind::Modify {
            returning: delete.returning_clause().is_some(),
        },
        Node::MergeStmt(merge) => Kind::Modify {
            returning: merge.returning_clause().is_some(),
        },
        Node::TransactionStmt(transaction) => transaction_kind(transaction),
        Node::VariableSetStmt(set) => set_kind(set),
        Node::VariableShowStmt(show) => Kind::Show {
            name: owned(show.name()).to_ascii_lowercase(),
        },
        Node::CopyStmt(copy) => Kind::Copy {
            from: copy.is_from,
            target: if copy.is_program {
                CopyTarget::Program
            } else if copy.filename().is_some() {
                CopyTarget::File
            } else {
                CopyTarget::Client
            },
            query: copy.relation().is_none(),
        },
        Node::PrepareStmt(prepare) => Kind::Prepare {
            name: owned(prepare.name()),
        },
        Node::ExecuteStmt(execute) => Kind::Execute {
            arguments: execute.params().iter().map(constant).collect(),
            name: owned(execute.name()),
        },
        Node::DeallocateStmt(deallocate) => Kind::Deallocate {
            name: deallocate.name().map(str::to_owned),
        },
        Node::DeclareCursorStmt(declare) => Kind::Declare {
            cursor: owned(declare.portalname()),
            // CURSOR_OPT_HOLD
            hold: declare.options & 0x20 != 0,
        },
        Node::FetchStmt(fetch) => Kind::Fetch {
            cursor: owned(fetch.portalname()),
            moves: fetch.ismove,
        },
        Node::ClosePortalStmt(close) => Kind::Close {
            cursor: close.portalname().map(str::to_owned),
        },
        Node::ExplainStmt(explain) => Kind::Explain {
            analyze: explain.options().iter().any(|option| {
                option
                    .defname()
                    .is_some_and(|name| name.eq_ignore_ascii_case("analyze"))
                    && !is_off(option.arg())
            }),
        },
        Node::ListenStmt(listen) => Kind::Listen {
            channel: owned(listen.conditionname()),
        },
        Node::UnlistenStmt(unlisten) => Kind::Unlisten {
            channel: unlisten.conditionname().map(str::to_owned),
        },
        Node::NotifyStmt(notify) => Kind::Notify {
            channel: owned(notify.conditionname()),
        },
        Node::DiscardStmt(discard) => Kind::Discard {
            all: discard.target == DiscardMode::DISCARD_ALL,
        },
        Node::LockStmt(_) => Kind::Lock,
        Node::CallStmt(_) => Kind::Call,
        Node::DoStmt(_) => Kind::Do,
        Node::LoadStmt(_) => Kind::Load,
        Node::ConstraintsSetStmt(_) => Kind::Constraints,
        Node::GrantStmt(_) | Node::GrantRoleStmt(_) | Node::AlterDefaultPrivilegesStmt(_) => {
            Kind::Grant
        }
        Node::VacuumStmt(_)
        | Node::ClusterStmt(_)
        | Node::ReindexStmt(_)
        | Node::CheckPointStmt(_) => Kind::Maintenance,
        // The one statement that the library has no node for: CREATE FOREIGN TABLE.
        Node::Invalid(_) => Kind::Definition,
        Node::None => Kind::Empty,
        other => {
            if tags::tag(other).is_empty() {
                Kind::Other
            } else {
                Kind::Definition
            }
        }
    }
}

fn is_off(node: Node<'_>) -> bool {
    match node {
        Node::None => false,
        Node::Boolean(value) => !value.boolval,
        Node::Integer(value) => value.ival == 0,
        Node::String(value) => matches!(
            value
                .sval()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str(),
            "off" | "false" | "no" | "0" | "f" | "n"
        ),
        _ => false,
    }
}

/// Whether a SELECT writes a table: INTO stands on the leftmost leaf of set operations.
pub(crate) fn has_into(select: &nodes::SelectStmt) -> bool {
    let mut select = select;
    loop {
        if select.into_clause().is_some() {
            return true;
        }
        match select.larg() {
            Some(left) => select = left,
            None => return false,
        }
    }
}

fn transaction_kind(transaction: &nodes::TransactionStmt) -> Kind {
    let name = || owned(transaction.savepoint_name());
    let chain = transaction.chain;
    match transaction.kind {
        TransactionStmtKind::TRANS_STMT_BEGIN | TransactionStmtKind::TRANS_STMT_START => {
            Kind::Begin
        }
        TransactionStmtKind::TRANS_STMT_COMMIT => Kind::Commit { chain },
        TransactionStmtKind::TRANS_STMT_ROLLBACK => Kind::Rollback { chain },
        TransactionStmtKind::TRANS_STMT_SAVEPOINT => Kind::Savepoint { name: name() },
        TransactionStmtKind::TRANS_STMT_RELEASE => Kind::Release { name: name() },
        TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => Kind::RollbackTo { name: name() },
        TransactionStmtKind::TRANS_STMT_PREPARE => Kind::PrepareTransaction {
            command: "PREPARE TRANSACTION",
        },
        TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => Kind::PrepareTransaction {
            command: "COMMIT PREPARED",
        },
        TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => Kind::PrepareTransaction {
            command: "ROLLBACK PREPARED",
        },
        _ => Kind::Other,
    }
}

/// A constant other than NULL as text.
fn written(constant: &nodes::A_Const) -> Option<String> {
    Some(match constant.val()? {
        ConstValue::Integer(number) => number.to_string(),
        ConstValue::Float(text) | ConstValue::String(text) | ConstValue::BitString(text) => {
            text.to_owned()
        }
        ConstValue::Boolean(value) => value.to_string(),
        _ => return None,
    })
}

/// The text of a plain constant, nothing for NULL; `None` for anything else.
fn constant(node: Node<'_>) -> Option<Option<String>> {
    let Node::A_Const(constant) = node else {
        return None;
    };
    match written(constant) {
        None => constant.isnull.then_some(None),
        text => Some(text),
    }
}

fn set_kind(set: &nodes::VariableSetStmt) -> Kind {
    let name = owned(set.name()).to_ascii_lowercase();
    match set.kind {
        VariableSetKind::VAR_RESET => Kind::Reset { name: Some(name) },
        VariableSetKind::VAR_RESET_ALL => Kind::Reset { name: None },
        VariableSetKind::VAR_SET_VALUE => Kind::Set {
            name,
            local: set.is_local,
            value: set_value(set),
        },
        VariableSetKind::VAR_SET_MULTI => Kind::Set {
            name: match name.as_str() {
                "transaction" => "transaction_isolation".to_owned(),
                "transaction snapshot" => "transaction_snapshot".to_owned(),
                _ => "default_transaction_isolation".to_owned(),
            },
            local: set.is_local,
            value: None,
        },
        _ => Kind::Set {
            name,
            local: set.is_local,
            value: None,
        },
    }
}

/// The value as one text; `None` when a part is not a constant.
pub(crate) fn set_value(set: &nodes::VariableSetStmt) -> Option<String> {
    let mut parts = Vec::new();
    for node in set.args() {
        let constant = match node {
            Node::A_Const(constant) => constant,
            Node::TypeCast(cast) => match cast.arg() {
                Node::A_Const(constant) => constant,
                _ => return None,
            },
            _ => return None,
        };
        parts.push(written(constant)?);
    }
    Some(parts.join(", "))
}
