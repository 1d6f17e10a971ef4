//! Which columns hold what: from the configuration, and from comments in the database.
//!
//! The convention for comments: `@label(ssn)`, `@label(name, free-text)` or `@label(clear)`
//! anywhere in `COMMENT ON COLUMN` or, for all columns without one of their own, in
//! `COMMENT ON TABLE`. The configuration wins over comments.

use std::collections::HashMap;

use chaperone_contract::Labels;

use crate::catalog::{Catalog, Column, Relation};

/// Labels by relation and column.
#[derive(Clone, Debug, Default)]
pub struct Labelling {
    relations: HashMap<String, HashMap<String, Configured>>,
}

#[derive(Clone, Debug, Default)]
struct Configured {
    all: Option<Vec<String>>,
    columns: HashMap<String, Vec<String>>,
}

impl Labelling {
    /// No configuration: comments alone count.
    #[must_use]
    pub fn new() -> Self {
        Labelling::default()
    }

    /// Every column of `schema.relation` without labels of its own has these; an empty list means
    /// clear.
    pub fn set_relation(&mut self, schema: &str, relation: &str, labels: Vec<String>) {
        self.entry(schema, relation).all = Some(labels);
    }

    /// The column has these labels; an empty list means clear.
    pub fn set_column(&mut self, schema: &str, relation: &str, column: &str, labels: Vec<String>) {
        self.entry(schema, relation)
            .columns
            .insert(column.to_owned(), labels);
    }

    fn entry(&mut self, schema: &str, relation: &str) -> &mut Configured {
        self.relations
            .entry(schema.to_owned())
            .or_default()
            .entry(relation.to_owned())
            .or_default()
    }

    fn configured(&self, relation: &Relation) -> Option<&Configured> {
        self.relations.get(&*relation.schema)?.get(&*relation.name)
    }

    /// What the configuration and the comments say of this very column.
    fn own(&self, relation: &Relation, column: &Column) -> Option<Vec<String>> {
        let configured = self.configured(relation);
        if let Some(labels) = configured.and_then(|known| known.columns.get(&*column.name)) {
            return Some(labels.clone());
        }
        if let Some(labels) = configured.and_then(|known| known.all.as_ref()) {
            return Some(labels.clone());
        }
        column
            .comment
            .as_deref()
            .and_then(in_comment)
            .or_else(|| relation.comment.as_deref().and_then(in_comment))
    }

    /// What a column holds, with what its generating expression reads and what the relations
    /// that it inherits from, or that inherit from it, say of it.
    pub(crate) fn column(&self, catalog: &Catalog, relation: &Relation, column: &Column) -> Labels {
        self.resolve(catalog, relation, column, 0)
            .map_or(Labels::Unknown, Labels::Known)
    }

    /// What the column of the given attribute number of the relation with this object identifier
    /// holds, as RowDescription names it.
    #[must_use]
    pub fn of_attribute(&self, catalog: &Catalog, relation: u32, attribute: i16) -> Labels {
        let found = catalog.relation_by_oid(relation).and_then(|relation| {
            let column = relation
                .columns
                .iter()
                .find(|column| column.number == attribute)?;
            Some(self.column(catalog, relation, column))
        });
        found.unwrap_or(Labels::Unknown)
    }

    fn resolve(
        &self,
        catalog: &Catalog,
        relation: &Relation,
        column: &Column,
        level: usize,
    ) -> Option<Vec<String>> {
        if level > 32 {
            return None;
        }
        let mut all = self.own(relation, column);
        if column.generated.is_some() {
            for name in column.generated_from.as_ref()? {
                let (_, source) = relation.column(name)?;
                add(
                    &mut all,
                    self.resolve(catalog, relation, source, level + 1)?,
                );
            }
        }
        for oid in &relation.parents {
            let parent = catalog.relation_by_oid(*oid)?;
            if let Some((_, inherited)) = parent.column(&column.name)
                && let Some(labels) = self.above(catalog, parent, inherited, level + 1)
            {
                add(&mut all, labels);
            }
        }
        self.below(catalog, relation, column, level + 1, &mut all);
        all
    }

    fn above(
        &self,
        catalog: &Catalog,
        relation: &Relation,
        column: &Column,
        level: usize,
    ) -> Option<Vec<String>> {
        if level > 32 {
            return None;
        }
        let mut all = self.own(relation, column);
        for oid in &relation.parents {
            if let Some(parent) = catalog.relation_by_oid(*oid)
                && let Some((_, inherited)) = parent.column(&column.name)
                && let Some(labels) = self.above(catalog, parent, inherited, level + 1)
            {
                add(&mut all, labels);
            }
        }
        all
    }

    fn below(
        &self,
        catalog: &Catalog,
        relation: &Relation,
        column: &Column,
        level: usize,
        all: &mut Option<Vec<String>>,
    ) {
        if level > 32 {
            return;
        }
        for oid in &relation.children {
            if let Some(child) = catalog.relation_by_oid(*oid)
                && let Some((_, inherited)) = child.column(&column.name)
            {
                if let Some(labels) = self.own(child, inherited) {
                    add(all, labels);
                }
                self.below(catalog, child, inherited, level + 1, all);
            }
        }
    }

    /// Whether anybody said anything about the relation or one that it inherits from.
    pub(crate) fn knows(&self, catalog: &Catalog, relation: &Relation) -> bool {
        let mut open = vec![relation];
        let mut seen = 0;
        while let Some(relation) = open.pop() {
            seen += 1;
            if self.configured(relation).is_some()
                || relation.comment.as_deref().and_then(in_comment).is_some()
                || relation
                    .columns
                    .iter()
                    .any(|column| column.comment.as_deref().and_then(in_comment).is_some())
            {
                return true;
            }
            if seen > 1_000 {
                return false;
            }
            open.extend(
                relation
                    .parents
                    .iter()
                    .filter_map(|oid| catalog.relation_by_oid(*oid)),
            );
        }
        false
    }
}

fn add(all: &mut Option<Vec<String>>, more: Vec<String>) {
    let all = all.get_or_insert_default();
    for label in more {
        if !all.contains(&label) {
            all.push(label);
        }
    }
}

/// Labels in a comment; `None` when it has none.
fn in_comment(comment: &str) -> Option<Vec<String>> {
    let mut labels: Option<Vec<String>> = None;
    let mut rest = comment;
    while let Some((_, tail)) = rest.split_once("@label(") {
        let (inside, tail) = tail.split_once(')')?;
        let known = labels.get_or_insert_default();
        known.extend(
            inside
                .split(',')
                .map(str::trim)
                .filter(|label| !label.is_empty() && *label != "clear")
                .map(str::to_owned),
        );
        rest = tail;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments() {
        assert_eq!(in_comment("the SSN"), None);
        assert_eq!(in_comment("x @label(clear)"), Some(vec![]));
        assert_eq!(
            in_comment("@label(ssn) and @label(a, b)"),
            Some(vec!["ssn".into(), "a".into(), "b".into()])
        );
    }
}
