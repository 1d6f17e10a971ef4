//! Masks labelled columns by group and denies inference from them.

mod scrub;

use std::collections::BTreeMap;

use policy_sdk::prelude::*;
use serde::Deserialize;

const SCRUB: &str = "scrub-notes";

/// The settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    labels: BTreeMap<String, Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rule {
    cleared: Vec<String>,
    lookup: Vec<String>,
    masks: Vec<GroupMask>,
    default: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupMask {
    groups: Vec<String>,
    transform: String,
}

/// The policy.
pub struct PhiMasking {
    labels: BTreeMap<String, Rule>,
}

impl Policy for PhiMasking {
    type Settings = Settings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!()
            .abilities(Abilities::DECIDES | Abilities::MASKS | Abilities::REWRITES)
            .settings_schema(SCHEMA)
    }

    fn configure(settings: Settings) -> Result<Self, String> {
        for (label, rule) in &settings.labels {
            let named = rule.masks.iter().map(|mask| &mask.transform);
            for name in named.chain(&rule.default) {
                parse(name).ok_or_else(|| format!("labels.{label}: no transform `{name}`"))?;
            }
        }
        Ok(Self {
            labels: settings.labels,
        })
    }

    fn evaluate(
        &self,
        session: &Session<'_>,
        operation: &Operation<'_>,
    ) -> Result<Decision, Reason> {
        let member = |groups: &[String]| groups.iter().any(|group| session.has_group(group));
        let cleared = |label: &String| self.labels.get(label).is_some_and(|r| member(&r.cleared));
        let uses = operation.uses();
        for used in &uses {
            let hidden = used.usages - Usages::OUTPUT;
            if hidden.is_empty() {
                continue;
            }
            let fine = match &used.labels {
                Labels::Unknown => false,
                Labels::Known(labels) => labels.iter().all(|label| {
                    let lookup = self.labels.get(label).is_some_and(|r| member(&r.lookup));
                    cleared(label) || lookup && hidden == Usages::EQUALITY
                }),
            };
            if !fine {
                return Err(deny(
                    "inference",
                    format!("{} is protected and may only be an output.", used.field),
                )
                .hint("Filter, join, sort and group by columns that are not protected."));
            }
        }
        let mut decision = Decision::abstain();
        for (index, output) in (0u32..).zip(operation.outputs()) {
            let Labels::Known(labels) = Operation::output_labels(&uses, &output) else {
                decision = decision.mask(index, Transform::Null);
                continue;
            };
            let exact = matches!(output.lineage, Lineage::Exact(_));
            for label in &labels {
                let transform = if cleared(label) {
                    Transform::Reveal
                } else if exact {
                    self.transform(label, &member)
                } else {
                    Transform::Null
                };
                decision = decision.mask(index, transform);
            }
        }
        Ok(decision)
    }

    fn rewrite_text(&self, tag: &str, text: &str, out: &mut String) -> Result<Cell, String> {
        if tag != SCRUB {
            return Err("there is no rewriter of this name".into());
        }
        scrub::scrub(text, out);
        Ok(Cell::Written)
    }
}

impl PhiMasking {
    fn transform(&self, label: &str, member: &impl Fn(&[String]) -> bool) -> Transform {
        let Some(rule) = self.labels.get(label) else {
            return Transform::Null;
        };
        let mine = rule.masks.iter().find(|mask| member(&mask.groups));
        mine.map(|mask| &mask.transform)
            .or(rule.default.as_ref())
            .and_then(|name| parse(name))
            .unwrap_or(Transform::Null)
    }
}

fn parse(name: &str) -> Option<Transform> {
    Some(match name.split_once(':') {
        Some(("keep-last", count)) => Transform::KeepLast(count.parse().ok()?),
        Some(("fixed", text)) => Transform::Fixed(text.into()),
        Some(_) => return None,
        None => match name {
            "reveal" => Transform::Reveal,
            "year" => Transform::Year,
            "zip3" => Transform::Zip3,
            "keyed-hash" => Transform::KeyedHash,
            "null" => Transform::Null,
            SCRUB => Transform::Custom(SCRUB.into()),
            _ => return None,
        },
    })
}

const SCHEMA: &str = r#"{"type":"object","additionalProperties":false,"properties":{"labels":{"type":"object",
"additionalProperties":{"type":"object","additionalProperties":false,"properties":{
"cleared":{"type":"array","items":{"type":"string"}},"lookup":{"type":"array","items":{"type":"string"}},
"default":{"type":"string"},"masks":{"type":"array","items":{"type":"object","additionalProperties":false,
"required":["groups","transform"],"properties":{"groups":{"type":"array","items":{"type":"string"}},
"transform":{"type":"string"}}}}}}}}}"#;

policy_sdk::export_policy!(PhiMasking);

#[cfg(test)]
mod tests {
    use policy_sdk::testkit::{self, Catalog, Session};

    use super::*;

    #[test]
    fn masks_and_denies_inference() {
        let policy: PhiMasking = testkit::configured(&serde_json::json!({"labels": {
            "ssn": {"cleared": ["clinicians"], "lookup": ["desk"], "default": "keep-last:4"}
        }}));
        let clinic = Catalog::from_ddl(
            "CREATE TABLE p (id int, ssn text); COMMENT ON COLUMN p.id IS '@label(clear)';
             COMMENT ON COLUMN p.ssn IS '@label(ssn)';",
        );
        let agent = Session::named("a");
        let query = clinic.operation("SELECT id, ssn, upper(ssn) AS u FROM p");
        testkit::evaluate(&policy, &agent, &query)
            .assert_shown("id")
            .assert_masked("ssn", Transform::KeepLast(4));
        testkit::evaluate(&policy, &Session::named("c").group("clinicians"), &query)
            .assert_shown("ssn");
        let guess = clinic.operation("SELECT id FROM p WHERE ssn = '1'");
        testkit::evaluate(&policy, &agent, &guess).assert_denied("inference");
    }
}
