//! Expressions in definitions, and what maintenance computes anew: PostgreSQL runs some at once and
//! others later, so what they call is said when they are written.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::Actions;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::{AlterTableType, ConstrType};
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::catalog::RelationKind;
use crate::expression::split_name;
use crate::from::Meant;
use crate::names::{Item, Scope};
use crate::objects::Referent;
use crate::value::{Col, Columns, More, Type, Value};

/// Gaps about what an expression calls. Others are about names that are not in scope here.
const CALLS: &[&str] = &["function ", "operator ", "type ", "a cast "];

impl<'c> Analyzer<'c> {
    /// What the expressions of a definition call, and what maintenance computes.
    pub(crate) fn evaluated(&mut self, node: Node<'_>) -> Res<()> {
        let mut inner = Analyzer::new(self.catalog, self.session, self.labelling, self.options);
        inner.depth = Rc::clone(&self.depth);
        inner.definition(node)?;
        self.take_calls(inner);
        match node {
            Node::AlterTableStmt(alter) if alter.cmds().iter().any(computes) => {
                self.computed(alter.relation());
            }
            // What a default partition holds is checked against the bounds of a new one.
            Node::CreateStmt(create) if create.partbound().is_some() => {
                for parent in create.inh_relations() {
                    if let Node::RangeVar(parent) = parent {
                        self.computed(Some(parent));
                    }
                }
            }
            Node::AlterDomainStmt(alter) => self.domain_changed(alter),
            Node::RefreshMatViewStmt(refresh) => {
                if let Some(range) = refresh.relation() {
                    self.range_var(range, &None, Actions::DEFINE)?;
                }
                self.computed(refresh.relation());
            }
            Node::ReindexStmt(reindex) => self.computed(reindex.relation()),
            Node::ClusterStmt(cluster) => self.computed(cluster.relation()),
            Node::VacuumStmt(vacuum) if vacuum.rels().is_empty() => self.computed(None),
            Node::VacuumStmt(vacuum) => {
                for relation in vacuum.rels() {
                    self.computed(relation.relation());
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn take_calls(&mut self, mut inner: Analyzer<'c>) {
        self.take_relations(&mut inner);
        for full in &inner.functions {
            self.note_function("", full);
        }
        let calls = |gap: &&String| CALLS.iter().any(|start| gap.starts_with(start));
        for gap in inner.gaps.iter().filter(calls) {
            self.gap(gap);
        }
        if inner.untrusted {
            self.untrusted = true;
            // The list of gaps has an end.
            self.gap("an expression calls what is not on the allow-list");
        }
    }

    /// What a policy's subqueries read.
    fn take_relations(&mut self, inner: &mut Analyzer<'c>) {
        for field in &inner.fields {
            let object = inner.objects.get(field.object as usize);
            let Some(Referent::Relation(relation)) = object.map(|object| object.referent) else {
                continue;
            };
            let object = self.relation_object(relation, Actions::READ);
            let field_here = self.field(object, field.index, &field.name);
            self.mark_fields(&[field_here], field.usages);
        }
        for object in std::mem::take(&mut inner.objects) {
            match object.referent {
                Referent::Relation(relation) => {
                    self.relation_object(relation, object.actions);
                }
                Referent::System(relation) => {
                    self.system_object(relation, object.actions);
                }
                Referent::Named => {}
            }
        }
    }

    /// What computing the values of a relation anew runs; any relation's, where none is named or an
    /// index is.
    fn computed(&mut self, range: Option<&nodes::RangeVar>) {
        let meant = range.map(|range| {
            let name = range.relname().unwrap_or_default();
            self.find_relation(range.schemaname(), name)
        });
        let catalog = self.catalog;
        match meant {
            Some(Meant::System(_)) => {}
            Some(Meant::Relation(relation)) if relation.kind != RelationKind::Other => {
                for relation in catalog.descendants(relation) {
                    self.row_effects(relation);
                }
            }
            _ => {
                for relation in catalog.relations() {
                    self.row_effects(relation);
                }
            }
        }
    }

    fn definition(&mut self, node: Node<'_>) -> Res<()> {
        match node {
            Node::CreateStmt(create) => self.table_definition(create),
            Node::AlterTableStmt(alter) => self.table_change(alter),
            Node::IndexStmt(index) => {
                let scope = self.scope_of(index.relation());
                for element in index.index_params() {
                    self.expr(element.expr(), &scope)?;
                }
                self.expr(index.where_clause(), &scope)?;
                Ok(())
            }
            Node::CreateStatsStmt(create) => {
                let scope = self.scope_of(create.relations().iter().next());
                for element in create.exprs() {
                    if let Node::StatsElem(element) = element {
                        self.expr(element.expr(), &scope)?;
                    }
                }
                Ok(())
            }
            Node::CreateDomainStmt(create) => {
                let scope = Scope::child(None, None);
                for constraint in create.constraints() {
                    self.constraint(constraint, &scope)?;
                }
                Ok(())
            }
            Node::AlterDomainStmt(alter) => {
                let scope = Scope::child(None, None);
                self.column_part(alter.def(), &scope)
            }
            Node::CreatePolicyStmt(create) => {
                let scope = self.scope_of(create.table());
                self.filter(create.qual(), &scope)?;
                self.filter(create.with_check(), &scope)
            }
            Node::AlterPolicyStmt(alter) => {
                let scope = self.scope_of(alter.table());
                self.filter(alter.qual(), &scope)?;
                self.filter(alter.with_check(), &scope)
            }
            Node::CreateTrigStmt(create) => {
                let list = self.known_columns(create.relation());
                let mut scope = Scope::child(None, None);
                scope.items.push(item("old", list.clone()));
                scope.items.push(item("new", list));
                self.expr(create.when_clause(), &scope)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn table_definition(&mut self, create: &nodes::CreateStmt) -> Res<()> {
        let mut list = Vec::new();
        for parent in create.inh_relations() {
            if let Node::RangeVar(parent) = parent {
                list.extend(self.known_columns(Some(parent)));
            }
        }
        for element in create.table_elts() {
            match element {
                Node::ColumnDef(column) => {
                    self.column_made(column, false);
                    list.push(self.new_column(column));
                }
                Node::TableLikeClause(like) => list.extend(self.known_columns(like.relation())),
                _ => {}
            }
        }
        let name = create.relation().and_then(nodes::RangeVar::relname);
        let mut scope = Scope::child(None, None);
        scope.items.push(item(name.unwrap_or_default(), list));
        for element in create.table_elts() {
            if matches!(element, Node::ColumnDef(_) | Node::Constraint(_)) {
                self.column_part(element, &scope)?;
            }
        }
        for constraint in create.constraints() {
            self.constraint(constraint, &scope)?;
        }
        if let Some(partition) = create.partspec() {
            for element in partition.part_params() {
                self.expr(element.expr(), &scope)?;
            }
        }
        self.bound(create.partbound())
    }

    fn table_change(&mut self, alter: &nodes::AlterTableStmt) -> Res<()> {
        let mut list = self.known_columns(alter.relation());
        for command in alter.cmds() {
            if let Node::AlterTableCmd(command) = command
                && command.subtype == AlterTableType::AT_AddColumn
                && let Node::ColumnDef(column) = command.def()
            {
                list.push(self.new_column(column));
            }
        }
        let name = alter.relation().and_then(nodes::RangeVar::relname);
        let mut scope = Scope::child(None, None);
        scope.items.push(item(name.unwrap_or_default(), list));
        for command in alter.cmds() {
            let Node::AlterTableCmd(command) = command else {
                continue;
            };
            match (command.subtype, command.def()) {
                (
                    AlterTableType::AT_AddColumn | AlterTableType::AT_AlterColumnType,
                    Node::ColumnDef(column),
                ) => self.column_made(column, true),
                (AlterTableType::AT_ColumnDefault, Node::A_Const(_) | Node::TypeCast(_)) => {
                    self.default_made(alter.relation(), command.name());
                }
                _ => {}
            }
            match (command.subtype, command.def()) {
                (_, part @ (Node::ColumnDef(_) | Node::Constraint(_)))
                | (AlterTableType::AT_ColumnDefault | AlterTableType::AT_SetExpression, part) => {
                    self.column_part(part, &scope)?
                }
                (_, Node::PartitionCmd(partition)) => self.bound(partition.bound())?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A constant that is to be a column's default is read as its type at once.
    fn default_made(&mut self, range: Option<&nodes::RangeVar>, name: Option<&str>) {
        let Some(range) = range else { return };
        let relation = self.find_relation(range.schemaname(), range.relname().unwrap_or_default());
        if let (Meant::Relation(relation), Some(name)) = (relation, name)
            && let Some((_, column)) = relation.column(name)
        {
            self.makes(&column.type_ref);
        }
    }

    /// A column's definition, a constraint, or an expression alone.
    fn column_part(&mut self, node: Node<'_>, scope: &Scope<'_>) -> Res<()> {
        match node {
            Node::ColumnDef(column) => {
                // USING of ALTER COLUMN ... TYPE stands here too.
                self.expr(column.raw_default(), scope)?;
                for node in column.constraints() {
                    if let Node::Constraint(constraint) = node {
                        self.constraint(constraint, scope)?;
                    }
                }
            }
            Node::Constraint(constraint) => self.constraint(constraint, scope)?,
            expression => {
                self.expr(expression, scope)?;
            }
        }
        Ok(())
    }

    fn constraint(&mut self, constraint: &nodes::Constraint, scope: &Scope<'_>) -> Res<()> {
        self.expr(constraint.raw_expr(), scope)?;
        self.expr(constraint.where_clause(), scope)?;
        for pair in constraint.exclusions() {
            let Node::NodeList(pair) = pair else {
                continue;
            };
            for part in pair {
                match part {
                    Node::IndexElem(element) => {
                        self.expr(element.expr(), scope)?;
                    }
                    Node::NodeList(operator) => self.exclusion(operator),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn exclusion(&mut self, operator: &NodeList) {
        let (schema, name) = split_name(operator);
        let value = Value::default();
        self.operator_by_name(schema.as_deref(), &name, &value, &value);
    }

    /// The values that a partition holds are computed at once.
    fn bound(&mut self, bound: Option<&nodes::PartitionBoundSpec>) -> Res<()> {
        let scope = Scope::child(None, None);
        if let Some(bound) = bound {
            for list in [bound.listdatums(), bound.lowerdatums(), bound.upperdatums()] {
                for node in list {
                    self.expr(node, &scope)?;
                }
            }
        }
        Ok(())
    }

    fn scope_of(&self, range: Option<&nodes::RangeVar>) -> Scope<'static> {
        let name = range.and_then(nodes::RangeVar::relname);
        let mut scope = Scope::child(None, None);
        let list = self.known_columns(range);
        scope.items.push(item(name.unwrap_or_default(), list));
        scope
    }

    /// Columns of a relation that is there, as no more than their types.
    fn known_columns(&self, range: Option<&nodes::RangeVar>) -> Vec<Col> {
        let meant = range.map(|range| {
            let name = range.relname().unwrap_or_default();
            self.find_relation(range.schemaname(), name)
        });
        let Some(Meant::Relation(relation)) = meant else {
            return Vec::new();
        };
        let columns = relation.columns.iter().map(|column| {
            let mut value = Value::constant(self.type_of(&column.type_ref));
            value.checked = self.made_by(&column.type_ref);
            Col::known(Arc::clone(&column.name), value)
        });
        columns.collect()
    }

    fn new_column(&self, definition: &nodes::ColumnDef) -> Col {
        let ty = definition.type_name().map_or(Type::Unknown, |name| {
            let names = name.names().iter().filter_map(nodes::String::sval);
            let names: Vec<&str> = names.collect();
            match self.find_type(&names) {
                Type::Builtin(_) if !name.array_bounds().is_empty() => Type::Builtin("anyarray"),
                _ if !name.array_bounds().is_empty() => Type::Unknown,
                found => found,
            }
        });
        let name = definition.colname().unwrap_or_default();
        Col::known(name.into(), Value::constant(ty))
    }
}

/// Whether a change of a table computes values of its rows anew, or checks them.
fn computes(command: Node<'_>) -> bool {
    let Node::AlterTableCmd(command) = command else {
        return false;
    };
    matches!(
        command.subtype,
        AlterTableType::AT_AlterColumnType
            | AlterTableType::AT_SetExpression
            | AlterTableType::AT_ValidateConstraint
            | AlterTableType::AT_AttachPartition
            | AlterTableType::AT_SetLogged
            | AlterTableType::AT_SetUnLogged
    ) || command.subtype == AlterTableType::AT_AddColumn && fills(command.def())
}

/// Whether the rows that are there are written anew for a column that is added, and with them their
/// indexes: its values are not one constant.
fn fills(column: Node<'_>) -> bool {
    let Node::ColumnDef(column) = column else {
        return false;
    };
    let constant = |node| match node {
        Node::TypeCast(cast) => matches!(cast.arg(), Node::A_Const(_)),
        node => matches!(node, Node::A_Const(_)),
    };
    let serial = |name: &nodes::TypeName| {
        let last = name
            .names()
            .iter()
            .next_back()
            .and_then(nodes::String::sval);
        last.is_some_and(|name| name.contains("serial"))
    };
    column.type_name().is_some_and(serial)
        || column.constraints().iter().any(|node| match node {
            Node::Constraint(constraint) => match constraint.contype {
                ConstrType::CONSTR_DEFAULT => !constant(constraint.raw_expr()),
                ConstrType::CONSTR_GENERATED | ConstrType::CONSTR_IDENTITY => true,
                _ => false,
            },
            _ => false,
        })
}

fn item(name: &str, list: Vec<Col>) -> Item {
    Item {
        name: Some(name.into()),
        schema: None,
        columns: Columns {
            list: Rc::new(list),
            more: More::None,
        },
        bare: true,
        renamed: false,
        base: None,
    }
}
