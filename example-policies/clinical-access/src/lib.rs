//! Who may do what to which objects, by group and purpose. What no grant covers is denied.

mod grant;
mod words;

use grant::{Grant, Held, Target};
use policy_sdk::prelude::*;
use serde::Deserialize;

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    grants: Vec<grant::Written>,
    system_catalogs: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grants: Vec::new(),
            system_catalogs: true,
        }
    }
}

/// The policy.
pub struct ClinicalAccess {
    grants: Vec<Grant>,
    system_catalogs: bool,
}

impl Policy for ClinicalAccess {
    type Settings = Settings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!().settings_schema(SCHEMA)
    }

    fn configure(settings: Settings) -> Result<Self, String> {
        let grants = settings.grants.into_iter().enumerate();
        Ok(Self {
            grants: grants.map(Grant::read).collect::<Result<_, String>>()?,
            system_catalogs: settings.system_catalogs,
        })
    }

    fn evaluate(
        &self,
        session: &Session<'_>,
        operation: &Operation<'_>,
    ) -> Result<Decision, Reason> {
        let held = Held::by(session, &self.grants);
        let objects = operation.objects();
        let mut seen = Actions::empty();
        for object in &objects {
            seen |= object.actions;
            if !self.is_open_catalog(object) {
                held.check(&Target::object(object), object.actions, operation)?;
            }
        }
        // What a statement does beside its objects, and all that one without any does.
        let beside = operation.actions() - seen;
        if beside.is_empty() && !objects.is_empty() || computes_only(&objects, operation) {
            return Ok(Decision::allow());
        }
        let beside = if beside.is_empty() {
            Actions::OTHER
        } else {
            beside
        };
        held.check(&Target::statement(operation.command()), beside, operation)?;
        Ok(Decision::allow())
    }
}

impl ClinicalAccess {
    /// A relation of PostgreSQL's own that is known to hold nobody's data: passwords and statistics
    /// of columns are in the same schema.
    fn is_open_catalog(&self, object: &Object) -> bool {
        let [schema, _] = object.path.as_slice() else {
            return false;
        };
        self.system_catalogs
            && object.actions == Actions::READ
            && object.labels.is_clear()
            && matches!(object.kind.as_str(), "table" | "view")
            && matches!(schema.as_str(), "pg_catalog" | "information_schema")
    }
}

/// `SELECT 1`, as drivers send it to see whether anybody is there.
fn computes_only(objects: &[Object], operation: &Operation<'_>) -> bool {
    objects.is_empty()
        && Actions::READ.contains(operation.actions())
        && operation.sql().is_some_and(|sql| sql.is_read_only())
}

const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{
"system_catalogs":{"type":"boolean"},
"grants":{"type":"array","items":{"type":"object","additionalProperties":false,"required":["groups","objects"],
"properties":{"groups":{"type":"array","minItems":1,"items":{"type":"string"}},
"purposes":{"type":"array","items":{"type":"string"}},
"objects":{"type":"array","minItems":1,"items":{"type":"string","minLength":1}},
"actions":{"type":"array","minItems":1,"items":{"enum":["read","create","update","delete","define","grant","execute","control","other"]}}}}}}}"#;

policy_sdk::export_policy!(ClinicalAccess);
