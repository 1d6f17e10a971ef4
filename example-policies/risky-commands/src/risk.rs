//! What is risky about an operation, by what the facts show of it.

use policy_sdk::prelude::*;
use serde::Deserialize;

use crate::reads::Reads;

/// One kind of risk, as settings name it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Risk {
    Definitions,
    Code,
    Roles,
    Grants,
    Labels,
    Truncate,
    UnfilteredChanges,
    Copy,
    Server,
    /// Held by a rule for reads, not by an answer.
    #[serde(skip)]
    BulkRead,
}

/// Kinds whose definition brings code that runs later, for whoever touches something else.
const CODE: [&str; 14] = [
    "function",
    "procedure",
    "aggregate",
    "trigger",
    "event trigger",
    "rule",
    "operator",
    "operator class",
    "operator family",
    "cast",
    "transform",
    "language",
    "extension",
    "access method",
];
/// Kinds through which the server itself, its files or other servers are reached.
const SERVER: [&str; 9] = [
    "server",
    "foreign data wrapper",
    "foreign table",
    "database",
    "tablespace",
    "publication",
    "subscription",
    "file",
    "program",
];
/// Built-in functions that do the same; the ends of their names do not matter.
const SERVER_FUNCTIONS: [&str; 24] = [
    "pg_read_",
    "pg_ls_",
    "pg_stat_file",
    "pg_file_",
    // Large objects: files, and data that no label covers.
    "lo_",
    "pg_replication_",
    "pg_wal_",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_switch_wal",
    "pg_promote",
    "pg_create_",
    "pg_drop_replication_slot",
    "pg_logical_",
    "pg_backup_",
    "set_config",
    "dblink",
    "query_to_xml",
    "table_to_xml",
    "schema_to_xml",
    "database_to_xml",
    "cursor_to_xml",
];

/// Every risk of an operation.
pub(crate) fn of(operation: &Operation<'_>, objects: &[Object], reads: &Reads<'_>) -> Vec<Risk> {
    let (actions, command) = (operation.actions(), operation.command());
    let mut risks: Vec<Risk> = objects
        .iter()
        .flat_map(|it| of_object(it, &command))
        .collect();
    let shown = objects
        .iter()
        .fold(Actions::empty(), |all, it| all | it.actions);
    let hidden = actions - shown;
    if hidden.contains(Actions::DEFINE) {
        risks.push(Risk::Definitions);
    }
    if hidden.contains(Actions::GRANT) {
        risks.push(Risk::Grants);
    }
    if command.starts_with("TRUNCATE") {
        risks.push(Risk::Truncate);
    } else if changes_at_large(operation, objects) {
        risks.push(Risk::UnfilteredChanges);
    }
    if command == "COPY" || reads.are_written_elsewhere(operation, objects) {
        risks.push(Risk::Copy);
    }
    // No object tells of CALL.
    if command == "CALL" {
        risks.push(Risk::Code);
    }
    if operation
        .sql()
        .is_some_and(|sql| sql.functions().iter().any(|it| reaches_server(it)))
    {
        risks.push(Risk::Server);
    }
    risks
}

fn of_object(object: &Object, command: &str) -> Vec<Risk> {
    let (kind, actions) = (object.kind.as_str(), object.actions);
    let mut risks = Vec::new();
    if actions.contains(Actions::DEFINE) {
        risks.push(match kind {
            // Labels live in comments: a comment can make a column clear.
            _ if matches!(command, "COMMENT" | "SECURITY LABEL") => Risk::Labels,
            "role" | "user mapping" => Risk::Roles,
            // Row-level security.
            "policy" => Risk::Grants,
            kind if CODE.contains(&kind) => Risk::Code,
            kind if SERVER.contains(&kind) => Risk::Server,
            _ => Risk::Definitions,
        });
    }
    // Whoever becomes the owner of something has every right on it.
    if actions.contains(Actions::GRANT) || kind == "role" && actions.contains(Actions::OTHER) {
        risks.push(Risk::Grants);
    }
    match kind {
        "file" | "program" => risks.push(Risk::Server),
        "code" | "library" => risks.push(Risk::Code),
        _ => {}
    }
    risks
}

/// Rows are changed and nothing shows that it is not all of them. A condition counts only where the
/// changed table is not read as well: on a second mention of it, or below one, a condition does not
/// restrict what is changed. RETURNING looks the same.
fn changes_at_large(operation: &Operation<'_>, objects: &[Object]) -> bool {
    const CHANGE: Actions = Actions::UPDATE.union(Actions::DELETE);
    if !operation.actions().intersects(CHANGE) {
        return false;
    }
    let changed = |object: &&Object| object.actions.intersects(CHANGE);
    let mut changed = objects.iter().filter(changed).peekable();
    let filtered = operation.sql().is_some_and(|sql| sql.is_filtered());
    !filtered || changed.peek().is_none() || changed.any(|it| it.actions.contains(Actions::READ))
}

fn reaches_server(function: &str) -> bool {
    let name = function.rsplit('.').next().unwrap_or(function);
    SERVER_FUNCTIONS.iter().any(|start| name.starts_with(start))
}

impl Risk {
    /// (code, what it does, what would be allowed instead).
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Risk::Definitions => (
                "definition",
                "changes what the database is made of",
                "Reading and changing rows is another matter.",
            ),
            Risk::Code => (
                "code",
                "brings code into the database, or runs some that cannot be looked into",
                "Send the statements themselves.",
            ),
            Risk::Roles => (
                "role-change",
                "changes who there is and what they may do",
                "Ask whoever runs the database.",
            ),
            Risk::Grants => (
                "grant",
                "changes who has which rights",
                "Ask whoever runs the database.",
            ),
            Risk::Labels => (
                "label-change",
                "changes comments, in which the labels are that values are masked by",
                "Ask whoever keeps the labels.",
            ),
            Risk::Truncate => (
                "truncate",
                "empties tables",
                "DELETE with a condition removes some rows.",
            ),
            Risk::UnfilteredChanges => (
                "unfiltered-change",
                "may change every row of a table",
                "Give it a WHERE on the table's own columns, mention the table once, and leave out \
                 RETURNING.",
            ),
            Risk::Copy => (
                "copy",
                "moves rows in bulk",
                "SELECT or INSERT the rows that are needed.",
            ),
            Risk::Server => (
                "server-reach",
                "reaches the server's files, programs or settings, or other servers",
                "Ask whoever runs the server.",
            ),
            Risk::BulkRead => (
                "bulk-read",
                "may read more rows of a protected table than pass without approval",
                "Ask for plain columns, with a smaller LIMIT.",
            ),
        }
    }

    pub(crate) fn refusal(self, command: &str) -> Reason {
        let (code, what, hint) = self.words();
        deny(
            code,
            format!("{command} {what}, which is not allowed here."),
        )
        .hint(hint)
    }

    pub(crate) fn approval(self, command: &str) -> policy_sdk::Approval {
        let (code, what, hint) = self.words();
        require_approval(
            code,
            format!("{command} {what}, which a person has to approve."),
        )
        .hint(hint)
    }
}
