//! Which form the rows of an answer may leave in, column by column.

use std::sync::{Arc, PoisonError};

use chaperone_contract::{Session as Caller, Transform};
use chaperone_policy_host::Ruling;
use chaperone_sql::{Column, Kind};

use super::Permit;
use crate::postgres::{
    mask::{RowPlan, Rule},
    portal::Shape,
    protocol::ColumnDescription,
    refusal::{Refusal, sqlstate},
};

/// The plan of a portal's rows, for the next one that is the same.
pub(super) struct Planned {
    shape: Shape,
    ruling: Arc<Ruling>,
    formats: Vec<i16>,
    plan: Arc<RowPlan>,
}

impl Permit {
    /// Compiles what leaves of each row, having checked that the answer's columns are the ones that
    /// were understood. Where they are not, rows leave only as far as the set would show this caller
    /// anything at all.
    pub(crate) fn row_plan(
        &self,
        columns: &[ColumnDescription],
        formats: &[i16],
        has_hash_key: bool,
        caller: &Arc<Caller>,
    ) -> Result<RowPlan, Refusal> {
        match self.predicted_plan(columns, formats, has_hash_key) {
            Err(_) if self.shows_anything(caller) => Ok(RowPlan::clear(columns.len())),
            predicted => predicted,
        }
    }

    /// The same where the columns are known already and cannot be others by now.
    pub(crate) fn known_row_plan(
        &self,
        shape: &Shape,
        formats: &[i16],
        has_hash_key: bool,
        caller: &Arc<Caller>,
    ) -> Result<Arc<RowPlan>, Refusal> {
        let remembered = self.ruling.as_ref().map(|(ruling, _)| ruling);
        let planned = &self.statement.planned;
        let mut planned = planned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = planned.as_ref()
            && remembered.is_some_and(|ruling| Arc::ptr_eq(&known.ruling, ruling))
            && Arc::ptr_eq(&known.shape, shape)
            && known.formats == formats
        {
            return Ok(Arc::clone(&known.plan));
        }
        let plan = match self.predicted_plan(shape, formats, has_hash_key) {
            Ok(plan) => Arc::new(plan),
            Err(_) => {
                let plan = self.row_plan(shape, formats, has_hash_key, caller);
                return plan.map(Arc::new);
            }
        };
        *planned = remembered.map(|ruling| Planned {
            ruling: Arc::clone(ruling),
            shape: Arc::clone(shape),
            formats: formats.to_vec(),
            plan: Arc::clone(&plan),
        });
        Ok(plan)
    }

    fn predicted_plan(
        &self,
        columns: &[ColumnDescription],
        formats: &[i16],
        has_hash_key: bool,
    ) -> Result<RowPlan, Refusal> {
        let statement = &self.statement;
        let operation = &statement.operation;
        let Some((ruling, _)) = &self.ruling else {
            return Ok(RowPlan::clear(columns.len()));
        };
        let known = ruling.outputs.len() == columns.len()
            && operation.outputs.len() == columns.len()
            && statement.width_known;
        if !known {
            // Statements that answer with text of their own (EXPLAIN, SHOW) list no outputs; they
            // pass only where nothing protected is touched.
            let own_text = !statement.is_sensitive()
                && operation.outputs.is_empty()
                && !matches!(statement.kind, Kind::Query | Kind::Modify { .. });
            return if own_text {
                Ok(RowPlan::clear(columns.len()))
            } else {
                Err(mismatch())
            };
        }
        let rules = ruling.outputs.iter().zip(&operation.outputs);
        if !self.unchecked() {
            let each = rules.clone().zip(&statement.columns).zip(columns);
            for (((rule, output), predicted), actual) in each {
                let shown = rule.transform == Transform::Reveal;
                let clear = operation.output_labels(output).is_clear();
                self.check_origin(predicted, actual, shown && clear)?;
            }
        }
        Ok(RowPlan::compile(
            rules.map(|(rule, output)| Rule {
                transform: &rule.transform,
                module: rule.module,
                lineage: &output.lineage,
            }),
            columns,
            |index| crate::postgres::protocol::format_of(formats, index),
            has_hash_key,
        ))
    }

    /// The backend says where each column comes from. What it says must not contradict what was
    /// understood, and a column that is shown as clear must not come straight from one that is not.
    fn check_origin(
        &self,
        predicted: &Column,
        actual: &ColumnDescription,
        shown_as_clear: bool,
    ) -> Result<(), Refusal> {
        /// `FirstNormalObjectId`: what is below belongs to PostgreSQL.
        const FIRST_NORMAL: u32 = 16_384;
        let origin = (actual.table, actual.attribute);
        if predicted
            .origin
            .is_some_and(|predicted| predicted != origin)
        {
            return Err(mismatch());
        }
        if !shown_as_clear || actual.table < FIRST_NORMAL {
            return Ok(());
        }
        let ground = &self.statement.ground;
        let catalog = &ground.catalog;
        // A view's columns carry their labels by lineage, not by themselves.
        let derived = catalog
            .relation_by_oid(actual.table)
            .is_some_and(|relation| relation.definition.is_some());
        let labels = ground
            .labelling
            .of_attribute(catalog, actual.table, actual.attribute);
        // System columns (negative numbers) hold no labelled data.
        if derived || actual.attribute < 0 || labels.is_clear() {
            Ok(())
        } else {
            Err(mismatch())
        }
    }
}

fn mismatch() -> Refusal {
    Refusal::new(
        sqlstate::NOT_UNDERSTOOD,
        "answer-mismatch",
        "the answer's columns are not the ones that the statement was understood to have; its \
         rows were withheld",
    )
    .hint("the database may have changed in this moment; send the statement again")
}
