//! What must fit together across keys.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::error::Fault;
use super::locate::key;
use super::{Config, Listen, Target, TlsMode};

pub(super) fn all(config: &Config) -> Result<(), Fault> {
    listen(&config.listen)?;
    admin(config)?;
    if config.audit.recipients.is_empty() {
        return Err(Fault::new(
            key!["audit", "recipients"],
            "nobody could read the sealed parts of the log",
            "name at least one public key file, made by `chaperone audit keygen`",
        ));
    }
    if config.session.idle_timeout > config.session.absolute_timeout {
        return Err(Fault::new(
            key!["session", "idle_timeout"],
            "longer than absolute_timeout",
            "make it shorter, or absolute_timeout longer",
        ));
    }
    if !(6..=43_200).contains(&config.session.peer_timeout.as_secs()) {
        return Err(Fault::new(
            key!["session", "peer_timeout"],
            "shorter than the probes of TCP can tell, or longer than half a day",
            "write \"6s\" to \"12h\"; \"60s\" is good",
        ));
    }
    if config.session.catalog_age > Duration::from_secs(60) {
        return Err(Fault::new(
            key!["session", "catalog_age"],
            "what others make of the database's schema would be noticed too late",
            "write at most \"1m\"; \"1s\" is good",
        ));
    }
    for (index, name) in config.session.settings.iter().enumerate() {
        if ["role", "session_authorization"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return Err(Fault::new(
                key!["session", "settings", index],
                format!("{name:?} would let callers change as whom their statements run"),
                "remove it, and grant roles under [[targets.roles]]",
            ));
        }
    }
    if let Err(error) = EnvFilter::try_new(&config.log.level) {
        return Err(Fault::new(
            key!["log", "level"],
            error.to_string(),
            "write error, warn, info, debug or trace, or a filter such as \"info,chaperone=debug\"",
        ));
    }
    providers(config)?;
    statics(config)?;
    targets(config)
}

fn listen(listen: &Listen) -> Result<(), Fault> {
    match (&listen.tls, listen.danger_plaintext_on_loopback) {
        (Some(_), false) => Ok(()),
        (Some(_), true) => Err(Fault::new(
            key!["listen", "danger_plaintext_on_loopback"],
            "set together with listen.tls",
            "keep one of them: remove this key, or [listen.tls]",
        )),
        (None, true) if loopback(listen.address) => Ok(()),
        (None, true) => Err(Fault::new(
            key!["listen", "address"],
            "tokens would cross the network in clear",
            "add [listen.tls] with certificate and key, or listen on 127.0.0.1 or [::1]",
        )),
        (None, false) => Err(Fault::new(
            key!["listen"],
            "TLS is not configured",
            "add [listen.tls] with certificate and key \
             (for a trial on one machine: danger_plaintext_on_loopback = true)",
        )),
    }
}

fn admin(config: &Config) -> Result<(), Fault> {
    let Some(admin) = &config.admin else {
        return Ok(());
    };
    if admin.tls.is_none() && !loopback(admin.address) {
        return Err(Fault::new(
            key!["admin", "address"],
            "approvers' tokens would cross the network in clear",
            "add [admin.tls] with certificate and key, or use 127.0.0.1 or [::1]",
        ));
    }
    if admin.address == config.listen.address && admin.address.port() != 0 {
        return Err(Fault::new(
            key!["admin", "address"],
            "the same as listen.address",
            "give it another port",
        ));
    }
    Ok(())
}

fn loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn providers(config: &Config) -> Result<(), Fault> {
    let mut seen = HashSet::new();
    for (index, provider) in config.identity.providers.iter().enumerate() {
        let at = |name: &str| key!["identity", "providers", index, name];
        // OpenID Connect Core 2: no query, no fragment.
        if !provider.issuer.starts_with("https://") || provider.issuer.contains(['#', '?']) {
            return Err(Fault::new(
                at("issuer"),
                format!(
                    "{:?} is not an https URL without query and fragment",
                    provider.issuer
                ),
                "write the issuer exactly as in the `iss` of its tokens, such as \"https://id.example.org\"",
            ));
        }
        if !seen.insert((&provider.issuer, &provider.audience)) {
            return Err(Fault::new(
                at("issuer"),
                "a second provider with this issuer and audience",
                "keep one of them",
            ));
        }
        if provider.audience.is_empty() {
            return Err(Fault::new(
                at("audience"),
                "empty",
                "write the audience that the provider puts into tokens for Chaperone",
            ));
        }
        if provider.algorithms.is_empty() {
            return Err(Fault::new(
                at("algorithms"),
                "empty, so no token would be accepted",
                "name the algorithms that the provider signs with, such as [\"RS256\"]",
            ));
        }
        if provider.leeway.as_secs() > 300 {
            return Err(Fault::new(
                at("leeway"),
                "more than five minutes keeps expired tokens alive",
                "write at most \"5m\"",
            ));
        }
    }
    Ok(())
}

