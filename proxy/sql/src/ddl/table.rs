//! Tables: columns, keys, and what runs when rows are written.

use std::os::raw::c_char;
use std::sync::Arc;

use pg_raw_parse::raw::ConstrType;
use pg_raw_parse::{Node, nodes};

use super::{Builder, DdlError, range_names};
use crate::analyze::{Analyzer, Options};
use crate::catalog::{Column, OnWrite, Referenced, Relation, RelationKind, SessionView, TypeRef};
use crate::label::Labelling;
use crate::names::Scope;

/// A foreign key as written: its columns, what it points to, and what follows from changes there.
struct ForeignKey {
    own: Vec<Arc<str>>,
    schema: Arc<str>,
    name: Arc<str>,
    /// Empty for the other table's primary key.
    theirs: Vec<Arc<str>>,
    on_delete: char,
    on_update: char,
}

impl ForeignKey {
    fn read(constraint: &nodes::Constraint, own: Vec<Arc<str>>) -> Self {
        let (schema, name) = constraint
            .pktable()
            .map_or_else(Default::default, range_names);
        Self {
            own,
            schema,
            name,
            theirs: strings(constraint.pk_attrs()),
            on_delete: action(constraint.fk_del_action),
            on_update: action(constraint.fk_upd_action),
        }
    }
}

fn action(letter: c_char) -> char {
    u8::try_from(letter).map_or('a', char::from)
}

fn strings(list: &pg_raw_parse::list::NodeList) -> Vec<Arc<str>> {
    let names = list.iter().filter_map(|node| node.as_str());
    names.map(Arc::from).collect()
}

impl Builder {
    pub(super) fn table(
        &mut self,
        create: &nodes::CreateStmt,
        kind: RelationKind,
        text: &str,
        position: usize,
    ) -> Result<(), DdlError> {
        let mut relation = self.blank(create.relation(), kind);
        for parent in create.inh_relations() {
            if let Node::RangeVar(parent) = parent {
                let (schema, name) = range_names(parent);
                let parent = self.find(&schema, &name, position)?;
                relation.parents.push(parent.oid);
                let inherited = parent.columns.iter().map(|column| Column {
                    comment: None,
                    ..column.clone()
                });
                relation.columns.extend(inherited);
            }
        }
        let mut keys = Vec::new();
        let mut unique: Vec<Arc<str>> = Vec::new();
        for element in create.table_elts() {
            match element {
                Node::ColumnDef(definition) => {
                    let number = i16::try_from(relation.columns.len() + 1).unwrap_or(i16::MAX);
                    let column = self.column(definition, number, &generating(definition, text));
                    for node in definition.constraints() {
                        if let Node::Constraint(constraint) = node {
                            if constraint.contype == ConstrType::CONSTR_FOREIGN {
                                let own = vec![Arc::clone(&column.name)];
                                keys.push(ForeignKey::read(constraint, own));
                            }
                            relation.on_write.extend(self.calls(constraint.raw_expr()));
                        }
                    }
                    relation.columns.push(column);
                }
                Node::Constraint(constraint) => {
                    match constraint.contype {
                        ConstrType::CONSTR_PRIMARY | ConstrType::CONSTR_UNIQUE => {
                            unique.extend(strings(constraint.keys()));
                        }
                        ConstrType::CONSTR_FOREIGN => {
                            let own = strings(constraint.fk_attrs());
                            keys.push(ForeignKey::read(constraint, own));
                        }
                        _ => {}
                    }
                    relation.on_write.extend(self.calls(constraint.raw_expr()));
                }
                _ => {}
            }
        }
        for column in &mut relation.columns {
            column.unique |= unique.contains(&column.name);
        }
        for key in keys {
            self.point(&mut relation, key, position)?;
        }
        self.made_of_columns(&mut relation);
        crate::snapshot::settle_generated(&mut relation);
        self.add(relation);
        Ok(())
    }

    pub(super) fn column(&self, definition: &nodes::ColumnDef, number: i16, text: &str) -> Column {
        let mut generated = None;
        let mut unique = false;
        for node in definition.constraints() {
            if let Node::Constraint(constraint) = node {
                match constraint.contype {
                    ConstrType::CONSTR_GENERATED => generated = Some(text.to_owned()),
                    ConstrType::CONSTR_PRIMARY | ConstrType::CONSTR_UNIQUE => unique = true,
                    _ => {}
                }
            }
        }
        Column {
            name: definition.colname().unwrap_or_default().into(),
            number,
            type_ref: self.type_ref(definition.type_name()),
            generated,
            generated_from: None,
            comment: None,
            unique,
            references: Vec::new(),
        }
    }

