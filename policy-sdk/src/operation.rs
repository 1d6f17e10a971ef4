//! What is asked.

use crate::{Actions, FieldUse, Object, OutputField, Usages, Value};

#[cfg(target_arch = "wasm32")]
use crate::bindings::chaperone::policy::types as host;

/// The operation to decide on. Each getter asks the host when called.
///
/// Unknown labels and lineage match *every* label in the `*_labelled` questions, whatever is asked.
pub struct Operation<'a> {
    #[cfg(target_arch = "wasm32")]
    inner: &'a host::Operation,
    #[cfg(not(target_arch = "wasm32"))]
    inner: &'a chaperone_contract::Operation,
    #[cfg(not(target_arch = "wasm32"))]
    context: &'a chaperone_contract::Context,
}

/// What only SQL has.
pub struct Sql<'a> {
    #[cfg(target_arch = "wasm32")]
    inner: host::SqlFacts,
    #[cfg(not(target_arch = "wasm32"))]
    inner: &'a chaperone_contract::SqlFacts,
    #[cfg(not(target_arch = "wasm32"))]
    context: &'a chaperone_contract::Context,
    #[cfg(target_arch = "wasm32")]
    operation: std::marker::PhantomData<&'a host::Operation>,
}

impl Operation<'_> {
    /// The labels that an output carries through its lineage, from lists that were already asked
    /// for: an index that does not exist, and unknown lineage, are unknown.
    #[must_use]
    pub fn output_labels(uses: &[FieldUse], output: &OutputField) -> crate::Labels {
        use crate::{Labels, Lineage};
        if output.lineage == Lineage::Unknown {
            return Labels::Unknown;
        }
        let unknown = Labels::Unknown;
        let labels = |used: &u32| {
            uses.get(*used as usize)
                .map_or(&unknown, |used| &used.labels)
        };
        let uses = output.lineage.uses().iter().map(labels);
        uses.fold(Labels::CLEAR, |all, labels| all.union(labels))
    }
}

#[cfg(target_arch = "wasm32")]
impl<'a> Operation<'a> {
    pub(crate) fn new(inner: &'a host::Operation) -> Self {
        Self { inner }
    }

    pub fn protocol(&self) -> String {
        self.inner.protocol()
    }

    pub fn command(&self) -> String {
        self.inner.command()
    }

    pub fn actions(&self) -> Actions {
        actions(self.inner.actions())
    }

    pub fn text(&self) -> String {
        self.inner.text()
    }

    pub fn gaps(&self) -> Vec<String> {
        self.inner.gaps()
    }

    pub fn objects(&self) -> Vec<Object> {
        let objects = self.inner.objects().into_iter();
        objects.map(object).collect()
    }

    pub fn uses(&self) -> Vec<FieldUse> {
        let uses = self.inner.uses().into_iter();
        uses.map(field_use).collect()
    }

    pub fn outputs(&self) -> Vec<OutputField> {
        let outputs = self.inner.outputs().into_iter();
        outputs.map(output).collect()
    }

    pub fn objects_labelled(&self, labels: &[String]) -> Vec<u32> {
        self.inner.objects_labelled(labels)
    }

    pub fn uses_labelled(&self, labels: &[String], usages: Usages) -> Vec<u32> {
        let usages = host::Usages::from_bits_truncate(usages.bits().try_into().unwrap_or(u8::MAX));
        self.inner.uses_labelled(labels, usages)
    }

    pub fn outputs_labelled(&self, labels: &[String]) -> Vec<(u32, u32)> {
        self.inner.outputs_labelled(labels)
    }

    pub fn parameter_count(&self) -> u32 {
        self.inner.parameter_count()
    }

    pub fn parameter(&self, index: u32) -> Value {
        match self.inner.parameter(index) {
            host::Value::Null => Value::Null,
            host::Value::Text(text) => Value::Text(text),
            host::Value::Binary(bytes) => Value::Binary(bytes),
            host::Value::Truncated(length) => Value::Truncated(length),
        }
    }

    pub fn received_at(&self) -> u64 {
        self.inner.received_at()
    }

    pub fn sql(&self) -> Option<Sql<'a>> {
        let operation = std::marker::PhantomData;
        let inner = self.inner.sql()?;
        Some(Sql { inner, operation })
    }
}

#[cfg(target_arch = "wasm32")]
impl Sql<'_> {
    pub fn functions(&self) -> Vec<String> {
        self.inner.functions()
    }

    pub fn is_filtered(&self) -> bool {
        self.inner.is_filtered()
    }

    pub fn row_limit(&self) -> Option<u64> {
        self.inner.row_limit()
    }

    pub fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    pub fn in_transaction(&self) -> bool {
        self.inner.in_transaction()
    }

    pub fn search_path(&self) -> Vec<String> {
        self.inner.search_path()
    }
}

// Both sides list their flags in the order of the WIT, so that the bits are the same.
#[cfg(target_arch = "wasm32")]
fn actions(actions: host::Actions) -> Actions {
    Actions::from_bits_truncate(actions.bits())
}

