//! Operations from SQL, against a catalog from DDL.

use chaperone_sql::{Labelling, Options, SessionView, analyze};

use super::TestOperation;

/// Tables, views and labels, from DDL with `COMMENT ON COLUMN t.c IS '@label(ssn)'`.
pub struct Catalog {
    catalog: chaperone_sql::Catalog,
}

impl Catalog {
    /// Reads the DDL.
    ///
    /// # Panics
    ///
    /// If the DDL is not understood.
    #[must_use]
    #[expect(clippy::panic, reason = "a failing test")]
    pub fn from_ddl(ddl: &str) -> Self {
        match chaperone_sql::Catalog::from_ddl(ddl) {
            Ok(catalog) => Self { catalog },
            Err(error) => panic!("the DDL is not understood: {error}"),
        }
    }

    /// What one statement does.
    ///
    /// # Panics
    ///
    /// If it does not parse, or is not exactly one statement.
    #[must_use]
    #[expect(clippy::panic, reason = "a failing test")]
    pub fn operation(&self, sql: &str) -> TestOperation {
        let (session, labels) = (SessionView::default(), Labelling::new());
        let mut facts = match analyze(sql, &self.catalog, &session, &labels, &Options::default()) {
            Ok(facts) => facts,
            Err(error) => panic!("the statement is not understood: {error}"),
        };
        match (facts.pop(), facts.is_empty()) {
            (Some(facts), true) => facts.operation.into(),
            _ => panic!("exactly one statement, please"),
        }
    }
}