    /// A domain, as something whose checks run.
    pub(super) fn domain(&mut self, create: &nodes::CreateDomainStmt) {
        let parts = create.domainname().iter().filter_map(nodes::String::sval);
        let parts: Vec<&str> = parts.collect();
        let (schema, name) = match parts.as_slice() {
            [schema, name] => (*schema, *name),
            [name] => ("public", *name),
            _ => return,
        };
        let constraints = create.constraints().iter();
        let checks = constraints.map(|constraint| constraint.raw_expr());
        let runs: Vec<OnWrite> = checks.flat_map(|check| self.calls(check)).collect();
        self.makes(schema, name, runs);
    }

    /// Notes what making a value of a type, or of an array of it, runs.
    fn makes(&mut self, schema: &str, name: &str, runs: Vec<OnWrite>) {
        if runs.is_empty() {
            return;
        }
        for name in [name.into(), format!("_{name}").into()] {
            let schema = schema.into();
            let made_by = &mut self.catalog.made_by;
            made_by.insert(TypeRef { schema, name }, runs.clone());
        }
    }

    /// What making the values of a relation's columns runs, and so its rows.
    pub(super) fn made_of_columns(&mut self, relation: &mut Relation) {
        let mut runs = Vec::new();
        for column in &relation.columns {
            if let Some(part) = self.catalog.made_by.get(&column.type_ref) {
                runs.extend(part.iter().cloned());
                let schema = &column.type_ref.schema;
                let name = column.type_ref.name.trim_start_matches('_');
                match self.catalog.relation(schema, name) {
                    Some(row) => relation.made_of.extend(row.made_of.iter().cloned()),
                    None => relation.made_of.push(TypeRef {
                        schema: Arc::clone(schema),
                        name: name.into(),
                    }),
                }
            }
        }
        relation.on_write.extend(runs.iter().cloned());
        self.makes(&relation.schema, &relation.name, runs);
    }

    /// Functions that an expression of a table calls and that are not PostgreSQL's own.
    pub(super) fn calls(&self, expression: Node<'_>) -> Vec<OnWrite> {
        let (session, labelling) = (SessionView::default(), Labelling::new());
        let options = Options::default();
        let mut analyzer = Analyzer::new(&self.catalog, &session, &labelling, &options);
        // Its columns are not known here; only what it calls is asked for.
        let _ = analyzer.expr(expression, &Scope::child(None, None));
        let called = analyzer.functions.iter().map(|full| {
            let (schema, name) = full.rsplit_once('.').unwrap_or(("public", full));
            (Arc::from(schema), Arc::from(name))
        });
        called
            .filter(|(schema, _): &(Arc<str>, Arc<str>)| &**schema != "pg_catalog")
            .map(|(schema, name)| OnWrite::Function(schema, name))
            .collect()
    }

    /// Ties a foreign key to both of its ends.
    fn point(
        &mut self,
        relation: &mut Relation,
        key: ForeignKey,
        position: usize,
    ) -> Result<(), DdlError> {
        let itself = key.schema == relation.schema && key.name == relation.name;
        let from = relation.oid;
        let mut ends = Vec::new();
        {
            let target = if itself {
                &*relation
            } else {
                &*self.find(&key.schema, &key.name, position)?
            };
            for (index, own) in key.own.iter().enumerate() {
                let there = match key.theirs.get(index) {
                    Some(name) => target.column(name).map(|(_, column)| column),
                    None => target.columns.iter().find(|column| column.unique),
                };
                let here = relation.column(own).map(|(_, column)| column.number);
                if let (Some(there), Some(here)) = (there, here) {
                    ends.push((target.oid, there.number, here));
                }
            }
        }
        for (other, there, here) in ends {
            for column in &mut relation.columns {
                if column.number == here {
                    column.references.push((other, there));
                }
            }
            let referenced = Referenced {
                by: from,
                column: here,
                own: there,
                deletes: key.on_delete == 'c',
                clears: matches!(key.on_delete, 'n' | 'd'),
                updates: matches!(key.on_update, 'c' | 'n' | 'd'),
            };
            if itself {
                relation.referenced.push(referenced);
            } else {
                let target = self.find(&key.schema, &key.name, position)?;
                target.referenced.push(referenced);
            }
        }
        Ok(())
    }
}

/// The text from a column's definition up to the next one: its generating expression is in it.
fn generating(definition: &nodes::ColumnDef, text: &str) -> String {
    let Some(name) = definition.colname() else {
        return text.to_owned();
    };
    let start = text.find(&format!("{name} ")).unwrap_or(0);
    let rest = text.get(start..).unwrap_or(text);
    let lower = rest.to_lowercase();
    match lower.find("generated always as") {
        Some(at) => {
            let tail = rest.get(at..).unwrap_or(rest);
            // Up to the parenthesis that closes the expression.
            let mut depth = 0_i32;
            for (index, c) in tail.char_indices() {
                match c {
                    '(' => depth += 1,
                    ')' => {
                        depth -= 1;
                        if depth <= 0 {
                            return tail.get(..index).unwrap_or(tail).to_owned();
                        }
                    }
                    _ => {}
                }
            }
            tail.to_owned()
        }
        None => rest.to_owned(),
    }
}
