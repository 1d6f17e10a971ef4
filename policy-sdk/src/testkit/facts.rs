//! Operations put together by hand: what the SQL crate would say about a statement.

use std::ops::Deref;

use chaperone_contract::{
    Actions, FieldUse, Labels, Lineage, Object, Operation, OutputField, SqlFacts, Usages,
};

/// An operation to be judged.
#[derive(Clone, Debug)]
pub struct TestOperation {
    operation: Operation,
}

impl Deref for TestOperation {
    type Target = Operation;

    fn deref(&self) -> &Operation {
        &self.operation
    }
}

impl From<Operation> for TestOperation {
    fn from(operation: Operation) -> Self {
        Self { operation }
    }
}

/// A table whose columns have labels, for operations put together by hand.
#[derive(Clone, Debug)]
pub struct Table {
    kind: &'static str,
    path: Vec<String>,
    columns: Vec<(String, Labels)>,
}

impl Table {
    /// `schema.name`, without any column.
    #[must_use]
    pub fn named(path: &str) -> Self {
        Self {
            kind: "table",
            path: path.split('.').map(str::to_owned).collect(),
            columns: Vec::new(),
        }
    }

    /// A column with labels; none = known to be clear.
    #[must_use]
    pub fn column(mut self, name: &str, labels: &[&str]) -> Self {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.columns.push((name.to_owned(), Labels::Known(labels)));
        self
    }

    /// A column that nobody labelled.
    #[must_use]
    pub fn unlabelled(mut self, name: &str) -> Self {
        self.columns.push((name.to_owned(), Labels::Unknown));
        self
    }

    fn labels(&self) -> Labels {
        let labels = self.columns.iter().map(|(_, labels)| labels);
        labels.fold(Labels::CLEAR, |all, labels| all.union(labels))
    }
}

/// Starts an operation by hand: `operation("SELECT")`. It is filtered, unlimited and, for `SELECT`,
/// read-only, until said otherwise.
#[must_use]
pub fn operation(command: &str) -> TestOperation {
    let operation = Operation {
        protocol: "postgresql".into(),
        command: command.into(),
        text: command.into(),
        sql: Some(SqlFacts {
            is_filtered: true,
            is_read_only: command == "SELECT",
            ..SqlFacts::default()
        }),
        ..Operation::default()
    };
    TestOperation { operation }
}

impl TestOperation {
    /// Touches an object: `.on(&patients, Actions::READ)`.
    #[must_use]
    pub fn on(mut self, table: &Table, actions: Actions) -> Self {
        let operation = &mut self.operation;
        operation.actions |= actions;
        operation.objects.push(Object {
            kind: table.kind.into(),
            path: table.path.clone(),
            actions,
            labels: table.labels(),
        });
        self
    }

    /// Touches a role, function or the like.
    #[must_use]
    pub fn on_kind(mut self, kind: &str, name: &str, actions: Actions) -> Self {
        let operation = &mut self.operation;
        operation.actions |= actions;
        operation.objects.push(Object {
            kind: kind.into(),
            path: name.split('.').map(str::to_owned).collect(),
            actions,
            labels: Labels::CLEAR,
        });
        self
    }

    /// Shows a column of a table as it is.
    #[must_use]
    pub fn output(mut self, table: &Table, column: &str) -> Self {
        let used = self.used(table, column, Usages::OUTPUT);
        self.push_output(column, Lineage::Exact(used))
    }

    /// Shows something computed from columns of a table.
    #[must_use]
    pub fn derived(mut self, name: &str, table: &Table, columns: &[&str]) -> Self {
        let uses = columns
            .iter()
            .map(|column| self.used(table, column, Usages::OUTPUT))
            .collect();
        self.push_output(name, Lineage::Derived(uses))
    }

    /// Shows something whose origin nobody knows.
    #[must_use]
    pub fn unknown_output(self, name: &str) -> Self {
        self.push_output(name, Lineage::Unknown)
    }

    /// Uses a column of a table, `.using(&patients, "ssn", Usages::EQUALITY)`.
    #[must_use]
    pub fn using(mut self, table: &Table, column: &str, usages: Usages) -> Self {
        self.used(table, column, usages);
        self
    }

    /// No condition restricts it.
    #[must_use]
    pub fn unfiltered(mut self) -> Self {
        self.operation.sql.get_or_insert_default().is_filtered = false;
        self
    }

    /// A constant LIMIT.
    #[must_use]
    pub fn limit(mut self, rows: u64) -> Self {
        self.operation.sql.get_or_insert_default().row_limit = Some(rows);
        self
    }

    /// Calls a function, schema-qualified.
    #[must_use]
    pub fn calling(mut self, function: &str) -> Self {
        let sql = self.operation.sql.get_or_insert_default();
        sql.functions.push(function.into());
        self
    }

    /// Something about it is not understood.
    #[must_use]
    pub fn gap(mut self, why: &str) -> Self {
        self.operation.gaps.push(why.into());
        self
    }

    #[expect(clippy::panic, reason = "a failing test")]
    fn used(&mut self, table: &Table, column: &str, usages: Usages) -> u32 {
        let operation = &mut self.operation;
        let Some(object) = operation.objects.iter().position(|o| o.path == table.path) else {
            panic!(
                "say .on(&table, ..) before using a column of {:?}",
                table.path
            );
        };
        let Some((_, labels)) = table.columns.iter().find(|(name, _)| name == column) else {
            panic!("{:?} has no column {column}", table.path);
        };
        let object = u32::try_from(object).unwrap_or(u32::MAX);
        let uses = &mut operation.uses;
        let known = |used: &FieldUse| used.object == object && used.field == column;
        let index = uses.iter().position(known).unwrap_or_else(|| {
            uses.push(FieldUse {
                object,
                field: column.into(),
                labels: labels.clone(),
                usages,
            });
            uses.len() - 1
        });
        if let Some(used) = uses.get_mut(index) {
            used.usages |= usages;
        }
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    fn push_output(mut self, name: &str, lineage: Lineage) -> Self {
        self.operation.outputs.push(OutputField {
            name: name.into(),
            type_name: String::new(),
            lineage,
        });
        self
    }
}
