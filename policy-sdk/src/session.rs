//! Who asks.

use crate::Actor;

#[cfg(target_arch = "wasm32")]
use crate::bindings::chaperone::policy::types as host;

/// The authenticated caller and what it is connected to. Each getter asks the host when called.
pub struct Session<'a> {
    #[cfg(target_arch = "wasm32")]
    inner: &'a host::Session,
    #[cfg(not(target_arch = "wasm32"))]
    inner: &'a chaperone_contract::Session,
}

#[cfg(target_arch = "wasm32")]
impl<'a> Session<'a> {
    pub(crate) fn new(inner: &'a host::Session) -> Self {
        Self { inner }
    }

    pub fn subject(&self) -> String {
        self.inner.subject()
    }

    pub fn issuer(&self) -> String {
        self.inner.issuer()
    }

    pub fn actors(&self) -> Vec<Actor> {
        let actor = |actor: host::Actor| Actor {
            subject: actor.subject,
            issuer: actor.issuer,
        };
        self.inner.actors().into_iter().map(actor).collect()
    }

    pub fn groups(&self) -> Vec<String> {
        self.inner.groups()
    }

    pub fn has_group(&self, name: &str) -> bool {
        self.inner.has_group(name)
    }

    pub fn claim(&self, path: &str) -> Option<String> {
        self.inner.claim(path)
    }

    pub fn purpose(&self) -> Option<String> {
        self.inner.purpose()
    }

    pub fn run(&self) -> Option<String> {
        self.inner.run()
    }

    pub fn target(&self) -> String {
        self.inner.target()
    }

    pub fn principal(&self) -> String {
        self.inner.principal()
    }

    pub fn client_address(&self) -> String {
        self.inner.client_address()
    }

    pub fn authenticated_at(&self) -> u64 {
        self.inner.authenticated_at()
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<'a> Session<'a> {
    /// A view for native tests.
    #[must_use]
    pub fn new(inner: &'a chaperone_contract::Session) -> Self {
        Self { inner }
    }

    /// The identity's `sub`.
    #[must_use]
    pub fn subject(&self) -> String {
        self.inner.subject.clone()
    }

    /// The identity's `iss`, `static` for a static identity.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.inner.issuer.clone()
    }

    /// On whose behalf, nearest first.
    #[must_use]
    pub fn actors(&self) -> Vec<Actor> {
        self.inner.actors.clone()
    }

    /// All groups. [`Session::has_group`] is cheaper where the name is known.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.inner.groups.clone()
    }

    /// Membership, compared byte by byte.
    #[must_use]
    pub fn has_group(&self, name: &str) -> bool {
        self.inner.has_group(name)
    }

    /// A claim by dotted path, as JSON text.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<String> {
        self.inner.claim(path)
    }

    /// Purpose of use, as the identity permits it.
    #[must_use]
    pub fn purpose(&self) -> Option<String> {
        self.inner.purpose.clone()
    }

    /// The agent run that the session belongs to.
    #[must_use]
    pub fn run(&self) -> Option<String> {
        self.inner.run.clone()
    }

    /// The configured target's name.
    #[must_use]
    pub fn target(&self) -> String {
        self.inner.target.clone()
    }

    /// The backend role or service account.
    #[must_use]
    pub fn principal(&self) -> String {
        self.inner.principal.clone()
    }

    /// The client's IP address.
    #[must_use]
    pub fn client_address(&self) -> String {
        self.inner.client_address.clone()
    }

    /// When the caller authenticated, Unix seconds.
    #[must_use]
    pub fn authenticated_at(&self) -> u64 {
        self.inner.authenticated_at
    }
}
