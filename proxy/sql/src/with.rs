//! Common table expressions.

use std::rc::Rc;
use std::sync::Arc;

use chaperone_contract::Usages;
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::SetOperation;
use pg_raw_parse::{Node, nodes};

use crate::analyze::{Analyzer, Res};
use crate::names::{Cte, Ctes, Scope};
use crate::value::{Col, Columns, More, Origin, Type, Value};

impl Analyzer<'_> {
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

    pub(crate) fn unknown_ctes(&self, clause: &nodes::WithClause, mut ctes: Ctes) -> Ctes {
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

    pub(crate) fn recursive(
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
    pub(crate) fn search_and_cycle(&mut self, cte: &nodes::CommonTableExpr, columns: &mut Columns) {
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
}

pub(crate) fn renamed(columns: Columns, names: &NodeList) -> Columns {
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
