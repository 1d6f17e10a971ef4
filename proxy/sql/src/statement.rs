//! Statement by statement: what is a query, what wraps one, and what has effects of its own.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Labels, Usages};
use pg_raw_parse::raw::{LimitOption, SetOperation};
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Effects, Outcome, Res};
use crate::classify::{self, CopyTarget, Kind};
use crate::expression::constant_integer;
use crate::from::Meant;
use crate::names::Scope;
use crate::tags;
use crate::value::{Columns, More, Type, Value};

impl Analyzer<'_> {
    pub(crate) fn query_effects(&self) -> Effects {
        Effects {
            read_only: self.read_only,
            catalog: self.untrusted,
            settings: self.untrusted,
            temp: self.untrusted,
            volatile: self.volatile || !self.read_only,
        }
    }

    pub(crate) fn body(&mut self, node: Node<'_>, kind: &Kind) -> Res<Outcome> {
        let mut outcome = Outcome::default();
        match node {
            Node::SelectStmt(select) if classify::has_into(select) => {
                let columns = self.query(node, None, &None)?;
                self.mark_columns(&columns, Usages::WRITE_SOURCE);
                let mut leaf = select;
                while leaf.into_clause().is_none() {
                    match leaf.larg() {
                        Some(left) => leaf = left,
                        None => break,
                    }
                }
                self.into(leaf.into_clause());
                outcome.effects = changed();
            }
            Node::SelectStmt(select) => {
                outcome.outputs = self.query(node, None, &None)?;
                outcome.row_limit = row_limit(select);
                outcome.effects = self.query_effects();
                if self.objects.is_empty() {
                    outcome.actions = Actions::READ;
                }
            }
            Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_) => {
                outcome.outputs = self.query(node, None, &None)?;
                outcome.effects = self.query_effects();
            }
            Node::ExplainStmt(explain) => {
                let inner = self.wrapped(explain.query())?;
                let analyzes = matches!(kind, Kind::Explain { analyze: true });
                outcome.effects = inner.effects;
                outcome.effects.read_only &= self.read_only;
                if !analyzes {
                    // It plans, which evaluates constants but runs nothing.
                    outcome.effects.read_only = !self.untrusted;
                }
                // Plans tell of statistics, filters and rows: what they derive from is not followed,
                // but a plan over clear fields alone is clear.
                self.explained();
                outcome.outputs = self.plan_output();
            }
            Node::PrepareStmt(prepare) => {
                outcome = self.wrapped(prepare.query())?;
                outcome.outputs = Columns::default();
                outcome.effects.read_only = false;
                // Taking in a value of a domain runs its checks, which may be anything.
                for name in prepare.argtypes() {
                    self.cast_target(Some(name), Node::None, &mut Value::default());
                }
            }
            Node::DeclareCursorStmt(declare) => {
                outcome = self.wrapped(declare.query())?;
                outcome.outputs = Columns::default();
            }
            Node::CopyStmt(copy) => outcome = self.copy(copy)?,
            Node::ViewStmt(view) => {
                let inner = self.query(view.query(), None, &None)?;
                self.mark_columns(&inner, Usages::WRITE_SOURCE);
                self.define(node);
                outcome.effects = changed();
            }
            Node::CreateTableAsStmt(create) => {
                if let Node::ExecuteStmt(_) = create.query() {
                    self.gap("what EXECUTE runs is not in the text");
                } else {
                    let inner = self.query(create.query(), None, &None)?;
                    self.mark_columns(&inner, Usages::WRITE_SOURCE);
                }
                self.into(create.into());
                outcome.effects = changed();
            }
            Node::RuleStmt(rule) => {
                self.define(node);
                if !rule.actions().is_empty() {
                    self.gap("what a rule does is not followed");
                }
                outcome.effects = changed();
            }
            Node::ExecuteStmt(execute) => {
                let scope = Scope::child(None, None);
                let value = self.all_of(execute.params(), &scope)?;
                self.mark(&value, Usages::OTHER);
                self.gap("what EXECUTE runs is not in the text");
                outcome.outputs = self.unknown_output();
                outcome.effects = anything();
                outcome.actions = Actions::EXECUTE;
            }
            Node::FetchStmt(fetch) => {
                self.gap("what a cursor holds is not in the text");
                if !fetch.ismove {
                    outcome.outputs = self.unknown_output();
                }
                outcome.effects = Effects {
                    volatile: true,
                    ..Effects::default()
                };
                outcome.actions = Actions::READ;
            }
            Node::CallStmt(call) => {
                let scope = Scope::child(None, None);
                if let Some(call) = call.funccall() {
                    let value = self.func_call(call, &scope)?;
                    self.mark(&value, Usages::OTHER);
                    for argument in call.args() {
                        let value = self.expr(argument, &scope)?;
                        self.mark(&value, Usages::OTHER);
                    }
                }
                self.gap("what CALL does is not followed");
                outcome.outputs = self.unknown_output();
                outcome.effects = anything();
                outcome.actions = Actions::EXECUTE;
            }
            Node::DoStmt(_) | Node::LoadStmt(_) => {
                self.define(node);
                self.gap(if matches!(node, Node::DoStmt(_)) {
                    "what DO runs is not followed"
                } else {
                    "what LOAD brings is not followed"
                });
                outcome.effects = anything();
                outcome.actions = Actions::EXECUTE;
            }
            Node::TransactionStmt(_) => {
                outcome.actions = Actions::CONTROL;
                outcome.effects = Effects {
                    read_only: kind.is_transaction_control(),
                    catalog: matches!(kind, Kind::Rollback { .. } | Kind::RollbackTo { .. }),
                    settings: matches!(
                        kind,
                        Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo { .. }
                    ),
                    temp: matches!(
                        kind,
                        Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo { .. }
                    ),
                    volatile: false,
                };
            }
            Node::VariableSetStmt(_) | Node::DiscardStmt(_) | Node::ConstraintsSetStmt(_) => {
                outcome.actions = Actions::CONTROL;
                outcome.effects = Effects {
                    settings: true,
                    temp: matches!(node, Node::DiscardStmt(_)),
                    volatile: true,
                    ..Effects::default()
                };
            }
            Node::VariableShowStmt(show) => {
                outcome.actions = Actions::CONTROL;
                outcome.effects.read_only = true;
                outcome.outputs = self.shown(show.name());
            }
            Node::DeallocateStmt(_) | Node::ClosePortalStmt(_) => {
                outcome.actions = Actions::CONTROL;
            }
            Node::ListenStmt(_) | Node::UnlistenStmt(_) | Node::NotifyStmt(_) => {
                outcome.actions = Actions::CONTROL;
                outcome.effects.volatile = true;
            }
            Node::GrantStmt(_) | Node::GrantRoleStmt(_) | Node::AlterDefaultPrivilegesStmt(_) => {
                self.define(node);
                outcome.effects = changed();
            }
            Node::VacuumStmt(_)
            | Node::ClusterStmt(_)
            | Node::ReindexStmt(_)
            | Node::LockStmt(_)
            | Node::CheckPointStmt(_) => {
                self.define(node);
                self.evaluated(node)?;
                outcome.actions = Actions::CONTROL;
                outcome.effects.volatile = true;
                outcome.effects.catalog = self.untrusted;
                outcome.effects.settings = self.untrusted;
            }
            Node::TruncateStmt(_) => {
                self.define(node);
                outcome.effects.volatile = true;
            }
            _ => {
                if tags::tag(node).is_empty() {
                    self.gap("a statement is of a kind that is not understood");
                    outcome.effects = anything();
                } else {
                    self.define(node);
                    self.evaluated(node)?;
                    outcome.effects = changed();
                    outcome.effects.settings = self.untrusted;
                }
                outcome.actions |= Actions::DEFINE;
            }
        }
        Ok(outcome)
    }

    /// The statement inside EXPLAIN, PREPARE, DECLARE, COPY.
    pub(crate) fn wrapped(&mut self, node: Node<'_>) -> Res<Outcome> {
        let _level = self.depth.enter()?;
        let kind = classify::kind(node);
        match node {
            Node::ExplainStmt(_) | Node::CopyStmt(_) | Node::PrepareStmt(_) => {
                self.gap("a statement inside another is not understood");
                Ok(Outcome {
                    effects: anything(),
                    ..Outcome::default()
                })
            }
            _ => self.body(node, &kind),
        }
    }

    /// What EXPLAIN shows of a statement's fields: estimates from statistics, and with ANALYZE row
    /// counts.
    pub(crate) fn explained(&mut self) {
        let conditions: Vec<u32> = (0_u32..)
            .zip(&self.fields)
            .filter(|(_, field)| {
                field
                    .usages
                    .intersects(Usages::all() - Usages::OUTPUT - Usages::WRITE_SOURCE)
            })
            .map(|(index, _)| index)
            .collect();
        self.mark_fields(&conditions, Usages::PREDICATE);
    }

    pub(crate) fn plan_output(&mut self) -> Columns {
        let mut value = Value::constant(Type::Builtin("text"));
        let fields: Vec<u32> = (0_u32..)
            .zip(&self.fields)
            .filter(|(_, field)| !field.usages.is_empty())
            .map(|(index, _)| index)
            .collect();
        crate::value::merge(&mut value.fields, &fields);
        value.unknown = !self.gaps.is_empty();
        single("QUERY PLAN", value)
    }

    pub(crate) fn unknown_output(&mut self) -> Columns {
        Columns {
            list: Rc::default(),
            more: More::Unknown,
        }
    }

    pub(crate) fn shown(&mut self, name: Option<&str>) -> Columns {
        let name = name.unwrap_or_default();
        if name.eq_ignore_ascii_case("all") {
            let text = || Value::constant(Type::Builtin("text"));
            return Columns {
                list: Rc::new(
                    ["name", "setting", "description"]
                        .into_iter()
                        .map(|name| crate::value::Col::known(name.into(), text()))
                        .collect(),
                ),
                more: More::None,
            };
        }
        let mut value = Value::constant(Type::Builtin("text"));
        if name.contains('.') {
            // A setting of somebody's own may hold what somebody put there.
            self.gap("a setting of an extension or a user may hold anything");
            value.unknown = true;
        }
        // RowDescription has the setting's canonical spelling.
        single(name, value)
    }

    pub(crate) fn into(&mut self, into: Option<&nodes::IntoClause>) {
        let Some(range) = into.and_then(nodes::IntoClause::rel) else {
            return;
        };
        let path: Vec<String> = range
            .schemaname()
            .into_iter()
            .chain(range.relname())
            .map(str::to_owned)
            .collect();
        self.relation_at("table", path, Actions::DEFINE | Actions::CREATE);
    }

    pub(crate) fn copy(&mut self, copy: &nodes::CopyStmt) -> Res<Outcome> {
        let mut outcome = Outcome::default();
        let target = match classify::kind(Node::CopyStmt(copy)) {
            Kind::Copy { target, .. } => target,
            _ => CopyTarget::File,
        };
        let outputs = match copy.relation() {
            Some(range) => {
                let actions = if copy.is_from {
                    Actions::CREATE
                } else {
                    Actions::READ
                };
                let item = self.range_var(range, &None, actions)?;
                let mut scope = Scope::child(None, None);
                scope.items.push(item.clone());
                if copy.is_from {
                    self.read_only = false;
                    if let Meant::Relation(relation) =
                        self.find_relation(range.schemaname(), range.relname().unwrap_or_default())
                    {
                        self.write_effects(relation, Actions::CREATE);
                        self.mark_unique(&item);
                    }
                    self.filter(copy.where_clause(), &scope)?;
                    Columns::default()
                } else {
                    let mut list = Vec::new();
                    if copy.attlist().is_empty() {
                        self.expand(&item, &mut list)?;
                        // COPY leaves generated columns out.
                        if let Meant::Relation(relation) = self
                            .find_relation(range.schemaname(), range.relname().unwrap_or_default())
                        {
                            list.retain(|col| {
                                relation
                                    .column(&col.name)
                                    .is_none_or(|(_, column)| column.generated.is_none())
                            });
                        }
                    }
                    for name in copy.attlist() {
                        let name: Arc<str> = Arc::from(name.as_str().unwrap_or_default());
                        match item.columns.list.iter().find(|col| col.name == name) {
                            Some(col) => list.push(col.clone()),
                            None => {
                                self.gap(&format!("column {name} is not known here"));
                                list.push(crate::value::Col::known(name, Value::unknown()));
                            }
                        }
                    }
                    Columns {
                        list: Rc::new(list),
                        more: item.columns.more,
                    }
                }
            }
            None => {
                let inner = self.wrapped(copy.query())?;
                inner.outputs
            }
        };
        outcome.effects = self.query_effects();
        if target == CopyTarget::Client {
            if !copy.is_from {
                outcome.outputs = outputs;
            }
        } else {
            outcome.effects.read_only = false;
            outcome.effects.volatile = true;
            self.mark_columns(&outputs, Usages::WRITE_SOURCE | Usages::OTHER);
            let kind = if target == CopyTarget::File {
                "file"
            } else {
                "program"
            };
            // Its name is a literal and stays in the text.
            let actions = match (target, copy.is_from) {
                (CopyTarget::Program, _) => Actions::EXECUTE,
                (_, true) => Actions::READ,
                (_, false) => Actions::CREATE,
            };
            self.named_object(kind, Vec::new(), actions, Labels::Unknown);
            self.gap("COPY reads or writes outside the database");
        }
        Ok(outcome)
    }
}

pub(crate) fn single(name: &str, value: Value) -> Columns {
    Columns {
        list: Rc::new(vec![crate::value::Col::known(name.into(), value)]),
        more: More::None,
    }
}

/// Effects of a definition.
pub(crate) fn changed() -> Effects {
    Effects {
        read_only: false,
        catalog: true,
        settings: false,
        temp: true,
        volatile: true,
    }
}

/// Effects of what cannot be seen.
pub(crate) fn anything() -> Effects {
    Effects {
        read_only: false,
        catalog: true,
        settings: true,
        temp: true,
        volatile: true,
    }
}

/// A constant LIMIT of the outermost query.
pub(crate) fn row_limit(select: &nodes::SelectStmt) -> Option<u64> {
    if !select.values_lists().is_empty() && select.op == SetOperation::SETOP_NONE {
        let rows = u64::try_from(select.values_lists().len()).ok()?;
        return Some(rows);
    }
    if select.limit_option == LimitOption::LIMIT_OPTION_WITH_TIES {
        return None;
    }
    constant_integer(select.limit_count()).and_then(|rows| u64::try_from(rows).ok())
}