fn statics(config: &Config) -> Result<(), Fault> {
    let (mut names, mut tokens) = (HashSet::new(), HashSet::new());
    for (index, identity) in config.identity.statics.iter().enumerate() {
        let at = |name: &str| key!["identity", "static", index, name];
        if identity.name.is_empty() || !names.insert(&identity.name) {
            return Err(Fault::new(
                at("name"),
                format!("{:?} is empty or used twice", identity.name),
                "give each static identity a name of its own",
            ));
        }
        if !tokens.insert(identity.token_sha3) {
            return Err(Fault::new(
                at("token_sha3"),
                "the same token as another static identity",
                "give each its own token",
            ));
        }
    }
    Ok(())
}

fn targets(config: &Config) -> Result<(), Fault> {
    if config.targets.is_empty() {
        return Err(Fault::new(
            key!["targets"],
            "there is no target",
            "add [[targets]] with name, host and [[targets.roles]]",
        ));
    }
    let mut names = HashSet::new();
    for (index, target) in config.targets.iter().enumerate() {
        if target.name.is_empty() || !names.insert(&target.name) {
            return Err(Fault::new(
                key!["targets", index, "name"],
                format!("{:?} is empty or used twice", target.name),
                "give each target a name of its own; clients give it as database",
            ));
        }
        upstream(target, index)?;
        roles(config, target, index)?;
        relations(target, index)?;
    }
    Ok(())
}

fn upstream(target: &Target, index: usize) -> Result<(), Fault> {
    let at = |name: &str| key!["targets", index, "tls", name];
    match target.tls.mode {
        None => Err(Fault::new(
            key!["targets", index, "host"],
            "reached over TCP without [targets.tls]",
            "add [targets.tls] with mode = \"verify-full\" and ca = \"...\" \
             (mode = \"disable\" on loopback)",
        )),
        Some(TlsMode::Disable) if !target.host.is_local() => Err(Fault::new(
            at("mode"),
            format!("results would come from {} in clear", target.host),
            "use mode = \"verify-full\" with ca; \"disable\" is for a Unix socket or loopback",
        )),
        Some(TlsMode::VerifyFull) if target.host.is_socket() => Err(Fault::new(
            at("mode"),
            "PostgreSQL has no TLS on a Unix socket",
            "remove [targets.tls], or give a host name",
        )),
        Some(TlsMode::VerifyFull) if target.tls.ca.is_none() => Err(Fault::new(
            at("mode"),
            "the certificate would be checked against nothing",
            "add ca = \"file.pem\" with the authority that signed the backend's certificate",
        )),
        Some(_) => Ok(()),
    }
}

fn roles(config: &Config, target: &Target, index: usize) -> Result<(), Fault> {
    if target.roles.is_empty() {
        return Err(Fault::new(
            key!["targets", index],
            "nobody could use this target",
            "add [[targets.roles]] with role and groups",
        ));
    }
    let mut names = HashSet::new();
    for (number, role) in target.roles.iter().enumerate() {
        let at = |name: &str| key!["targets", index, "roles", number, name];
        if role.role.is_empty() || !names.insert(&role.role) {
            return Err(Fault::new(
                at("role"),
                format!("{:?} is empty or used twice", role.role),
                "list each role once, with everybody who may use it",
            ));
        }
        if role.groups.is_empty() && role.subjects.is_empty() && role.statics.is_empty() {
            return Err(Fault::new(
                at("role"),
                format!("nobody could use {:?}", role.role),
                "add groups, subjects (\"issuer#subject\") or identities (names under [[identity.static]])",
            ));
        }
        for (at_subject, subject) in role.subjects.iter().enumerate() {
            let at = key!["targets", index, "roles", number, "subjects", at_subject];
            let Some((issuer, _)) = subject.split_once('#') else {
                return Err(Fault::new(
                    at,
                    format!("{subject:?} names no issuer"),
                    "write issuer#subject, such as \"https://id.example.org#agent-7\"",
                ));
            };
            let mut providers = config.identity.providers.iter();
            if !providers.any(|provider| provider.issuer == issuer) {
                return Err(Fault::new(
                    at,
                    format!("{issuer:?} is the issuer of no provider"),
                    "write it exactly as under [[identity.providers]], or add the provider",
                ));
            }
        }
        for (at_static, name) in role.statics.iter().enumerate() {
            if !config.identity.statics.iter().any(|it| it.name == *name) {
                return Err(Fault::new(
                    key!["targets", index, "roles", number, "identities", at_static],
                    format!("{name:?} is no static identity"),
                    "add it under [[identity.static]], or correct the name",
                ));
            }
        }
    }
    Ok(())
}

fn relations(target: &Target, index: usize) -> Result<(), Fault> {
    let named = |section: &str, name: &String| {
        // Without quotes, TOML reads `public.staff` as a table `public` with a key `staff`.
        if name
            .split_once('.')
            .is_some_and(|(schema, rest)| !schema.is_empty() && !rest.is_empty())
        {
            return Ok(());
        }
        Err(Fault::new(
            key!["targets", index, section, name.as_str()],
            "names no schema",
            "write schema and name in one pair of quotes: \"public.patients\" = ...",
        ))
    };
    target
        .labels
        .keys()
        .try_for_each(|name| named("labels", name))?;
    target
        .functions
        .keys()
        .try_for_each(|name| named("functions", name))
}
