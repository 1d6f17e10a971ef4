//! Who asks, without a token: a static identity by name, or a JSON file that stands in for one.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chaperone_contract::Actor;
use serde::Deserialize;

use crate::config::{Config, Role, Target};
use crate::identity::Identity;

/// Why nobody can be asked for.
#[derive(Debug, thiserror::Error)]
pub enum PersonaError {
    /// Neither a name nor a file.
    #[error(
        "--as {given:?} is neither a static identity of the configuration ({}) nor a file. Give \
         one of these names, or a JSON file such as \
         {{\"subject\":\"agent-7\",\"groups\":[\"agents\"],\"purpose\":\"quality-review\"}}",
        list(known)
    )]
    Nobody {
        /// What was given.
        given: String,
        /// The names that the configuration has.
        known: Vec<String>,
    },
    /// The file cannot be read.
    #[error("--as {}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not a persona.
    #[error(
        "--as {}: {error}. A persona is an object with subject (text) and, as needed, issuer \
         (text), groups (list of texts), purpose (text), run (text), actors (list of subject and \
         issuer), claims (object)",
        file.display()
    )]
    Form {
        /// Which.
        file: PathBuf,
        /// Line, column and cause.
        error: serde_json::Error,
    },
    /// No such target.
    #[error("there is no target {given:?}; the configuration has {}", list(known))]
    NoTarget {
        /// What was given.
        given: String,
        /// What there is.
        known: Vec<String>,
    },
    /// It has to be said which.
    #[error("the configuration has several targets; name one with --target: {}", list(.0))]
    WhichTarget(Vec<String>),
    /// The role is not granted.
    #[error(
        "{subject} may not use {} of target {target}; {}. The proxy refuses such a log-in with \
         28000. The target's roles are {}; who may use them stands in their groups, subjects and \
         identities",
        role.as_ref().map_or("any role".to_owned(), |role| format!("role {role:?}")),
        if groups.is_empty() { "it is in no group".to_owned() } else { format!("its groups are {}", list(groups)) },
        list(known)
    )]
    NotGranted {
        /// Who.
        subject: String,
        /// Which role, if one was named.
        role: Option<String>,
        /// Of which target.
        target: String,
        /// The subject's groups.
        groups: Vec<String>,
        /// The target's roles.
        known: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Persona {
    subject: String,
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    groups: Vec<String>,
    purpose: Option<String>,
    run: Option<String>,
    #[serde(default)]
    actors: Vec<Actor>,
    #[serde(default)]
    claims: serde_json::Map<String, serde_json::Value>,
}

/// The identity that `given` stands for.
pub(super) fn identity(config: &Config, given: &str) -> Result<Identity, PersonaError> {
    let statics = &config.identity.statics;
    if let Some(known) = statics.iter().find(|known| known.name == given) {
        let persona = Persona {
            subject: known.name.clone(),
            issuer: "static".to_owned(),
            groups: known.groups.clone(),
            purpose: known.purpose.clone(),
            run: None,
            actors: Vec::new(),
            claims: serde_json::Map::new(),
        };
        return Ok(persona.identity(Some(known.name.clone()), known.expires));
    }
    let file = Path::new(given);
    if !file.is_file() {
        return Err(PersonaError::Nobody {
            given: given.to_owned(),
            known: statics.iter().map(|known| known.name.clone()).collect(),
        });
    }
    let text = std::fs::read(file).map_err(|error| PersonaError::File {
        file: file.to_owned(),
        error,
    })?;
    let persona: Persona = serde_json::from_slice(&text).map_err(|error| PersonaError::Form {
        file: file.to_owned(),
        error,
    })?;
    Ok(persona.identity(None, None))
}

impl Persona {
    fn identity(self, static_name: Option<String>, expires_at: Option<u64>) -> Identity {
        Identity {
            subject: self.subject,
            issuer: self.issuer,
            actors: self.actors,
            groups: self.groups,
            purpose: self.purpose,
            run: self.run,
            claims: self.claims,
            authenticated_at: now(),
            expires_at,
            token_digest: [0; 32],
            acr: None,
            amr: Vec::new(),
            static_name,
        }
    }
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The named target, or the only one.
pub(super) fn target<'c>(
    config: &'c Config,
    name: Option<&str>,
) -> Result<&'c Target, PersonaError> {
    let known = || config.targets.iter().map(|t| t.name.clone()).collect();
    match (name, config.targets.as_slice()) {
        (Some(name), targets) => targets
            .iter()
            .find(|target| target.name == name)
            .ok_or_else(|| PersonaError::NoTarget {
                given: name.to_owned(),
                known: known(),
            }),
        (None, [only]) => Ok(only),
        (None, _) => Err(PersonaError::WhichTarget(known())),
    }
}

/// The named role, or the first that the identity may use.
pub(super) fn role<'c>(
    target: &'c Target,
    identity: &Identity,
    name: Option<&str>,
) -> Result<&'c Role, PersonaError> {
    target
        .roles
        .iter()
        .filter(|role| name.is_none_or(|name| role.role == name))
        .find_map(|role| target.role_for(identity, &role.role))
        .ok_or_else(|| PersonaError::NotGranted {
            subject: identity.subject.clone(),
            role: name.map(str::to_owned),
            target: target.name.clone(),
            groups: identity.groups.clone(),
            known: target.roles.iter().map(|role| role.role.clone()).collect(),
        })
}
