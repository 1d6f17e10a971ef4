//! PostgreSQL's command tags, and what policies call the kinds of objects.

use pg_raw_parse::Node;
use pg_raw_parse::raw::{ObjectType, TransactionStmtKind, VariableSetKind};

/// (kind for policies, noun of the command tag).
pub(crate) fn nouns(kind: ObjectType::Type) -> (&'static str, &'static str) {
    match kind {
        ObjectType::OBJECT_ACCESS_METHOD => ("access method", "ACCESS METHOD"),
        ObjectType::OBJECT_AGGREGATE => ("aggregate", "AGGREGATE"),
        ObjectType::OBJECT_ATTRIBUTE => ("type", "TYPE"),
        ObjectType::OBJECT_CAST => ("cast", "CAST"),
        ObjectType::OBJECT_COLUMN => ("table", "TABLE"),
        ObjectType::OBJECT_COLLATION => ("collation", "COLLATION"),
        ObjectType::OBJECT_CONVERSION => ("conversion", "CONVERSION"),
        ObjectType::OBJECT_DATABASE => ("database", "DATABASE"),
        ObjectType::OBJECT_DOMAIN | ObjectType::OBJECT_DOMCONSTRAINT => ("domain", "DOMAIN"),
        ObjectType::OBJECT_EVENT_TRIGGER => ("event trigger", "EVENT TRIGGER"),
        ObjectType::OBJECT_EXTENSION => ("extension", "EXTENSION"),
        ObjectType::OBJECT_FDW => ("foreign data wrapper", "FOREIGN DATA WRAPPER"),
        ObjectType::OBJECT_FOREIGN_SERVER => ("server", "SERVER"),
        ObjectType::OBJECT_FOREIGN_TABLE => ("foreign table", "FOREIGN TABLE"),
        ObjectType::OBJECT_FUNCTION => ("function", "FUNCTION"),
        ObjectType::OBJECT_INDEX => ("index", "INDEX"),
        ObjectType::OBJECT_LANGUAGE => ("language", "LANGUAGE"),
        ObjectType::OBJECT_LARGEOBJECT => ("large object", "LARGE OBJECT"),
        ObjectType::OBJECT_MATVIEW => ("materialized view", "MATERIALIZED VIEW"),
        ObjectType::OBJECT_OPCLASS => ("operator class", "OPERATOR CLASS"),
        ObjectType::OBJECT_OPERATOR => ("operator", "OPERATOR"),
        ObjectType::OBJECT_OPFAMILY => ("operator family", "OPERATOR FAMILY"),
        ObjectType::OBJECT_POLICY => ("policy", "POLICY"),
        ObjectType::OBJECT_PROCEDURE => ("procedure", "PROCEDURE"),
        ObjectType::OBJECT_PUBLICATION => ("publication", "PUBLICATION"),
        ObjectType::OBJECT_ROLE => ("role", "ROLE"),
        ObjectType::OBJECT_ROUTINE => ("function", "ROUTINE"),
        ObjectType::OBJECT_RULE => ("rule", "RULE"),
        ObjectType::OBJECT_SCHEMA => ("schema", "SCHEMA"),
        ObjectType::OBJECT_SEQUENCE => ("sequence", "SEQUENCE"),
        ObjectType::OBJECT_SUBSCRIPTION => ("subscription", "SUBSCRIPTION"),
        ObjectType::OBJECT_STATISTIC_EXT => ("statistics", "STATISTICS"),
        ObjectType::OBJECT_TABCONSTRAINT => ("table", "TABLE"),
        ObjectType::OBJECT_TABLE => ("table", "TABLE"),
        ObjectType::OBJECT_TABLESPACE => ("tablespace", "TABLESPACE"),
        ObjectType::OBJECT_TRANSFORM => ("transform", "TRANSFORM"),
        ObjectType::OBJECT_TRIGGER => ("trigger", "TRIGGER"),
        ObjectType::OBJECT_TSCONFIGURATION => {
            ("text search configuration", "TEXT SEARCH CONFIGURATION")
        }
        ObjectType::OBJECT_TSDICTIONARY => ("text search dictionary", "TEXT SEARCH DICTIONARY"),
        ObjectType::OBJECT_TSPARSER => ("text search parser", "TEXT SEARCH PARSER"),
        ObjectType::OBJECT_TSTEMPLATE => ("text search template", "TEXT SEARCH TEMPLATE"),
        ObjectType::OBJECT_TYPE => ("type", "TYPE"),
        ObjectType::OBJECT_USER_MAPPING => ("user mapping", "USER MAPPING"),
        ObjectType::OBJECT_VIEW => ("view", "VIEW"),
        _ => ("other", "OBJECT"),
    }
}

