//! Holds, denies or limits what is risky, whoever may touch what.

mod reads;
mod risk;

use std::collections::BTreeMap;

use policy_sdk::prelude::*;
use reads::ReadRule;
use risk::Risk;
use serde::Deserialize;

/// What happens to a risk.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Other policies decide.
    Allow,
    Approval,
    #[default]
    Deny,
}

type Answers = BTreeMap<Risk, Answer>;

/// The settings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    answers: Answers,
    exceptions: Vec<Exception>,
    reads: Vec<ReadRule>,
    approvers: Vec<String>,
    approvals: Option<u8>,
    ttl_seconds: Option<u32>,
}

/// Other answers for some groups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    groups: Vec<String>,
    answers: Answers,
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

    fn evaluate(
        &self,
        session: &Session<'_>,
        operation: &Operation<'_>,
    ) -> Result<Decision, Reason> {
        let objects = operation.objects();
        let reads = reads::Reads::of(&self.settings.reads, session, &objects);
        let mut risks = risk::of(operation, &objects, &reads);
        // A read that may be large is held whatever the answers say; they are about kinds.
        let mut strictest = reads
            .is_large(operation)
            .then_some((Answer::Approval, Risk::BulkRead));
        for risk in risks.drain(..) {
            let answer = self.answer(session, risk);
            if answer != Answer::Allow && strictest.is_none_or(|(known, _)| answer > known) {
                strictest = Some((answer, risk));
            }
        }
        let decision = match strictest {
            None | Some((Answer::Allow, _)) => Decision::abstain(),
            Some((Answer::Approval, risk)) => self.hold(risk, &operation.command()).into(),
            Some((Answer::Deny, risk)) => return Err(risk.refusal(&operation.command())),
        };
        Ok(reads.limit(decision))
    }
}

impl RiskyCommands {
    /// The first exception for a group of the caller's that names the risk, else the common answer;
    /// what nobody names is denied.
    fn answer(&self, session: &Session<'_>, risk: Risk) -> Answer {
        let exceptions = self.settings.exceptions.iter();
        let excepted = exceptions
            .filter(|it| it.groups.iter().any(|group| session.has_group(group)))
            .find_map(|exception| exception.answers.get(&risk));
        let common = || self.settings.answers.get(&risk);
        excepted.or_else(common).copied().unwrap_or_default()
    }

    fn hold(&self, risk: Risk, command: &str) -> Approval {
        let Settings {
            approvers,
            approvals,
            ttl_seconds,
            ..
        } = &self.settings;
        let mut held = risk
            .approval(command)
            .approvers(approvals.unwrap_or(1))
            .ttl(ttl_seconds.unwrap_or(900));
        held.groups.clone_from(approvers);
        held
    }
}

const SCHEMA: &str = r##"{"type":"object","additionalProperties":false,"$defs":{
"names":{"type":"array","items":{"type":"string","minLength":1}},
"answers":{"type":"object","additionalProperties":{"enum":["allow","approval","deny"]},"propertyNames":{"enum":
["definitions","code","roles","grants","labels","truncate","unfiltered-changes","copy","server"]}}},"properties":{
"answers":{"$ref":"#/$defs/answers"},
"exceptions":{"type":"array","items":{"type":"object","additionalProperties":false,"required":["groups","answers"],
"properties":{"groups":{"$ref":"#/$defs/names","minItems":1},"answers":{"$ref":"#/$defs/answers"}}}},
"reads":{"type":"array","items":{"type":"object","additionalProperties":false,"required":["tables"],"properties":{
"groups":{"$ref":"#/$defs/names"},"tables":{"$ref":"#/$defs/names","minItems":1},
"approval_above":{"type":"integer","minimum":0},"rows":{"type":"integer","minimum":0},
"bytes":{"type":"integer","minimum":0},"timeout_ms":{"type":"integer","minimum":1,"maximum":4294967295},
"budget":{"type":"object","additionalProperties":false,"required":["name","rows","seconds"],"properties":{
"name":{"type":"string","minLength":1},"rows":{"type":"integer","minimum":0},
"seconds":{"type":"integer","minimum":1,"maximum":4294967295}}}}}},
"approvers":{"$ref":"#/$defs/names"},"approvals":{"type":"integer","minimum":1,"maximum":255},
"ttl_seconds":{"type":"integer","minimum":1,"maximum":4294967295}}}"##;

policy_sdk::export_policy!(RiskyCommands);
