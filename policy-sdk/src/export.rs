//! From a [`Policy`](crate::Policy) to the module's exports.

/// Exports a policy as a module. Once per crate, natively it does nothing.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static CONFIGURED: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();

            struct Module;

            impl $crate::export_support::Exported for Module {
                type Policy = $policy;

                fn configured() -> &'static ::std::sync::OnceLock<$policy> {
                    &CONFIGURED
                }
            }

    $crate::bindings::export_module!(Module with_types_in $crate::bindings);
        };
    };
}

#[cfg(target_arch = "wasm32")]
pub use guest::Exported;

#[cfg(target_arch = "wasm32")]
mod guest {
    use std::sync::OnceLock;

    use crate::bindings::chaperone::policy::types as host;
    use crate::bindings::exports::chaperone::policy::policy as wit;
    use crate::{
        Abilities, Approval, Budget, Column, Decision, Limits, Operation, Policy, Reason, Session,
        Transform, Verdict,
    };

    /// What [`export_policy!`](crate::export_policy) implements.
    pub trait Exported: 'static {
        type Policy: Policy;

        fn configured() -> &'static OnceLock<Self::Policy>;
    }

    impl<T: Exported> wit::Guest for T {
        fn describe() -> wit::Manifest {
            let manifest = T::Policy::manifest();
            wit::Manifest {
                name: manifest.name,
                version: manifest.version,
                description: manifest.description,
                protocols: manifest.protocols,
                abilities: abilities(manifest.abilities),
                settings_schema: manifest.settings_schema,
            }
        }

        fn configure(settings: String) -> Result<(), String> {
            let policy = T::Policy::configure(crate::settings::parse(&settings)?)?;
            T::configured()
                .set(policy)
                .map_err(|_| "the module is already configured".to_owned())
        }

        fn evaluate(
            session: &host::Session,
            operation: &host::Operation,
        ) -> Result<wit::Decision, wit::Reason> {
            let policy = T::configured().get().ok_or_else(|| wit::Reason {
                code: "not-configured".into(),
                message: "The policy module was not configured.".into(),
                hint: None,
            })?;
            let (session, operation) = (Session::new(session), Operation::new(operation));
            // A policy's own `Err` is a denial with its reason; the contract's `err`, which the host
            // takes for a broken policy, is left to policies that are.
            let answer = policy.evaluate(&session, &operation);
            Ok(decision(answer.unwrap_or_else(Into::into)))
        }

        fn rewrite(rows: u32, columns: Vec<wit::Column>) -> Result<Vec<wit::Column>, String> {
            let policy = T::configured()
                .get()
                .ok_or_else(|| "the module was not configured".to_owned())?;
            let columns = columns.into_iter().map(from_wit).collect();
            let columns = policy.rewrite(rows, columns)?;
            Ok(columns.into_iter().map(to_wit).collect())
        }
    }

    fn from_wit(column: wit::Column) -> Column {
        Column {
            tag: column.tag,
            validity: column.validity,
            offsets: column.offsets,
            data: column.data,
        }
    }

    fn to_wit(column: Column) -> wit::Column {
        wit::Column {
            tag: column.tag,
            validity: column.validity,
            offsets: column.offsets,
            data: column.data,
        }
    }

    fn abilities(abilities: Abilities) -> wit::Abilities {
        wit::Abilities::from_bits_truncate(abilities.bits())
    }

    fn decision(decision: Decision) -> wit::Decision {
        let mask = |mask: crate::Mask| wit::Mask {
            output: mask.output,
            transform: transform(mask.transform),
        };
        wit::Decision {
            verdict: verdict(decision.verdict),
            limits: limits(decision.limits),
            masks: decision.masks.into_iter().map(mask).collect(),
        }
    }

    fn verdict(verdict: Verdict) -> wit::Verdict {
        match verdict {
            Verdict::Abstain => wit::Verdict::Abstain,
            Verdict::Allow => wit::Verdict::Allow,
            Verdict::Deny(why) => wit::Verdict::Deny(reason(why)),
            Verdict::RequireApproval(wanted) => wit::Verdict::RequireApproval(approval(wanted)),
        }
    }

    fn reason(reason: Reason) -> wit::Reason {
        wit::Reason {
            code: reason.code,
            message: reason.message,
            hint: reason.hint,
        }
    }

    fn approval(approval: Approval) -> wit::Approval {
        wit::Approval {
            reason: reason(approval.reason),
            groups: approval.groups,
            approvers: approval.approvers,
            ttl_seconds: approval.ttl_seconds,
        }
    }

    fn limits(limits: Limits) -> wit::Limits {
        let budget = |budget: Budget| wit::Budget {
            name: budget.name,
            max: budget.max,
            window_seconds: budget.window_seconds,
        };
        wit::Limits {
            max_rows: limits.max_rows,
            max_bytes: limits.max_bytes,
            timeout_ms: limits.timeout_ms,
            budgets: limits.budgets.into_iter().map(budget).collect(),
        }
    }

    fn transform(transform: Transform) -> wit::Transform {
        match transform {
            Transform::Reveal => wit::Transform::Reveal,
            Transform::KeepLast(count) => wit::Transform::KeepLast(count),
            Transform::Year => wit::Transform::Year,
            Transform::Zip3 => wit::Transform::Zip3,
            Transform::KeyedHash => wit::Transform::KeyedHash,
            Transform::Custom(tag) => wit::Transform::Custom(tag),
            Transform::Fixed(text) => wit::Transform::Fixed(text),
            Transform::Null => wit::Transform::Null,
        }
    }
}
