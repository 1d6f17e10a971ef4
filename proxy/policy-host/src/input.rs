//! What one decision is made from.

use std::sync::{Arc, OnceLock};

use chaperone_contract::{Context, Operation, Session, Value};

use crate::bindings::{self, types};

/// The inputs of one decision, shared by all modules of a set. Lists are brought into the shape
/// that crosses the border at most once, when the first module asks.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) session: Arc<Session>,
    pub(crate) operation: Arc<Operation>,
    pub(crate) parameters: Vec<Value>,
    pub(crate) parameter_count: u32,
    pub(crate) received_at: u64,
    pub(crate) in_transaction: bool,
    objects: OnceLock<Arc<[types::Object]>>,
    uses: OnceLock<Arc<[types::FieldUse]>>,
    outputs: OnceLock<Arc<[types::OutputField]>>,
    text: OnceLock<Arc<str>>,
}

impl Input {
    /// `with_parameters`: whether any module of the set can read their values.
    pub(crate) fn new(
        session: &Arc<Session>,
        operation: &Arc<Operation>,
        context: &Context,
        with_parameters: bool,
    ) -> Self {
        Input {
            session: Arc::clone(session),
            operation: Arc::clone(operation),
            parameters: if with_parameters {
                context.parameters.clone()
            } else {
                Vec::new()
            },
            parameter_count: u32::try_from(context.parameters.len()).unwrap_or(u32::MAX),
            received_at: context.received_at,
            in_transaction: context.in_transaction,
            objects: OnceLock::new(),
            uses: OnceLock::new(),
            outputs: OnceLock::new(),
            text: OnceLock::new(),
        }
    }

    pub(crate) fn objects(&self) -> Arc<[types::Object]> {
        Arc::clone(self.objects.get_or_init(|| {
            self.operation
                .objects
                .iter()
                .map(bindings::object)
                .collect()
        }))
    }

    pub(crate) fn uses(&self) -> Arc<[types::FieldUse]> {
        Arc::clone(self.uses.get_or_init(|| {
            self.operation
                .uses
                .iter()
                .map(bindings::field_use)
                .collect()
        }))
    }

    pub(crate) fn outputs(&self) -> Arc<[types::OutputField]> {
        Arc::clone(self.outputs.get_or_init(|| {
            self.operation
                .outputs
                .iter()
                .map(bindings::output_field)
                .collect()
        }))
    }

    pub(crate) fn text(&self) -> Arc<str> {
        Arc::clone(
            self.text
                .get_or_init(|| Arc::from(self.operation.text.as_str())),
        )
    }
}
