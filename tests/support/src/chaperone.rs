//! `chaperone serve` as a process of its own, with configuration, certificates and keys.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use sha3::{Digest as _, Sha3_256};

use crate::client::{self, Session, Tls};
use crate::error::{Context as _, Error, Result};
use crate::guard::Guarded;
use crate::http;
use crate::net::free_port;
use crate::postgres::Postgres;
use crate::psql::Psql;
use crate::tls::{Ca, write_private};

const START_PATIENCE: Duration = Duration::from_secs(60);

/// What to start. Everything is written into one folder when it starts.
#[derive(Debug)]
pub struct ChaperoneOptions {
    binary: PathBuf,
    folder: Option<PathBuf>,
    sections: String,
    policies: Vec<(String, PathBuf)>,
    files: Vec<(String, Vec<u8>)>,
    required: Vec<String>,
    incomplete_facts: Vec<String>,
    log: String,
    plaintext: bool,
}

/// A running proxy. Drained (SIGTERM) when dropped.
#[derive(Debug)]
pub struct Chaperone {
    process: Guarded,
    binary: PathBuf,
    folder: PathBuf,
    port: u16,
    admin: SocketAddr,
    tls: Tls,
    _temporary: Option<tempfile::TempDir>,
}

impl Chaperone {
    /// `binary` is the proxy's path: `env!("CARGO_BIN_EXE_chaperone")` in the proxy's own tests.
    #[must_use]
    pub fn options(binary: impl Into<PathBuf>) -> ChaperoneOptions {
        ChaperoneOptions {
            binary: binary.into(),
            folder: None,
            sections: String::new(),
            policies: Vec::new(),
            files: Vec::new(),
            required: Vec::new(),
            incomplete_facts: Vec::new(),
            log: "info".to_owned(),
            plaintext: false,
        }
    }

    /// The port for PostgreSQL clients, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the admin API answers, without TLS.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The folder with everything: `chaperone.toml`, `ca.pem`, `policies`, `audit`, `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("chaperone.toml")
    }

    /// The authority that clients have to trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The policy directory.
    #[must_use]
    pub fn policy_folder(&self) -> PathBuf {
        self.folder.join("policies")
    }

    /// The audit log's directory.
    #[must_use]
    pub fn audit_folder(&self) -> PathBuf {
        self.folder.join("audit")
    }

    /// The auditor's private key, to open what the log has sealed.
    #[must_use]
    pub fn auditor_key(&self) -> PathBuf {
        self.folder.join("auditor.key")
    }

    /// Everything that the process wrote to standard output and error.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The process's id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Guarded {
        &mut self.process
    }

    /// psql through the proxy: `user` is the backend role asked for, the token is the password.
    #[must_use]
    pub fn psql(&self, target: &str, user: &str, token: &str) -> Psql {
        Psql::new(&[
            ("host", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("dbname", target),
            ("user", user),
            ("sslmode", "verify-full"),
            ("sslrootcert", &self.ca_file().to_string_lossy()),
        ])
        .password(token)
    }

    /// A session with tokio-postgres, over TLS.
    ///
    /// # Errors
    /// The login is refused.
    pub async fn client(
        &self,
        target: &str,
        user: &str,
        token: &str,
    ) -> std::result::Result<Session, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .dbname(target)
            .user(user)
            .password(token)
            .ssl_mode(tokio_postgres::config::SslMode::Require);
        client::connect(&config, self.tls()).await
    }

    /// What tokio-postgres needs to trust this proxy; for cancel requests too.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// `chaperone` with further arguments, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Drains and waits for the end, at most ten seconds.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.process.stop()
    }
}

impl ChaperoneOptions {
    /// A folder that stays, instead of a temporary one.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Further configuration as TOML: whole tables, such as `[approvals]`. `listen`, `admin`,
    /// `audit` and `policies.directory` are written already.
    #[must_use]
    pub fn toml(mut self, tables: &str) -> Self {
        self.sections.push_str(tables);
        self.sections.push('\n');
        self
    }

    /// A target that logs in to `postgres` over its Unix socket, with the roles' passwords.
    /// `roles` are (role, groups that may use it); `labels` is the body of `[targets.labels]`.
    #[must_use]
    pub fn target(
        mut self,
        postgres: &Postgres,
        database: &str,
        roles: &[(&str, &[&str])],
        labels: &str,
    ) -> Self {
        let host = postgres.socket_folder().to_string_lossy().into_owned();
        let port = postgres.port();
        let _ = writeln!(
            self.sections,
            "[[targets]]\nname = {database:?}\nhost = {host:?}\nport = {port}\n[targets.labels]\n{labels}"
        );
        for (role, groups) in roles {
            let file = format!("{role}.password");
            let _ = writeln!(
                self.sections,
                "[[targets.roles]]\nrole = {role:?}\npassword_file = {file:?}\ngroups = {groups:?}"
            );
            self.files
                .push((file, crate::clinic::role_password(role).into_bytes()));
        }
        self
    }

    /// An identity without a provider: whoever knows `token`.
    #[must_use]
    pub fn identity(mut self, name: &str, token: &str, groups: &[&str], purpose: &str) -> Self {
        let digest = token_digest(token);
        let _ = writeln!(
            self.sections,
            "[[identity.static]]\nname = {name:?}\ntoken_sha3 = {digest:?}\ngroups = {groups:?}\npurpose = {purpose:?}"
        );
        self
    }

