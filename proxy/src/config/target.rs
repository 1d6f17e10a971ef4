//! `[[targets]]`: the databases behind the proxy, who may use them as whom, and what is PHI there.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::Secret;
use crate::identity::Identity;

/// `[[targets]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What clients give as database.
    pub name: String,
    /// Where it is.
    pub host: Host,
    /// TCP port, or the number in the Unix socket's name.
    #[serde(default = "port")]
    pub port: u16,
    /// The database's name there; empty in the file means `name`.
    #[serde(default)]
    pub database: String,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: UpstreamTls,
    /// Backend roles and who may use them.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// What is PHI, by `schema.relation`.
    #[serde(default)]
    pub labels: BTreeMap<String, LabelSpec>,
    /// What user-defined functions do with PHI, by `schema.function`.
    #[serde(default)]
    pub functions: BTreeMap<String, FunctionSpec>,
}

fn port() -> u16 {
    5432
}

impl Target {
    /// The role `requested` (the start-up packet's user), if `identity` may use it: by a group, by
    /// `issuer#subject`, or by a static identity's name.
    #[must_use]
    pub fn role_for(&self, identity: &Identity, requested: &str) -> Option<&Role> {
        self.roles
            .iter()
            .find(|role| role.role == requested && role.admits(identity))
    }

    pub(super) fn complete(&mut self) {
        if self.database.is_empty() {
            self.database.clone_from(&self.name);
        }
        if self.tls.mode.is_none() && self.host.is_socket() {
            self.tls.mode = Some(TlsMode::Disable);
        }
        for role in &mut self.roles {
            if role.login.is_empty() {
                role.login.clone_from(&role.role);
            }
        }
    }
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// The directory of a Unix socket.
    Socket(PathBuf),
    /// A host name or IP address.
    Tcp(String),
}

impl Host {
    /// Whether this is a Unix socket.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        matches!(self, Host::Socket(_))
    }

    /// Whether nothing leaves this machine: a Unix socket, a loopback address or `localhost`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Host::Socket(_) => true,
            Host::Tcp(name) => {
                name == "localhost"
                    || name
                        .parse()
                        .is_ok_and(|address: IpAddr| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Socket(folder) => write!(f, "{}", folder.display()),
            Host::Tcp(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.starts_with('/') {
            return Ok(Host::Socket(text.into()));
        }
        if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(D::Error::custom(
                "not a host; write a host name, an IP address, or the absolute path of a Unix socket's directory",
            ));
        }
        Ok(Host::Tcp(text))
    }
}

/// `[targets.tls]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// `None` only before defaults are filled in.
    pub mode: Option<TlsMode>,
    /// Authorities that sign the backend's certificate, PEM; set with [`TlsMode::VerifyFull`].
    pub ca: Option<PathBuf>,
}

/// `targets.tls.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// The certificate must be signed by `ca` and carry the host's name.
    VerifyFull,
    /// No TLS; only for a Unix socket or loopback.
    Disable,
}

/// `[[targets.roles]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What clients give as user.
    pub role: String,
    /// As whom Chaperone logs in; empty in the file means `role`.
    #[serde(default)]
    pub login: String,
    /// The file that `password` comes from.
    pub password_file: Option<PathBuf>,
    /// The login's password, without a final line break.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// Groups whose members may use the role.
    #[serde(default)]
    pub groups: Vec<String>,
    /// `issuer#subject` of single identities that may.
    #[serde(default)]
    pub subjects: Vec<String>,
    /// Names of static identities that may; `identities` in the file.
    #[serde(default, rename = "identities")]
    pub statics: Vec<String>,
}

impl Role {
    fn admits(&self, identity: &Identity) -> bool {
        if let Some(name) = &identity.static_name
            && self.statics.contains(name)
        {
            return true;
        }
        // A static identity's issuer is the word `static`, which is no URL: it cannot be mistaken.
        // An issuer has no fragment: the first # ends it, whatever the subject holds.
        let caller = (identity.issuer.as_str(), identity.subject.as_str());
        self.subjects
            .iter()
            .any(|known| known.split_once('#') == Some(caller))
            || self
                .groups
                .iter()
                .any(|group| identity.groups.contains(group))
    }
}

/// What is PHI in one relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSpec {
    /// Nothing.
    Clear,
    /// Labels by column; an empty list is a clear column, a column that is missing counts as PHI.
    Columns(BTreeMap<String, Vec<String>>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "not a label; write \"clear\", or { column = \"label\", other = [\"label\", \"label\"] }"
)]
enum RawLabels {
    Word(String),
    Columns(BTreeMap<String, RawColumn>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawColumn {
    One(String),
    Many(Vec<String>),
}

impl<'de> Deserialize<'de> for LabelSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let columns = match RawLabels::deserialize(deserializer)? {
            RawLabels::Word(word) if word == "clear" => return Ok(LabelSpec::Clear),
            RawLabels::Word(word) => {
                return Err(D::Error::custom(format!(
                    "{word:?} for a whole relation; \
                     write \"clear\", or labels by column: {{ id = \"clear\", ssn = \"ssn\" }}"
                )));
            }
            RawLabels::Columns(columns) => columns,
        };
        let mut labels = BTreeMap::new();
        for (column, raw) in columns {
            let list = match raw {
                RawColumn::One(word) if word == "clear" => Vec::new(),
                RawColumn::One(word) => vec![word],
                RawColumn::Many(words) if words.is_empty() => {
                    return Err(D::Error::custom(format!(
                        "column {column:?} has an empty list of labels; write \"clear\" if it is no PHI"
                    )));
                }
                RawColumn::Many(words) => words,
            };
            if let Some(bad) = list.iter().find(|label| !is_label(label)) {
                return Err(D::Error::custom(format!(
                    "{bad:?} is no label for column {column:?}; \
                     use lower-case letters, digits and hyphens; \"clear\" stands alone, \"unknown\" is reserved"
                )));
            }
            labels.insert(column, list);
        }
        Ok(LabelSpec::Columns(labels))
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label != "clear"
        && label != chaperone_contract::UNKNOWN_LABEL
        && label
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

/// What a user-defined function does with PHI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionSpec {
    /// Its result holds no PHI, whatever it is given.
    Clear,
    /// Its result holds what its arguments hold, and nothing else.
    Derived,
}