/// `verb noun` as a static text.
pub(crate) fn tagged(verb: &str, kind: ObjectType::Type) -> &'static str {
    macro_rules! tags {
        ($noun:expr; $($name:literal),*) => {
            match ($noun, verb) {
                $(($name, "CREATE") => concat!("CREATE ", $name),
                  ($name, "ALTER") => concat!("ALTER ", $name),
                  ($name, "DROP") => concat!("DROP ", $name),)*
                (_, "CREATE") => "CREATE",
                (_, "ALTER") => "ALTER",
                _ => "DROP",
            }
        };
    }
    tags!(nouns(kind).1;
        "ACCESS METHOD", "AGGREGATE", "TYPE", "CAST", "TABLE", "COLLATION", "CONVERSION", "DATABASE",
        "DOMAIN", "EVENT TRIGGER", "EXTENSION", "FOREIGN DATA WRAPPER", "SERVER", "FOREIGN TABLE",
        "FUNCTION", "INDEX", "LANGUAGE", "LARGE OBJECT", "MATERIALIZED VIEW", "OPERATOR CLASS",
        "OPERATOR", "OPERATOR FAMILY", "POLICY", "PROCEDURE", "PUBLICATION", "ROLE", "ROUTINE",
        "RULE", "SCHEMA", "SEQUENCE", "SUBSCRIPTION", "STATISTICS", "TABLESPACE", "TRANSFORM",
        "TRIGGER", "TEXT SEARCH CONFIGURATION", "TEXT SEARCH DICTIONARY", "TEXT SEARCH PARSER",
        "TEXT SEARCH TEMPLATE", "USER MAPPING", "VIEW")
}

