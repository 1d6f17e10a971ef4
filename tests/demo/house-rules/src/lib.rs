//! The clinic's own rules: some tables can be closed to agents for a while. Made to be edited while
//! the demo is up.

use policy_sdk::prelude::*;

/// Tables that agents may not read at the moment.
const CLOSED: &[&str] = &[];

struct HouseRules;

impl Policy for HouseRules {
    type Settings = NoSettings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!()
    }

    fn configure(_: NoSettings) -> Result<Self, String> {
        Ok(HouseRules)
    }

    fn evaluate(&self, session: &Session, operation: &Operation) -> Result<Decision, Reason> {
        if CLOSED.is_empty() || !session.has_group("agents") {
            return Ok(Decision::abstain());
        }
        for object in operation.objects() {
            let name = object.path.last().map(String::as_str).unwrap_or_default();
            if CLOSED.contains(&name) {
                let reason = deny("closed", format!("The table {name} is closed to agents."));
                return Err(reason.hint("Ask whoever keeps the house rules when it opens again."));
            }
        }
        Ok(Decision::abstain())
    }
}

policy_sdk::export_policy!(HouseRules);
