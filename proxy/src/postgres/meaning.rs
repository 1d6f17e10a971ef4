//! What a statement stands on besides its facts.
//!
//! Facts say what is touched and where values come from, not which rows a view or a row-level
//! policy picks or what a trigger does. An approval holds for those too.

use chaperone_sql::Relation;
use sha3::{Digest as _, Sha3_256};

use super::decide::Statement;

/// A digest of the relations that the statement touches, views' own included, as the catalog has
/// them. It is compared within one process only.
pub(crate) fn ground(statement: &Statement) -> [u8; 32] {
    let catalog = &statement.ground.catalog;
    let mut parts: Vec<String> = Vec::new();
    for object in &statement.operation.objects {
        if let [schema, name] = object.path.as_slice()
            && let Some(relation) = catalog.relation(schema, name)
        {
            describe(relation, &mut parts);
        }
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
}
