//! What a statement stands on besides its facts.
//!
//! Facts say what is touched and where values come from, not which rows a view or a row-level
//! policy picks or what a trigger does. An approval holds for those too.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use chaperone_sql::Relation;
use sha3::{Digest as _, Sha3_256};

use super::decide::Statement;

/// A digest of the relations that the statement touches, views' own, partitions and what inherits
/// included, as the catalog has them, and of the functions that may run. It is compared within one
/// process only.
pub(crate) fn ground(statement: &Statement) -> [u8; 32] {
    let catalog = &statement.ground.catalog;
    let mut parts: Vec<String> = Vec::new();
    let mut functions = statement
        .operation
        .sql
        .as_ref()
        .is_some_and(|sql| sql.functions.iter().any(|name| !is_builtin(name)));
    for relation in relations(statement) {
        functions |= !relation.triggers.is_empty() || !relation.on_write.is_empty();
        describe(relation, &mut parts);
    }
    if functions {
        // One may call any other.
        let all = catalog.functions();
        parts.extend(all.map(|one| format!("{}.{} {}", one.schema, one.name, one.version)));
    }
    // The catalog's queries give some of it in any order.
    parts.sort_unstable();
    let mut hash = Sha3_256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Whether a statement that was understood twice is the same both times.
pub(crate) fn same(then: &Statement, now: &Statement) -> bool {
    then.kind == now.kind
        && then.operation == now.operation
        && then.columns == now.columns
        && then.effects == now.effects
        && then.reach() == now.reach()
        && ground(then) == ground(now)
}

/// What the names in a statement stand for, as a number that is compared within one process only.
/// PostgreSQL settles that when it prepares a statement and does not look again because something
/// of the same name has come before it in the search path.
pub(crate) fn names(statement: &Statement) -> u64 {
    let catalog = &statement.ground.catalog;
    let operation = &statement.operation;
    let mut hasher = DefaultHasher::new();
    for object in &operation.objects {
        object.path.hash(&mut hasher);
        if let [schema, name] = object.path.as_slice() {
            let relation = catalog.relation(schema, name);
            relation.map(|relation| relation.oid).hash(&mut hasher);
        }
    }
    for (output, column) in operation.outputs.iter().zip(&statement.columns) {
        output.name.hash(&mut hasher);
        column.origin.hash(&mut hasher);
    }
    let functions = operation.sql.as_ref().map(|sql| &sql.functions);
    functions.hash(&mut hasher);
    hasher.finish()
}

fn is_builtin(function: &str) -> bool {
    function.starts_with("pg_catalog.")
}

/// The relations that the operation names, and all that hold rows of theirs.
fn relations(statement: &Statement) -> Vec<&Relation> {
    let catalog = &statement.ground.catalog;
    let mut all: Vec<&Relation> = Vec::new();
    for object in &statement.operation.objects {
        if let [schema, name] = object.path.as_slice() {
            all.extend(catalog.relation(schema, name));
        }
    }
    let mut at = 0;
    while let Some(relation) = all.get(at) {
        for child in catalog.descendants(relation) {
            if !all.iter().any(|known| known.oid == child.oid) {
                all.push(child);
            }
        }
        at += 1;
    }
    all
}

fn describe(relation: &Relation, parts: &mut Vec<String>) {
    let oid = relation.oid;
    parts.push(format!(
        "{oid} {:?} {:?} {} {:?} {:?}",
        relation.kind, relation.definition, relation.rules, relation.schema, relation.name
    ));
    for column in &relation.columns {
        parts.push(format!(
            "{oid} {} {:?} {:?} {:?}",
            column.number, column.name, column.type_ref, column.generated
        ));
    }
    for trigger in &relation.triggers {
        parts.push(format!("{oid} trigger {trigger:?}"));
    }
    for policy in &relation.policies {
        parts.push(format!("{oid} policy {policy:?}"));
    }
    for what in &relation.on_write {
        parts.push(format!("{oid} runs {what:?}"));
    }
    for key in &relation.referenced {
        parts.push(format!("{oid} referenced {key:?}"));
    }
}
