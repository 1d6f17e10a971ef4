//! Callers in one line.

use std::ops::Deref;

use chaperone_contract::Actor;

/// A caller: `Session::named("nurse").group("nurses").purpose("TREAT")`.
#[derive(Clone, Debug)]
pub struct Session {
    session: chaperone_contract::Session,
}

impl Deref for Session {
    type Target = chaperone_contract::Session;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl Session {
    /// Someone of that name, in no group, without a purpose, at the target `test` as the role
    /// `test`.
    #[must_use]
    pub fn named(subject: &str) -> Self {
        let session = chaperone_contract::Session {
            subject: subject.into(),
            issuer: "https://issuer.test".into(),
            target: "test".into(),
            principal: "test".into(),
            client_address: "127.0.0.1".into(),
            ..chaperone_contract::Session::default()
        };
        Self { session }
    }

    /// In this group (and in others that were named).
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.session.groups.push(group.into());
        self
    }

    /// With this purpose of use.
    #[must_use]
    pub fn purpose(mut self, purpose: &str) -> Self {
        self.session.purpose = Some(purpose.into());
        self
    }

    /// On someone's behalf; the nearest is named first.
    #[must_use]
    pub fn actor(mut self, subject: &str, issuer: &str) -> Self {
        self.session.actors.push(Actor {
            subject: subject.into(),
            issuer: issuer.into(),
        });
        self
    }

    /// With a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.session.claims.insert(name.into(), value.into());
        self
    }

    /// As this backend role.
    #[must_use]
    pub fn principal(mut self, role: &str) -> Self {
        self.session.principal = role.into();
        self
    }
}
