//! Name resolution, as PostgreSQL does it: levels of scope, what is visible in each, CTEs.

use std::rc::Rc;
use std::sync::Arc;

use pg_raw_parse::Node;
use pg_raw_parse::list::NodeList;

use crate::analyze::{Analyzer, Res};
use crate::value::{Col, Columns, More, Origin, Type, Value};

/// Something in FROM.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// What `name.column` calls it.
    pub(crate) name: Option<Arc<str>>,
    /// Its schema, where it is an unaliased relation.
    pub(crate) schema: Option<Arc<str>>,
    pub(crate) columns: Columns,
    /// Whether bare column names find it.
    pub(crate) bare: bool,
    /// A relation under other column names: its row type keeps the real ones.
    pub(crate) renamed: bool,
    /// A stored relation: it has system columns.
    pub(crate) base: Option<u32>,
}

/// A common table expression in sight.
#[derive(Debug)]
pub(crate) struct Cte {
    pub(crate) name: Arc<str>,
    pub(crate) columns: Columns,
    pub(crate) next: Ctes,
}

/// All common table expressions in sight, the nearest first.
pub(crate) type Ctes = Option<Rc<Cte>>;

/// The common table expression of this name.
pub(crate) fn cte<'a>(mut ctes: &'a Ctes, name: &str) -> Option<&'a Cte> {
    while let Some(cte) = ctes {
        if &*cte.name == name {
            return Some(cte);
        }
        ctes = &cte.next;
    }
    None
}

/// One level of names.
#[derive(Debug, Default)]
pub(crate) struct Scope<'s> {
    pub(crate) parent: Option<&'s Scope<'s>>,
    pub(crate) items: Vec<Item>,
    pub(crate) ctes: Ctes,
}

impl<'s> Scope<'s> {
    pub(crate) fn child(parent: Option<&'s Scope<'s>>, ctes: Ctes) -> Self {
        Scope {
            parent,
            items: Vec::new(),
            ctes,
        }
    }
}

/// Columns that every stored relation has besides its own.
fn system_column(name: &str) -> Option<i16> {
    Some(match name {
        "ctid" => -1,
        "xmin" => -2,
        "cmin" => -3,
        "xmax" => -4,
        "cmax" => -5,
        "tableoid" => -6,
        _ => return None,
    })
}

