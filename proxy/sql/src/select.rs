//! Queries: SELECT, VALUES, set operations, common table expressions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::{Actions, Usages};
use pg_raw_parse::list::{CastNodeList, NodeList};
use pg_raw_parse::raw::{
    A_Expr_Kind, BoolExprType, JsonExprOp, MinMaxOp, SQLValueFunctionOp, SetOperation, SubLinkType,
    XmlExprOp,
};
use pg_raw_parse::{ConstValue, Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::names::{Cte, Ctes, Item, Scope};
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

    fn select(
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
    fn both(&mut self, left: &Columns, right: &Columns) -> Res<Columns> {
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

    /// Adds a WITH clause's queries to what is in sight.
    pub(crate) fn with(
        &mut self,
        clause: Option<&nodes::WithClause>,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Res<Ctes> {
        let mut ctes = ctes.clone();
        let Some(clause) = clause else {
            return Ok(ctes);
        };
        if clause.recursive && clause.ctes().len() > 1 {
            // A later one may be meant by an earlier one; what it holds is not known there.
            ctes = self.unknown_ctes(clause, ctes);
        }
        for cte in clause.ctes() {
            let _level = self.depth.enter()?;
            let name: Arc<str> = Arc::from(cte.ctename().unwrap_or_default());
            let mut columns = if clause.recursive {
                self.recursive(cte, &name, parent, &ctes)?
            } else {
                let columns = self.query(cte.ctequery(), parent, &ctes)?;
                renamed(columns, cte.aliascolnames())
            };
            self.search_and_cycle(cte, &mut columns);
            ctes = Some(Rc::new(Cte {
                name,
                columns,
                next: ctes,
            }));
        }
        Ok(ctes)
    }

    fn unknown_ctes(&self, clause: &nodes::WithClause, mut ctes: Ctes) -> Ctes {
        for cte in clause.ctes() {
            ctes = Some(Rc::new(Cte {
                name: Arc::from(cte.ctename().unwrap_or_default()),
                columns: Columns {
                    list: Rc::default(),
                    more: More::Unknown,
                },
                next: ctes,
            }));
        }
        ctes
    }

    fn recursive(
        &mut self,
        cte: &nodes::CommonTableExpr,
        name: &Arc<str>,
        parent: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Res<Columns> {
        let query = match cte.ctequery() {
            Node::SelectStmt(query) if query.op == SetOperation::SETOP_UNION => query,
            other => {
                let columns = self.query(other, parent, ctes)?;
                return Ok(renamed(columns, cte.aliascolnames()));
            }
        };
        let inner = self.with(query.with_clause(), parent, ctes)?;
        let (Some(first), Some(second)) = (query.larg(), query.rarg()) else {
            self.gap("a recursive query is not understood");
            return Ok(Columns {
                list: Rc::default(),
                more: More::Unknown,
            });
        };
        let start = self.select(first, parent, &inner)?;
        let mut start = renamed(start, cte.aliascolnames());
        // Steps may carry a value from any column to any other: what all columns together hold is
        // what each may hold.
        let mut list: Vec<Col> = Vec::new();
        for col in start.list.iter() {
            let mut value = self.col_value(col);
            value.origin = Origin::Computed;
            list.push(Col::known(Arc::clone(&col.name), value));
        }
        start.list = Rc::new(list);
        self.search_and_cycle(cte, &mut start.clone());
        let bind = |columns: &Columns| -> Ctes {
            Some(Rc::new(Cte {
                name: Arc::clone(name),
                columns: columns.clone(),
                next: inner.clone(),
            }))
        };
        let step = self.select(second, parent, &bind(&start))?;
        let mut grew = step.more != More::None || start.more != More::None;
        let mut all = Value::default();
        for (index, col) in start.list.iter().enumerate() {
            let known = self.col_value(col);
            all.absorb(&known);
            match step.list.get(index) {
                Some(other) => {
                    let other = self.col_value(other);
                    grew |= other.unknown && !known.unknown;
                    grew |= other
                        .fields
                        .iter()
                        .any(|field| known.fields.binary_search(field).is_err());
                    all.absorb(&other);
                }
                None => grew = true,
            }
        }
        let mut result = start;
        if grew {
            let list = result
                .list
                .iter()
                .map(|col| Col::known(Arc::clone(&col.name), all.clone().derived(Type::Unknown)))
                .collect();
            result.list = Rc::new(list);
            let again = self.select(second, parent, &bind(&result))?;
            result = self.both(&result, &again)?;
        } else {
            result = self.both(&result, &step)?;
        }
        if !query.all {
            self.mark_columns(&result, Usages::GROUP);
        }
        // ORDER BY and LIMIT are refused by PostgreSQL here; what they would use shows anyhow.
        for node in [query.limit_count(), query.limit_offset()] {
            let value = self.expr(node, &Scope::child(parent, inner.clone()))?;
            self.mark(&value, Usages::OTHER);
        }
        Ok(result)
    }

    /// Columns that SEARCH and CYCLE add.
    fn search_and_cycle(&mut self, cte: &nodes::CommonTableExpr, columns: &mut Columns) {
        if cte.search_clause().is_none() && cte.cycle_clause().is_none() {
            return;
        }
        let mut all = Value::default();
        for col in columns.list.iter() {
            let value = self.col_value(col);
            all.absorb(&value);
        }
        let mut list = columns.list.to_vec();
        if let Some(name) = cte
            .search_clause()
            .and_then(nodes::CTESearchClause::search_seq_column)
        {
            self.mark(&all, Usages::ORDER);
            list.push(Col::known(name.into(), all.clone().derived(Type::Unknown)));
        }
        if let Some(cycle) = cte.cycle_clause() {
            self.mark(&all, Usages::PREDICATE);
            for name in [cycle.cycle_mark_column(), cycle.cycle_path_column()]
                .into_iter()
                .flatten()
            {
                list.push(Col::known(name.into(), all.clone().derived(Type::Unknown)));
            }
        }
        columns.list = Rc::new(list);
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

fn renamed(columns: Columns, names: &NodeList) -> Columns {
    if names.is_empty() {
        return columns;
    }
    let mut names = names.iter().filter_map(|node| node.as_str());
    let list = columns
        .list
        .iter()
        .map(|col| Col {
            name: names
                .next()
                .map_or_else(|| Arc::clone(&col.name), Arc::from),
            value: col.value.clone(),
        })
        .collect();
    Columns {
        list: Rc::new(list),
        more: columns.more,
    }
}

fn ends_in_star(fields: &NodeList) -> bool {
    matches!(fields.iter().next_back(), Some(Node::A_Star(_)))
}

/// The name that PostgreSQL gives an output without one (its `FigureColname`).
pub(crate) fn column_name(node: Node<'_>) -> Arc<str> {
    figure(node).map_or_else(|| "?column?".into(), |(name, _)| name)
}

/// The name, and whether it is a strong one that a cast leaves alone.
fn figure(node: Node<'_>) -> Option<(Arc<str>, bool)> {
    let mut node = node;
    let mut weak: Option<Arc<str>> = None;
    for _ in 0..10_000 {
        let strong = |name: &str| Some((Arc::from(name), true));
        return match node {
            Node::ColumnRef(column) => column
                .fields()
                .iter()
                .filter_map(|field| field.as_str())
                .next_back()
                .and_then(strong),
            Node::A_Indirection(expr) => {
                match expr.indirection().iter().filter_map(|step| step.as_str()).next_back() {
                    Some(name) => strong(name),
                    None => {
                        node = expr.arg();
                        continue;
                    }
                }
            }
            Node::FuncCall(call) => call
                .funcname()
                .iter()
                .filter_map(|name| name.as_str())
                .next_back()
                .and_then(strong),
            Node::A_Expr(expr) if expr.kind == A_Expr_Kind::AEXPR_NULLIF => strong("nullif"),
            Node::TypeCast(cast) => {
                let name = cast
                    .type_name()
                    .and_then(|name| name.names().iter().filter_map(nodes::String::sval).next_back());
                // The outermost cast's name stands if nothing stronger is inside.
                if weak.is_none() {
                    weak = name.map(Arc::from);
                }
                node = cast.arg();
                continue;
            }
            Node::CollateClause(clause) => {
                node = clause.arg();
                continue;
            }
            Node::GroupingFunc(_) => strong("grouping"),
            Node::MergeSupportFunc(_) => strong("merge_action"),
            Node::SubLink(link) => match link.sub_link_type {
                SubLinkType::EXISTS_SUBLINK => strong("exists"),
                SubLinkType::ARRAY_SUBLINK => strong("array"),
                SubLinkType::EXPR_SUBLINK => {
                    let Node::SelectStmt(mut select) = link.subselect() else {
                        return weak.map(|name| (name, false));
                    };
                    while let Some(left) = select.larg() {
                        select = left;
                    }
                    match select.target_list().first() {
                        Some(target) => match target.name() {
                            Some(name) => strong(name),
                            None => {
                                node = target.val();
                                if matches!(node, Node::ColumnRef(column) if ends_in_star(column.fields())) {
                                    return None;
                                }
                                continue;
                            }
                        },
                        None if !select.values_lists().is_empty() => strong("column1"),
                        None => None,
                    }
                }
                _ => None,
            },
            Node::CaseExpr(case) => match figure_shallow(case.defresult()) {
                Some(name) => strong(&name),
                None => Some((weak.clone().unwrap_or_else(|| "case".into()), false)),
            },
            Node::A_ArrayExpr(_) => strong("array"),
            Node::RowExpr(_) => strong("row"),
            Node::CoalesceExpr(_) => strong("coalesce"),
            Node::MinMaxExpr(expr) => strong(if expr.op == MinMaxOp::IS_GREATEST { "greatest" } else { "least" }),
            Node::SQLValueFunction(function) => strong(match function.op {
                SQLValueFunctionOp::SVFOP_CURRENT_DATE => "current_date",
                SQLValueFunctionOp::SVFOP_CURRENT_TIME | SQLValueFunctionOp::SVFOP_CURRENT_TIME_N => "current_time",
                SQLValueFunctionOp::SVFOP_CURRENT_TIMESTAMP | SQLValueFunctionOp::SVFOP_CURRENT_TIMESTAMP_N => {
                    "current_timestamp"
                }
                SQLValueFunctionOp::SVFOP_LOCALTIME | SQLValueFunctionOp::SVFOP_LOCALTIME_N => "localtime",
                SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP | SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP_N => "localtimestamp",
                SQLValueFunctionOp::SVFOP_CURRENT_ROLE => "current_role",
                SQLValueFunctionOp::SVFOP_CURRENT_USER => "current_user",
                SQLValueFunctionOp::SVFOP_USER => "user",
                SQLValueFunctionOp::SVFOP_SESSION_USER => "session_user",
                SQLValueFunctionOp::SVFOP_CURRENT_CATALOG => "current_catalog",
                _ => "current_schema",
            }),
            Node::XmlExpr(expr) => match expr.op {
                XmlExprOp::IS_XMLCONCAT => strong("xmlconcat"),
                XmlExprOp::IS_XMLELEMENT => strong("xmlelement"),
                XmlExprOp::IS_XMLFOREST => strong("xmlforest"),
                XmlExprOp::IS_XMLPARSE => strong("xmlparse"),
                XmlExprOp::IS_XMLPI => strong("xmlpi"),
                XmlExprOp::IS_XMLROOT => strong("xmlroot"),
                _ => None,
            },
            Node::XmlSerialize(_) => strong("xmlserialize"),
            Node::JsonParseExpr(_) => strong("json"),
            Node::JsonScalarExpr(_) => strong("json_scalar"),
            Node::JsonSerializeExpr(_) => strong("json_serialize"),
            Node::JsonObjectConstructor(_) => strong("json_object"),
            Node::JsonArrayConstructor(_) | Node::JsonArrayQueryConstructor(_) => strong("json_array"),
            Node::JsonFuncExpr(function) => strong(match function.op {
                JsonExprOp::JSON_EXISTS_OP => "json_exists",
                JsonExprOp::JSON_QUERY_OP => "json_query",
                JsonExprOp::JSON_VALUE_OP => "json_value",
                _ => "json_table",
            }),
            Node::JsonObjectAgg(_) => strong("json_objectagg"),
            Node::JsonArrayAgg(_) => strong("json_arrayagg"),
            _ => None,
        }
        .or_else(|| weak.clone().map(|name| (name, false)));
    }
    None
}

/// The strong name of a CASE's last branch, where it is a plain one.
fn figure_shallow(node: Node<'_>) -> Option<String> {
    match node {
        Node::ColumnRef(column) => column
            .fields()
            .iter()
            .filter_map(|field| field.as_str())
            .next_back()
            .map(str::to_owned),
        Node::FuncCall(call) => call
            .funcname()
            .iter()
            .filter_map(|name| name.as_str())
            .next_back()
            .map(str::to_owned),
        _ => None,
    }
}
