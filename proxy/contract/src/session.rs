//! Who asks.

use serde::{Deserialize, Serialize};

/// Someone who acts for someone else, as in RFC 8693's `act` claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The actor's `sub`.
    pub subject: String,
    /// The actor's `iss`.
    pub issuer: String,
}

/// An authenticated caller and what it is connected to; fixed for the life of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The identity's `sub`, or the configured name of a static identity.
    pub subject: String,
    /// The identity's `iss`, or `static` for a static identity.
    pub issuer: String,
    /// Who acts on the subject's behalf, nearest first.
    pub actors: Vec<Actor>,
    /// Group memberships.
    pub groups: Vec<String>,
    /// All claims of the token, as JSON.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// Purpose of use, as the identity permits it.
    pub purpose: Option<String>,
    /// The agent run that the session belongs to.
    pub run: Option<String>,
    /// The configured target's name.
    pub target: String,
    /// The backend role or service account that the session uses.
    pub principal: String,
    /// The client's IP address, without the port.
    pub client_address: String,
    /// When the caller authenticated, Unix seconds.
    pub authenticated_at: u64,
}

impl Session {
    /// The claim at a dotted path (`realm_access.roles`), as JSON text. A claim whose own name has
    /// dots in it is found too: at each level the longest matching name wins.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<String> {
        claim_at(&self.claims, path).map(ToString::to_string)
    }

    /// Whether the caller is in the group, compared byte by byte.
    #[must_use]
    pub fn has_group(&self, name: &str) -> bool {
        self.groups.iter().any(|group| group == name)
    }
}

/// The claim at a dotted path, as [`Session::claim`] finds it.
#[must_use]
pub fn claim_at<'a>(
    claims: &'a serde_json::Map<String, serde_json::Value>,
    path: &str,
) -> Option<&'a serde_json::Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| {
        let (head, tail) = (path.get(..at)?, path.get(at + 1..)?);
        claim_at(claims.get(head)?.as_object()?, tail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(claims: serde_json::Value) -> Session {
        let serde_json::Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        Session {
            claims,
            ..Session::default()
        }
    }

    #[test]
    fn claims_are_found_by_path_and_by_dotted_name() {
        let session = session(serde_json::json!({
            "realm": {"roles": ["a"], "x.y": 1},
            "https://example.invalid/purpose": "TREAT",
        }));
        assert_eq!(session.claim("realm.roles").as_deref(), Some("[\"a\"]"));
        assert_eq!(session.claim("realm.x.y").as_deref(), Some("1"));
        assert_eq!(
            session.claim("https://example.invalid/purpose").as_deref(),
            Some("\"TREAT\"")
        );
        assert_eq!(session.claim("realm.none"), None);
        assert_eq!(session.claim(""), None);
    }
}
