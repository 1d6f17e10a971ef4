//! The contract's types as wasmtime sees them, and their way into the vocabulary crate.
//!
//! Only the types and the calls into a module are generated; the getters are written by hand in
//! [`crate::linker`], because generated ones copy a whole list at every call.

use chaperone_contract as contract;

wasmtime::component::bindgen!({
    world: "policy-module",
    path: "../../wit/v0.1.0",
});

pub(crate) use chaperone::policy::types;
pub(crate) use exports::chaperone::policy::policy;

/// The folder of `wit/` that these bindings were made from, as the package version in it.
pub(crate) const VERSION: &str = contract::CONTRACT_VERSION;

pub(crate) fn actions(actions: contract::Actions) -> types::Actions {
    let pairs = [
        (contract::Actions::READ, types::Actions::READ),
        (contract::Actions::CREATE, types::Actions::CREATE),
        (contract::Actions::UPDATE, types::Actions::UPDATE),
        (contract::Actions::DELETE, types::Actions::DELETE),
        (contract::Actions::DEFINE, types::Actions::DEFINE),
        (contract::Actions::GRANT, types::Actions::GRANT),
        (contract::Actions::EXECUTE, types::Actions::EXECUTE),
        (contract::Actions::CONTROL, types::Actions::CONTROL),
        (contract::Actions::OTHER, types::Actions::OTHER),
    ];
    pairs
        .into_iter()
        .filter(|(ours, _)| actions.contains(*ours))
        .fold(types::Actions::empty(), |all, (_, theirs)| all | theirs)
}

const USAGES: [(contract::Usages, types::Usages); 8] = [
    (contract::Usages::OUTPUT, types::Usages::OUTPUT),
    (contract::Usages::EQUALITY, types::Usages::EQUALITY),
    (contract::Usages::PREDICATE, types::Usages::PREDICATE),
    (contract::Usages::JOIN, types::Usages::JOIN),
    (contract::Usages::ORDER, types::Usages::ORDER),
    (contract::Usages::GROUP, types::Usages::GROUP),
    (contract::Usages::WRITE_SOURCE, types::Usages::WRITE_SOURCE),
    (contract::Usages::OTHER, types::Usages::OTHER),
];

pub(crate) fn usages(usages: contract::Usages) -> types::Usages {
    USAGES
        .into_iter()
        .filter(|(ours, _)| usages.contains(*ours))
        .fold(types::Usages::empty(), |all, (_, theirs)| all | theirs)
}

pub(crate) fn usages_from_guest(usages: types::Usages) -> contract::Usages {
    USAGES
        .into_iter()
        .filter(|(_, theirs)| usages.contains(*theirs))
        .fold(contract::Usages::empty(), |all, (ours, _)| all | ours)
}

pub(crate) fn object(object: &contract::Object) -> types::Object {
    types::Object {
        kind: object.kind.clone(),
        path: object.path.clone(),
        actions: actions(object.actions),
        labels: object.labels.to_list(),
    }
}

pub(crate) fn field_use(used: &contract::FieldUse) -> types::FieldUse {
    types::FieldUse {
        object: used.object,
        field: used.field.clone(),
        labels: used.labels.to_list(),
        usages: usages(used.usages),
    }
}

pub(crate) fn output_field(output: &contract::OutputField) -> types::OutputField {
    types::OutputField {
        name: output.name.clone(),
        type_name: output.type_name.clone(),
        lineage: match &output.lineage {
            contract::Lineage::Constant => types::Lineage::Constant,
            contract::Lineage::Exact(index) => types::Lineage::Exact(*index),
            contract::Lineage::Derived(list) => types::Lineage::Derived(list.clone()),
            contract::Lineage::Unknown => types::Lineage::Unknown,
        },
    }
}

pub(crate) fn value(value: &contract::Value) -> types::Value {
    match value {
        contract::Value::Null => types::Value::Null,
        contract::Value::Text(text) => types::Value::Text(text.clone()),
        contract::Value::Binary(bytes) => types::Value::Binary(bytes.clone()),
        contract::Value::Truncated(length) => types::Value::Truncated(*length),
    }
}

pub(crate) fn actor(actor: &contract::Actor) -> types::Actor {
    types::Actor {
        subject: actor.subject.clone(),
        issuer: actor.issuer.clone(),
    }
}

impl From<policy::Reason> for contract::Reason {
    fn from(reason: policy::Reason) -> Self {
        contract::Reason {
            code: reason.code,
            message: reason.message,
            hint: reason.hint,
        }
    }
}

impl From<policy::Verdict> for contract::Verdict {
    fn from(verdict: policy::Verdict) -> Self {
        match verdict {
            policy::Verdict::Abstain => contract::Verdict::Abstain,
            policy::Verdict::Allow => contract::Verdict::Allow,
            policy::Verdict::Deny(reason) => contract::Verdict::Deny(reason.into()),
            policy::Verdict::RequireApproval(approval) => {
                contract::Verdict::RequireApproval(contract::Approval {
                    reason: approval.reason.into(),
                    groups: approval.groups,
                    approvers: approval.approvers,
                    ttl_seconds: approval.ttl_seconds,
                })
            }
        }
    }
}

impl From<policy::Limits> for contract::Limits {
    fn from(limits: policy::Limits) -> Self {
        contract::Limits {
            max_rows: limits.max_rows,
            max_bytes: limits.max_bytes,
            timeout_ms: limits.timeout_ms,
            budgets: limits
                .budgets
                .into_iter()
                .map(|budget| contract::Budget {
                    name: budget.name,
                    max: budget.max,
                    window_seconds: budget.window_seconds,
                })
                .collect(),
        }
    }
}

impl From<policy::Transform> for contract::Transform {
    fn from(transform: policy::Transform) -> Self {
        match transform {
            policy::Transform::Reveal => contract::Transform::Reveal,
            policy::Transform::KeepLast(count) => contract::Transform::KeepLast(count),
            policy::Transform::Year => contract::Transform::Year,
            policy::Transform::Zip3 => contract::Transform::Zip3,
            policy::Transform::KeyedHash => contract::Transform::KeyedHash,
            policy::Transform::Custom(tag) => contract::Transform::Custom(tag),
            policy::Transform::Fixed(text) => contract::Transform::Fixed(text),
            policy::Transform::Null => contract::Transform::Null,
        }
    }
}

impl From<policy::Decision> for contract::Decision {
    fn from(decision: policy::Decision) -> Self {
        contract::Decision {
            verdict: decision.verdict.into(),
            limits: decision.limits.into(),
            masks: decision
                .masks
                .into_iter()
                .map(|mask| contract::Mask {
                    output: mask.output,
                    transform: mask.transform.into(),
                })
                .collect(),
        }
    }
}

impl From<policy::Manifest> for contract::Manifest {
    fn from(manifest: policy::Manifest) -> Self {
        let mut abilities = contract::Abilities::empty();
        for (theirs, ours) in [
            (policy::Abilities::DECIDES, contract::Abilities::DECIDES),
            (policy::Abilities::MASKS, contract::Abilities::MASKS),
            (policy::Abilities::REWRITES, contract::Abilities::REWRITES),
        ] {
            if manifest.abilities.contains(theirs) {
                abilities |= ours;
            }
        }
        contract::Manifest {
            name: manifest.name,
            version: manifest.version,
            description: manifest.description,
            protocols: manifest.protocols,
            abilities,
            settings_schema: manifest.settings_schema,
        }
    }
}
