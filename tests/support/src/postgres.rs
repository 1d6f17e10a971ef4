//! Throwaway PostgreSQL servers.
//!
//! Each has its own data folder, loopback port and Unix socket. The server refuses to run as root,
//! so as root it is started as the user `postgres` or `nobody`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::chaperone::run;
use crate::error::{Context as _, Error, Result};
use crate::guard::Guarded;
use crate::net::free_port;
use crate::policies;
use crate::psql::Psql;
use crate::tls::{Ca, ServerCertificate, write_private};

/// Names the folder with the server's binaries, before any other place is searched.
pub const BINARIES_VARIABLE: &str = "CHAPERONE_TEST_PGBIN";

/// The superuser of every test server.
pub const SUPERUSER: &str = "postgres";

/// The superuser's password over TCP.
pub const SUPERUSER_PASSWORD: &str = "superuser-of-a-throwaway-server";

const START_PATIENCE: Duration = Duration::from_secs(60);

/// How the server checks who connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// SCRAM-SHA-256 for everyone; only the superuser on the Unix socket needs no password.
    #[default]
    Scram,
    /// Nobody needs a password.
    Trust,
}

/// What kind of server to start.
#[derive(Debug, Default)]
pub struct PostgresOptions {
    auth: Auth,
    hba: String,
    tls: bool,
    certificate: Option<ServerCertificate>,
    settings: Vec<(String, String)>,
}

/// A running server. Ends, and takes its data with it, when dropped.
#[derive(Debug)]
pub struct Postgres {
    server: Guarded,
    folder: PathBuf,
    port: u16,
    ca: Option<Ca>,
}

impl Postgres {
    /// A server with SCRAM and without TLS.
    ///
    /// # Errors
    /// No server binaries, or the server did not start; the error says what to install.
    pub fn start() -> Result<Self> {
        PostgresOptions::default().start()
    }

    /// Options for another kind of server.
    #[must_use]
    pub fn options() -> PostgresOptions {
        PostgresOptions::default()
    }

    /// The loopback port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket, as libpq's `host` takes it.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        &self.folder
    }

    /// The postmaster's process id.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.server.id()
    }

    /// The authority of the server's certificate, when it was started with TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Ca> {
        self.ca.as_ref()
    }

    /// What the server logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// psql as superuser over the Unix socket.
    #[must_use]
    pub fn superuser(&self, database: &str) -> Psql {
        self.over_socket(database, SUPERUSER)
    }

    /// psql over the Unix socket.
    #[must_use]
    pub fn over_socket(&self, database: &str, user: &str) -> Psql {
        let folder = self.folder.to_string_lossy();
        Psql::new(&[
            ("host", &folder),
            ("port", &self.port.to_string()),
            ("dbname", database),
            ("user", user),
        ])
    }

    /// psql over TCP.
    #[must_use]
    pub fn over_tcp(&self, database: &str, user: &str) -> Psql {
        Psql::new(&[
            ("host", "127.0.0.1"),
            ("port", &self.port.to_string()),
            ("dbname", database),
            ("user", user),
        ])
    }

    /// Runs a script as superuser.
    ///
    /// # Errors
    /// The first statement that failed, as psql reports it.
    pub fn script(&self, database: &str, sql: &str) -> Result<()> {
        let output = self.superuser(database).script(sql)?;
        if output.ok {
            return Ok(());
        }
        Err(Error::Program {
            program: "psql".to_owned(),
            status: format!("script in database {database}"),
            output: output.stderr,
        })
    }

    /// One value or table as superuser, unaligned, without headers.
    ///
    /// # Errors
    /// The statement failed.
    pub fn value(&self, database: &str, sql: &str) -> Result<String> {
        self.superuser(database).value(sql)
    }

    /// Stops the server at once, as a crash would; the folder stays until the value is dropped.
    pub fn crash(&mut self) {
        self.server.stop();
    }
}

impl PostgresOptions {
    /// How callers are checked.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Offers TLS with a certificate for `localhost` and 127.0.0.1, made by an authority of its own
    /// ([`Postgres::ca`]).
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// As [`PostgresOptions::tls`], with a certificate of somebody else's making.
    #[must_use]
    pub fn certificate(mut self, certificate: ServerCertificate) -> Self {
        self.certificate = Some(certificate);
        self.tls()
    }

    /// Lines of `pg_hba.conf` that go before the usual ones.
    #[must_use]
    pub fn hba(mut self, lines: &str) -> Self {
        self.hba.push_str(lines);
        self.hba.push('\n');
        self
    }