/// PostgreSQL's command tag, without counts; empty for what is not a statement.
pub(crate) fn tag(node: Node<'_>) -> &'static str {
    match node {
        Node::SelectStmt(select) => {
            if crate::classify::has_into(select) {
                "SELECT INTO"
            } else {
                "SELECT"
            }
        }
        Node::InsertStmt(_) => "INSERT",
        Node::UpdateStmt(_) => "UPDATE",
        Node::DeleteStmt(_) => "DELETE",
        Node::MergeStmt(_) => "MERGE",
        Node::TransactionStmt(transaction) => match transaction.kind {
            TransactionStmtKind::TRANS_STMT_BEGIN => "BEGIN",
            TransactionStmtKind::TRANS_STMT_START => "START TRANSACTION",
            TransactionStmtKind::TRANS_STMT_COMMIT => "COMMIT",
            TransactionStmtKind::TRANS_STMT_ROLLBACK
            | TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => "ROLLBACK",
            TransactionStmtKind::TRANS_STMT_SAVEPOINT => "SAVEPOINT",
            TransactionStmtKind::TRANS_STMT_RELEASE => "RELEASE",
            TransactionStmtKind::TRANS_STMT_PREPARE => "PREPARE TRANSACTION",
            TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => "COMMIT PREPARED",
            TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => "ROLLBACK PREPARED",
            _ => "",
        },
        Node::VariableSetStmt(set) => match set.kind {
            VariableSetKind::VAR_RESET | VariableSetKind::VAR_RESET_ALL => "RESET",
            _ => "SET",
        },
        Node::VariableShowStmt(_) => "SHOW",
        Node::CopyStmt(_) => "COPY",
        Node::PrepareStmt(_) => "PREPARE",
        Node::ExecuteStmt(_) => "EXECUTE",
        Node::DeallocateStmt(deallocate) => {
            if deallocate.name().is_none() {
                "DEALLOCATE ALL"
            } else {
                "DEALLOCATE"
            }
        }
        Node::DeclareCursorStmt(_) => "DECLARE CURSOR",
        Node::FetchStmt(fetch) => {
            if fetch.ismove {
                "MOVE"
            } else {
                "FETCH"
            }
        }
        Node::ClosePortalStmt(close) => {
            if close.portalname().is_none() {
                "CLOSE CURSOR ALL"
            } else {
                "CLOSE CURSOR"
            }
        }
        Node::ExplainStmt(_) => "EXPLAIN",
        Node::ListenStmt(_) => "LISTEN",
        Node::UnlistenStmt(_) => "UNLISTEN",
        Node::NotifyStmt(_) => "NOTIFY",
        Node::DiscardStmt(discard) => match discard.target {
            0 => "DISCARD ALL",
            1 => "DISCARD PLANS",
            2 => "DISCARD SEQUENCES",
            _ => "DISCARD TEMP",
        },
        Node::LockStmt(_) => "LOCK TABLE",
        Node::CallStmt(_) => "CALL",
        Node::DoStmt(_) => "DO",
        Node::LoadStmt(_) => "LOAD",
        Node::ConstraintsSetStmt(_) => "SET CONSTRAINTS",
        Node::CheckPointStmt(_) => "CHECKPOINT",
        Node::VacuumStmt(vacuum) => {
            if vacuum.is_vacuumcmd {
                "VACUUM"
            } else {
                "ANALYZE"
            }
        }
        Node::ClusterStmt(_) => "CLUSTER",
        Node::ReindexStmt(_) => "REINDEX",
        Node::TruncateStmt(_) => "TRUNCATE TABLE",
        Node::CommentStmt(_) => "COMMENT",
        Node::SecLabelStmt(_) => "SECURITY LABEL",
        Node::GrantStmt(grant) => {
            if grant.is_grant {
                "GRANT"
            } else {
                "REVOKE"
            }
        }
        Node::GrantRoleStmt(grant) => {
            if grant.is_grant {
                "GRANT ROLE"
            } else {
                "REVOKE ROLE"
            }
        }
        Node::AlterDefaultPrivilegesStmt(_) => "ALTER DEFAULT PRIVILEGES",
        Node::CreateStmt(_) => "CREATE TABLE",
        Node::CreateTableAsStmt(create) => match create.objtype {
            ObjectType::OBJECT_MATVIEW => "CREATE MATERIALIZED VIEW",
            _ => "CREATE TABLE AS",
        },
        Node::RefreshMatViewStmt(_) => "REFRESH MATERIALIZED VIEW",
        Node::ViewStmt(_) => "CREATE VIEW",
        Node::IndexStmt(_) => "CREATE INDEX",
        Node::CreateSeqStmt(_) => "CREATE SEQUENCE",
        Node::AlterSeqStmt(_) => "ALTER SEQUENCE",
        Node::CreateSchemaStmt(_) => "CREATE SCHEMA",
        Node::CreateRoleStmt(_) => "CREATE ROLE",
        Node::AlterRoleStmt(_) | Node::AlterRoleSetStmt(_) => "ALTER ROLE",
        Node::DropRoleStmt(_) => "DROP ROLE",
        Node::CreatedbStmt(_) => "CREATE DATABASE",
        Node::AlterDatabaseStmt(_)
        | Node::AlterDatabaseSetStmt(_)
        | Node::AlterDatabaseRefreshCollStmt(_) => "ALTER DATABASE",
        Node::DropdbStmt(_) => "DROP DATABASE",
        Node::AlterSystemStmt(_) => "ALTER SYSTEM",
        Node::CreateFunctionStmt(create) => {
            if create.is_procedure {
                "CREATE PROCEDURE"
            } else {
                "CREATE FUNCTION"
            }
        }
        Node::AlterFunctionStmt(alter) => tagged("ALTER", alter.objtype),
        Node::CreateTrigStmt(_) => "CREATE TRIGGER",
        Node::CreateEventTrigStmt(_) => "CREATE EVENT TRIGGER",
        Node::AlterEventTrigStmt(_) => "ALTER EVENT TRIGGER",
        Node::RuleStmt(_) => "CREATE RULE",
        Node::CreatePolicyStmt(_) => "CREATE POLICY",
        Node::AlterPolicyStmt(_) => "ALTER POLICY",
        Node::CreateExtensionStmt(_) => "CREATE EXTENSION",
        Node::AlterExtensionStmt(_) | Node::AlterExtensionContentsStmt(_) => "ALTER EXTENSION",
        Node::CompositeTypeStmt(_) | Node::CreateEnumStmt(_) | Node::CreateRangeStmt(_) => {
            "CREATE TYPE"
        }
        Node::AlterEnumStmt(_) | Node::AlterTypeStmt(_) => "ALTER TYPE",
        Node::CreateDomainStmt(_) => "CREATE DOMAIN",
        Node::AlterDomainStmt(_) => "ALTER DOMAIN",
        Node::DefineStmt(define) => tagged("CREATE", define.kind),
        Node::DropStmt(drop) => tagged("DROP", drop.remove_type),
        Node::AlterTableStmt(alter) => tagged("ALTER", alter.objtype),
        Node::RenameStmt(rename) => match rename.rename_type {
            ObjectType::OBJECT_COLUMN | ObjectType::OBJECT_TABCONSTRAINT => {
                tagged("ALTER", rename.relation_type)
            }
            kind => tagged("ALTER", kind),
        },
        Node::AlterObjectSchemaStmt(alter) => tagged("ALTER", alter.object_type),
        Node::AlterObjectDependsStmt(alter) => tagged("ALTER", alter.object_type),
        Node::AlterOwnerStmt(alter) => tagged("ALTER", alter.object_type),
        Node::AlterOperatorStmt(_) => "ALTER OPERATOR",
        Node::AlterOpFamilyStmt(_) => "ALTER OPERATOR FAMILY",
        Node::AlterCollationStmt(_) => "ALTER COLLATION",
        Node::AlterStatsStmt(_) => "ALTER STATISTICS",
        Node::CreateStatsStmt(_) => "CREATE STATISTICS",
        Node::AlterTableMoveAllStmt(alter) => tagged("ALTER", alter.objtype),
        Node::CreateTableSpaceStmt(_) => "CREATE TABLESPACE",
        Node::DropTableSpaceStmt(_) => "DROP TABLESPACE",
        Node::AlterTableSpaceOptionsStmt(_) => "ALTER TABLESPACE",
        Node::CreateFdwStmt(_) => "CREATE FOREIGN DATA WRAPPER",
        Node::AlterFdwStmt(_) => "ALTER FOREIGN DATA WRAPPER",
        Node::CreateForeignServerStmt(_) => "CREATE SERVER",
        Node::AlterForeignServerStmt(_) => "ALTER SERVER",
        Node::CreateUserMappingStmt(_) => "CREATE USER MAPPING",
        Node::AlterUserMappingStmt(_) => "ALTER USER MAPPING",
        Node::DropUserMappingStmt(_) => "DROP USER MAPPING",
        Node::ImportForeignSchemaStmt(_) => "IMPORT FOREIGN SCHEMA",
        Node::CreateAmStmt(_) => "CREATE ACCESS METHOD",
        Node::CreatePLangStmt(_) => "CREATE LANGUAGE",
        Node::CreateOpClassStmt(_) => "CREATE OPERATOR CLASS",
        Node::CreateOpFamilyStmt(_) => "CREATE OPERATOR FAMILY",
        Node::CreateConversionStmt(_) => "CREATE CONVERSION",
        Node::CreateCastStmt(_) => "CREATE CAST",
        Node::CreateTransformStmt(_) => "CREATE TRANSFORM",
        Node::DropOwnedStmt(_) => "DROP OWNED",
        Node::ReassignOwnedStmt(_) => "REASSIGN OWNED",
        Node::AlterTSDictionaryStmt(_) => "ALTER TEXT SEARCH DICTIONARY",
        Node::AlterTSConfigurationStmt(_) => "ALTER TEXT SEARCH CONFIGURATION",
        Node::CreatePublicationStmt(_) => "CREATE PUBLICATION",
        Node::AlterPublicationStmt(_) => "ALTER PUBLICATION",
        Node::CreateSubscriptionStmt(_) => "CREATE SUBSCRIPTION",
        Node::AlterSubscriptionStmt(_) => "ALTER SUBSCRIPTION",
        Node::DropSubscriptionStmt(_) => "DROP SUBSCRIPTION",
        // The one statement that the library has no node for.
        Node::Invalid(_) => "CREATE FOREIGN TABLE",
        _ => "",
    }
}
