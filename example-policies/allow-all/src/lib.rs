//! **Allows everything and masks nothing.** For benchmarks and driver suites against synthetic data
//! only: with this module and no other in the policy directory, every caller sees all PHI.

use policy_sdk::prelude::*;

/// The policy; it has no settings.
pub struct AllowAll;

impl Policy for AllowAll {
    type Settings = NoSettings;

    fn manifest() -> Manifest {
        policy_sdk::manifest!().abilities(Abilities::DECIDES | Abilities::MASKS)
    }

    fn configure(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }

    fn evaluate(&self, _: &Session<'_>, operation: &Operation<'_>) -> Result<Decision, Reason> {
        // What nobody reveals is withheld, so revealing takes one mask an output.
        let outputs = (0u32..).zip(operation.outputs());
        Ok(outputs.fold(Decision::allow(), |decision, (output, _)| {
            decision.reveal(output)
        }))
    }
}

policy_sdk::export_policy!(AllowAll);

#[cfg(test)]
mod tests {
    use policy_sdk::testkit::{self, Session, Table, operation};

    use super::*;

    #[test]
    fn shows_everything_to_everybody() {
        let patients = Table::named("public.patients").column("ssn", &["ssn"]);
        let query = operation("SELECT")
            .on(&patients, Actions::READ)
            .output(&patients, "ssn")
            .unknown_output("x");
        testkit::evaluate(&AllowAll, &Session::named("anyone"), &query)
            .assert_allowed()
            .assert_masked("ssn", Transform::Reveal)
            .assert_masked("x", Transform::Reveal);
    }
}