impl Analyzer<'_> {
    /// What a column reference means. A trailing `*` is a whole row here; target lists expand it
    /// before they come here.
    pub(crate) fn column_ref(&mut self, fields: &NodeList, scope: &Scope<'_>) -> Res<Value> {
        let mut names: Vec<Arc<str>> = Vec::with_capacity(fields.len());
        let mut star = false;
        for node in fields {
            match node {
                Node::String(text) => names.push(Arc::from(text.sval().unwrap_or_default())),
                Node::A_Star(_) => star = true,
                _ => {
                    self.gap("a name has a part that is not understood");
                    return Ok(Value::unknown());
                }
            }
        }
        self.depth.spend(1)?;
        match (names.as_slice(), star) {
            ([name], false) => self.bare_column(name, scope),
            ([table], true) => match self.find_item(None, table, scope) {
                Some(item) => self.whole_row(&item),
                None => Ok(self.no_such("relation", table)),
            },
            ([schema, table], true) => match self.find_item(Some(schema), table, scope) {
                Some(item) => self.whole_row(&item),
                None => Ok(self.no_such("relation", table)),
            },
            ([table, name], false) => match self.find_item(None, table, scope) {
                Some(item) => self.item_column(&item, name),
                None => {
                    // `column.field` is not SQL: PostgreSQL wants `(column).field`.
                    Ok(self.no_such("relation", table))
                }
            },
            ([schema, table, name], false) | ([_, schema, table, name], false) => {
                match self.find_item(Some(schema), table, scope) {
                    Some(item) => self.item_column(&item, name),
                    None => Ok(self.no_such("relation", table)),
                }
            }
            _ => {
                self.gap("a name has a form that is not understood");
                Ok(Value::unknown())
            }
        }
    }

    fn no_such(&mut self, kind: &str, name: &str) -> Value {
        self.gap(&format!("{kind} {name} is not known here"));
        Value::unknown()
    }

    fn bare_column(&mut self, name: &Arc<str>, scope: &Scope<'_>) -> Res<Value> {
        let mut level = Some(scope);
        let mut clear = None;
        let mut unknown = false;
        while let Some(here) = level {
            let mut found: Option<(Col, Option<u32>)> = None;
            for item in here.items.iter().filter(|item| item.bare) {
                self.depth.spend(1 + item.columns.list.len() / 4)?;
                for col in item.columns.list.iter().filter(|col| col.name == *name) {
                    if found.is_some() {
                        self.gap(&format!("column {name} is ambiguous"));
                        return Ok(Value::unknown());
                    }
                    found = Some((col.clone(), None));
                }
                match item.columns.more {
                    More::None => {}
                    More::Clear(object) => clear = clear.or(Some(object)),
                    More::Unknown => unknown = true,
                }
            }
            if let Some((col, _)) = found {
                let mut value = self.col_value(&col);
                if unknown {
                    value.absorb(&Value::unknown());
                    value.exact = false;
                    value.origin = Origin::Unpredictable;
                }
                return Ok(value);
            }
            // System columns are found by bare name too.
            if let Some(number) = system_column(name) {
                let mut bases = here
                    .items
                    .iter()
                    .filter(|item| item.bare && item.base.is_some());
                if let (Some(item), None) = (bases.next(), bases.next()) {
                    return Ok(self.system_value(item, number));
                }
            }
            level = here.parent;
        }
        if unknown {
            return Ok(Value::unknown());
        }
        // A bare name of a relation is its whole row.
        if let Some(item) = self.find_item(None, name, scope) {
            return self.whole_row(&item);
        }
        if let Some(object) = clear {
            return Ok(self.clear_field(object, name));
        }
        Ok(self.no_such("column", name))
    }

    fn system_value(&mut self, item: &Item, number: i16) -> Value {
        let oid = item.base.map_or(0, |object| self.object_oid(object));
        Value {
            origin: if oid == 0 {
                Origin::Unpredictable
            } else {
                Origin::At(oid, number)
            },
            ty: Type::Builtin(match number {
                -1 => "tid",
                -6 => "oid",
                -3 | -5 => "cid",
                _ => "xid",
            }),
            ..Value::default()
        }
    }

    /// The nearest thing in FROM with this name.
    pub(crate) fn find_item(
        &mut self,
        schema: Option<&str>,
        name: &str,
        scope: &Scope<'_>,
    ) -> Option<Item> {
        let mut level = Some(scope);
        while let Some(here) = level {
            let _ = self.depth.spend(here.items.len() / 4);
            let mut found = here.items.iter().filter(|item| {
                item.name.as_deref() == Some(name)
                    && schema.is_none_or(|schema| {
                        item.schema.as_deref().is_some_and(|own| {
                            own == schema
                                || (schema == "pg_temp"
                                    && self.session.temp_schema.as_deref() == Some(own))
                        })
                    })
            });
            if let Some(first) = found.next() {
                if found.next().is_some() {
                    let item = Item {
                        name: first.name.clone(),
                        schema: None,
                        columns: Columns {
                            list: Rc::default(),
                            more: More::Unknown,
                        },
                        bare: false,
                        renamed: false,
                        base: None,
                    };
                    self.gap(&format!("relation name {name} is ambiguous"));
                    return Some(item);
                }
                return Some(first.clone());
            }
            level = here.parent;
        }
        None
    }

    fn item_column(&mut self, item: &Item, name: &Arc<str>) -> Res<Value> {
        self.depth.spend(1)?;
        let mut found = item.columns.list.iter().filter(|col| col.name == *name);
        if let Some(col) = found.next() {
            if found.next().is_some() {
                self.gap(&format!("column {name} is ambiguous"));
                return Ok(Value::unknown());
            }
            return Ok(self.col_value(col));
        }
        if item.base.is_some()
            && let Some(number) = system_column(name)
        {
            return Ok(self.system_value(item, number));
        }
        match item.columns.more {
            More::Unknown => Ok(Value::unknown()),
            More::Clear(object)
                if crate::builtin::function(name).is_none()
                    && self.catalog.functions_named(name).is_empty() =>
            {
                Ok(self.clear_field(object, name))
            }
            _ => {
                // `relation.function` calls the function with the row.
                let row = self.whole_row(item)?;
                self.call_by_name(&[Arc::clone(name)], &[row], false)
            }
        }
    }

    /// The row as one value.
    pub(crate) fn whole_row(&mut self, item: &Item) -> Res<Value> {
        let mut value = Value::constant(Type::Row);
        self.depth.spend(item.columns.list.len())?;
        for col in item.columns.list.iter() {
            let part = self.col_value(col);
            value.absorb(&part);
        }
        if item.columns.more == More::Unknown {
            value.absorb(&Value::unknown());
        }
        if item.columns.more == More::None && !item.renamed {
            value.row = Some(Rc::clone(&item.columns.list));
        }
        // A row of one column that is not a relation's is the column itself.
        if item.base.is_none() && item.columns.list.len() == 1 {
            value.ty = Type::Unknown;
        }
        value.origin = match item.base.map(|object| self.object_oid(object)) {
            Some(oid) if oid != 0 => Origin::At(oid, 0),
            _ => Origin::Unpredictable,
        };
        Ok(value)
    }

    /// Columns that `*` or `relation.*` stands for.
    pub(crate) fn expand(&mut self, item: &Item, into: &mut Vec<Col>) -> Res<()> {
        self.depth.spend(item.columns.list.len())?;
        into.extend(item.columns.list.iter().cloned());
        match item.columns.more {
            More::None => {}
            More::Clear(object) => {
                // PostgreSQL's own relations grow from version to version.
                if !self.session_matches_system_columns() {
                    self.unsure_width = true;
                    let _ = object;
                }
            }
            More::Unknown => {
                self.gap("the columns behind * are not known");
                into.push(Col::known("*".into(), Value::unknown()));
            }
        }
        Ok(())
    }

    fn session_matches_system_columns(&self) -> bool {
        self.session.version / 10_000 == 15
    }
}