#[cfg(target_arch = "wasm32")]
fn labels(labels: Vec<String>) -> crate::Labels {
    if labels
        .iter()
        .any(|label| label == chaperone_contract::UNKNOWN_LABEL)
    {
        return crate::Labels::Unknown;
    }
    crate::Labels::Known(labels)
}

#[cfg(target_arch = "wasm32")]
fn object(object: host::Object) -> Object {
    Object {
        kind: object.kind,
        path: object.path,
        actions: actions(object.actions),
        labels: labels(object.labels),
    }
}

#[cfg(target_arch = "wasm32")]
fn field_use(used: host::FieldUse) -> FieldUse {
    FieldUse {
        object: used.object,
        field: used.field,
        labels: labels(used.labels),
        usages: Usages::from_bits_truncate(used.usages.bits().into()),
    }
}

#[cfg(target_arch = "wasm32")]
fn output(output: host::OutputField) -> OutputField {
    use crate::Lineage;
    OutputField {
        name: output.name,
        type_name: output.type_name,
        lineage: match output.lineage {
            host::Lineage::Constant => Lineage::Constant,
            host::Lineage::Exact(used) => Lineage::Exact(used),
            host::Lineage::Derived(uses) => Lineage::Derived(uses),
            host::Lineage::Unknown => Lineage::Unknown,
        },
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<'a> Operation<'a> {
    /// A view for native tests.
    #[must_use]
    pub fn new(
        inner: &'a chaperone_contract::Operation,
        context: &'a chaperone_contract::Context,
    ) -> Self {
        Self { inner, context }
    }

    /// `postgresql`, `http`, `s3`, `mcp`.
    #[must_use]
    pub fn protocol(&self) -> String {
        self.inner.protocol.clone()
    }

    /// `SELECT`, `DROP TABLE`, `GET`, `tools/call`.
    #[must_use]
    pub fn command(&self) -> String {
        self.inner.command.clone()
    }

    /// The union of what is done.
    #[must_use]
    pub fn actions(&self) -> Actions {
        self.inner.actions
    }

    /// The statement as the caller wrote it, literals included: never put it in a message.
    #[must_use]
    pub fn text(&self) -> String {
        self.inner.text.clone()
    }

    /// Why facts are incomplete; empty = complete. The host denies what has gaps before any policy
    /// is asked, unless the configuration trusts the module with it.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        self.inner.gaps.clone()
    }

    /// What is touched, and what is done to each.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.inner.objects.clone()
    }

    /// Which fields, and where their values are used.
    #[must_use]
    pub fn uses(&self) -> Vec<FieldUse> {
        self.inner.uses.clone()
    }

    /// What would leave.
    #[must_use]
    pub fn outputs(&self) -> Vec<OutputField> {
        self.inner.outputs.clone()
    }

    /// Indexes of the objects with any of these labels, or with unknown ones.
    #[must_use]
    pub fn objects_labelled(&self, labels: &[String]) -> Vec<u32> {
        self.inner.objects_labelled(labels)
    }

    /// Indexes of the uses in any of these usages with any of these labels, or unknown ones.
    #[must_use]
    pub fn uses_labelled(&self, labels: &[String], usages: Usages) -> Vec<u32> {
        self.inner.uses_labelled(labels, usages)
    }

    /// (index of the output, index into `labels`) for every pair that matches; an output whose
    /// lineage or labels are unknown matches each label.
    #[must_use]
    pub fn outputs_labelled(&self, labels: &[String]) -> Vec<(u32, u32)> {
        self.inner.outputs_labelled(labels)
    }

    /// How many bind values there are.
    #[must_use]
    pub fn parameter_count(&self) -> u32 {
        u32::try_from(self.context.parameters.len()).unwrap_or(u32::MAX)
    }

    /// A bind value; NULL where there is none. A module that calls this is evaluated anew for
    /// other parameters.
    #[must_use]
    pub fn parameter(&self, index: u32) -> Value {
        let value = self.context.parameters.get(index as usize);
        value.cloned().unwrap_or(Value::Null)
    }

    /// The host's clock, Unix seconds. A module that calls this is evaluated for every execution.
    #[must_use]
    pub fn received_at(&self) -> u64 {
        self.context.received_at
    }

    /// What only SQL has; `None` for other protocols.
    #[must_use]
    pub fn sql(&self) -> Option<Sql<'a>> {
        let context = self.context;
        let inner = self.inner.sql.as_ref()?;
        Some(Sql { inner, context })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Sql<'_> {
    /// Functions that the statement calls, schema-qualified.
    #[must_use]
    pub fn functions(&self) -> Vec<String> {
        self.inner.functions.clone()
    }

    /// Whether every base relation stands under a condition that is not constant.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.inner.is_filtered
    }

    /// A constant LIMIT of the outermost query.
    #[must_use]
    pub fn row_limit(&self) -> Option<u64> {
        self.inner.row_limit
    }

    /// Whether the statement provably only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.is_read_only
    }

    /// Whether a transaction block is open. A module that calls this is evaluated anew inside and
    /// outside of one.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.context.in_transaction
    }

    /// The effective search path.
    #[must_use]
    pub fn search_path(&self) -> Vec<String> {
        self.inner.search_path.clone()
    }
}
