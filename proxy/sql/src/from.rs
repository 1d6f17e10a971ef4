//! FROM: relations, views, joins, subqueries, functions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Usages};
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::{JoinType, JsonTableColumnType};
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::builtin::Builtin;
use crate::calls::Found;
use crate::catalog::{Relation, RelationKind};
use crate::names::{Ctes, Item, Scope};
use crate::system::{self, SystemRelation};
use crate::value::{Col, ColValue, Columns, More, Origin, Type, Value};

/// Which relation a name means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meant<'c> {
    Relation(&'c Relation),
    System(&'static SystemRelation),
    /// One of PostgreSQL's own that is not clear.
    Closed,
    Nothing,
}

impl<'c> Analyzer<'c> {
    /// Which relation a name means.
    pub(crate) fn find_relation(&self, schema: Option<&str>, name: &str) -> Meant<'c> {
        let look = |schema: &str| -> Option<Meant<'c>> {
            if system::is_system_schema(schema) {
                // What is not on the list may be there all the same: names that look like
                // PostgreSQL's own end the search.
                return match system::relation(schema, name) {
                    Some(relation) => Some(Meant::System(relation)),
                    None if name.starts_with("pg_") || schema == "information_schema" => {
                        Some(Meant::Closed)
                    }
                    None => None,
                };
            }
            self.catalog.relation(schema, name).map(Meant::Relation)
        };
        match schema {
            Some("pg_temp") => self
                .session
                .temp_schema
                .as_deref()
                .and_then(look)
                .unwrap_or(Meant::Nothing),
            Some(schema) => look(schema).unwrap_or(if system::is_system_schema(schema) {
                Meant::Closed
            } else {
                Meant::Nothing
            }),
            None => self
                .path
                .iter()
                .find_map(|schema| look(schema))
                .unwrap_or(Meant::Nothing),
        }
    }

    /// Adds the things in a FROM list to `scope`, each seeing those before it where LATERAL.
    pub(crate) fn add_from(&mut self, list: &NodeList, scope: &mut Scope<'_>) -> Res<()> {
        for node in list {
            let items = self.item(node, scope, &[])?;
            scope.items.extend(items);
        }
        Ok(())
    }

    /// One thing in FROM.
    pub(crate) fn single_item(&mut self, node: Node<'_>, scope: &Scope<'_>) -> Res<Vec<Item>> {
        self.item(node, scope, &[])
    }

    fn item(&mut self, node: Node<'_>, scope: &Scope<'_>, left: &[Item]) -> Res<Vec<Item>> {
        let _level = self.depth.enter()?;
        match node {
            Node::RangeVar(range) => {
                let item = self.range_var(range, &scope.ctes, Actions::READ)?;
                Ok(vec![item])
            }
            Node::RangeSubselect(sub) => {
                let columns = if sub.lateral {
                    let sides = self.lateral(scope, left)?;
                    self.query(sub.subquery(), Some(&sides), &scope.ctes)?
                } else {
                    self.query(sub.subquery(), scope.parent, &scope.ctes)?
                };
                Ok(vec![self.aliased(columns, sub.alias(), None, None, None)])
            }
            Node::JoinExpr(join) => self.join(join, scope, left),
            Node::RangeFunction(function) => self.range_function(function, scope, left),
            Node::RangeTableSample(sample) => {
                let sides = self.lateral(scope, left)?;
                for argument in sample.args() {
                    let value = self.expr(argument, &sides)?;
                    self.mark(&value, Usages::PREDICATE);
                }
                let seed = self.expr(sample.repeatable(), &sides)?;
                self.mark(&seed, Usages::PREDICATE);
                let (schema, method) = crate::expression::split_name(sample.method());
                if !matches!(schema.as_deref(), None | Some("pg_catalog"))
                    || !matches!(&*method, "system" | "bernoulli")
                    || !self.catalog.functions_named(&method).is_empty()
                {
                    self.gap("the TABLESAMPLE method is not on the allow-list");
                    self.read_only = false;
                }
                self.volatile = true;
                self.item(sample.relation(), scope, left)
            }
            Node::RangeTableFunc(table) => self.xml_table(table, scope, left),
            Node::JsonTable(table) => self.json_table(table, scope, left),
            _ => {
                self.gap("something in FROM is of a kind that is not understood");
                self.read_only = false;
                Ok(vec![opaque(None)])
            }
        }
    }

    /// A relation or CTE by name.
    pub(crate) fn range_var(
        &mut self,
        range: &nodes::RangeVar,
        ctes: &Ctes,
        actions: Actions,
    ) -> Res<Item> {
        let name: Arc<str> = Arc::from(range.relname().unwrap_or_default());
        let schema = range.schemaname();
        if schema.is_none()
            && actions == Actions::READ
            && let Some(cte) = crate::names::cte(ctes, &name)
        {
            let columns = cte.columns.clone();
            return Ok(self.aliased(columns, range.alias(), Some(name), None, None));
        }
        match self.find_relation(schema, &name) {
            Meant::Relation(relation) => {
                let object = self.relation_object(relation, actions);
                let columns = self.relation_columns(relation, object)?;
                let base = matches!(
                    relation.kind,
                    RelationKind::Table
                        | RelationKind::MaterializedView
                        | RelationKind::ForeignTable
                        | RelationKind::Sequence
                )
                .then_some(object);
                Ok(self.aliased(
                    columns,
                    range.alias(),
                    Some(Arc::clone(&relation.name)),
                    Some(Arc::clone(&relation.schema)),
                    base,
                ))
            }
            Meant::System(relation) => {
                let object = self.system_object(relation, actions);
                let list = relation
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(index, name)| Col {
                        name: Arc::clone(name),
                        value: ColValue::Base(object, index),
                    })
                    .collect();
                let columns = Columns {
                    list: Rc::new(list),
                    more: More::Clear(object),
                };
                let base = (!relation.is_view).then_some(object);
                Ok(self.aliased(
                    columns,
                    range.alias(),
                    Some(name),
                    Some(relation.schema.into()),
                    base,
                ))
            }
            meant => {
                let shown =
                    schema.map_or_else(|| name.to_string(), |schema| format!("{schema}.{name}"));
                self.gap(&match meant {
                    Meant::Closed => format!("relation {shown} can hold other tables' data"),
                    _ => format!("relation {shown} is not known"),
                });
                self.read_only = false;
                self.named_object(
                    "table",
                    schema
                        .map(str::to_owned)
                        .into_iter()
                        .chain([name.to_string()])
                        .collect(),
                    actions,
                    chaperone_contract::Labels::Unknown,
                );
                let mut item = opaque(Some(name));
                if let Some(alias) = range.alias() {
                    item = self.aliased(item.columns, Some(alias), item.name, None, None);
                }
                Ok(item)
            }
        }
    }

    /// A relation's columns; a view's through its definition.
    pub(crate) fn relation_columns(&mut self, relation: &'c Relation, object: u32) -> Res<Columns> {
        self.depth.spend(relation.columns.len())?;
        if let Some(entry) = self.objects.get_mut(object as usize) {
            entry.rows = true;
        }
        let base = |index: usize, name: &Arc<str>| Col {
            name: Arc::clone(name),
            value: ColValue::Base(object, index),
        };
        match relation.kind {
            RelationKind::View | RelationKind::MaterializedView => {
                let values = self.view(relation, object)?;
                let list = relation
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(index, column)| {
                        let mut value = values
                            .as_ref()
                            .and_then(|values| values.get(index).cloned())
                            .unwrap_or_else(Value::unknown);
                        value.origin = Origin::At(relation.oid, column.number);
                        value.ty = self.type_of(&column.type_ref);
                        Col::known(Arc::clone(&column.name), value)
                    })
                    .collect();
                Ok(Columns {
                    list: Rc::new(list),
                    more: More::None,
                })
            }
            kind => {
                if kind == RelationKind::ForeignTable {
                    self.read_only = false;
                }
                if matches!(kind, RelationKind::Composite | RelationKind::Other) {
                    self.gap("something in FROM cannot be read");
                }
                self.row_security(relation, object)?;
                Ok(Columns {
                    list: Rc::new(
                        relation
                            .columns
                            .iter()
                            .enumerate()
                            .map(|(index, column)| base(index, &column.name))
                            .collect(),
                    ),
                    more: More::None,
                })
            }
        }
    }

    /// Expressions that the owner's policies add to every query: only what they call matters.
    fn row_security(&mut self, relation: &'c Relation, object: u32) -> Res<()> {
        if relation.policies.is_empty() || self.secured.contains(&relation.oid) {
            return Ok(());
        }
        self.secured.push(relation.oid);
        for policy in &relation.policies {
            let text = format!("SELECT {policy}");
            let Ok(tree) = crate::guard::parse(&text, &self.options.limits) else {
                self.gap("a row-level security policy cannot be read");
                self.read_only = false;
                continue;
            };
            let list = relation
                .columns
                .iter()
                .enumerate()
                .map(|(index, column)| Col {
                    name: Arc::clone(&column.name),
                    value: ColValue::Base(object, index),
                })
                .collect();
            let scope = Scope {
                parent: None,
                items: vec![Item {
                    name: Some(Arc::clone(&relation.name)),
                    schema: Some(Arc::clone(&relation.schema)),
                    columns: Columns {
                        list: Rc::new(list),
                        more: More::None,
                    },
                    bare: true,
                    base: Some(object),
                }],
                ctes: None,
            };
            let path = std::mem::replace(&mut self.path, self.catalog.printed_path.clone());
            let mut result = Ok(());
            for statement in tree.stmts() {
                if let Node::SelectStmt(select) = statement {
                    for target in select.target_list() {
                        result = result.and(self.expr(target.val(), &scope).map(|_| ()));
                    }
                }
            }
            self.path = path;
            result?;
        }
        Ok(())
    }

    /// What a view's columns derive from; `None` when that cannot be told.
    fn view(&mut self, relation: &'c Relation, object: u32) -> Res<Option<Rc<Vec<Value>>>> {
        if let Some(known) = self.views.get(&relation.oid) {
            return Ok(known.clone());
        }
        let _level = self.depth.enter()?;
        // A view cannot reach itself, but a catalog read in the middle of a change may say so.
        self.views.insert(relation.oid, None);
        let tree = relation
            .definition
            .as_deref()
            .and_then(|text| crate::guard::parse(text, &self.options.limits).ok());
        let statement = tree.as_ref().and_then(|tree| {
            let mut all = tree.stmts();
            all.next().filter(|_| tree.len() == 1)
        });
        let query = match statement {
            Some(Node::ViewStmt(view)) => Some(view.query()),
            Some(Node::CreateTableAsStmt(table)) => Some(table.query()),
            Some(select @ Node::SelectStmt(_)) => Some(select),
            _ => None,
        };
        let values = match query {
            Some(query) => {
                let path = std::mem::replace(&mut self.path, self.catalog.printed_path.clone());
                // A materialized view's conditions were evaluated when it was filled.
                let sublinks = std::mem::take(&mut self.sublinks);
                let columns = self.query(query, None, &None);
                self.sublinks = sublinks;
                self.path = path;
                let columns = columns?;
                if columns.more == More::None && columns.list.len() >= relation.columns.len() {
                    let list: Vec<Value> =
                        columns.list.iter().map(|col| self.col_value(col)).collect();
                    Some(Rc::new(list))
                } else {
                    None
                }
            }
            None => None,
        };
        if values.is_none() {
            self.gap(&format!(
                "the definition of {}.{} is not understood",
                relation.schema, relation.name
            ));
            self.read_only = false;
        }
        if relation.rules {
            self.gap(&format!("{}.{} has rules", relation.schema, relation.name));
            self.read_only = false;
        }
        if let Some(entry) = self.objects.get_mut(object as usize) {
            match &values {
                Some(values) => {
                    for value in values.iter() {
                        crate::value::merge(&mut entry.through, &value.fields);
                        entry.through_unknown |= value.unknown;
                    }
                }
                None => entry.through_unknown = true,
            }
        }
        self.views.insert(relation.oid, values.clone());
        Ok(values)
    }

    /// Applies an alias and its column list.
    pub(crate) fn aliased(
        &mut self,
        columns: Columns,
        alias: Option<&nodes::Alias>,
        name: Option<Arc<str>>,
        schema: Option<Arc<str>>,
        base: Option<u32>,
    ) -> Item {
        let Some(alias) = alias else {
            return Item {
                name,
                schema,
                columns,
                bare: true,
                base,
            };
        };
        let mut columns = columns;
        if !alias.colnames().is_empty() {
            columns.list = Rc::new(renamed(&columns.list, alias.colnames()));
            if columns.more != More::None {
                // Names of columns that are not known: anything may be meant.
                columns.more = match columns.more {
                    More::Clear(object) => More::Clear(object),
                    _ => More::Unknown,
                };
            }
        }
        Item {
            name: alias.aliasname().map(Arc::from),
            schema: None,
            columns,
            bare: true,
            base,
        }
    }

    fn join(
        &mut self,
        join: &nodes::JoinExpr,
        scope: &Scope<'_>,
        outer: &[Item],
    ) -> Res<Vec<Item>> {
        let mut left = self.item(join.larg(), scope, outer)?;
        self.depth.spend(outer.len() + left.len())?;
        let mut seen = outer.to_vec();
        seen.extend(left.iter().cloned());
        let mut right = self.item(join.rarg(), scope, &seen)?;
        // The columns that the join has.
        let mut left_columns = Vec::new();
        let mut more = More::None;
        for item in left.iter().filter(|item| item.bare) {
            left_columns.extend(item.columns.list.iter().cloned());
            more = worse(more, item.columns.more);
        }
        let mut right_columns = Vec::new();
        for item in right.iter().filter(|item| item.bare) {
            right_columns.extend(item.columns.list.iter().cloned());
            more = worse(more, item.columns.more);
        }
        self.depth.spend(left_columns.len() + right_columns.len())?;
        let mut using: Vec<Arc<str>> = join
            .using_clause()
            .iter()
            .filter_map(nodes::String::sval)
            .map(Arc::from)
            .collect();
        if join.is_natural {
            using = left_columns
                .iter()
                .filter(|col| right_columns.iter().any(|other| other.name == col.name))
                .map(|col| Arc::clone(&col.name))
                .collect();
            if more != More::None {
                self.gap("a NATURAL JOIN is over columns that are not known");
            }
        }
        let mut items = Vec::new();
        if using.is_empty() && join.alias().is_none() && join.join_using_alias().is_none() {
            items.append(&mut left);
            items.append(&mut right);
            let sides = join_scope(scope, &items);
            self.join_condition(join.quals(), &sides)?;
            return Ok(items);
        }
        let mut merged = Vec::new();
        for name in &using {
            let take = |columns: &mut Vec<Col>| {
                let at = columns.iter().position(|col| col.name == *name)?;
                Some(columns.remove(at))
            };
            let (Some(a), Some(b)) = (take(&mut left_columns), take(&mut right_columns)) else {
                if more == More::None {
                    self.gap(&format!("column {name} of USING is not known"));
                }
                merged.push(Col::known(Arc::clone(name), Value::unknown()));
                continue;
            };
            let a = self.col_value(&a);
            let b = self.col_value(&b);
            let condition = self.operator_by_name(None, "=", &a, &b);
            self.mark(&condition, Usages::JOIN);
            self.note_filter(&condition);
            let same = a.ty == b.ty && matches!(a.ty, Type::Builtin(_));
            let (ty, origin) = match join.jointype {
                JoinType::JOIN_RIGHT if same => (b.ty, b.origin),
                JoinType::JOIN_FULL => (a.ty, Origin::Computed),
                _ if same => (a.ty, a.origin),
                _ => (Type::Unknown, Origin::Unpredictable),
            };
            let mut value = a;
            value.absorb(&b);
            let mut value = value.derived(ty);
            value.origin = origin;
            merged.push(Col::known(Arc::clone(name), value));
        }
        let using_columns = merged.clone();
        let mut all = merged;
        all.append(&mut left_columns);
        all.append(&mut right_columns);
        let columns = Columns {
            list: Rc::new(all),
            more,
        };
        // The condition sees both sides, also where the join's own name hides them later.
        let mut inside = left.clone();
        inside.extend(right.iter().cloned());
        let sides = join_scope(scope, &inside);
        self.join_condition(join.quals(), &sides)?;
        if let Some(alias) = join.alias() {
            return Ok(vec![self.aliased(columns, Some(alias), None, None, None)]);
        }
        for item in left.into_iter().chain(right) {
            items.push(Item {
                bare: false,
                ..item
            });
        }
        if let Some(alias) = join.join_using_alias() {
            items.push(Item {
                name: alias.aliasname().map(Arc::from),
                schema: None,
                columns: Columns {
                    list: Rc::new(using_columns),
                    more: More::None,
                },
                bare: false,
                base: None,
            });
        }
        items.push(Item {
            name: None,
            schema: None,
            columns,
            bare: true,
            base: None,
        });
        Ok(items)
    }

    fn join_condition(&mut self, quals: Node<'_>, scope: &Scope<'_>) -> Res<()> {
        if matches!(quals, Node::None) {
            return Ok(());
        }
        let value = self.expr(quals, scope)?;
        self.mark(&value, Usages::JOIN);
        self.note_filter(&value);
        Ok(())
    }

    fn range_function(
        &mut self,
        range: &nodes::RangeFunction,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut list: Vec<Col> = Vec::new();
        let mut more = More::None;
        let count = range.functions().len();
        let alias = range.alias();
        let alias_name: Option<Arc<str>> = alias.and_then(|alias| alias.aliasname()).map(Arc::from);
        let mut function_name: Option<Arc<str>> = None;
        for entry in range.functions() {
            let Node::NodeList(pair) = entry else {
                self.gap("a function in FROM is not understood");
                return Ok(vec![opaque(alias_name)]);
            };
            let call = pair.get(0).unwrap_or(Node::None);
            // UNNEST of several arrays has a column for each.
            if let Node::FuncCall(function) = call
                && function.args().len() > 1
                && function
                    .funcname()
                    .iter()
                    .filter_map(|name| name.as_str())
                    .next_back()
                    == Some("unnest")
            {
                let name: Arc<str> = "unnest".into();
                self.note_function("pg_catalog", "unnest");
                if !self.catalog.functions_named("unnest").is_empty() {
                    self.gap("function unnest is not PostgreSQL's own alone");
                }
                for argument in function.args() {
                    let mut value = self.expr(argument, &sides)?.derived(Type::Unknown);
                    self.risky(&mut value);
                    list.push(Col::known(Arc::clone(&name), value));
                }
                function_name = Some(name);
                continue;
            }
            let value = self.expr(call, &sides)?;
            let definitions: Vec<(Arc<str>, Option<&nodes::TypeName>)> = range
                .coldeflist()
                .iter()
                .chain(
                    pair.get(1)
                        .and_then(|node| node.as_node_list())
                        .into_iter()
                        .flatten()
                        .filter_map(|node| match node {
                            Node::ColumnDef(column) => Some(column),
                            _ => None,
                        }),
                )
                .map(|column| {
                    (
                        Arc::from(column.colname().unwrap_or_default()),
                        column.type_name(),
                    )
                })
                .collect();
            let mut value = value;
            value.origin = Origin::Computed;
            if !definitions.is_empty() {
                for (name, type_name) in definitions {
                    let mut part = value.clone().derived(Type::Unknown);
                    self.cast_target(type_name, &mut part);
                    list.push(Col::known(name, part));
                }
                continue;
            }
            let Node::FuncCall(function) = call else {
                // CURRENT_DATE and its like.
                let name: Arc<str> = alias_name.clone().unwrap_or_else(|| "?column?".into());
                list.push(Col::known(name, value));
                continue;
            };
            let names: Vec<Arc<str>> = function
                .funcname()
                .iter()
                .filter_map(|node| node.as_str())
                .map(Arc::from)
                .collect();
            let last: Arc<str> = names.last().cloned().unwrap_or_else(|| "?column?".into());
            function_name = Some(Arc::clone(&last));
            let scalar = if count == 1 {
                alias_name.clone().unwrap_or_else(|| Arc::clone(&last))
            } else {
                Arc::clone(&last)
            };
            match self.find_function(&names, &self.argument_types(function.args().len())) {
                Found::Builtin(known) if !known.columns.is_empty() => {
                    for name in known.columns.split(',') {
                        list.push(Col::known(name.into(), value.clone()));
                    }
                }
                Found::Builtin(known) if known.result.is_empty() || known.result == "record" => {
                    // Could be a row (json_populate_record, unnest of rows): any name may be meant.
                    list.push(Col::known(scalar, value.clone()));
                    if known.flags.contains(Builtin::SET) || is_row_maker(known.name) {
                        let rows = self.row_columns(function.args(), &sides, &value)?;
                        match rows {
                            Some(columns) => {
                                list.pop();
                                list.extend(columns);
                            }
                            None if is_row_maker(known.name) => {
                                list.pop();
                                more = More::Unknown;
                            }
                            None => {}
                        }
                    }
                }
                Found::Builtin(_) => list.push(Col::known(scalar, value.clone())),
                Found::User(known, _) if !known.columns.is_empty() => {
                    for name in &known.columns {
                        list.push(Col::known(Arc::clone(name), value.clone()));
                    }
                }
                _ => {
                    more = More::Unknown;
                }
            }
        }
        if range.ordinality {
            list.push(Col::known(
                "ordinality".into(),
                Value::constant(Type::Builtin("int8")),
            ));
        }
        let columns = Columns {
            list: Rc::new(list),
            more,
        };
        Ok(vec![self.aliased(
            columns,
            alias,
            function_name.or(Some("?".into())),
            None,
            None,
        )])
    }

    /// What a LATERAL thing in FROM sees: what stands before it.
    fn lateral<'s>(&self, scope: &'s Scope<'s>, left: &[Item]) -> Res<Scope<'s>> {
        self.depth.spend(scope.items.len() + left.len())?;
        let mut items = scope.items.clone();
        items.extend(left.iter().cloned());
        Ok(Scope {
            parent: scope.parent,
            items,
            ctes: scope.ctes.clone(),
        })
    }

    fn argument_types(&self, count: usize) -> Vec<Value> {
        vec![Value::default(); count]
    }

    /// Columns of `json_populate_record(NULL::relation, ...)` and the like.
    fn row_columns(
        &mut self,
        arguments: &NodeList,
        _scope: &Scope<'_>,
        value: &Value,
    ) -> Res<Option<Vec<Col>>> {
        let Some(Node::TypeCast(cast)) = arguments.get(0) else {
            return Ok(None);
        };
        let Some(name) = cast.type_name() else {
            return Ok(None);
        };
        let names: Vec<&str> = name
            .names()
            .iter()
            .filter_map(nodes::String::sval)
            .collect();
        let (schema, name) = match names.as_slice() {
            [name] => (None, *name),
            [schema, name] => (Some(*schema), *name),
            _ => return Ok(None),
        };
        match self.find_relation(schema, name) {
            Meant::Relation(relation) => Ok(Some(
                relation
                    .columns
                    .iter()
                    .map(|column| {
                        Col::known(
                            Arc::clone(&column.name),
                            value.clone().derived(Type::Unknown),
                        )
                    })
                    .collect(),
            )),
            _ => Ok(None),
        }
    }

    fn xml_table(
        &mut self,
        table: &nodes::RangeTableFunc,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut value = self.expr(table.docexpr(), &sides)?;
        let rows = self.expr(table.rowexpr(), &sides)?;
        value.absorb(&rows);
        let namespaces = self.all_of(table.namespaces(), &sides)?;
        value.absorb(&namespaces);
        let mut value = value.derived(Type::Unknown);
        self.risky(&mut value);
        let mut list = Vec::new();
        for column in table.columns() {
            let mut part = value.clone();
            for node in [column.colexpr(), column.coldefexpr()] {
                let more = self.expr(node, &sides)?;
                part.absorb(&more);
            }
            self.risky(&mut part);
            if !column.for_ordinality {
                self.cast_target(column.type_name(), &mut part);
            }
            list.push(Col::known(
                column.colname().unwrap_or_default().into(),
                part,
            ));
        }
        let columns = Columns {
            list: Rc::new(list),
            more: More::None,
        };
        Ok(vec![self.aliased(
            columns,
            table.alias(),
            Some("xmltable".into()),
            None,
            None,
        )])
    }

    fn json_table(
        &mut self,
        table: &nodes::JsonTable,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
        let sides = self.lateral(scope, left)?;
        let mut value = match table.context_item() {
            Some(item) => self.expr(item.raw_expr(), &sides)?,
            None => Value::unknown(),
        };
        for argument in table.passing() {
            if let Node::JsonArgument(argument) = argument
                && let Some(item) = argument.val()
            {
                let part = self.expr(item.raw_expr(), &sides)?;
                value.absorb(&part);
            }
        }
        let mut value = value.derived(Type::Unknown);
        self.risky(&mut value);
        let mut list = Vec::new();
        let mut open: Vec<&nodes::JsonTableColumn> = table.columns().iter().collect();
        open.reverse();
        while let Some(column) = open.pop() {
            self.depth.spend(1)?;
            if column.coltype == JsonTableColumnType::JTC_NESTED {
                let mut nested: Vec<_> = column
                    .columns()
                    .iter()
                    .filter_map(|node| match node {
                        Node::JsonTableColumn(column) => Some(column),
                        _ => None,
                    })
                    .collect();
                nested.reverse();
                open.extend(nested);
                continue;
            }
            let mut part = value.clone();
            for behaviour in [column.on_empty(), column.on_error()].into_iter().flatten() {
                let more = self.expr(behaviour.expr(), &sides)?;
                part.absorb(&more);
            }
            if column.coltype != JsonTableColumnType::JTC_FOR_ORDINALITY {
                self.cast_target(column.type_name(), &mut part);
            }
            list.push(Col::known(column.name().unwrap_or_default().into(), part));
        }
        let columns = Columns {
            list: Rc::new(list),
            more: More::None,
        };
        Ok(vec![self.aliased(
            columns,
            table.alias(),
            Some("json_table".into()),
            None,
            None,
        )])
    }
}

