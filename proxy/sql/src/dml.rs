//! INSERT, UPDATE, DELETE, MERGE.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Usages};
use pg_raw_parse::list::CastNodeList;
use pg_raw_parse::raw::CmdType;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::catalog::{Column, Relation, RelationKind};
use crate::from::Meant;
use crate::names::{Ctes, Item, Scope};
use crate::objects::{Field, Referent};
use crate::value::{Col, Columns, More, Type, Value};

impl<'c> Analyzer<'c> {
    /// A data-modifying statement; its result columns are those of RETURNING.
    pub(crate) fn modify(&mut self, node: Node<'_>, ctes: &Ctes) -> Res<Columns> {
        let _level = self.depth.enter()?;
        self.read_only = false;
        match node {
            Node::InsertStmt(insert) => self.insert(insert, ctes),
            Node::UpdateStmt(update) => self.update(update, ctes),
            Node::DeleteStmt(delete) => self.delete(delete, ctes),
            Node::MergeStmt(merge) => self.merge_into(merge, ctes),
            _ => {
                self.gap("a statement in WITH is not understood");
                Ok(Columns::default())
            }
        }
    }

    /// What is written to.
    fn target_relation(&mut self, range: Option<&nodes::RangeVar>, actions: Actions) -> Res<Item> {
        let Some(range) = range else {
            self.gap("what is written to is not understood");
            return Ok(Item {
                name: None,
                schema: None,
                columns: Columns {
                    list: Rc::default(),
                    more: More::Unknown,
                },
                bare: true,
                renamed: false,
                base: None,
            });
        };
        let item = self.range_var(range, &None, actions)?;
        if let Meant::Relation(relation) =
            self.find_relation(range.schemaname(), range.relname().unwrap_or_default())
        {
            self.write_effects(relation, actions);
            if relation.kind == RelationKind::View {
                self.written_through(relation, actions)?;
            }
        } else {
            self.gap("what is written to is no relation of a user's");
        }
        Ok(item)
    }

    /// Writing to a view writes to the one relation in its FROM, unless triggers do it instead.
    fn written_through(&mut self, view: &'c Relation, actions: Actions) -> Res<()> {
        let _level = self.depth.enter()?;
        let Some(base) = self.behind(view) else {
            if view.triggers.is_empty() {
                self.gap("which relation a view writes to is not known");
            }
            return Ok(());
        };
        self.relation_object(base, actions);
        self.write_effects(base, actions);
        match base.kind {
            RelationKind::View => self.written_through(base, actions),
            _ => Ok(()),
        }
    }