    /// Puts a module into the policy directory under `name`.wasm, with its settings (the body of
    /// its TOML table).
    #[must_use]
    pub fn policy(mut self, name: &str, module: impl Into<PathBuf>, settings: &str) -> Self {
        self.policies.push((name.to_owned(), module.into()));
        self.settings(name, settings)
    }

    /// Settings for a module that is in the policy directory already, or will be.
    #[must_use]
    pub fn settings(mut self, name: &str, settings: &str) -> Self {
        if !settings.is_empty() {
            let _ = writeln!(self.sections, "[policies.settings.{name}]\n{settings}");
        }
        self
    }

    /// Names of modules without which no statement may run.
    #[must_use]
    pub fn required(mut self, names: &[&str]) -> Self {
        self.required
            .extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// Names of modules that may decide on statements that are not understood.
    #[must_use]
    pub fn incomplete_facts(mut self, names: &[&str]) -> Self {
        self.incomplete_facts
            .extend(names.iter().map(|&name| name.to_owned()));
        self
    }

    /// A further file beside the configuration, readable by its owner only.
    #[must_use]
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// What `RUST_LOG` says to the process; `info` otherwise.
    #[must_use]
    pub fn log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.log);
        self
    }

    /// Without TLS, for benchmarks: tokens travel over the loopback in clear.
    #[must_use]
    pub fn plaintext(mut self) -> Self {
        self.plaintext = true;
        self
    }

    /// Writes everything, starts the proxy and waits until `/readyz` says yes.
    ///
    /// # Errors
    /// The proxy refuses to start; the error holds what it said.
    pub fn start(self) -> Result<Chaperone> {
        let (temporary, folder) = match &self.folder {
            Some(folder) => (None, folder.clone()),
            None => {
                let made = tempfile::Builder::new()
                    .prefix("chp-")
                    .tempdir()
                    .context("make a temporary folder")?;
                let path = made.path().to_owned();
                (Some(made), path)
            }
        };
        for part in ["", "policies", "audit"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).context(format!("make {}", path.display()))?;
        }
        let ca = self.write(&folder)?;
        let tls = Tls::trusting(&ca).context("trust the certificate")?;
        let mut attempt = 1;
        loop {
            match self.launch(&folder) {
                Ok((process, port, admin)) => {
                    let binary = self.binary;
                    let _temporary = temporary;
                    return Ok(Chaperone {
                        process,
                        binary,
                        folder,
                        port,
                        admin,
                        tls,
                        _temporary,
                    });
                }
                Err(error) if attempt < 5 && error.to_string().contains("in use") => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, folder: &Path) -> Result<String> {
        let ca = Ca::new()?;
        fs::write(folder.join("ca.pem"), ca.pem()).context("write ca.pem")?;
        ca.issue_loopback()?.write(folder, "server")?;
        for (name, contents) in &self.files {
            let path = folder.join(name);
            write_private(&path, &String::from_utf8_lossy(contents))?;
        }
        for (name, module) in &self.policies {
            let to = folder.join("policies").join(format!("{name}.wasm"));
            fs::copy(module, &to).context(format!("copy {}", module.display()))?;
        }
        if !folder.join("auditor.pub").exists() {
            run(Command::new(&self.binary)
                .args(["audit", "keygen", "--output"])
                .arg(folder.join("auditor")))?;
        }
        Ok(ca.pem())
    }

    fn launch(&self, folder: &Path) -> Result<(Guarded, u16, SocketAddr)> {
        let port = free_port()?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let security = if self.plaintext {
            "danger_plaintext_on_loopback = true"
        } else {
            "[listen.tls]\ncertificate = \"server.crt\"\nkey = \"server.key\""
        };
        let config = format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n{security}\n\
             [admin]\naddress = \"{admin}\"\n\
             [audit]\ndirectory = \"audit\"\nrecipients = [\"auditor.pub\"]\n\
             [policies]\ndirectory = \"policies\"\nrequired = {:?}\n\
             incomplete_facts = {:?}\n{}",
            self.required, self.incomplete_facts, self.sections
        );
        let file = folder.join("chaperone.toml");
        fs::write(&file, config).context(format!("write {}", file.display()))?;
        let log = folder.join("log");
        let before = fs::metadata(&log).map_or(0, |known| known.len());
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env("RUST_LOG", &self.log);
        command.current_dir(folder);
        let mut process = Guarded::spawn(command, "TERM", &log)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let said = || {
                let all = fs::read(&log).unwrap_or_default();
                let from = usize::try_from(before).unwrap_or(0).min(all.len());
                String::from_utf8_lossy(all.get(from..).unwrap_or_default()).into_owned()
            };
            if let Some(status) = process.ended() {
                return Err(Error::Program {
                    program: "chaperone serve".to_owned(),
                    status: status.to_string(),
                    output: said(),
                });
            }
            if http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok((process, port, admin));
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: "chaperone to be ready".to_owned(),
                    seconds: START_PATIENCE.as_secs(),
                    output: said(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What the configuration holds instead of a static identity's token: hex SHA3-256.
#[must_use]
pub fn token_digest(token: &str) -> String {
    let digest = Sha3_256::digest(token.as_bytes());
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// It cannot be started or ends with a status other than 0; the error holds its words.
pub fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .context(format!("start {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(Error::Program {
        program,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&text).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_digest_is_sha3() {
        // FIPS 202's value for the empty message.
        assert_eq!(
            token_digest(""),
            "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
        );
    }
}
