//! Queries: SELECT, VALUES, set operations, common table expressions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Usages};
use pg_raw_parse::list::{CastNodeList, NodeList};
use pg_raw_parse::raw::{A_Expr_Kind, BoolExprType, SetOperation};
use pg_raw_parse::{ConstValue, Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::column_names::column_name;
use crate::names::{Ctes, Item, Scope};
use crate::value::{Col, Columns, More, Origin, Type, Value, merge};

impl Analyzer<'_> {
    /// A query's result columns. `parent` is what its expressions see outside of it.
    pub(crate) fn query(
        &mut self,
        node: Node<'_>,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Res<Columns> {
        let _level = self.depth.enter()?;
        match node {
            Node::SelectStmt(select) => self.select(select, parent, ctes),
            Node::InsertStmt(_)
            | Node::UpdateStmt(_)
            | Node::DeleteStmt(_)
            | Node::MergeStmt(_) => self.modify(node, ctes),
            _ => {
                self.gap("a query is of a kind that is not understood");
                self.read_only = false;
                Ok(Columns {
                    list: Rc::default(),
                    more: More::Unknown,
                })
            }
        }
    }

    pub(crate) fn select(
        &mut self,
        select: &nodes::SelectStmt,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Res<Columns> {
        let _level = self.depth.enter()?;
        let ctes = self.with(select.with_clause(), parent, ctes)?;
        let mut scope = Scope::child(parent, ctes);
        let columns = if select.op != SetOperation::SETOP_NONE {
            self.set_operation(select, parent, &scope.ctes)?
        } else if !select.values_lists().is_empty() {
            self.values(select.values_lists(), &scope)?
        } else {
            self.plain(select, &mut scope)?
        };
        self.order_by(select.sort_clause(), &columns, &scope)?;
        for node in [select.limit_count(), select.limit_offset()] {
            let value = self.expr(node, &scope)?;
            self.mark(&value, Usages::OTHER);
        }
        if !select.locking_clause().is_empty() {
            self.read_only = false;
            let bases: Vec<u32> = scope.items.iter().filter_map(|item| item.base).collect();
            for object in bases {
                if let Some(object) = self.objects.get_mut(object as usize) {
                    object.actions |= Actions::OTHER;
                }
            }
        }
        Ok(columns)
    }

    fn plain(&mut self, select: &nodes::SelectStmt, scope: &mut Scope<'_>) -> Res<Columns> {
        self.add_from(select.from_clause(), scope)?;
        self.filter(select.where_clause(), scope)?;
        let columns = self.targets(select.target_list(), scope)?;
        for node in select.group_clause() {
            self.group_key(node, &columns, scope)?;
        }
        if !matches!(select.having_clause(), Node::None) {
            let value = self.expr(select.having_clause(), scope)?;
            self.mark(&value, Usages::PREDICATE);
        }
        let mut columns = columns;
        if let Some(named) = self.named_windows(select, scope)? {
            let list = columns
                .list
                .iter()
                .map(|col| {
                    let mut value = self.col_value(col);
                    if !value.exact {
                        value.absorb(&named);
                    }
                    Col::known(Arc::clone(&col.name), value)
                })
                .collect();
            columns.list = Rc::new(list);
        }
        let mut distinct = select.distinct_clause().iter();
        match distinct.next() {
            None => {}
            Some(Node::None) => self.mark_columns(&columns, Usages::GROUP),
            Some(first) => {
                for node in std::iter::once(first).chain(distinct) {
                    self.sort_key(node, &columns, scope, Usages::GROUP | Usages::ORDER)?;
                }
            }
        }
        Ok(columns)
    }

    /// What the WINDOW clause's keys add to any value computed over one of its windows.
    fn named_windows(
        &mut self,
        select: &nodes::SelectStmt,
        scope: &Scope<'_>,
    ) -> Res<Option<Value>> {
        if select.window_clause().is_empty() {
            return Ok(None);
        }
        let mut all = Value::default();
        for node in select.window_clause() {
            if let Node::WindowDef(window) = node {
                let value = self.window(window, scope)?;
                all.absorb(&value);
            }
        }
        Ok(Some(all))
    }

    pub(crate) fn mark_columns(&mut self, columns: &Columns, usages: Usages) {
        for col in columns.list.iter() {
            let value = self.col_value(col);
            self.mark(&value, usages);
        }
    }

    fn values(&mut self, lists: &NodeList, scope: &Scope<'_>) -> Res<Columns> {
        let mut all: Vec<Value> = Vec::new();
        let rows = lists.len();
        for row in lists {
            let Node::NodeList(row) = row else {
                self.gap("a VALUES row is not understood");
                continue;
            };
            for (index, node) in row.iter().enumerate() {
                let value = self.expr(node, scope)?;
                match all.get_mut(index) {
                    Some(known) => {
                        let ty = if known.ty == Type::Literal {
                            value.ty
                        } else {
                            known.ty
                        };
                        known.absorb(&value);
                        self.settle_constants(known);
                        known.ty = ty;
                        known.exact = false;
                        known.row = None;
                    }
                    None => all.push(value),
                }
            }
        }
        let list = all
            .into_iter()
            .enumerate()
            .map(|(index, mut value)| {
                value.origin = Origin::Computed;
                value.exact &= rows == 1;
                if value.ty == Type::Literal {
                    value.ty = Type::Builtin("text");
                }
                Col::known(format!("column{}", index + 1).into(), value)
            })
            .collect();
        Ok(Columns {
            list: Rc::new(list),
            more: More::None,
        })
    }

    fn set_operation(
        &mut self,
        select: &nodes::SelectStmt,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Res<Columns> {
        let (Some(left), Some(right)) = (select.larg(), select.rarg()) else {
            self.gap("a set operation is not understood");
            return Ok(Columns {
                list: Rc::default(),
                more: More::Unknown,
            });
        };
        let left = self.select(left, parent, ctes)?;
        let right = self.select(right, parent, ctes)?;
        if !(select.op == SetOperation::SETOP_UNION && select.all) {
            self.mark_columns(&left, Usages::GROUP);
            self.mark_columns(&right, Usages::GROUP);
        }
        self.both(&left, &right)
    }

    /// Columns that hold either side's values.
    pub(crate) fn both(&mut self, left: &Columns, right: &Columns) -> Res<Columns> {
        self.depth.spend(left.list.len())?;
        let unknown = left.more != More::None || right.more != More::None;
        if left.list.len() != right.list.len() && !unknown {
            self.gap("the sides of a set operation have different widths");
        }
        let mut list = Vec::with_capacity(left.list.len());
        for (index, col) in left.list.iter().enumerate() {
            let mut value = self.col_value(col);
            let ty = match right.list.get(index) {
                Some(other) => {
                    let other = self.col_value(other);
                    value.absorb(&other);
                    self.settle_constants(&mut value);
                    if value.ty == other.ty || other.ty == Type::Literal {
                        value.ty
                    } else if value.ty == Type::Literal {
                        other.ty
                    } else {
                        Type::Unknown
                    }
                }
                None => {
                    value.absorb(&Value::unknown());
                    Type::Unknown
                }
            };
            if unknown {
                value.absorb(&Value::unknown());
            }
            let ty = if ty == Type::Literal {
                Type::Builtin("text")
            } else {
                ty
            };
            list.push(Col::known(Arc::clone(&col.name), value.derived(ty)));
        }
        Ok(Columns {
            list: Rc::new(list),
            more: if unknown { More::Unknown } else { More::None },
        })
    }

    /// A target list's columns, `*` expanded.
    pub(crate) fn targets(
        &mut self,
        targets: &CastNodeList<nodes::ResTarget>,
        scope: &Scope<'_>,
    ) -> Res<Columns> {
        let mut list = Vec::with_capacity(targets.len());
        for target in targets {
            self.target(target, scope, &mut list)?;
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

    pub(crate) fn target(
        &mut self,
        target: &nodes::ResTarget,
        scope: &Scope<'_>,
        list: &mut Vec<Col>,
    ) -> Res<()> {
        let _level = self.depth.enter()?;
        match target.val() {
            Node::ColumnRef(column) if ends_in_star(column.fields()) => {
                self.star(column.fields(), scope, list)
            }
            Node::A_Indirection(expr)
                if matches!(expr.indirection().iter().next_back(), Some(Node::A_Star(_))) =>
            {
                let value = self.expr(target.val(), scope)?;
                let row = self.row_of(expr, scope)?;
                match row {
                    Some(row) => {
                        for col in row.iter() {
                            let mut part = self.col_value(col);
                            part.origin = Origin::Unpredictable;
                            list.push(Col::known(Arc::clone(&col.name), part));
                        }
                    }
                    None => {
                        self.gap("the columns behind (...).* are not known");
                        list.push(Col::known("*".into(), value));
                    }
                }
                Ok(())
            }
            node => {
                let mut value = self.expr(node, scope)?;
                if !matches!(node, Node::ColumnRef(_) | Node::A_Indirection(_))
                    && value.origin != Origin::Computed
                    && !value.unknown
                {
                    value.origin = Origin::Computed;
                }
                let name = match target.name() {
                    Some(name) => Arc::from(name),
                    None => column_name(node),
                };
                list.push(Col::known(name, value));
                Ok(())
            }
        }
    }

    /// The parts of the row before a final `.*`.
    fn row_of(
        &mut self,
        expr: &nodes::A_Indirection,
        scope: &Scope<'_>,
    ) -> Res<Option<Rc<Vec<Col>>>> {
        let mut value = self.expr(expr.arg(), scope)?;
        let steps = expr.indirection().len().saturating_sub(1);
        for step in expr.indirection().iter().take(steps) {
            match step {
                Node::String(name) => {
                    let name: Arc<str> = Arc::from(name.sval().unwrap_or_default());
                    value = self.select_field(value, &name, false)?;
                }
                _ => return Ok(None),
            }
        }
        Ok(value.row)
    }

    fn star(&mut self, fields: &NodeList, scope: &Scope<'_>, list: &mut Vec<Col>) -> Res<()> {
        let names: Vec<&str> = fields.iter().filter_map(|node| node.as_str()).collect();
        let item = match names.as_slice() {
            [] => {
                if scope.items.is_empty() {
                    self.gap("* stands for nothing here");
                }
                for item in scope.items.iter().filter(|item| item.bare) {
                    self.expand(item, list)?;
                }
                return Ok(());
            }
            [table] => self.find_item(None, table, scope),
            [schema, table] | [_, schema, table] => self.find_item(Some(schema), table, scope),
            _ => None,
        };
        match item {
            Some(item) => self.expand(&item, list),
            None => {
                self.gap("the relation before .* is not known here");
                list.push(Col::known("*".into(), Value::unknown()));
                Ok(())
            }
        }
    }

    /// WHERE: conjunct by conjunct.
    pub(crate) fn filter(&mut self, condition: Node<'_>, scope: &Scope<'_>) -> Res<()> {
        let mut open = vec![condition];
        while let Some(node) = open.pop() {
            match node {
                Node::None => {}
                Node::BoolExpr(expr) if expr.boolop == BoolExprType::AND_EXPR => {
                    self.depth.spend(expr.args().len())?;
                    open.extend(expr.args().iter());
                }
                Node::A_Expr(expr)
                    if expr.kind == A_Expr_Kind::AEXPR_OP
                        && expr.name().len() == 1
                        && expr.name().first().and_then(|name| name.as_str()) == Some("=") =>
                {
                    self.equality(expr, scope)?;
                }
                Node::BoolExpr(expr) if expr.boolop == BoolExprType::OR_EXPR => {
                    let value = self.expr(node, scope)?;
                    self.mark(&value, Usages::PREDICATE);
                    // A branch that is always true undoes the others.
                    let mut filters = true;
                    for branch in expr.args() {
                        filters &= !matches!(branch, Node::A_Const(_))
                            && !self.expr(branch, scope)?.is_plain_constant();
                    }
                    if filters {
                        self.note_filter(&value);
                    }
                }
                other => {
                    let value = self.expr(other, scope)?;
                    self.mark(&value, Usages::PREDICATE);
                    self.note_filter(&value);
                }
            }
        }
        Ok(())
    }

    fn equality(&mut self, expr: &nodes::A_Expr, scope: &Scope<'_>) -> Res<()> {
        let left = self.expr(expr.lexpr(), scope)?;
        let right = self.expr(expr.rexpr(), scope)?;
        let value = self.operator_by_name(None, "=", &left, &right);
        let looked_up =
            (left.exact && right.is_plain_constant()) || (right.exact && left.is_plain_constant());
        let usages = if looked_up && self.sublinks == 0 {
            Usages::EQUALITY
        } else if left.exact && right.exact && self.objects_differ(&left, &right) {
            Usages::JOIN
        } else if self.objects_differ(&left, &right) {
            Usages::JOIN | Usages::PREDICATE
        } else {
            Usages::PREDICATE
        };
        self.mark(&value, usages);
        // `id = id` filters nothing.
        if !(left.exact && right.exact && left.fields == right.fields) {
            self.note_filter(&value);
        }
        Ok(())
    }

    fn objects_differ(&self, left: &Value, right: &Value) -> bool {
        let object = |value: &Value| {
            value
                .fields
                .first()
                .and_then(|field| self.fields.get(*field as usize))
                .map(|field| field.object)
        };
        matches!((object(left), object(right)), (Some(a), Some(b)) if a != b)
    }

    /// Remembers that a condition of the outermost level is on these fields' objects.
    pub(crate) fn note_filter(&mut self, value: &Value) {
        if self.sublinks > 0 {
            return;
        }
        for field in &value.fields {
            if let Some(field) = self.fields.get(*field as usize) {
                merge(&mut self.filtered, &[field.object]);
            }
        }
    }

    fn order_by(
        &mut self,
        sorts: &CastNodeList<nodes::SortBy>,
        columns: &Columns,
        scope: &Scope<'_>,
    ) -> Res<()> {
        for sort in sorts {
            let key = self.sort_key(sort.node(), columns, scope, Usages::ORDER)?;
            self.sort_operator(sort, &key);
        }
        Ok(())
    }

    /// A key of ORDER BY or DISTINCT ON: an output's name or number before anything else.
    fn sort_key(
        &mut self,
        node: Node<'_>,
        columns: &Columns,
        scope: &Scope<'_>,
        usages: Usages,
    ) -> Res<Value> {
        let value = match output(node, columns) {
            Some(cols) => {
                let mut value = Value::default();
                for col in cols {
                    let part = self.col_value(&col);
                    value.ty = part.ty;
                    value.absorb(&part);
                }
                value
            }
            None => self.expr(node, scope)?,
        };
        self.mark(&value, usages);
        Ok(value)
    }

    /// A key of GROUP BY: a column of FROM before an output's name.
    fn group_key(&mut self, node: Node<'_>, columns: &Columns, scope: &Scope<'_>) -> Res<()> {
        let _level = self.depth.enter()?;
        match node {
            Node::GroupingSet(set) => {
                for node in set.content() {
                    self.group_key(node, columns, scope)?;
                }
                Ok(())
            }
            Node::NodeList(list) => {
                for node in list {
                    self.group_key(node, columns, scope)?;
                }
                Ok(())
            }
            Node::ColumnRef(column) if column.fields().len() == 1 => {
                let name = column
                    .fields()
                    .first()
                    .and_then(|name| name.as_str())
                    .unwrap_or_default();
                let here = scope.items.iter().any(|item| {
                    item.bare
                        && (item.more_than_listed()
                            || item.columns.list.iter().any(|col| &*col.name == name))
                });
                if here || output(node, columns).is_none() {
                    let value = self.expr(node, scope)?;
                    self.mark(&value, Usages::GROUP);
                    if !item_is_sure(scope) && output(node, columns).is_some() {
                        self.sort_key(node, columns, scope, Usages::GROUP)?;
                    }
                    return Ok(());
                }
                self.sort_key(node, columns, scope, Usages::GROUP)?;
                Ok(())
            }
            Node::A_Const(_) => {
                self.sort_key(node, columns, scope, Usages::GROUP)?;
                Ok(())
            }
            _ => {
                let value = self.expr(node, scope)?;
                self.mark(&value, Usages::GROUP);
                Ok(())
            }
        }
    }
}

impl Item {
    fn more_than_listed(&self) -> bool {
        self.columns.more == More::Unknown
    }
}

fn item_is_sure(scope: &Scope<'_>) -> bool {
    scope
        .items
        .iter()
        .all(|item| item.columns.more == More::None)
}

/// The output columns that a bare name or number means; `None` when it means neither.
fn output(node: Node<'_>, columns: &Columns) -> Option<Vec<Col>> {
    match node {
        Node::ColumnRef(column) if column.fields().len() == 1 => {
            let name = column.fields().first()?.as_str()?;
            let found: Vec<Col> = columns
                .list
                .iter()
                .filter(|col| &*col.name == name)
                .cloned()
                .collect();
            (!found.is_empty()).then_some(found)
        }
        Node::A_Const(constant) => match constant.val() {
            Some(ConstValue::Integer(number)) => {
                let index = usize::try_from(number).ok()?.checked_sub(1)?;
                if columns.more == More::None {
                    columns.list.get(index).map(|col| vec![col.clone()])
                } else {
                    Some(columns.list.to_vec())
                }
            }
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn ends_in_star(fields: &NodeList) -> bool {
    matches!(fields.iter().next_back(), Some(Node::A_Star(_)))
}