    /// A further server setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it takes connections.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start(self) -> Result<Postgres> {
        let binaries = find_binaries()?;
        let account = Account::for_server()?;
        // Short, because a socket's path may have 107 bytes only.
        let place = scratch();
        let folder = tempfile::Builder::new()
            .prefix("chp-pg-")
            .tempdir_in(place)
            .context(format!("make a folder in {place}"))?;
        let path = folder.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("open up the folder")?;
        let data = path.join("data");
        fs::create_dir(&data).context("make the data folder")?;
        account.own(&path)?;
        account.own(&data)?;
        initialise(&binaries, &account, &path, &data)?;
        let ca = self.certificates(&account, &data)?;
        let usual = match self.auth {
            Auth::Scram => {
                "local all postgres trust\nlocal all all scram-sha-256\nhost all all all scram-sha-256\nhost replication all all scram-sha-256\n"
            }
            Auth::Trust => {
                "local all all trust\nhost all all all trust\nlocal replication all trust\nhost replication all all trust\n"
            }
        };
        fs::write(data.join("pg_hba.conf"), format!("{}{usual}", self.hba))
            .context("write pg_hba.conf")?;

        let mut attempt = 1;
        loop {
            let port = free_port()?;
            match self.launch(&binaries, &account, &path, port) {
                Ok(server) => {
                    // From here on the guardian removes the folder.
                    return Ok(Postgres {
                        server,
                        folder: folder.keep(),
                        port,
                        ca,
                    });
                }
                // Someone else took the port in between.
                Err(error) if attempt < 5 && error.to_string().contains("could not bind") => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn certificates(&self, account: &Account, data: &Path) -> Result<Option<Ca>> {
        let (ca, certificate) = match (self.tls, &self.certificate) {
            (false, _) => return Ok(None),
            (true, Some(certificate)) => (None, certificate.clone()),
            (true, None) => {
                let ca = Ca::new()?;
                let certificate = ca.issue_loopback()?;
                (Some(ca), certificate)
            }
        };
        certificate.write(data, "server")?;
        account.own(&data.join("server.crt"))?;
        account.own(&data.join("server.key"))?;
        Ok(ca)
    }

    fn launch(
        &self,
        binaries: &Path,
        account: &Account,
        folder: &Path,
        port: u16,
    ) -> Result<Guarded> {
        let data = folder.join("data");
        let mut settings = String::new();
        let mut set = |name: &str, value: &str| {
            let _ = writeln!(settings, "{name} = '{}'", value.replace('\'', "''"));
        };
        set("listen_addresses", "127.0.0.1");
        set("port", &port.to_string());
        set("unix_socket_directories", &folder.to_string_lossy());
        // Nothing here has to survive a power cut.
        for name in [
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "autovacuum",
        ] {
            set(name, "off");
        }
        set("shared_buffers", "64MB");
        set("max_connections", "200");
        set("password_encryption", "scram-sha-256");
        set("timezone", "UTC");
        set("log_timezone", "UTC");
        if self.tls {
            set("ssl", "on");
        }
        for (name, value) in &self.settings {
            set(name, value);
        }
        let file = data.join("postgresql.auto.conf");
        fs::write(&file, settings).context(format!("write {}", file.display()))?;

        let log = folder.join("log");
        let mut command = account.command(&binaries.join("postgres"));
        command.arg("-D").arg(&data).current_dir(folder);
        // An immediate shutdown: the data is thrown away anyway.
        let mut server = Guarded::spawn(command, "QUIT", &log)?;
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let said = || fs::read_to_string(&log).unwrap_or_default();
            if let Some(status) = server.ended() {
                return Err(Error::Program {
                    program: "postgres".to_owned(),
                    status: status.to_string(),
                    output: said(),
                });
            }
            // The eighth line of this file is what pg_ctl waits for.
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).map(str::trim) == Some("ready") {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: "PostgreSQL to start".to_owned(),
                    seconds: START_PATIENCE.as_secs(),
                    output: said(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        server.owns(folder)?;
        Ok(server)
    }
}

/// Where servers live: in memory where there is plenty, because a cluster is a thousand files.
fn scratch() -> &'static str {
    const MEMORY: &str = "/dev/shm";
    const PLENTY: u64 = 4 << 30;
    let free = Command::new("df")
        .args(["--output=avail", "--block-size=1", MEMORY])
        .output();
    let free = free.ok().and_then(|said| {
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.lines().nth(1)?.trim().parse::<u64>().ok()
    });
    if free.is_some_and(|free| free >= PLENTY) {
        MEMORY
    } else {
        "/tmp"
    }
}

/// Fills `data` with a fresh cluster: a copy of one that `initdb` made once for these binaries and
/// that stays with the other build output, because `initdb` takes seconds and a copy does not.
fn initialise(binaries: &Path, account: &Account, folder: &Path, data: &Path) -> Result<()> {
    let cache = policies::build_folder().join("postgresql-clusters");
    fs::create_dir_all(&cache).context(format!("make {}", cache.display()))?;
    let lock = File::create(cache.join("lock")).context("open the lock of the clusters")?;
    let template = cache.join(template_name(binaries, account)?);
    lock.lock().context("wait for the lock of the clusters")?;
    if template.exists() {
        drop(lock);
    } else {
        initdb(binaries, account, folder, data)?;
        let partial = cache.join("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial).context(format!("remove {}", partial.display()))?;
        }
        run(Command::new("cp").arg("-a").arg(data).arg(&partial))?;
        return fs::rename(&partial, &template).context(format!("name {}", template.display()));
    }
    run(Command::new("cp")
        .arg("-a")
        .arg(template.join("."))
        .arg(data))?;
    Ok(())
}

/// Changes with the binaries, their version and the account.
fn template_name(binaries: &Path, account: &Account) -> Result<String> {
    let program = binaries.join("postgres");
    let known = fs::metadata(&program).context(format!("look at {}", program.display()))?;
    let binaries: String = binaries
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let owner = match account {
        Account::Ourselves => "own".to_owned(),
        Account::Other { uid, .. } => uid.to_string(),
    };
    Ok(format!(
        "{owner}{binaries}-{}-{}",
        known.mtime(),
        known.len()
    ))
}

fn initdb(binaries: &Path, account: &Account, folder: &Path, data: &Path) -> Result<()> {
    let password = folder.join("password");
    write_private(&password, SUPERUSER_PASSWORD)?;
    account.own(&password)?;
    let output = account
        .command(&binaries.join("initdb"))
        .args([
            "--no-sync",
            "--no-instructions",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ])
        .args(["--auth=scram-sha-256", "--username", SUPERUSER])
        .arg("--pwfile")
        .arg(&password)
        .arg("-D")
        .arg(data)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("start initdb")?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        program: "initdb".to_owned(),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The folder with `initdb` and `postgres`: the variable [`BINARIES_VARIABLE`], then PATH, then
/// Debian's and Red Hat's folders, newest version first.
///
/// # Errors
/// None found; the error says what to install.
pub fn find_binaries() -> Result<PathBuf> {
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres"]
            .iter()
            .all(|n| folder.join(n).is_file())
    };
    if let Some(folder) = std::env::var_os(BINARIES_VARIABLE).map(PathBuf::from) {
        return if complete(&folder) {
            Ok(folder)
        } else {
            Err(Error::Missing {
                what: format!(
                    "initdb and postgres in {BINARIES_VARIABLE}={}",
                    folder.display()
                ),
                mend: "name the folder that holds both, or unset the variable".to_owned(),
            })
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin"));
    let mut candidates: Vec<PathBuf> = std::env::split_paths(&path).collect();
    candidates.extend(versioned(Path::new("/usr/lib/postgresql"), "bin"));
    candidates.extend(
        versioned(Path::new("/usr"), "bin")
            .into_iter()
            .filter(|folder| folder.to_string_lossy().starts_with("/usr/pgsql-")),
    );
    candidates.into_iter().find(complete).ok_or_else(|| Error::Missing {
        what: "PostgreSQL's server binaries (initdb, postgres)".to_owned(),
        mend: format!(
            "install them (Debian: apt-get install postgresql postgresql-contrib) or set {BINARIES_VARIABLE}"
        ),
    })
}

/// Sub-folders of `base` whose name ends in a number, the highest first, each with `tail`.
fn versioned(base: &Path, tail: &str) -> Vec<PathBuf> {
    let number = |name: &str| {
        let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    };
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(base)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = number(&entry.file_name().to_string_lossy())?;
            Some((version, entry.path().join(tail)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Who servers run as: PostgreSQL and PgBouncer refuse to run as root.
#[derive(Debug)]
pub enum Account {
    /// Whoever runs the tests, who is not root.
    Ourselves,
    /// `postgres`, or `nobody` where there is none.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Account {
    /// The account for servers on this machine.
    ///
    /// # Errors
    /// We are root, and there is nobody else.
    pub fn for_server() -> Result<Self> {
        let ourselves = fs::metadata("/proc/self").context("read /proc/self")?;
        if ourselves.uid() != 0 {
            return Ok(Account::Ourselves);
        }
        let users = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let find = |wanted: &str| {
            users.lines().find_map(|line| {
                let mut fields = line.split(':');
                if fields.next()? != wanted {
                    return None;
                }
                let uid: u32 = fields.nth(1)?.parse().ok()?;
                let gid: u32 = fields.next()?.parse().ok()?;
                Some(Account::Other { uid, gid })
            })
        };
        find("postgres")
            .or_else(|| find("nobody"))
            .ok_or_else(|| Error::Missing {
                what: "a user other than root for PostgreSQL (postgres, nobody)".to_owned(),
                mend: "create one, or do not run as root".to_owned(),
            })
    }

    /// A command that runs as this account. `setpriv` replaces itself, so the process id is the
    /// program's own.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Account::Ourselves => Command::new(program),
            Account::Other { uid, gid } => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={gid}"));
                command.arg("--clear-groups").arg("--").arg(program);
                command
            }
        };
        // The server must not pick up a client's environment, and initdb must not fail on a locale.
        for (variable, _) in std::env::vars().filter(|(name, _)| name.starts_with("PG")) {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C.UTF-8").env("HOME", "/tmp");
        command
    }

    /// Gives a file or folder to the account.
    ///
    /// # Errors
    /// It cannot be given away.
    pub fn own(&self, path: &Path) -> Result<()> {
        match self {
            Account::Ourselves => Ok(()),
            Account::Other { uid, gid } => chown(path, Some(*uid), Some(*gid))
                .context(format!("hand {} to PostgreSQL's user", path.display())),
        }
    }
}