    /// The one relation in a view's FROM.
    fn behind(&mut self, view: &Relation) -> Option<&'c Relation> {
        let text = view.definition.as_deref()?;
        let tree = crate::guard::parse(text, &self.options.limits).ok()?;
        let query = match tree.stmts().next()? {
            Node::ViewStmt(view) => view.query(),
            query => query,
        };
        let Node::SelectStmt(select) = query else {
            return None;
        };
        // With WITH, PostgreSQL does not write through; the name could be one of those.
        if select.with_clause().is_some() || select.from_clause().len() != 1 {
            return None;
        }
        let Some(Node::RangeVar(range)) = select.from_clause().get(0) else {
            return None;
        };
        let path = std::mem::replace(&mut self.path, self.catalog.printed_path.clone());
        let meant = self.find_relation(range.schemaname(), range.relname().unwrap_or_default());
        self.path = path;
        match meant {
            Meant::Relation(relation) => Some(relation),
            _ => None,
        }
    }

    /// Writing into a unique or referencing column tells whether the value is there.
    fn note_written(&mut self, item: &Item, name: &str) {
        let Some(object) = item.base else {
            // A view's column writes to the fields that it comes from.
            if let Some(col) = item
                .columns
                .list
                .iter()
                .find(|col| &*col.name == name)
                .cloned()
            {
                let value = self.col_value(&col);
                self.mark_fields(&value.fields, Usages::EQUALITY);
            }
            return;
        };
        let Some(Referent::Relation(relation)) = self
            .objects
            .get(object as usize)
            .map(|object| object.referent)
        else {
            return;
        };
        let Some((index, column)) = relation.column(name) else {
            return;
        };
        if column.unique {
            let field = self.field(object, index, &column.name);
            self.mark_fields(&[field], Usages::EQUALITY);
        }
        for (oid, number) in &column.references {
            if let Some(other) = self.catalog.relation_by_oid(*oid)
                && let Some(index) = other
                    .columns
                    .iter()
                    .position(|column| column.number == *number)
                && let Some(column) = other.columns.get(index)
            {
                let object = self.relation_object(other, Actions::READ);
                let field = self.field(object, index, &column.name);
                self.mark_fields(&[field], Usages::EQUALITY);
            }
        }
    }

    /// The target's columns as RETURNING sees them: what they held, and what is written.
    fn after(&mut self, item: &Item, written: &[(Arc<str>, Value)]) -> Item {
        let mut all = Value::default();
        for (_, value) in written {
            all.absorb(value);
        }
        let list = item
            .columns
            .list
            .iter()
            .map(|col| {
                let mine: Vec<&Value> = written
                    .iter()
                    .filter(|(name, _)| *name == col.name)
                    .map(|(_, value)| value)
                    .collect();
                let generated = match item
                    .base
                    .and_then(|object| self.objects.get(object as usize))
                {
                    Some(object) => match object.referent {
                        Referent::Relation(relation) => relation
                            .column(&col.name)
                            .is_some_and(|(_, column)| column.generated.is_some()),
                        _ => false,
                    },
                    None => true,
                };
                let silent = |value: &&Value| value.is_plain_constant();
                if !generated && mine.iter().all(silent) || generated && all.is_plain_constant() {
                    return col.clone();
                }
                let mut value = self.col_value(col);
                let (ty, origin) = (value.ty, value.origin);
                if generated {
                    value.absorb(&all);
                }
                for part in mine {
                    value.absorb(part);
                }
                let mut value = value.derived(ty);
                value.origin = origin;
                Col::known(Arc::clone(&col.name), value)
            })
            .collect();
        Item {
            columns: Columns {
                list: Rc::new(list),
                more: item.columns.more,
            },
            ..item.clone()
        }
    }

    fn returning(
        &mut self,
        clause: Option<&nodes::ReturningClause>,
        target: Item,
        others: Vec<Item>,
        ctes: &Ctes,
    ) -> Res<Columns> {
        let Some(clause) = clause else {
            return Ok(Columns::default());
        };
        if let Some(object) = target
            .base
            .and_then(|object| self.objects.get_mut(object as usize))
        {
            object.actions |= Actions::READ;
        }
        let mut extra = Vec::new();
        let mut names = [("old", None), ("new", None)];
        for option in clause.options() {
            let slot = usize::from(
                option.option == pg_raw_parse::raw::ReturningOptionKind::RETURNING_OPTION_NEW,
            );
            if let (Some(entry), Some(name)) = (names.get_mut(slot), option.value()) {
                entry.1 = Some(name.to_owned());
            }
        }
        if self.session.version >= 180_000 || clause.options().iter().next().is_some() {
            for (default, name) in names {
                extra.push(Item {
                    name: Some(name.unwrap_or_else(|| default.to_owned()).into()),
                    schema: None,
                    bare: false,
                    ..target.clone()
                });
            }
        }
        let mut scope = Scope::child(None, ctes.clone());
        scope.items.push(target);
        scope.items.extend(others);
        for item in extra {
            let taken = scope.items.iter().any(|known| known.name == item.name);
            if !taken {
                scope.items.push(item);
            }
        }
        let mut list = Vec::new();
        for node in clause.exprs() {
            match node {
                Node::ResTarget(target) => self.target(target, &scope, &mut list)?,
                _ => self.gap("RETURNING is not understood"),
            }
        }
        let more = if list.iter().any(|col| &*col.name == "*") {
            More::Unknown
        } else {
            More::None
        };
        Ok(Columns {
            list: Rc::new(list),
            more,
        })
    }

    fn written(&mut self, item: &Item, name: &str, value: &Value) {
        self.mark(value, Usages::WRITE_SOURCE);
        self.note_written(item, name);
        for (relation, column) in self.columns_behind(item, name) {
            if self.user_cast(value.ty, &column.type_ref.name) {
                self.untrusted = true;
                self.gap(&format!(
                    "a cast that is not PostgreSQL's own may make the values of {}.{}.{}",
                    relation.schema, relation.name, column.name
                ));
            }
        }
    }

    fn updated(&mut self, item: &Item, name: &str, value: &Value) {
        self.written(item, name, value);
        for (relation, column) in self.columns_behind(item, name) {
            self.key_effects(relation, column);
        }
    }

    /// The columns of relations that writing to a column of the target writes to.
    fn columns_behind(&mut self, item: &Item, name: &str) -> Vec<(&'c Relation, &'c Column)> {
        if let Some(object) = item.base {
            let found = self.relation_of(object).and_then(|relation| {
                let (_, column) = relation.column(name)?;
                Some((relation, column))
            });
            return found.into_iter().collect();
        }
        let Some(col) = item.columns.list.iter().find(|col| &*col.name == name) else {
            return Vec::new();
        };
        let fields = self.col_value(col).fields;
        let fields = fields.iter().filter_map(|at| self.fields.get(*at as usize));
        let column = |field: &Field| {
            let relation = self.relation_of(field.object)?;
            Some((relation, relation.columns.get(field.index)?))
        };
        fields.filter_map(column).collect()
    }

    fn relation_of(&self, object: u32) -> Option<&'c Relation> {
        match self.objects.get(object as usize)?.referent {
            Referent::Relation(relation) => Some(relation),
            _ => None,
        }
    }

    fn insert(&mut self, insert: &nodes::InsertStmt, ctes: &Ctes) -> Res<Columns> {
        let ctes = self.with(insert.with_clause(), None, ctes)?;
        let item = self.target_relation(insert.relation(), Actions::CREATE)?;
        let source = match insert.select_stmt() {
            Node::None => Columns::default(),
            select => self.query(select, None, &ctes)?,
        };
        let names: Vec<Arc<str>> = if insert.cols().is_empty() {
            item.columns
                .list
                .iter()
                .map(|col| Arc::clone(&col.name))
                .collect()
        } else {
            insert
                .cols()
                .iter()
                .filter_map(|node| match node {
                    Node::ResTarget(target) => target.name().map(Arc::from),
                    _ => None,
                })
                .collect()
        };
        for node in insert.cols() {
            if let Node::ResTarget(target) = node {
                for step in target.indirection() {
                    if let Node::A_Indices(indices) = step {
                        let scope = Scope::child(None, ctes.clone());
                        for bound in [indices.lidx(), indices.uidx()] {
                            let value = self.expr(bound, &scope)?;
                            self.mark(&value, Usages::WRITE_SOURCE | Usages::OTHER);
                        }
                    }
                }
            }
        }
        let mut written = Vec::new();
        for (index, col) in source.list.iter().enumerate() {
            let value = self.col_value(col);
            let name = names.get(index).cloned().unwrap_or_else(|| "*".into());
            self.written(&item, &name, &value);
            written.push((name, value));
        }
        if source.more != More::None {
            self.gap("what is inserted is not known");
        }
        if let Some(conflict) = insert.on_conflict_clause() {
            let excluded = self.after(&item, &written);
            let excluded = Item {
                name: Some("excluded".into()),
                schema: None,
                bare: false,
                base: None,
                ..excluded
            };
            let mut scope = Scope::child(None, ctes.clone());
            scope.items.push(item.clone());
            if let Some(infer) = conflict.infer() {
                for node in infer.index_elems() {
                    if let Node::IndexElem(element) = node {
                        let value = match element.name() {
                            Some(name) => {
                                match item.columns.list.iter().find(|col| &*col.name == name) {
                                    Some(col) => self.col_value(col),
                                    None => Value::unknown(),
                                }
                            }
                            None => self.expr(element.expr(), &scope)?,
                        };
                        self.mark(&value, Usages::PREDICATE);
                    }
                }
                let value = self.expr(infer.where_clause(), &scope)?;
                self.mark(&value, Usages::PREDICATE);
            } else if conflict.target_list().is_empty() {
                // DO NOTHING on any conflict.
                self.mark_unique(&item);
            }
            if infer_by_constraint(conflict) {
                self.mark_unique(&item);
            }
            scope.items.push(excluded);
            let updated = self.assignments(conflict.target_list(), &item, &scope)?;
            if !updated.is_empty()
                && let Some(object) = item
                    .base
                    .and_then(|object| self.objects.get_mut(object as usize))
            {
                object.actions |= Actions::UPDATE;
            }
            written.extend(updated);
            self.filter(conflict.where_clause(), &scope)?;
        }
        let target = self.after(&item, &written);
        self.returning(insert.returning_clause(), target, Vec::new(), &ctes)
    }

    pub(crate) fn mark_unique(&mut self, item: &Item) {
        let names: Vec<Arc<str>> = item
            .columns
            .list
            .iter()
            .map(|col| Arc::clone(&col.name))
            .collect();
        for name in names {
            self.note_written(item, &name);
        }
    }

    /// `SET column = value, (a, b) = (...)`.
    fn assignments(
        &mut self,
        targets: &CastNodeList<nodes::ResTarget>,
        item: &Item,
        scope: &Scope<'_>,
    ) -> Res<Vec<(Arc<str>, Value)>> {
        let mut written = Vec::new();
        for target in targets {
            let _level = self.depth.enter()?;
            let name: Arc<str> = Arc::from(target.name().unwrap_or_default());
            let mut value = self.expr(target.val(), scope)?;
            for step in target.indirection() {
                if let Node::A_Indices(indices) = step {
                    for bound in [indices.lidx(), indices.uidx()] {
                        let at = self.expr(bound, scope)?;
                        value.absorb(&at);
                    }
                }
            }
            if !target.indirection().is_empty() {
                value.ty = Type::Unknown;
            }
            self.updated(item, &name, &value);
            written.push((name, value));
        }
        Ok(written)
    }

    fn update(&mut self, update: &nodes::UpdateStmt, ctes: &Ctes) -> Res<Columns> {
        let ctes = self.with(update.with_clause(), None, ctes)?;
        let item = self.target_relation(update.relation(), Actions::UPDATE)?;
        let mut scope = Scope::child(None, ctes.clone());
        self.add_from(update.from_clause(), &mut scope)?;
        let others = scope.items.clone();
        scope.items.insert(0, item.clone());
        self.filter(update.where_clause(), &scope)?;
        let written = self.assignments(update.target_list(), &item, &scope)?;
        let target = self.after(&item, &written);
        self.returning(update.returning_clause(), target, others, &ctes)
    }

    fn delete(&mut self, delete: &nodes::DeleteStmt, ctes: &Ctes) -> Res<Columns> {
        let ctes = self.with(delete.with_clause(), None, ctes)?;
        let item = self.target_relation(delete.relation(), Actions::DELETE)?;
        let mut scope = Scope::child(None, ctes.clone());
        self.add_from(delete.using_clause(), &mut scope)?;
        let others = scope.items.clone();
        scope.items.insert(0, item.clone());
        self.filter(delete.where_clause(), &scope)?;
        self.returning(delete.returning_clause(), item, others, &ctes)
    }

    fn merge_into(&mut self, merge: &nodes::MergeStmt, ctes: &Ctes) -> Res<Columns> {
        let ctes = self.with(merge.with_clause(), None, ctes)?;
        let mut actions = Actions::empty();
        for clause in merge.merge_when_clauses() {
            actions |= match clause.command_type {
                CmdType::CMD_INSERT => Actions::CREATE,
                CmdType::CMD_UPDATE => Actions::UPDATE,
                CmdType::CMD_DELETE => Actions::DELETE,
                _ => Actions::empty(),
            };
        }
        // Without READ the name cannot mean a common table expression.
        let actions = if actions.is_empty() {
            Actions::UPDATE
        } else {
            actions
        };
        let item = self.target_relation(merge.relation(), actions)?;
        let mut scope = Scope::child(None, ctes.clone());
        let source = pg_source(self, merge.source_relation(), &mut scope)?;
        let others = source;
        scope.items.insert(0, item.clone());
        let condition = self.expr(merge.join_condition(), &scope)?;
        self.mark(&condition, Usages::JOIN);
        self.note_filter(&condition);
        let mut written = Vec::new();
        for clause in merge.merge_when_clauses() {
            let _level = self.depth.enter()?;
            let when = self.expr(clause.condition(), &scope)?;
            self.mark(&when, Usages::PREDICATE);
            let names: Vec<Arc<str>> = clause
                .target_list()
                .iter()
                .filter_map(|node| match node {
                    Node::ResTarget(target) => target.name().map(Arc::from),
                    _ => None,
                })
                .collect();
            if clause.command_type == CmdType::CMD_INSERT {
                for (index, node) in clause.values().iter().enumerate() {
                    let value = self.expr(node, &scope)?;
                    let name = names
                        .get(index)
                        .or_else(|| item.columns.list.get(index).map(|col| &col.name))
                        .cloned()
                        .unwrap_or_else(|| "*".into());
                    self.written(&item, &name, &value);
                    written.push((name, value));
                }
            } else {
                for node in clause.target_list() {
                    if let Node::ResTarget(target) = node {
                        let value = self.expr(target.val(), &scope)?;
                        let name: Arc<str> = Arc::from(target.name().unwrap_or_default());
                        self.updated(&item, &name, &value);
                        written.push((name, value));
                    }
                }
            }
        }
        let target = self.after(&item, &written);
        // RETURNING sees the source first.
        self.returning(merge.returning_clause(), target, others, &ctes)
    }
}

fn infer_by_constraint(conflict: &nodes::OnConflictClause) -> bool {
    conflict
        .infer()
        .is_some_and(|infer| infer.conname().is_some())
}

fn pg_source(analyzer: &mut Analyzer<'_>, node: Node<'_>, scope: &mut Scope<'_>) -> Res<Vec<Item>> {
    let items = analyzer.single_item(node, scope)?;
    scope.items.extend(items.iter().cloned());
    Ok(items)
}
