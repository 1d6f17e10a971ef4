//! Who may touch which tables, by group and purpose.

use policy_sdk::prelude::*;
use serde::Deserialize;

/// The settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    grants: Vec<Grant>,
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

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    groups: Vec<String>,
    #[serde(default)]
    purposes: Vec<String>,
    objects: Vec<String>,
    #[serde(default = "read")]
    actions: Vec<String>,
}

fn read() -> Vec<String> {
    vec!["read".into()]
}

/// The policy.
pub struct ClinicalAccess {
    grants: Vec<(Grant, Actions)>,
    system_catalogs: bool,
}

impl Policy for ClinicalAccess {
    type Settings = Settings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!().settings_schema(SCHEMA)
    }

    fn configure(settings: Settings) -> Result<Self, String> {
        let grants = settings.grants.into_iter().map(|grant| {
            let mut actions = Actions::empty();
            for name in &grant.actions {
                actions |= Actions::from_name(&name.to_uppercase())
                    .ok_or_else(|| format!("grants: there is no action {name:?}"))?;
            }
            Ok((grant, actions))
        });
        Ok(Self {
            grants: grants.collect::<Result<_, String>>()?,
            system_catalogs: settings.system_catalogs,
        })
    }

    fn evaluate(
        &self,
        session: &Session<'_>,
        operation: &Operation<'_>,
    ) -> Result<Decision, Reason> {
        let elsewhere = Actions::DEFINE | Actions::GRANT;
        let purpose = session.purpose();
        let mine: Vec<_> = self
            .grants
            .iter()
            .filter(|(grant, _)| grant.groups.iter().any(|group| session.has_group(group)))
            .collect();
        let done = operation.actions();
        if done.is_empty() || elsewhere.contains(done) {
            return Ok(Decision::abstain());
        }
        for object in operation.objects() {
            let wanted = object.actions - elsewhere;
            let name = object.path.join(".");
            let system = matches!(
                object.path.first().map(String::as_str),
                Some("pg_catalog" | "information_schema")
            );
            if wanted.is_empty() || self.system_catalogs && system && wanted == Actions::READ {
                continue;
            }
            let (mut missing, mut needs) = (wanted, Vec::new());
            for (grant, actions) in &mine {
                if !grant
                    .objects
                    .iter()
                    .any(|pattern| matches_glob(pattern, &name))
                {
                    continue;
                }
                if grant.purposes.is_empty()
                    || purpose.as_ref().is_some_and(|p| grant.purposes.contains(p))
                {
                    missing -= *actions;
                } else if actions.intersects(wanted) {
                    needs.extend(grant.purposes.iter().cloned());
                }
            }
            if missing.is_empty() {
                continue;
            }
            if !needs.is_empty() {
                return Err(deny(
                    "purpose-required",
                    format!("{name} needs a purpose of use."),
                )
                .hint(format!("Allowed with purpose {}.", needs.join(" or "))));
            }
            let scope: Vec<_> = mine.iter().flat_map(|(g, _)| g.objects.clone()).collect();
            let hint = match scope.as_slice() {
                [] => "None of your groups has access to anything here.".to_owned(),
                scope => format!("In your scope: {}.", scope.join(", ")),
            };
            return Err(deny("outside-scope", format!("{name} is outside your scope.")).hint(hint));
        }
        Ok(Decision::allow())
    }
}

/// `*` stands for any run of characters; everything else for itself.
fn matches_glob(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len())
                .filter_map(|at| rest.get(at..))
                .any(|rest| matches_glob(tail, rest))
        }),
    }
}

const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{
"system_catalogs":{"type":"boolean"},
"grants":{"type":"array","items":{"type":"object","additionalProperties":false,"required":["groups","objects"],
"properties":{"groups":{"type":"array","items":{"type":"string"}},"purposes":{"type":"array","items":{"type":"string"}},
"objects":{"type":"array","items":{"type":"string"}},
"actions":{"type":"array","items":{"enum":["read","create","update","delete","define","grant","execute","control","other"]}}}}}}}"#;

policy_sdk::export_policy!(ClinicalAccess);

#[cfg(test)]
mod tests {
    use policy_sdk::testkit::{self, Catalog, Session};

    use super::*;

    #[test]
    fn scope_and_purpose_decide() {
        let policy: ClinicalAccess = testkit::configured(&serde_json::json!({"grants": [
            {"groups": ["nurses"], "purposes": ["TREAT"], "objects": ["public.pat*"]}
        ]}));
        let clinic =
            Catalog::from_ddl("CREATE TABLE patients (id int); CREATE TABLE payroll (id int);");
        let (nurse, treat) = (
            Session::named("n").group("nurses"),
            Session::named("n").group("nurses").purpose("TREAT"),
        );
        let query = clinic.operation("SELECT id FROM patients");
        testkit::evaluate(&policy, &treat, &query).assert_allowed();
        testkit::evaluate(&policy, &nurse, &query).assert_denied("purpose-required");
        let other = clinic.operation("SELECT id FROM payroll");
        testkit::evaluate(&policy, &treat, &other).assert_denied("outside-scope");
        let delete = clinic.operation("DELETE FROM patients");
        testkit::evaluate(&policy, &treat, &delete).assert_denied("outside-scope");
        let drop = clinic.operation("DROP TABLE patients");
        testkit::evaluate(&policy, &treat, &drop).assert_abstained();
    }
}
