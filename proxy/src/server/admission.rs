//! Who may come in: identities against targets and roles, and approvers.

use chaperone_audit_log::{Code, Name, payload::Strength};

use crate::{
    admin::{ApproverAuth, AuthFailed},
    approval::{self, Approver, BoxFuture, Person},
    config::{Config, Target},
    identity::{Authenticator, Identity},
    postgres::{Admission, Admit, NotAdmitted},
};

pub use crate::identity::SetupError as IdentityError;

/// Knows the identities and what is granted to them.
pub(super) struct Doorkeeper {
    authenticator: Authenticator,
    targets: Vec<Target>,
}

impl Doorkeeper {
    pub(super) fn new(config: &Config) -> Result<Self, IdentityError> {
        Ok(Self {
            authenticator: Authenticator::new(config)?,
            targets: config.targets.clone(),
        })
    }

    /// Reads the providers' keys; see [`Authenticator::warm_up`].
    pub(super) async fn warm_up(&self) {
        self.authenticator.warm_up().await;
    }

    fn grant(
        &self,
        identity: &Identity,
        target: &str,
        role: &str,
        client_address: &str,
    ) -> Result<Admission, NotAdmitted> {
        let not = |code, detail: String| NotAdmitted {
            code,
            detail,
            authenticated: true,
        };
        let Some(found) = self.targets.iter().find(|known| known.name == target) else {
            return Err(not("no-such-target", format!("target {target:?}")));
        };
        let Some(granted) = found.role_for(identity, role) else {
            return Err(not(
                "role-not-granted",
                format!(
                    "{}#{} asked for role {role:?} of {target:?}",
                    identity.issuer, identity.subject
                ),
            ));
        };
        let method = if identity.static_name.is_some() {
            "static"
        } else {
            "oidc"
        };
        Ok(Admission {
            caller: identity.session(target, role, client_address),
            login: granted.login.clone(),
            password: granted
                .password
                .as_ref()
                .and_then(|secret| secret.expose_str())
                .map(str::to_owned),
            token: identity.token_digest,
            strength: Strength {
                method: Some(Code::from_words(method)),
                acr: identity.acr.as_deref().map(Name::new),
                amr: identity.amr.iter().map(|amr| Name::new(amr)).collect(),
                tls: None,
            },
            expires_at: identity.expires_at,
        })
    }
}

impl Admit for Doorkeeper {
    fn admit<'a>(
        &'a self,
        token: &'a str,
        target: &'a str,
        role: &'a str,
        client_address: &'a str,
    ) -> BoxFuture<'a, Result<Admission, NotAdmitted>> {
        Box::pin(async move {
            match self.authenticator.authenticate(token).await {
                Ok(identity) => self.grant(&identity, target, role, client_address),
                Err(error) => Err(NotAdmitted {
                    code: error.code(),
                    detail: error.to_string(),
                    authenticated: false,
                }),
            }
        })
    }
}

impl ApproverAuth for Doorkeeper {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Approver, AuthFailed>> {
        Box::pin(async move {
            let identity = match self.authenticator.authenticate(token).await {
                Ok(identity) => identity,
                Err(error) => {
                    tracing::info!(code = error.code(), "an admin token was not accepted");
                    return Err(if error.is_temporary() {
                        AuthFailed::Unavailable
                    } else {
                        AuthFailed::Refused
                    });
                }
            };
            Ok(Approver {
                person: Person {
                    issuer: identity.issuer,
                    subject: identity.subject,
                },
                actors: identity
                    .actors
                    .into_iter()
                    .map(|actor| Person {
                        issuer: actor.issuer,
                        subject: actor.subject,
                    })
                    .collect(),
                groups: identity.groups,
                strength: approval::Strength {
                    acr: identity.acr,
                    amr: identity.amr,
                },
            })
        })
    }
}
