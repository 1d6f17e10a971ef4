//! FROM: relations, views, joins, subqueries, functions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Usages};
use pg_raw_parse::list::NodeList;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::catalog::{Relation, RelationKind};
use crate::names::{Ctes, Item, Scope};
use crate::system::{self, SystemRelation};
use crate::value::{Col, ColValue, Columns, More, Origin, Value};

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

    pub(crate) fn item(
        &mut self,
        node: Node<'_>,
        scope: &Scope<'_>,
        left: &[Item],
    ) -> Res<Vec<Item>> {
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
                        value.checked = self.made_by(&column.type_ref);
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
        if self.secured.contains(&relation.oid) {
            return Ok(());
        }
        self.secured.push(relation.oid);
        if relation.pending {
            self.gap(&format!(
                "row-level security of {}.{} is being changed",
                relation.schema, relation.name
            ));
            self.read_only = false;
        }
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
                    renamed: false,
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
                renamed: false,
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
            renamed: schema.is_some() && !alias.colnames().is_empty(),
            base,
        }
    }

    /// What a LATERAL thing in FROM sees: what stands before it.
    pub(crate) fn lateral<'s>(&self, scope: &'s Scope<'s>, left: &[Item]) -> Res<Scope<'s>> {
        self.depth.spend(scope.items.len() + left.len())?;
        let mut items = scope.items.clone();
        items.extend(left.iter().cloned());
        Ok(Scope {
            parent: scope.parent,
            items,
            ctes: scope.ctes.clone(),
        })
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

pub(crate) fn opaque(name: Option<Arc<str>>) -> Item {
    Item {
        name,
        schema: None,
        columns: Columns {
            list: Rc::default(),
            more: More::Unknown,
        },
        bare: true,
        renamed: false,
        base: None,
    }
}
