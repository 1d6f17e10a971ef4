//! Holds, denies or limits what is risky whoever asks.

use policy_sdk::prelude::*;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Allow,
    Approval,
    #[default]
    Deny,
}

/// The settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    definitions: Answer,
    grants: Answer,
    unfiltered_changes: Answer,
    copy: Answer,
    approvers: Vec<String>,
    ttl_seconds: Option<u32>,
    bulk_tables: Vec<String>,
    bulk_rows: Option<u64>,
}

/// The policy.
pub struct RiskyCommands {
    settings: Settings,
}

impl Policy for RiskyCommands {
    type Settings = Settings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!().settings_schema(SCHEMA)
    }

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self { settings })
    }

    fn evaluate(&self, _: &Session<'_>, operation: &Operation<'_>) -> Result<Decision, Reason> {
        let settings = &self.settings;
        let actions = operation.actions();
        let command = operation.command();
        let filtered = operation.sql().is_some_and(|sql| sql.is_filtered());
        let changes = actions.intersects(Actions::UPDATE | Actions::DELETE);
        let (defines, grants) = (Actions::DEFINE, Actions::GRANT);
        // Each risk is judged; the strictest answer counts.
        let risks = [
            (
                actions.contains(defines),
                settings.definitions,
                "definition",
            ),
            (actions.contains(grants), settings.grants, "grant"),
            (
                changes && !filtered,
                settings.unfiltered_changes,
                "unfiltered-change",
            ),
            (command.starts_with("COPY"), settings.copy, "copy"),
        ];
        let present = || risks.iter().filter(|(present, ..)| *present);
        if let Some((.., code)) = present().find(|(_, answer, _)| *answer == Answer::Deny) {
            return Err(deny(*code, format!("{command} is not allowed ({code}).")));
        }
        if let Some((.., code)) = present().find(|(_, answer, _)| *answer == Answer::Approval) {
            let mut held = require_approval(*code, format!("{command} needs approval ({code})."))
                .ttl(settings.ttl_seconds.unwrap_or(900));
            held.groups.clone_from(&settings.approvers);
            return Ok(held.into());
        }
        if actions.intersects(defines | grants) && (defines | grants).contains(actions) {
            return Ok(Decision::allow());
        }
        let Some(rows) = settings.bulk_rows else {
            return Ok(Decision::abstain());
        };
        let bulk = operation.objects().iter().any(|object| {
            object.actions.contains(Actions::READ)
                && settings.bulk_tables.contains(&object.path.join("."))
        });
        if bulk && !filtered {
            return Ok(Decision::abstain().limit_rows(rows));
        }
        Ok(Decision::abstain())
    }
}

const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{
"definitions":{"enum":["allow","approval","deny"]},"grants":{"enum":["allow","approval","deny"]},
"unfiltered_changes":{"enum":["allow","approval","deny"]},"copy":{"enum":["allow","approval","deny"]},
"approvers":{"type":"array","items":{"type":"string"}},"ttl_seconds":{"type":"integer","minimum":1},
"bulk_tables":{"type":"array","items":{"type":"string"}},"bulk_rows":{"type":"integer","minimum":0}}}"#;

policy_sdk::export_policy!(RiskyCommands);

#[cfg(test)]
mod tests {
    use policy_sdk::testkit::{self, Catalog, Session};

    use super::*;

    #[test]
    fn holds_denies_and_limits() {
        let policy: RiskyCommands = testkit::configured(&serde_json::json!({
            "definitions": "approval", "bulk_tables": ["public.p"], "bulk_rows": 10
        }));
        let clinic = Catalog::from_ddl("CREATE TABLE p (id int);");
        let answer = |sql| testkit::evaluate(&policy, &Session::named("a"), &clinic.operation(sql));
        answer("DROP TABLE p").assert_held("definition");
        answer("DELETE FROM p").assert_denied("unfiltered-change");
        answer("SELECT id FROM p").assert_row_limit(10);
        answer("SELECT id FROM p WHERE id = 1").assert_row_limit(None);
    }
}