fn is_row_maker(name: &str) -> bool {
    matches!(
        name,
        "json_populate_record"
            | "jsonb_populate_record"
            | "json_populate_recordset"
            | "jsonb_populate_recordset"
            | "json_to_record"
            | "jsonb_to_record"
            | "json_to_recordset"
            | "jsonb_to_recordset"
    )
}

fn worse(a: More, b: More) -> More {
    match (a, b) {
        (More::Unknown, _) | (_, More::Unknown) => More::Unknown,
        (More::Clear(object), _) | (_, More::Clear(object)) => More::Clear(object),
        _ => More::None,
    }
}

fn renamed(list: &[Col], names: &NodeList) -> Vec<Col> {
    let mut names = names.iter().filter_map(|node| node.as_str());
    list.iter()
        .map(|col| Col {
            name: names
                .next()
                .map_or_else(|| Arc::clone(&col.name), Arc::from),
            value: col.value.clone(),
        })
        .collect()
}

fn opaque(name: Option<Arc<str>>) -> Item {
    Item {
        name,
        schema: None,
        columns: Columns {
            list: Rc::default(),
            more: More::Unknown,
        },
        bare: true,
        base: None,
    }
}

/// What a join's condition sees: its two sides.
fn join_scope<'s>(scope: &'s Scope<'s>, sides: &[Item]) -> Scope<'s> {
    Scope {
        parent: scope.parent,
        items: sides.to_vec(),
        ctes: scope.ctes.clone(),
    }
}
