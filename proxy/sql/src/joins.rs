//! Joins: merged columns, what stays in sight, conditions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::Usages;
use pg_raw_parse::raw::JoinType;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::names::{Item, Scope};
use crate::value::{Col, Columns, More, Origin, Type, Value};

impl Analyzer<'_> {
    pub(crate) fn join(
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
                renamed: false,
                base: None,
            });
        }
        items.push(Item {
            name: None,
            schema: None,
            columns,
            bare: true,
            renamed: false,
            base: None,
        });
        Ok(items)
    }

    pub(crate) fn join_condition(&mut self, quals: Node<'_>, scope: &Scope<'_>) -> Res<()> {
        if matches!(quals, Node::None) {
            return Ok(());
        }
        let value = self.expr(quals, scope)?;
        self.mark(&value, Usages::JOIN);
        self.note_filter(&value);
        Ok(())
    }
}

pub(crate) fn worse(a: More, b: More) -> More {
    match (a, b) {
        (More::Unknown, _) | (_, More::Unknown) => More::Unknown,
        (More::Clear(object), _) | (_, More::Clear(object)) => More::Clear(object),
        _ => More::None,
    }
}

/// What a join's condition sees: its two sides.
pub(crate) fn join_scope<'s>(scope: &'s Scope<'s>, sides: &[Item]) -> Scope<'s> {
    Scope {
        parent: scope.parent,
        items: sides.to_vec(),
        ctes: scope.ctes.clone(),
    }
}
