//! Types of users whose values are checked by somebody's functions when they are made: domains, and
//! what has one inside. PostgreSQL reads a constant as a value of the type that its place wants, a
//! row or an array with domains in it as early as when it parses the statement.

use std::sync::Arc;

use chaperone_contract::Actions;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Options, Res};
use crate::catalog::{Catalog, OnWrite, TypeRef};
use crate::names::Scope;
use crate::value::Value;

impl Catalog {
    /// Whether there are types whose values run functions that are not on the allow-list when they
    /// are made. PostgreSQL makes some when it does no more than parse a statement.
    #[must_use]
    pub fn parsing_runs_functions(&self, options: &Options) -> bool {
        self.made_by.values().flatten().any(|runs| match runs {
            OnWrite::Function(of, function) => !options.trusts(of, function),
            OnWrite::Type(..) => true,
        })
    }
}

impl Analyzer<'_> {
    /// What making a value of a type runs that is not on the allow-list, in words.
    pub(crate) fn made_by(&self, type_ref: &TypeRef) -> Option<Arc<str>> {
        let all = self.catalog.made_by.get(type_ref)?;
        let TypeRef { schema, name } = type_ref;
        all.iter().find_map(|runs| match runs {
            OnWrite::Function(of, function) if self.options.trusts(of, function) => None,
            OnWrite::Function(of, function) => Some(
                format!(
                    "type {schema}.{name} has checks that call {of}.{function}, which is not on \
                     the allow-list"
                )
                .into(),
            ),
            OnWrite::Type(of, part) => Some(
                format!(
                    "type {schema}.{name} has values of {of}.{part} in it, whose checks are not \
                     followed"
                )
                .into(),
            ),
        })
    }

    /// Values of such a type may be made.
    pub(crate) fn makes(&mut self, type_ref: &TypeRef) {
        if let Some(why) = self.made_by(type_ref) {
            self.runs_checks(&why);
        }
    }

    /// What an expression's value derives from. Marks what it shows on the way; the caller marks
    /// what its place shows.
    pub(crate) fn expr(&mut self, node: Node<'_>, scope: &Scope<'_>) -> Res<Value> {
        let mut value = self.any_expr(node, scope)?;
        self.settle_constants(&mut value);
        Ok(value)
    }

    fn runs_checks(&mut self, why: &str) {
        self.untrusted = true;
        self.read_only = false;
        self.volatile = true;
        self.gap(why);
    }

    /// A constant stands where it may be read as such a type: says so.
    pub(crate) fn settle_constants(&mut self, value: &mut Value) {
        if let Some(why) = value.reads.take() {
            self.runs_checks(&why);
        }
    }

    /// The type that a column is defined with, or becomes.
    pub(crate) fn makes_of(&mut self, name: Option<&nodes::TypeName>) {
        let names = name.into_iter().flat_map(|name| name.names().iter());
        let names: Vec<&str> = names.filter_map(nodes::String::sval).collect();
        // An array has the checks of its elements.
        for type_ref in self.types_named(&names) {
            self.makes(&type_ref);
        }
    }

    /// Types that a name may mean.
    fn types_named(&self, names: &[&str]) -> Vec<TypeRef> {
        let (schema, name) = match names {
            [name] => (None, *name),
            [schema, name] | [_, schema, name] => (Some(*schema), *name),
            _ => return Vec::new(),
        };
        let type_ref = |schema: &str| TypeRef {
            schema: schema.into(),
            name: name.into(),
        };
        match schema {
            Some("pg_temp") => self.session.temp_schema.as_deref().map(type_ref),
            Some(schema) => Some(type_ref(schema)),
            None => return self.path.iter().map(|schema| type_ref(schema)).collect(),
        }
        .into_iter()
        .collect()
    }

    /// `ALTER DOMAIN`: the rows of tables that use it are checked, by the check that is there already
    /// where that is only validated.
    pub(crate) fn domain_changed(&mut self, alter: &nodes::AlterDomainStmt) {
        /// `SET NOT NULL`, `ADD CONSTRAINT`, `VALIDATE CONSTRAINT`.
        const CHECKING: [u8; 3] = [b'O', b'C', b'V'];
        let subtype = u8::try_from(alter.subtype).unwrap_or_default();
        if !CHECKING.contains(&subtype) {
            return;
        }
        let names = alter.type_name().iter().filter_map(|node| node.as_str());
        let types = self.types_named(&names.collect::<Vec<_>>());
        let catalog = self.catalog;
        for type_ref in types {
            for relation in catalog.relations() {
                if relation.made_of.contains(&type_ref) {
                    self.relation_object(relation, Actions::DEFINE);
                }
            }
            if subtype == b'V' {
                self.makes(&type_ref);
            }
        }
    }

    /// A column with such a type is added to rows that are there, or has a default that is read now.
    pub(crate) fn column_made(&mut self, column: &nodes::ColumnDef, rows: bool) {
        let default = column.constraints().iter().any(|node| match node {
            Node::Constraint(constraint) => {
                constraint.contype == pg_raw_parse::raw::ConstrType::CONSTR_DEFAULT
            }
            _ => false,
        });
        if rows || default {
            self.makes_of(column.type_name());
        }
    }
}
